//! Expiry: a hold ended without a settle or a release in time. The action may have been done, so only the open risk
//! comes back; today's exposure and the count stay. A late settle still books the loss.

use super::{Annotations, Book, Floor, Movement, OutOfRange, ReservationStatus, RiskAction, RiskEvent};
use crate::audit::Stamp;
use crate::types::Total;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The detail of an expiry's event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// The id of the hold.
    pub reservation_id: Uuid,
    /// The time at which it was due.
    pub expires_at: DateTime<Utc>,
}

/// Expires a due reservation; none if it is not due.
pub fn apply(book: &mut Book, id: Uuid, stamp: Stamp) -> Result<Option<RiskEvent>, OutOfRange> {
    let Some(due) = book.reservations.get(&id).filter(|reservation| reservation.is_due(stamp.at)) else {
        return Ok(None);
    };
    let (engine, amount) = (due.engine.clone(), due.open_amount);
    let expiry = Expiry { reservation_id: id, expires_at: due.expires_at.unwrap_or(stamp.at) };
    let open = Total::ZERO.minus(amount);
    let open = open.ok_or_else(|| OutOfRange { engine: engine.clone(), counter: "open_risk_reserved" })?;
    let movement = Movement { open, ..Movement::default() };
    book.post(&engine, movement, Floor::Holds, stamp.at)?;
    if let Some(reservation) = book.reservations.get_mut(&id) {
        reservation.close(ReservationStatus::Expired, stamp);
    }
    let event = RiskEvent {
        engine,
        action: RiskAction::Expire,
        amount,
        denial: None,
        reservation_id: Some(id),
        movement,
        annotations: Annotations::default(),
        detail: String::new(),
    };
    Ok(Some(event.telling(&expiry, book.form, stamp)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{held, policy, stamp};
    use super::*;
    use crate::types::{Amount, Engine};
    use chrono::TimeDelta;

    const ID: Uuid = Uuid::from_u128(1);

    #[test]
    fn a_hold_is_due_at_its_time_and_not_a_microsecond_before() {
        for (early, expires) in [(1, false), (0, true), (-1, true)] {
            let mut book = held(ID, "40", Some(60));
            let due = book.reservations[&ID].expires_at.unwrap();
            let at = due - TimeDelta::microseconds(early);
            let before = book.clone();
            let event = apply(&mut book, ID, Stamp { seq: 9, at }).unwrap();
            assert_eq!(event.is_some(), expires, "{early}");
            if !expires {
                assert_eq!((book.levels, book.reservations), (before.levels, before.reservations));
            }
        }
    }

    #[test]
    fn an_expiry_returns_the_risk_and_nothing_else() {
        let mut book = held(ID, "40", Some(60));
        let engine: Engine = "A".parse().unwrap();
        let event = apply(&mut book, ID, stamp(100)).unwrap().unwrap();
        let forty: Amount = "40".parse().unwrap();
        for engine in [&engine, &Engine::global()] {
            let usage = book.level(engine).usage;
            assert_eq!((usage.open_risk_reserved, usage.exposure_used), (Total::ZERO, forty.into()));
            assert_eq!((usage.realized_loss, usage.actions_count), (Total::ZERO, 1));
        }
        let ended = &book.reservations[&ID];
        assert_eq!((ended.status, ended.open_amount), (ReservationStatus::Expired, Amount::ZERO));
        assert_eq!(ended.closed, Some(stamp(100)));
        assert_eq!((event.action, event.amount, event.reservation_id), (RiskAction::Expire, forty, Some(ID)));
        assert_eq!(event.movement.open, Total::ZERO.minus(forty).unwrap());
        let told: Expiry = serde_json::from_str(&event.detail).unwrap();
        assert_eq!(told, Expiry { reservation_id: ID, expires_at: stamp(61).at });
    }

    #[test]
    fn what_never_expires_is_unknown_or_has_ended_does_not_expire() {
        let mut book = held(ID, "40", None);
        assert!(apply(&mut book, ID, stamp(1_000_000)).unwrap().is_none());
        assert!(apply(&mut book, Uuid::from_u128(2), stamp(1_000_000)).unwrap().is_none());
        for status in [ReservationStatus::Settled, ReservationStatus::Released, ReservationStatus::Expired] {
            let mut book = held(ID, "40", Some(60));
            book.reservations.get_mut(&ID).unwrap().close(status, stamp(2));
            assert!(apply(&mut book, ID, stamp(100)).unwrap().is_none());
        }
    }

    #[test]
    fn a_hold_that_the_stock_has_lost_expires_and_the_stock_stands_at_zero() {
        let mut book = held(ID, "40", Some(60));
        book.levels.get_mut(&Engine::global()).unwrap().usage.open_risk_reserved = "39.999999".parse().unwrap();
        assert!(apply(&mut book, ID, stamp(100)).unwrap().is_some());
        assert_eq!(book.level(&Engine::global()).usage.open_risk_reserved, Total::ZERO);
        assert_eq!(book.reservations[&ID].status, ReservationStatus::Expired);
    }

    #[test]
    fn a_policy_is_not_asked() {
        let mut book = held(ID, "40", Some(60));
        book.switches.kill_switch_engaged = true;
        let mut off = policy("A", "1", "1", "1", "1");
        off.enabled = false;
        book.levels.get_mut(&"A".parse::<Engine>().unwrap()).unwrap().policy = Some(off);
        assert!(apply(&mut book, ID, stamp(100)).unwrap().is_some());
    }
}
