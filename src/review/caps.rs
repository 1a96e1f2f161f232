//! The caps that are used up. A used-up cap of GLOBAL stops every engine.

use super::document::Review;
use crate::risk::http::{Headroom, LedgerToday};
use crate::types::Total;

/// A counter with a cap.
struct Counter {
    name: &'static str,
    until: &'static str,
    booked: &'static str,
    is_full: fn(&Headroom) -> bool,
    used: fn(&LedgerToday) -> Total,
}

const MIDNIGHT: &str = "until midnight UTC";

const COUNTERS: [Counter; 4] = [
    Counter {
        name: "exposure of the day",
        until: MIDNIGHT,
        booked: "booked the most today",
        is_full: |room| room.exposure == Some(Total::ZERO),
        used: |row| row.exposure_used,
    },
    Counter {
        name: "open risk",
        until: "until something is settled or released",
        booked: "holds the most",
        is_full: |room| room.open_risk == Some(Total::ZERO),
        used: |row| row.open_risk_reserved,
    },
    Counter {
        name: "loss of the day",
        until: MIDNIGHT,
        booked: "lost the most today",
        is_full: |room| room.loss == Some(Total::ZERO),
        used: |row| row.realized_loss,
    },
    Counter {
        name: "count of reserves of the day",
        until: MIDNIGHT,
        booked: "made the most today",
        is_full: |room| room.actions == Some(0),
        used: |row| Total::from_units(i128::from(row.actions_count) * 1_000_000).unwrap_or_default(),
    },
];

/// The used-up caps of GLOBAL, each with the engine that used the most, and the engines whose loss cap of the day is
/// used up.
pub(super) fn used_up(review: &Review) -> Vec<String> {
    let (global, engines): (Vec<_>, Vec<_>) = review.ledger.iter().partition(|row| row.engine.is_global());
    let sentence = |row: &LedgerToday, counter: &Counter| {
        let Counter { name, until, booked, used, .. } = counter;
        let most = engines.iter().max_by_key(|engine| used(engine)).filter(|engine| used(engine) > Total::ZERO);
        let most = most.map_or_else(String::new, |engine| format!("; {} {booked} ({})", engine.engine, used(engine)));
        format!("Every engine is stopped by GLOBAL {until}: its {name} is used up ({}){most}", used(row))
    };
    let full = global.iter().flat_map(|row| {
        let full = COUNTERS.iter().filter(|counter| (counter.is_full)(&row.headroom));
        full.map(|counter| sentence(row, counter))
    });
    let lost = engines.iter().filter(|row| row.headroom.loss == Some(Total::ZERO));
    let lost = lost
        .map(|row| format!("{} has lost {} today and is stopped until midnight UTC", row.engine, row.realized_loss));
    full.chain(lost).collect()
}
