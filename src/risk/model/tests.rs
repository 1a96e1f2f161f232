use super::adjust::{self, Adjust, Correction};
use super::reserve::Reserve;
use super::settle::{self, Beyond, Settle, Target};
use super::{expire, extend, release, reserve, *};
use crate::types::{Measured, Ttl};
use proptest::prelude::*;

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
        form: Form::Long,
    }
}

/// A book without caps in which A has reserved this amount at second 1, for this many seconds.
pub(crate) fn held(id: Uuid, amount: &str, seconds: Option<i64>) -> Book {
    let mut book = book(vec![policy("GLOBAL", "0", "0", "0", "0"), policy("A", "0", "0", "0", "0")]);
    let reserve = reserve::Reserve {
        engine: "A".parse().unwrap(),
        amount: amount.parse().unwrap(),
        id,
        ttl: seconds.map(|seconds| Ttl::from_decimal(seconds.into()).unwrap()),
        correlation_id: None,
    };
    let (decision, _) = reserve::apply(&mut book, &reserve, Annotations::default(), stamp(1)).unwrap();
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

/// One operation on a book whose counters are close to their limits, by numbers: the kind, the reservation, the amount.
pub(crate) fn operate(
    book: &mut Book,
    (kind, id, amount, loss): (u8, u128, i128, i128),
    at: i64,
) -> Result<Option<RiskEvent>, OutOfRange> {
    let engine: Engine = "A".parse().unwrap();
    let (id, stamp) = (Uuid::from_u128(id), stamp(at));
    let (amount, loss) = (Amount::from_units(amount).unwrap(), Amount::from_units(loss).unwrap());
    let annotations = Annotations::default;
    let settle =
        |target, settled_amount| Settle { engine: engine.clone(), target, settled_amount, realized_loss: loss };
    let ttl: Ttl = Ttl::from_decimal(5.into()).unwrap();
    match kind {
        0 => {
            let reserve = Reserve { engine, amount, id, ttl: Some(ttl), correlation_id: None };
            reserve::apply(book, &reserve, annotations(), stamp).map(|(_, event)| Some(event))
        }
        1 => settle::apply(book, &settle(Target::Reservation(id), Some(amount)), annotations(), stamp)
            .map(|(_, event)| Some(event)),
        2 => {
            let candidates = book.reservations.keys().copied().collect();
            let target = Target::Matching { reserved_amount: amount, candidates, beyond: Beyond::Nothing };
            settle::apply(book, &settle(target, None), annotations(), stamp).map(|(_, event)| Some(event))
        }
        3 => settle::apply(book, &settle(Target::Late(id, amount), None), annotations(), stamp)
            .map(|(_, event)| Some(event)),
        4 => release::apply(book, id, annotations(), stamp).map(|(_, event)| Some(event)),
        5 => expire::apply(book, id, stamp),
        6 => extend::apply(book, id, ttl, annotations(), stamp).map(|(_, event)| Some(event)),
        _ => {
            let by: Measured = format!("-{amount}").parse().unwrap();
            let correction = if kind == 7 { Correction::Loss(by) } else { Correction::Exposure(by) };
            let adjust = Adjust { engine, corrects_seq: 1, reservation_id: None, correction };
            adjust::apply(book, &adjust, annotations(), stamp).map(|(_, event)| Some(event))
        }
    }
}

proptest! {
    #[test]
    fn an_operation_that_is_refused_leaves_the_book_as_it_was(
        operations in prop::collection::vec((0..9_u8, 1..6_u128, 1..2_000_000_i128, 0..2_000_000_i128), 1..60),
        room in 0..6_000_000_i128,
    ) {
        let mut book = book(vec![policy("GLOBAL", "0", "0", "0", "0"), policy("A", "0", "0", "0", "0")]);
        let full = Total::from_units(10_i128.pow(28) - room).unwrap();
        for level in book.levels.values_mut() {
            (level.usage.exposure_used, level.usage.realized_loss) = (full, full);
        }
        // GLOBAL refuses later than the engine.
        book.levels.get_mut(&Engine::global()).unwrap().usage.realized_loss = Total::ZERO;
        for (at, operation) in (2..).zip(operations) {
            let before = book.clone();
            if operate(&mut book, operation, at).is_err() {
                prop_assert_eq!((&book.levels, &book.reservations), (&before.levels, &before.reservations));
            }
        }
    }
}
