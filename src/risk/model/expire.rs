//! Expiry: nobody told what became of a hold in time. The action may have happened, so only the open risk comes back; today's
//! exposure and the count stay. A late settle still books what was lost.

use super::{Book, Movement, OutOfRange, ReservationStatus, RiskEvent, Words};
use crate::audit::Stamp;
use crate::db::to_json;
use crate::types::Total;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What an expiry says of itself in its event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// Which hold.
    pub reservation_id: Uuid,
    /// When it was due.
    pub expires_at: DateTime<Utc>,
}

/// Expires a reservation that is due; none when it is not.
pub fn apply(book: &mut Book, id: Uuid, stamp: Stamp) -> Result<Option<RiskEvent>, OutOfRange> {
    let Some(due) = book.reservations.get(&id).filter(|reservation| reservation.is_due(stamp.at)) else {
        return Ok(None);
    };
    let (engine, amount) = (due.engine.clone(), due.open_amount);
    let expiry = Expiry { reservation_id: id, expires_at: due.expires_at.unwrap_or(stamp.at) };
    let open = Total::ZERO.minus(amount);
    let open = open.ok_or_else(|| OutOfRange { engine: engine.clone(), counter: "open_risk_reserved" })?;
    let movement = Movement { open, ..Movement::default() };
    book.post(&engine, movement, stamp.at)?;
    if let Some(reservation) = book.reservations.get_mut(&id) {
        reservation.close(ReservationStatus::Expired, stamp);
    }
    Ok(Some(RiskEvent {
        engine,
        action: "EXPIRE",
        amount,
        denial: None,
        reservation_id: Some(id),
        movement,
        words: Words::default(),
        detail: to_json(&expiry).get().to_owned(),
    }))
}
