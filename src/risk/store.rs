//! SQL of the ledger. The reads of a decision happen after the risk head is locked, each in a statement of its own.

mod batch;
mod clock;
mod columns;
mod corrections;
mod correlations;
mod events;
mod held;
mod history;
mod read;
mod reconcile;
mod reservations;
mod view;
mod write;

pub use batch::{Batch, Denials, Moment, Recorded, write_batch};
pub use clock::accept_clock;
pub use corrections::{Corrected, corrected};
pub use correlations::{Correlation, UsedCorrelations};
pub use events::{EventFilter, RiskEventRecord, events};
pub use held::{PastEvent, Wanted, candidates, oldest_due, past_events, read_due, read_reservations};
pub use history::{LedgerOfDays, business_day, engines_of, is_known, ledger_of};
pub use read::{
    Denied, TodayRow, decisions_since, engines, has_policy, is_active, read_denials, read_policies, today, was_used,
    worst_denials,
};
pub use reconcile::{Flow, first_of, halt, lift_halt, reconciled_at, recorded, set_counter, sum_events, sum_open};
pub use reservations::{ReservationFilter, ReservationRecord, read_reservation, reservations};
pub use view::{BookView, Facts, PREPARE_BEGIN, begin, read_levels, read_view};
pub use write::{add_throttle, lift_throttle, lift_throttles, note_policy, remove_policy, upsert_policy};
