//! Extend: the action takes longer, so its hold gets a lifetime from now, and never ends earlier than before. Unlike a
//! settle, this keeps risk open, so it is refused if a new reserve would be stopped by the kill switch, go-live or a
//! disabled level. Caps do not matter.

use super::reserve::{self, Failure};
use super::{Annotations, Book, Movement, OutOfRange, RiskAction, RiskEvent};
use crate::audit::Stamp;
use crate::types::{Engine, Ttl};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The outcome of an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// The id of the reservation.
    pub reservation_id: Uuid,
    /// The time at which it is due now.
    pub expires_at: DateTime<Utc>,
    /// The reasons of a denial; empty if it was extended.
    pub failures: Vec<Failure>,
}

/// Extends a live reservation that has an expiry, or returns the reasons of the denial. A denial moves nothing.
pub fn apply(
    book: &mut Book,
    id: Uuid,
    ttl: Ttl,
    annotations: Annotations,
    stamp: Stamp,
) -> Result<(Extension, RiskEvent), OutOfRange> {
    let missing = || OutOfRange { engine: Engine::global(), counter: "reservations" };
    let held = book.reservations.get(&id).filter(|one| one.is_live(stamp.at)).ok_or_else(missing)?;
    let (engine, amount) = (held.engine.clone(), held.open_amount);
    let due = held.expires_at.ok_or_else(missing)?;
    let failures = reserve::check_standing(book, &engine);
    let denial = failures.first().map(|first| (first.reason, first.scope.clone()));
    let expires_at = if denial.is_none() { due.max(stamp.at + ttl.duration()) } else { due };
    if let Some(reservation) = book.reservations.get_mut(&id) {
        reservation.expires_at = Some(expires_at);
    }
    let extension = Extension { reservation_id: id, expires_at, failures };
    let event = RiskEvent {
        engine,
        action: if denial.is_none() { RiskAction::Extend } else { RiskAction::Deny },
        amount,
        denial,
        reservation_id: Some(id),
        movement: Movement::default(),
        annotations,
        detail: String::new(),
    }
    .telling(&extension, book.form, stamp);
    Ok((extension, event))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{held, stamp};
    use super::*;
    use crate::risk::model::{DenialReason, ReservationStatus};
    use chrono::TimeDelta;

    const ID: Uuid = Uuid::from_u128(1);

    fn ttl(seconds: i64) -> Ttl {
        Ttl::from_decimal(seconds.into()).unwrap()
    }

    fn run(book: &mut Book, seconds: i64, at: Stamp) -> (Extension, RiskEvent) {
        apply(book, ID, ttl(seconds), Annotations::default(), at).unwrap()
    }

    #[test]
    fn a_hold_stands_from_now_and_never_shorter_than_before() {
        // Made at second 1 for 60 s, so due at 61.
        for (at, seconds, due) in
            [(2, 60, 62), (2, 59, 61), (2, 58, 61), (60, 1, 61), (60, 2, 62), (2, 2_592_000, 2_592_002)]
        {
            let mut book = held(ID, "40", Some(60));
            let before = book.levels.clone();
            let (extension, event) = run(&mut book, seconds, stamp(at));
            assert_eq!(extension.expires_at, stamp(due).at, "{at} {seconds}");
            assert_eq!(book.reservations[&ID].expires_at, Some(stamp(due).at));
            assert_eq!(book.levels, before, "no counter moves");
            assert_eq!((event.action, event.movement, event.denial), (RiskAction::Extend, Movement::default(), None));
            let told: Extension = serde_json::from_str(&event.detail).unwrap();
            assert_eq!(told, extension);
        }
    }

    #[test]
    fn only_what_is_live_and_may_expire_is_extended() {
        let mut book = held(ID, "40", Some(60));
        let due = stamp(61);
        let early = Stamp { seq: 9, at: due.at - TimeDelta::microseconds(1) };
        assert!(apply(&mut book, ID, ttl(1), Annotations::default(), due).is_err());
        assert!(apply(&mut book, ID, ttl(1), Annotations::default(), early).is_ok());
        assert!(apply(&mut held(ID, "40", None), ID, ttl(1), Annotations::default(), stamp(2)).is_err());
        assert!(apply(&mut book, Uuid::from_u128(2), ttl(1), Annotations::default(), stamp(2)).is_err());
        for status in [ReservationStatus::Settled, ReservationStatus::Released, ReservationStatus::Expired] {
            let mut book = held(ID, "40", Some(60));
            book.reservations.get_mut(&ID).unwrap().close(status, stamp(2));
            assert!(apply(&mut book, ID, ttl(1), Annotations::default(), stamp(3)).is_err());
        }
    }

    #[test]
    fn it_is_denied_by_exactly_what_stops_everything_new() {
        for bits in 0..32_u32 {
            let on = |bit: u32| bits & (1 << bit) != 0;
            let mut book = held(ID, "40", Some(60));
            book.switches.kill_switch_engaged = on(0);
            book.switches.go_live_enabled = !on(1);
            book.switches.go_live_required = on(2);
            for (engine, off) in [("GLOBAL", on(3)), ("A", on(4))] {
                let level = book.levels.get_mut(&engine.parse().unwrap()).unwrap();
                level.policy.as_mut().unwrap().enabled = !off;
                // The caps are used up and reached, which does not matter.
                level.policy.as_mut().unwrap().max_daily_loss = "1".parse().unwrap();
                level.policy.as_mut().unwrap().max_open_risk = "1".parse().unwrap();
                level.usage.realized_loss = "5".parse().unwrap();
            }
            let mut expected = Vec::new();
            for (stops, reason, scope) in [
                (on(0), DenialReason::KillSwitchEngaged, "SYSTEM"),
                (on(1) && on(2), DenialReason::GoLiveDisabled, "SYSTEM"),
                (on(3), DenialReason::PolicyDisabled, "GLOBAL"),
                (on(4), DenialReason::PolicyDisabled, "A"),
            ] {
                if stops {
                    expected.push((reason, scope.to_owned()));
                }
            }
            let before = book.clone();
            let (extension, event) = run(&mut book, 600, stamp(2));
            let told: Vec<_> = extension.failures.iter().map(|one| (one.reason, one.scope.clone())).collect();
            assert_eq!(told, expected);
            assert_eq!(event.denial, expected.first().cloned());
            if expected.is_empty() {
                assert_eq!((event.action, extension.expires_at), (RiskAction::Extend, stamp(602).at));
            } else {
                assert_eq!((event.action, extension.expires_at), (RiskAction::Deny, stamp(61).at));
                assert_eq!((book.levels, book.reservations), (before.levels, before.reservations));
            }
        }
    }
}
