//! Settle: the action is done, with this outcome. The risk is returned, the loss is booked, and a fact is never refused for
//! being large: an overrun is recorded in full and flagged.
//!
//! A settle names its reservation, or, as the original did, only an engine and an amount; then the caller's open
//! reservations are matched, oldest first, and what finds no match is reported instead of driving a counter below zero.

use super::{
    Annotations, Book, Floor, LedgerSnapshot, Movement, OutOfRange, Reservation, ReservationStatus, RiskEvent,
};
use crate::audit::Stamp;
use crate::db;
use crate::types::{Amount, Engine, Total};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Most open reservations that one original settle looks at.
pub const MATCHES_MAX: usize = 1_000;

/// The flag of one that left open what it did not look at.
const MORE_OPEN: &str = "more_open: settle again with the unmatched amount";

/// The open rest of a hold is dust if it is less than 0.01, in millionths, …
const DUST_UNITS: i128 = 10_000;
/// … and less than this part of what was reserved: a hold of few millionths is no dust by itself.
const DUST_PART: i128 = 100;

/// The target of a settle.
#[derive(Debug, Clone)]
pub enum Target {
    /// This reservation, which is open.
    Reservation(Uuid),
    /// This one, which expired with so much outstanding: the action was done, and is told late.
    Late(Uuid, Amount),
    /// Up to `reserved_amount` of these open reservations, in this order.
    Matching {
        /// The amount that the caller believes to have reserved.
        reserved_amount: Amount,
        /// The candidates, oldest first.
        candidates: Vec<Uuid>,
        /// The reason why there may be others.
        beyond: Beyond,
    },
}

/// Whether a settle by amount may have found no match only because it looks at [`MATCHES_MAX`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// The candidates are all there are.
    Nothing,
    /// More are open.
    MoreOpen,
}

/// A settle that is asked for.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The engine.
    pub engine: Engine,
    /// The target of a settle.
    pub target: Target,
    /// The amount really used; none means the reserved amount.
    pub settled_amount: Option<Amount>,
    /// The loss.
    pub realized_loss: Amount,
}

impl Settle {
    /// The reserved amount that it states.
    fn reserved(&self, book: &Book) -> Amount {
        match &self.target {
            Target::Reservation(id) => book.reservations.get(id).map(|one| one.open_amount).unwrap_or_default(),
            Target::Late(_, outstanding) => *outstanding,
            Target::Matching { reserved_amount, .. } => *reserved_amount,
        }
    }

    /// How much more was used than was reserved: it raises the day's exposure.
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
    /// The reservation.
    pub reservation_id: Uuid,
    /// Open risk returned from it.
    pub released: Amount,
    /// Where it stands now.
    pub status: ReservationStatus,
}

/// The outcome of a settle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// `overrun`, `over_release` or `more_open: …`, `dust_left: …`, and the caps that the day's loss has reached.
    pub flags: Vec<String>,
    /// Open risk returned.
    pub released: Total,
    /// The amount without an open reservation.
    pub unmatched: Total,
    /// The amount really used.
    pub settled_amount: Amount,
    /// The loss.
    pub realized_loss: Amount,
    /// Whether the reservation had expired before.
    #[serde(default)]
    pub late: bool,
    /// The reservations it touched, in order.
    pub reservations: Vec<SettledReservation>,
    /// The engine's counters after it.
    pub ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after it.
    pub ledger_global: LedgerSnapshot,
    /// The counters of GLOBAL that it brought to their caps. For the log; no event has it.
    #[serde(skip)]
    pub filled: Vec<&'static str>,
}

/// The amounts that a settle takes out of reservations.
#[derive(Default)]
struct Taken {
    /// Those that it touches, as they stand after it.
    changed: Vec<Reservation>,
    touched: Vec<SettledReservation>,
    /// Open risk returned.
    released: i128,
    /// How much of what is settled was reserved today: only that can come back to today's exposure.
    today: i128,
}

/// The effect of taking up to `wanted` out of the live candidates, in order.
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

/// Whether so little of a hold is left open that a rounded amount is the likelier reason than a part that is still to come.
fn is_dust(reservation: &Reservation) -> bool {
    let left = reservation.open_amount.units();
    left > 0 && left < DUST_UNITS && left * DUST_PART < reservation.amount.units()
}

/// The effect of settling an expired reservation: its risk came back when it expired.
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
    // Less than reserved gives exposure back, but only what today's exposure contains; more is used today in full.
    // A claim beyond the found amount was never in it.
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
    // Others share the book: this is the last step that can refuse, and the first that moves it.
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
        action: "SETTLE",
        amount: settled_amount,
        denial: None,
        reservation_id,
        movement,
        annotations,
        detail: db::json_text(&settlement),
    };
    Ok((settlement, event))
}

#[cfg(test)]
mod tests;
