use super::super::tests::{book, policy, stamp};
use super::*;
use proptest::prelude::*;

fn engine() -> Engine {
    "A".parse().unwrap()
}

fn reserve(amount: &str) -> Reserve {
    Reserve { engine: engine(), amount: amount.parse().unwrap(), id: Uuid::nil(), ttl: None, correlation_id: None }
}

fn decide(book: &mut Book, amount: &str) -> Decision {
    apply(book, &reserve(amount), Annotations::default(), stamp(1)).unwrap().0
}

fn reasons(book: &Book, amount: &str) -> Vec<(&'static str, String)> {
    check(book, &engine(), amount.parse().unwrap())
        .into_iter()
        .map(|failure| (failure.reason.as_str(), failure.scope))
        .collect()
}

fn roomy() -> Book {
    book(vec![policy("GLOBAL", "250", "1500", "1500", "0"), policy("A", "200", "1000", "1000", "0")])
}

#[test]
fn equality_passes_and_the_next_millionth_does_not() {
    let mut book = roomy();
    assert!(decide(&mut book, "1000").is_allowed());
    let decision = decide(&mut book, "0.000001");
    assert_eq!(decision.message(), "A hard stop: Daily exposure cap exceeded (1000.000001 > 1000)");
    assert_eq!(decision.failures[0].used, Some("1000".parse().unwrap()));
    assert_eq!(decision.ledger.exposure_used, "1000".parse().unwrap(), "a denial moves nothing");
}

#[test]
fn the_first_failure_is_the_reason_and_all_are_listed() {
    let mut book = roomy();
    book.switches.kill_switch_engaged = true;
    book.switches.go_live_enabled = false;
    book.levels.get_mut(&engine()).unwrap().policy.as_mut().unwrap().enabled = false;
    let all = reasons(&book, "2000");
    let expected = [
        ("kill_switch_engaged", "SYSTEM"),
        ("go_live_disabled", "SYSTEM"),
        ("daily_exposure_exceeded", "GLOBAL"),
        ("open_risk_exceeded", "GLOBAL"),
        ("policy_disabled", "A"),
        ("daily_exposure_exceeded", "A"),
        ("open_risk_exceeded", "A"),
    ];
    assert_eq!(all, expected.map(|(reason, scope)| (reason, scope.to_owned())));
    let decision = decide(&mut book, "2000");
    assert_eq!(decision.message(), "SYSTEM hard stop: Kill switch engaged");
    assert_eq!(decision.policy.unwrap().engine, engine(), "the snapshot of a system stop is the engine's");
}

#[test]
fn every_cap_has_its_text() {
    let mut book = book(vec![policy("GLOBAL", "0", "0", "0", "0"), policy("A", "250", "0", "0", "3")]);
    book.levels.get_mut(&engine()).unwrap().usage.actions_count = 3;
    book.levels.get_mut(&engine()).unwrap().usage.realized_loss = "250".parse().unwrap();
    let messages: Vec<_> =
        check(&book, &engine(), "1".parse().unwrap()).into_iter().map(|failure| failure.message).collect();
    assert_eq!(messages, ["Actions/day cap exceeded (4 > 3)", "Daily loss cap already reached (250 >= 250)"]);
    let mut missing = roomy();
    missing.levels.remove(&engine());
    assert_eq!(decide(&mut missing, "1").message(), "A hard stop: Policy missing");
    missing.levels.remove(&Engine::global());
    assert_eq!(decide(&mut missing, "1").message(), "GLOBAL hard stop: Policy missing");
}

#[test]
fn the_reserve_that_uses_a_cap_of_global_up_says_which_and_no_other_does() {
    let mut book = book(vec![policy("GLOBAL", "0", "100", "0", "3"), policy("A", "0", "1000", "0", "0")]);
    let none: [&str; 0] = [];
    assert_eq!(decide(&mut book, "40").filled, none);
    assert_eq!(decide(&mut book, "60").filled, ["max_daily_exposure"]);
    let denied = decide(&mut book, "1");
    assert!(!denied.is_allowed());
    assert_eq!(denied.filled, none);
    book.levels.get_mut(&Engine::global()).unwrap().policy.as_mut().unwrap().max_daily_exposure = Amount::ZERO;
    assert_eq!(decide(&mut book, "1").filled, ["max_actions_per_day"]);
}

#[test]
fn development_needs_no_go_live_and_still_heeds_the_kill_switch() {
    let mut book = roomy();
    book.switches.go_live_enabled = false;
    book.switches.go_live_required = false;
    assert!(decide(&mut book, "1").is_allowed());
    book.switches.kill_switch_engaged = true;
    assert!(!decide(&mut book, "1").is_allowed());
}

proptest! {
    /// Any requests in any order: no cap is ever exceeded, and the two levels agree.
    #[test]
    fn caps_hold_after_every_accepted_reserve(
        amounts in proptest::collection::vec(1_i128..400_000_000, 1..60),
        actions in 0_i64..20,
    ) {
        let mut book = book(vec![policy("GLOBAL", "250", "1500", "1200", "0"), policy("A", "200", "1000", "1100", &actions.to_string())]);
        for (seq, units) in (1..).zip(amounts) {
            let amount = Amount::from_units(units).unwrap();
            let before = book.levels.clone();
            let request = Reserve { engine: engine(), amount, id: Uuid::from_u128(seq), ttl: None, correlation_id: None };
            let expected = check(&book, &engine(), amount);
            let (decision, event) = apply(&mut book, &request, Annotations::default(), stamp(i64::try_from(seq).unwrap())).unwrap();
            prop_assert_eq!(&decision.failures, &expected);
            prop_assert_eq!(event.action == RiskAction::Reserve, decision.is_allowed());
            if !decision.is_allowed() {
                prop_assert_eq!(&book.levels, &before);
            }
            let (global, level) = (book.level(&Engine::global()).usage, book.level(&engine()).usage);
            prop_assert!(global == level);
            prop_assert!(level.exposure_used <= "1000".parse().unwrap());
            prop_assert!(level.open_risk_reserved <= "1100".parse().unwrap());
            prop_assert!(actions == 0 || level.actions_count <= actions);
            let open: i128 = book.reservations.values().map(|reservation| reservation.open_amount.units()).sum();
            prop_assert_eq!(open, level.open_risk_reserved.units());
        }
    }
}
