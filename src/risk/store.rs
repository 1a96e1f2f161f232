//! SQL of the ledger. Reads of a decision happen after the risk head is locked, each in a statement of its own.

mod batch;
mod read;
mod records;
mod write;

pub use batch::{Batch, Recorded, event_hash, write_batch};
pub use read::{
    Instant, TodayRow, candidates, is_correlated, read_denials, read_instant, read_levels, read_policies,
    read_reservations, settlements_of, today,
};
pub use records::{
    EventFilter, ReservationFilter, ReservationRecord, RiskEventRecord, events, read_reservation, reservations,
};
pub use write::{add_throttle, lift_throttle, lift_throttles, note_policy, upsert_policy};
