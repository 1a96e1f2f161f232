//! Release: the action was not done. Open risk comes back, and exposure if it was reserved today. The action count does
//! not, so that nobody can reserve and release without end.

use super::{Annotations, Book, Floor, LedgerSnapshot, Movement, OutOfRange, ReservationStatus, RiskAction, RiskEvent};
use crate::audit::Stamp;
use crate::types::{Amount, Engine, Total};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The outcome of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Released {
    /// The id of the reservation.
    pub reservation_id: Uuid,
    /// The returned open risk.
    pub released: Amount,
    /// The returned exposure of today; 0 for a hold of another day.
    pub exposure_returned: Total,
    /// The engine's counters after the release.
    pub ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after the release.
    pub ledger_global: LedgerSnapshot,
}

/// Releases an open reservation, moving the book.
pub fn apply(
    book: &mut Book,
    id: Uuid,
    annotations: Annotations,
    stamp: Stamp,
) -> Result<(Released, RiskEvent), OutOfRange> {
    let missing = || OutOfRange { engine: Engine::global(), counter: "reservations" };
    let held = book.reservations.get(&id).filter(|one| one.status == ReservationStatus::Open).ok_or_else(missing)?;
    let (engine, amount) = (held.engine.clone(), held.open_amount);
    let today = if held.day == stamp.day() { amount.units() } else { 0 };
    let out_of_range = || OutOfRange { engine: engine.clone(), counter: "exposure_used" };
    let exposure = Total::from_units(today.min(book.exposure_left(&engine))).ok_or_else(out_of_range)?;
    let negative = |total: Total| Total::ZERO.minus(total).ok_or_else(out_of_range);
    let movement = Movement { exposure: negative(exposure)?, open: negative(amount.into())?, ..Movement::default() };
    book.post(&engine, movement, Floor::Holds, stamp.at)?;
    if let Some(reservation) = book.reservations.get_mut(&id) {
        reservation.close(ReservationStatus::Released, stamp);
    }
    let (ledger_engine, ledger_global) = book.ledgers(&engine, stamp.day());
    let released =
        Released { reservation_id: id, released: amount, exposure_returned: exposure, ledger_engine, ledger_global };
    let event = RiskEvent {
        engine,
        action: RiskAction::Release,
        amount,
        denial: None,
        reservation_id: Some(id),
        movement,
        annotations,
        detail: String::new(),
    }
    .telling(&released, book.form, stamp);
    Ok((released, event))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{held, stamp};
    use super::*;
    use chrono::TimeDelta;

    const ID: Uuid = Uuid::from_u128(1);

    fn total(text: &str) -> Total {
        text.parse().unwrap()
    }

    fn usage(book: &Book, engine: &str) -> (Total, Total, Total, i64) {
        let usage = book.level(&engine.parse().unwrap()).usage;
        (usage.exposure_used, usage.open_risk_reserved, usage.realized_loss, usage.actions_count)
    }

    #[test]
    fn risk_and_todays_exposure_come_back_and_the_action_does_not() {
        let mut book = held(ID, "40", None);
        let (released, event) = apply(&mut book, ID, Annotations::default(), stamp(9)).unwrap();
        assert_eq!((released.released, released.exposure_returned), ("40".parse().unwrap(), total("40")));
        for engine in ["A", "GLOBAL"] {
            assert_eq!(usage(&book, engine), (Total::ZERO, Total::ZERO, Total::ZERO, 1));
        }
        let ended = &book.reservations[&ID];
        assert_eq!((ended.status, ended.closed), (ReservationStatus::Released, Some(stamp(9))));
        assert_eq!((event.action, event.movement.open), (RiskAction::Release, total("-40")));
        let told: Released = serde_json::from_str(&event.detail).unwrap();
        assert_eq!(told, released);
    }

    #[test]
    fn the_exposure_that_comes_back_is_the_least_of_what_is_open_today_and_left() {
        // Reserved today or not, the open part of 40, the remaining exposure, and the returned exposure.
        for (today, open, left, back) in [
            (true, "40", "40", "40"),
            (true, "15", "40", "15"),
            (true, "40", "39.999999", "39.999999"),
            (true, "40", "0", "0"),
            (true, "0.000001", "0.000001", "0.000001"),
            (false, "40", "40", "0"),
            (false, "40", "0", "0"),
        ] {
            let mut book = held(ID, "40", None);
            for level in book.levels.values_mut() {
                level.usage.exposure_used = total(left);
                level.usage.open_risk_reserved = total(open);
            }
            book.reservations.get_mut(&ID).unwrap().open_amount = open.parse().unwrap();
            let at = stamp(9).at + TimeDelta::days(i64::from(!today));
            let (released, _) = apply(&mut book, ID, Annotations::default(), Stamp { seq: 9, at }).unwrap();
            assert_eq!(released.exposure_returned, total(back), "{today} {open} {left}");
            assert_eq!(usage(&book, "GLOBAL").0, total(left).minus(total(back)).unwrap());
            assert_eq!(usage(&book, "A").1, Total::ZERO);
        }
    }

    #[test]
    fn what_is_not_open_is_not_released() {
        for status in [ReservationStatus::Settled, ReservationStatus::Released, ReservationStatus::Expired] {
            let mut book = held(ID, "40", None);
            book.reservations.get_mut(&ID).unwrap().close(status, stamp(2));
            let before = book.clone();
            assert!(apply(&mut book, ID, Annotations::default(), stamp(9)).is_err());
            assert_eq!((book.levels, book.reservations), (before.levels, before.reservations));
        }
        assert!(apply(&mut held(ID, "40", None), Uuid::from_u128(2), Annotations::default(), stamp(9)).is_err());
    }

    #[test]
    fn a_hold_that_the_stock_has_lost_is_released_and_the_stock_stands_at_zero() {
        let mut book = held(ID, "40", None);
        book.levels.get_mut(&Engine::global()).unwrap().usage.open_risk_reserved = total("39.999999");
        apply(&mut book, ID, Annotations::default(), stamp(9)).unwrap();
        assert_eq!(book.level(&Engine::global()).usage.open_risk_reserved, Total::ZERO);
        assert_eq!(book.reservations[&ID].status, ReservationStatus::Released);
    }
}
