//! Extend: the action takes longer. A hold that may expire stands for some time from now, never shorter than before. Unlike a
//! settle, this keeps risk open, so it is refused where a new reserve would be stopped, whatever the caps say: kill switch,
//! go-live, a disabled level.

use super::reserve::{self, Failure};
use super::{Book, Movement, OutOfRange, RiskEvent, Words};
use crate::audit::Stamp;
use crate::db::to_json;
use crate::types::{Engine, Ttl};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What came of an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// The reservation.
    pub reservation_id: Uuid,
    /// When it is due now.
    pub expires_at: DateTime<Utc>,
    /// Why it was refused; empty when it was done.
    pub failures: Vec<Failure>,
}

/// Extends a live reservation that may expire, or says why not. Denied, it moves nothing.
pub fn apply(
    book: &mut Book,
    id: Uuid,
    ttl: Ttl,
    words: Words,
    stamp: Stamp,
) -> Result<(Extension, RiskEvent), OutOfRange> {
    let missing = || OutOfRange { engine: Engine::global(), counter: "reservations" };
    let held = book.reservations.get(&id).filter(|one| one.is_live(stamp.at)).ok_or_else(missing)?;
    let (engine, amount) = (held.engine.clone(), held.open_amount);
    let due = held.expires_at.ok_or_else(missing)?;
    let failures = reserve::check_standing(book, &engine);
    let denial = failures.first().map(|first| (first.reason.as_str(), first.scope.clone()));
    let expires_at = if denial.is_none() { due.max(stamp.at + ttl.duration()) } else { due };
    if let Some(reservation) = book.reservations.get_mut(&id) {
        reservation.expires_at = Some(expires_at);
    }
    let extension = Extension { reservation_id: id, expires_at, failures };
    let event = RiskEvent {
        engine,
        action: if denial.is_none() { "EXTEND" } else { "DENY" },
        amount,
        denial,
        reservation_id: Some(id),
        movement: Movement::default(),
        words,
        detail: to_json(&extension).get().to_owned(),
    };
    Ok((extension, event))
}
