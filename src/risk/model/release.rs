//! Release: the action did not happen. Open risk comes back, and exposure if it was reserved today; the action count does not,
//! so that reserving and releasing cannot be repeated for ever.

use super::{Book, LedgerSnapshot, Movement, OutOfRange, ReservationStatus, RiskEvent, Words};
use crate::audit::Stamp;
use crate::db::to_json;
use crate::types::{Amount, Engine, Total};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What came of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Released {
    /// The reservation.
    pub reservation_id: Uuid,
    /// Open risk returned.
    pub released: Amount,
    /// Exposure of today returned; 0 for a hold of another day.
    pub exposure_returned: Total,
    /// The engine's counters after it.
    pub ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after it.
    pub ledger_global: LedgerSnapshot,
}

/// Releases an open reservation, moving the book.
pub fn apply(book: &mut Book, id: Uuid, words: Words, stamp: Stamp) -> Result<(Released, RiskEvent), OutOfRange> {
    let missing = || OutOfRange { engine: Engine::global(), counter: "reservations" };
    let held = book.reservations.get(&id).filter(|one| one.status == ReservationStatus::Open).ok_or_else(missing)?;
    let (engine, amount) = (held.engine.clone(), held.open_amount);
    let today = if held.day == stamp.day() { amount.units() } else { 0 };
    let out_of_range = || OutOfRange { engine: engine.clone(), counter: "exposure_used" };
    let exposure = Total::from_units(today.min(book.exposure_left(&engine))).ok_or_else(out_of_range)?;
    let negative = |total: Total| Total::ZERO.minus(total).ok_or_else(out_of_range);
    let movement = Movement { exposure: negative(exposure)?, open: negative(amount.into())?, ..Movement::default() };
    book.post(&engine, movement, stamp.at)?;
    if let Some(reservation) = book.reservations.get_mut(&id) {
        reservation.close(ReservationStatus::Released, stamp);
    }
    let (ledger_engine, ledger_global) = book.ledgers(&engine, stamp.day());
    let released =
        Released { reservation_id: id, released: amount, exposure_returned: exposure, ledger_engine, ledger_global };
    let event = RiskEvent {
        engine,
        action: "RELEASE",
        amount,
        denial: None,
        reservation_id: Some(id),
        movement,
        words,
        detail: to_json(&released).get().to_owned(),
    };
    Ok((released, event))
}
