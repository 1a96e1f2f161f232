//! The SQL of the tripwire, in one file per table.

mod baselines;
mod events;
mod policies;
mod series;
mod silent;
mod states;
mod trips;

pub use baselines::{BaselineRecord, NewBaseline, baselines, insert_baseline};
pub use events::{Known, KpiFilter, KpiRecord, Named, Recorded, find_event_ids, insert_events, kpi_events};
pub use policies::{count_policies, read_policies, read_policies_of, read_policy, remove_policy, upsert_policy};
pub use series::{
    End, Past, count_kinds, count_series, read_end, read_ends, read_history, read_series, read_sums, read_values,
    set_kind,
};
pub use silent::{Silent, silent};
pub use states::{read_state, read_states, read_states_of, read_wires, write_states};
pub use trips::{
    Acknowledgement, Caused, NewTrip, Rearmed, TripRecord, acknowledge_trip, find_trips, insert_trip, rearm_trip, trips,
};

use crate::error::{Error, Result};
use crate::types::{Domain, Metric, Ratio, Total};
use rust_decimal::Decimal;

/// A series, or the wire that watches it.
pub type Pair = (Domain, Metric);

/// The pairs as two columns; none for all pairs.
fn columns(pairs: Option<&[Pair]>) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let domains = pairs.map(|pairs| pairs.iter().map(|(domain, _)| domain.to_string()).collect());
    let metrics = pairs.map(|pairs| pairs.iter().map(|(_, metric)| metric.to_string()).collect());
    (domains, metrics)
}

fn broken(what: &str, value: impl std::fmt::Display) -> Error {
    Error::Inconsistent(format!("{value} is not a {what}"))
}

fn total(decimal: Decimal) -> Result<Total> {
    Total::from_decimal(decimal).ok_or_else(|| broken("total", decimal))
}

fn ratio(decimal: Option<Decimal>) -> Result<Option<Ratio>> {
    decimal.map(|decimal| Ratio::from_decimal(decimal).ok_or_else(|| broken("ratio", decimal))).transpose()
}
