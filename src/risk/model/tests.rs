use super::*;

pub(crate) fn policy(engine: &str, loss: &str, exposure: &str, open: &str, actions: &str) -> RiskPolicy {
    RiskPolicy {
        engine: engine.parse().unwrap(),
        max_daily_loss: loss.parse().unwrap(),
        max_daily_exposure: exposure.parse().unwrap(),
        max_open_risk: open.parse().unwrap(),
        max_actions_per_day: actions.parse().unwrap(),
        default_ttl_seconds: None,
        enabled: true,
        changed_by: None,
        reason: None,
        updated_at: DateTime::UNIX_EPOCH,
        version: 1,
        throttled_by: Vec::new(),
        enabled_by_hand: true,
    }
}

pub(crate) fn book(policies: Vec<RiskPolicy>) -> Book {
    Book {
        switches: Switches { kill_switch_engaged: false, go_live_enabled: true, go_live_required: true },
        levels: policies
            .into_iter()
            .map(|policy| (policy.engine.clone(), Level { policy: Some(policy), usage: Usage::default() }))
            .collect(),
        reservations: BTreeMap::new(),
    }
}

/// A book without caps in which A has reserved this at second 1, for so many seconds.
pub(crate) fn held(id: Uuid, amount: &str, seconds: Option<i64>) -> Book {
    let mut book = book(vec![policy("GLOBAL", "0", "0", "0", "0"), policy("A", "0", "0", "0", "0")]);
    let reserve = reserve::Reserve {
        engine: "A".parse().unwrap(),
        amount: amount.parse().unwrap(),
        id,
        ttl: seconds.map(|seconds| Ttl::from_decimal(seconds.into()).unwrap()),
        correlation_id: None,
    };
    let (decision, _) = reserve::apply(&mut book, &reserve, Words::default(), stamp(1)).unwrap();
    assert!(decision.is_allowed());
    book
}

pub(crate) fn stamp(seq: i64) -> Stamp {
    Stamp { seq, at: DateTime::from_timestamp(1_768_262_400 + seq, 0).unwrap() }
}

#[test]
fn posting_moves_both_levels_or_neither() {
    let mut book = book(vec![policy("GLOBAL", "0", "0", "0", "0"), policy("A", "0", "0", "0", "0")]);
    let engine: Engine = "A".parse().unwrap();
    let five: Amount = "5".parse().unwrap();
    let up = Movement { open: five.into(), ..Movement::default() };
    book.post(&engine, up, Floor::Refuses, DateTime::UNIX_EPOCH).unwrap();
    assert_eq!(book.level(&Engine::global()).usage.open_risk_reserved, five.into());
    let before = book.levels.clone();
    let down =
        Movement { open: Total::ZERO.minus(Total::from(five).plus(five).unwrap()).unwrap(), ..Movement::default() };
    let refused = book.post(&engine, down, Floor::Refuses, DateTime::UNIX_EPOCH).unwrap_err();
    assert_eq!(refused.counter, "open_risk_reserved");
    assert_eq!(book.levels, before);
    book.post(&engine, down, Floor::Holds, DateTime::UNIX_EPOCH).unwrap();
    assert_eq!(book.level(&engine).usage.open_risk_reserved, Total::ZERO);
}
