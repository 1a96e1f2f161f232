//! SQL of the ledger. Reads of a decision happen after the risk head is locked, each in a statement of its own.

mod read;
mod write;

pub use read::{
    EventFilter, ReservationFilter, ReservationRecord, RiskEventRecord, TodayRow, candidates,
    events, read_denials, read_levels, read_policies, read_reservation, read_reservations,
    reservations, settlement_of, today,
};
pub use write::{
    add_throttle, count_denial, insert_event, insert_reservation, lift_throttle, lift_throttles,
    note_policy, update_reservations, upsert_levels, upsert_policy,
};
