//! Settle: the action was done, with this outcome. The risk is returned and the loss is booked. A fact is never refused
//! for being large: an overrun is recorded in full and flagged.
//!
//! A settle names its reservation or, as in the original, only an engine and an amount. Then the caller's open
//! reservations are matched, oldest first, and an amount without a match is reported instead of driving a counter below
//! zero.

use super::{
    Annotations, Book, Floor, LedgerSnapshot, Movement, OutOfRange, Reservation, ReservationStatus, RiskAction,
    RiskEvent,
};
use crate::audit::Stamp;
use crate::types::{Amount, Engine, Total};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Most open reservations that one original settle checks.
pub const MATCHES_MAX: usize = 1_000;

/// The flag of a settle that left open reservations unchecked.
const MORE_OPEN: &str = "more_open: settle again with the unmatched amount";

/// The open rest of a hold is dust if it is less than 0.01, in millionths, …
const DUST_UNITS: i128 = 10_000;
/// … and less than this part of the reserved amount: a hold of a few millionths is not dust by itself.
const DUST_PART: i128 = 100;

/// The target of a settle.
#[derive(Debug, Clone)]
pub enum Target {
    /// One open reservation.
    Reservation(Uuid),
    /// One reservation that expired with this amount outstanding: the action was done, and is reported late.
    Late(Uuid, Amount),
    /// Up to `reserved_amount` of these open reservations, in this order.
    Matching {
        /// The amount that the caller states as reserved.
        reserved_amount: Amount,
        /// The candidates, oldest first.
        candidates: Vec<Uuid>,
        /// The completeness of the candidates.
        beyond: Beyond,
    },
}

/// The completeness of the candidates: a settle by amount checks at most [`MATCHES_MAX`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// The candidates are complete.
    Nothing,
    /// More reservations are open.
    MoreOpen,
}

/// A requested settle.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The engine that acted.
    pub engine: Engine,
    /// The reservations to settle.
    pub target: Target,
    /// The used amount; none for the reserved amount.
    pub settled_amount: Option<Amount>,
    /// The loss; zero if there is none.
    pub realized_loss: Amount,
}

impl Settle {
    /// The reserved amount of the target.
    fn reserved(&self, book: &Book) -> Amount {
        match &self.target {
            Target::Reservation(id) => book.reservations.get(id).map(|one| one.open_amount).unwrap_or_default(),
            Target::Late(_, outstanding) => *outstanding,
            Target::Matching { reserved_amount, .. } => *reserved_amount,
        }
    }

    /// The used amount above the reserved one, which raises the day's exposure.
    #[must_use]
    pub fn overrun(&self, book: &Book) -> Amount {
        let reserved = self.reserved(book);
        let over = self.settled_amount.unwrap_or(reserved).units() - reserved.units();
        Amount::from_units(over.max(0)).unwrap_or_default()
    }
}

/// The effect of a settle on one reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettledReservation {
    /// The id of the reservation.
    pub reservation_id: Uuid,
    /// The open risk that it returned.
    pub released: Amount,
    /// The status after the settle.
    pub status: ReservationStatus,
}

/// The outcome of a settle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Remarks: `overrun`, `over_release` or `more_open: …`, `dust_left: …`, and the caps that the day's loss has
    /// reached.
    pub flags: Vec<String>,
    /// The returned open risk.
    pub released: Total,
    /// The amount for which no open reservation was found.
    pub unmatched: Total,
    /// The used amount.
    pub settled_amount: Amount,
    /// The booked loss.
    pub realized_loss: Amount,
    /// True if the reservation had expired before.
    #[serde(default)]
    pub late: bool,
    /// The settled reservations, in order.
    pub reservations: Vec<SettledReservation>,
    /// The engine's counters after the settle.
    pub ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after the settle.
    pub ledger_global: LedgerSnapshot,
    /// The counters of GLOBAL that it brought to their caps. Only for the log; no event has it.
    #[serde(skip)]
    pub filled: Vec<&'static str>,
}

/// The amounts that a settle takes from reservations.
#[derive(Default)]
struct Taken {
    /// The touched reservations after the settle.
    changed: Vec<Reservation>,
    touched: Vec<SettledReservation>,
    /// The returned open risk, in millionths.
    released: i128,
    /// The part that was reserved today, in millionths: only that can come back to today's exposure.
    today: i128,
}

/// The effect of taking up to `wanted` from the live candidates, in order.
fn take(book: &Book, candidates: &[Uuid], wanted: Amount, stamp: Stamp) -> Taken {
    let mut taken = Taken::default();
    for id in candidates {
        let rest = wanted.units() - taken.released;
        let Some(live) = book.reservations.get(id).filter(|reservation| reservation.is_live(stamp.at)) else {
            continue;
        };
        if rest <= 0 {
            break;
        }
        let mut reservation = live.clone();
        let units = rest.min(reservation.open_amount.units());
        // Both are amounts, and neither difference can be negative.
        let released = Amount::from_units(units).unwrap_or_default();
        reservation.open_amount = Amount::from_units(reservation.open_amount.units() - units).unwrap_or_default();
        if reservation.open_amount.is_zero() {
            reservation.close(ReservationStatus::Settled, stamp);
        }
        taken.released += units;
        if reservation.day == stamp.day() {
            taken.today += units;
        }
        taken.touched.push(SettledReservation { reservation_id: *id, released, status: reservation.status });
        taken.changed.push(reservation);
    }
    taken
}

/// True if so little of a hold is left open that a rounded amount is a likelier reason than a further part.
fn is_dust(reservation: &Reservation) -> bool {
    let left = reservation.open_amount.units();
    left > 0 && left < DUST_UNITS && left * DUST_PART < reservation.amount.units()
}

/// The effect of settling an expired reservation, whose risk came back when it expired.
fn take_late(expired: &Reservation, outstanding: Amount, stamp: Stamp) -> Taken {
    let mut reservation = expired.clone();
    reservation.close(ReservationStatus::Settled, stamp);
    let touched = SettledReservation {
        reservation_id: reservation.id,
        released: Amount::ZERO,
        status: ReservationStatus::Settled,
    };
    let today = if reservation.day == stamp.day() { outstanding.units() } else { 0 };
    Taken { changed: vec![reservation], touched: vec![touched], released: 0, today }
}

/// Settles, moving the book; a refusal moves nothing.
pub fn apply(
    book: &mut Book,
    settle: &Settle,
    annotations: Annotations,
    stamp: Stamp,
) -> Result<(Settlement, RiskEvent), OutOfRange> {
    let out_of_range = || OutOfRange { engine: settle.engine.clone(), counter: "released" };
    let total = |units: i128| Total::from_units(units).ok_or_else(out_of_range);
    let reserved = settle.reserved(book);
    let (reservation_id, candidates) = match &settle.target {
        Target::Reservation(id) | Target::Late(id, _) => (Some(*id), vec![*id]),
        Target::Matching { candidates, .. } => (None, candidates.clone()),
    };
    let late = matches!(settle.target, Target::Late(..));
    let taken = match candidates.first().and_then(|id| book.reservations.get(id)) {
        Some(reservation) if late => take_late(reservation, reserved, stamp),
        _ => take(book, &candidates, reserved, stamp),
    };
    let settled_amount = settle.settled_amount.unwrap_or(reserved);
    let over = settled_amount.units() - reserved.units();
    // A smaller use gives exposure back, but only the part that today's exposure has; a larger use counts today in
    // full. A stated amount beyond the found one was never part of it.
    let found = if late { reserved.units() } else { taken.released };
    let unused = (found - settled_amount.units()).max(0);
    let back = taken.today.min(unused).min(book.exposure_left(&settle.engine));
    let exposure = if over < 0 { -back } else { over };
    let unmatched = reserved.units() - found;
    let (released_total, unmatched_total) = (total(taken.released)?, total(unmatched)?);
    let movement = Movement {
        exposure: total(exposure)?,
        open: total(-taken.released)?,
        loss: settle.realized_loss.into(),
        actions: 0,
    };
    // Other operations share the book, so this is the last step that can refuse, and the first that moves it.
    book.post(&settle.engine, movement, Floor::Holds, stamp.at)?;
    let dust = taken.changed.iter().filter(|one| is_dust(one));
    let dust: Vec<String> =
        dust.map(|one| format!("dust_left: reservation {} stays open with {}", one.id, one.open_amount)).collect();
    book.reservations.extend(taken.changed.into_iter().map(|one| (one.id, one)));

    let mut flags = Vec::new();
    if over > 0 {
        flags.push("overrun".to_owned());
    }
    if unmatched > 0 {
        let is_more_open = matches!(settle.target, Target::Matching { beyond: Beyond::MoreOpen, .. });
        flags.push(if is_more_open { MORE_OPEN } else { "over_release" }.to_owned());
    }
    flags.extend(dust);
    flags.extend(book.loss_flags(&settle.engine));
    let (ledger_engine, ledger_global) = book.ledgers(&settle.engine, stamp.day());
    let settlement = Settlement {
        flags,
        released: released_total,
        unmatched: unmatched_total,
        settled_amount,
        realized_loss: settle.realized_loss,
        late,
        reservations: taken.touched,
        ledger_engine,
        ledger_global,
        filled: book.filled(movement),
    };
    let event = RiskEvent {
        engine: settle.engine.clone(),
        action: RiskAction::Settle,
        amount: settled_amount,
        denial: None,
        reservation_id,
        movement,
        annotations,
        detail: String::new(),
    }
    .telling(&settlement, book.form, stamp);
    Ok((settlement, event))
}

#[cfg(test)]
mod tests;
