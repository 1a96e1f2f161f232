use super::*;
use crate::audit::Stamp;
use crate::risk::model::reserve::{self, Reserve};
use crate::risk::model::settle::{self, Beyond, Settle, Target};
use crate::risk::model::tests::{book, operate, policy, stamp};
use crate::risk::model::{Annotations, Book, RiskEvent, adjust, expire, extend, release};
use crate::types::{Measured, Ttl};
use proptest::prelude::*;

/// Does the same on two books that differ in the form alone. Gives the event of each.
fn in_both(book: &mut Book, mut act: impl FnMut(&mut Book) -> Option<RiskEvent>) -> Option<(RiskEvent, RiskEvent)> {
    let mut other = Book { form: Form::Compact, ..book.clone() };
    let (long, compact) = (act(book), act(&mut other));
    assert_eq!(long.is_some(), compact.is_some());
    assert_eq!((&book.levels, &book.reservations), (&other.levels, &other.reservations));
    long.zip(compact)
}

/// An outcome that was read back, as JSON.
fn read(text: &str, event: &Columns<'_>) -> String {
    fn json<O: Outcome>(text: &str, event: &Columns<'_>) -> String {
        db::json_text(&recall::<O>(text, event).unwrap())
    }
    match event.action {
        RiskAction::Reserve | RiskAction::Deny => json::<Decision>(text, event),
        RiskAction::Settle => json::<Settlement>(text, event),
        RiskAction::Release => json::<Released>(text, event),
        RiskAction::Extend => json::<Extension>(text, event),
        RiskAction::Expire => json::<Expiry>(text, event),
        RiskAction::Adjust => json::<Adjustment>(text, event),
    }
}

/// One outcome in both forms: compact, and long.
fn texts(book: &mut Book, at: Stamp, act: impl FnMut(&mut Book) -> Option<RiskEvent>) -> (String, String) {
    let (whole, short) = in_both(book, act).unwrap();
    let event = short.columns(at.at);
    assert_eq!(long(&short.detail, &event).unwrap(), whole.detail);
    assert_eq!(long(&whole.detail, &event).unwrap(), whole.detail);
    assert_eq!(read(&short.detail, &event), whole.detail);
    assert_eq!(read(&whole.detail, &event), whole.detail);
    (short.detail, whole.detail)
}

fn levels() -> Book {
    let mut book = book(vec![policy("GLOBAL", "250", "1500", "1500", "0"), policy("A", "200", "1000", "1000", "9")]);
    book.levels.get_mut(&"A".parse::<Engine>().unwrap()).unwrap().policy.as_mut().unwrap().version = 12;
    book
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn reserves(book: &mut Book, number: u128, amount: &str, ttl: Option<i64>, at: Stamp) -> RiskEvent {
    let request = Reserve {
        engine: "A".parse().unwrap(),
        amount: amount.parse().unwrap(),
        id: id(number),
        ttl: ttl.map(|seconds| Ttl::from_decimal(seconds.into()).unwrap()),
        correlation_id: None,
    };
    reserve::apply(book, &request, Annotations::default(), at).unwrap().1
}

fn settles(book: &mut Book, target: Target, settled: Option<&str>, loss: &str, at: Stamp) -> RiskEvent {
    let request = Settle {
        engine: "A".parse().unwrap(),
        target,
        settled_amount: settled.map(|amount| amount.parse().unwrap()),
        realized_loss: loss.parse().unwrap(),
    };
    settle::apply(book, &request, Annotations::default(), at).unwrap().1
}

/// Every version must read the outcomes that this version and the ones before have stored, and read them as now.
#[test]
fn both_forms_of_every_outcome_are_final() {
    let mut book = levels();
    let mut seen = Vec::new();
    let mut note = |at: i64, act: &mut dyn FnMut(&mut Book, Stamp) -> Option<RiskEvent>| {
        seen.push(texts(&mut book, stamp(at), |book| act(book, stamp(at))));
    };
    note(1, &mut |book, at| Some(reserves(book, 1, "400.5", Some(300), at)));
    note(2, &mut |book, at| Some(reserves(book, 2, "700", None, at)));
    note(3, &mut |book, at| Some(reserves(book, 2, "100", None, at)));
    note(4, &mut |book, at| {
        let ttl = Ttl::from_decimal(600.into()).unwrap();
        extend::apply(book, id(1), ttl, Annotations::default(), at).map(|(_, event)| Some(event)).unwrap()
    });
    note(5, &mut |book, at| Some(settles(book, Target::Reservation(id(2)), Some("90"), "3.25", at)));
    note(6, &mut |book, at| {
        let (reserved_amount, beyond) = ("100".parse().unwrap(), Beyond::Nothing);
        Some(settles(book, Target::Matching { reserved_amount, candidates: vec![id(1)], beyond }, None, "0", at))
    });
    note(1000, &mut |book, at| expire::apply(book, id(1), at).unwrap());
    note(1001, &mut |book, at| Some(settles(book, Target::Late(id(1), "300.5".parse().unwrap()), None, "0", at)));
    note(1002, &mut |book, at| Some(reserves(book, 3, "5", None, at)));
    note(1003, &mut |book, at| {
        release::apply(book, id(3), Annotations::default(), at).map(|(_, event)| Some(event)).unwrap()
    });
    note(1004, &mut |book, at| {
        let correction = adjust::Correction::Loss("-1.5".parse::<Measured>().unwrap());
        let engine = "A".parse().unwrap();
        let adjust = adjust::Adjust { engine, corrects_seq: 5, reservation_id: Some(id(2)), correction };
        adjust::apply(book, &adjust, Annotations::default(), at).map(|(_, event)| Some(event)).unwrap()
    });
    note(1005, &mut |book, at| {
        book.switches.kill_switch_engaged = true;
        Some(reserves(book, 4, "5", None, at))
    });
    let expected = include_str!("golden.txt").lines().collect::<Vec<_>>();
    let found: Vec<_> = seen.iter().flat_map(|(compact, long)| [compact.as_str(), long.as_str()]).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_fact_that_does_not_follow_from_the_event_is_written_whole() {
    let mut book = Book { form: Form::Compact, ..levels() };
    let event = reserves(&mut book, 1, "5", None, stamp(1));
    let columns = event.columns(stamp(1).at);
    let decision: Decision = recall(&event.detail, &columns).unwrap();
    let other_day = {
        let mut other = decision.clone();
        other.ledger.day = other.ledger.day.succ_opt().unwrap();
        other
    };
    let other_level = {
        let mut other = decision.clone();
        other.ledger.engine = Engine::global();
        other
    };
    let off = {
        let mut other = decision.clone();
        other.policy.as_mut().unwrap().enabled = false;
        other
    };
    let unlimited = Decision { policy: None, ..decision.clone() };
    let not_whole = Decision { expires_at: Some(stamp(1).at + chrono::TimeDelta::milliseconds(1)), ..decision };
    for (outcome, is_whole) in
        [(other_day, true), (other_level, true), (off, true), (unlimited, false), (not_whole, false)]
    {
        let text = store(&outcome, &columns, Form::Compact);
        assert_eq!(is_compact(&text), !is_whole, "{text}");
        assert_eq!(recall::<Decision>(&text, &columns).unwrap(), outcome);
    }
}

#[test]
fn a_compact_outcome_that_says_too_little_or_too_much_is_an_error() {
    let mut book = Book { form: Form::Compact, ..levels() };
    let event = reserves(&mut book, 1, "5", None, stamp(1));
    let columns = event.columns(stamp(1).at);
    for text in [
        r#"{"v":2,"p":[],"l":[1,2,3,4]}"#,
        r#"{"v":2,"p":[1,2,3,4,5,6],"l":[1,2,3,4]}"#,
        r#"{"v":2,"l":[1,2,3]}"#,
        r#"{"v":2,"l":[1,2,3,4,null,5]}"#,
        r#"{"v":2,"l":[1,2,3,4],"x":1}"#,
        r#"{"v":2,"l":[1,2,3,4],"t":9223372036854775807}"#,
        r#"{"v":2,"l":[1,2,3,4],"f":[{}]}"#,
    ] {
        assert!(long(text, &columns).is_err(), "{text}");
    }
}

proptest! {
    /// The compact form of whatever the ledger decides is shorter, and shows exactly the bytes that the long form has.
    #[test]
    fn the_compact_form_says_what_the_long_one_says(
        operations in prop::collection::vec((0..9_u8, 1..6_u128, 1..2_000_000_i128, 0..2_000_000_i128), 1..40),
        caps in prop::collection::vec((0..4_000_000_i128, 0..4_000_000_i128, 0..4_000_000_i128, 0..5_i64, 0..9_u8), 2),
        switches in (0..6_u8, any::<bool>()),
    ) {
        let mut book = book(vec![policy("GLOBAL", "0", "0", "0", "0"), policy("A", "0", "0", "0", "0")]);
        book.switches.kill_switch_engaged = switches.0 == 0;
        book.switches.go_live_enabled = switches.0 != 1;
        book.switches.go_live_required = switches.1;
        for (level, (loss, exposure, open, actions, state)) in book.levels.values_mut().zip(caps) {
            let amount = |units| Amount::from_units(units).unwrap();
            let policy = level.policy.as_mut().unwrap();
            (policy.max_daily_loss, policy.max_daily_exposure, policy.max_open_risk) = (amount(loss), amount(exposure), amount(open));
            policy.max_actions_per_day = actions.to_string().parse().unwrap();
            (policy.enabled, policy.version) = (state != 0, i64::from(state) + 1);
            if state == 1 {
                level.policy = None;
            }
            if state == 2 {
                level.usage.updated_at = Some(stamp(-100_000).at);
            }
        }
        for (at, operation) in (2..).zip(operations) {
            let Some((whole, short)) = in_both(&mut book, |book| operate(book, operation, at).ok().flatten()) else {
                continue;
            };
            let event = short.columns(stamp(at).at);
            prop_assert!(is_compact(&short.detail), "{}", short.detail);
            prop_assert!(!is_compact(&whole.detail));
            prop_assert!(short.detail.len() < whole.detail.len());
            prop_assert_eq!(long(&short.detail, &event).unwrap(), whole.detail.as_str());
            prop_assert_eq!(long(&whole.detail, &event).unwrap(), whole.detail.as_str());
        }
    }
}
