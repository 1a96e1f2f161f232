//! Adjust: what was booked was wrong. A signed correction of loss or of exposure names the event it corrects and why, and is
//! booked today: a closed day never changes. What is outstanding is corrected by settling or releasing, not here.

use super::{Book, LedgerSnapshot, Movement, OutOfRange, RiskEvent, Words};
use crate::audit::Stamp;
use crate::db::to_json;
use crate::types::{Amount, Engine, Total, Value};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What is corrected, and by how much; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correction {
    /// The day's realised loss.
    Loss(Value),
    /// The day's exposure.
    Exposure(Value),
}

/// A correction that is asked for.
#[derive(Debug, Clone)]
pub struct Adjust {
    /// The engine of the corrected event.
    pub engine: Engine,
    /// The corrected event.
    pub corrects_seq: i64,
    /// Its reservation.
    pub reservation_id: Option<Uuid>,
    /// What is corrected.
    pub correction: Correction,
}

/// What came of a correction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adjustment {
    /// The event that was corrected.
    pub corrects_seq: i64,
    /// What was added to the day's loss.
    pub loss_delta: Total,
    /// What was added to the day's exposure.
    pub exposure_delta: Total,
    /// `… daily loss cap reached`.
    pub flags: Vec<String>,
    /// The engine's counters after it.
    pub ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after it.
    pub ledger_global: LedgerSnapshot,
}

/// Books a correction, moving the book. Nothing goes below zero: more than was booked today cannot be taken back today.
pub fn apply(
    book: &mut Book,
    adjust: &Adjust,
    words: Words,
    stamp: Stamp,
) -> Result<(Adjustment, RiskEvent), OutOfRange> {
    let (movement, delta) = match adjust.correction {
        Correction::Loss(delta) => (Movement { loss: delta.into(), ..Movement::default() }, delta),
        Correction::Exposure(delta) => (Movement { exposure: delta.into(), ..Movement::default() }, delta),
    };
    book.post(&adjust.engine, movement, stamp.at)?;
    let (ledger_engine, ledger_global) = book.ledgers(&adjust.engine, stamp.day());
    let adjustment = Adjustment {
        corrects_seq: adjust.corrects_seq,
        loss_delta: movement.loss,
        exposure_delta: movement.exposure,
        flags: book.loss_flags(&adjust.engine),
        ledger_engine,
        ledger_global,
    };
    let event = RiskEvent {
        engine: adjust.engine.clone(),
        action: "ADJUST",
        // A value's magnitude is an amount.
        amount: Amount::from_units(delta.units().abs()).unwrap_or_default(),
        denial: None,
        reservation_id: adjust.reservation_id,
        movement,
        words,
        detail: to_json(&adjustment).get().to_owned(),
    };
    Ok((adjustment, event))
}
