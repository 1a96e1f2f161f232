//! SQL of the ledger. Reads of a decision happen after the risk head is locked, each in a statement of its own.

mod read;
mod records;
mod write;

pub use read::{
    TodayRow, candidates, read_denials, read_levels, read_policies, read_reservations, settlement_of, today,
};
pub use records::{
    EventFilter, ReservationFilter, ReservationRecord, RiskEventRecord, events, read_reservation, reservations,
};
pub use write::{
    add_throttle, count_denial, insert_event, insert_reservation, lift_throttle, lift_throttles, note_policy,
    update_reservations, upsert_levels, upsert_policy,
};
