//! SQL of the tripwire.

mod policies;
mod series;
mod states;
mod trips;

pub use policies::{read_policies, read_policy, upsert_policy};
pub use series::{End, KpiFilter, KpiRecord, find_event_id, insert_event, kpi_events, read_end, read_marks};
pub use states::{read_state, read_states, read_wires, write_state};
pub use trips::{NewTrip, TripRecord, find_trip, insert_trip, rearm_trip, standing_trips, trips};

use crate::error::{Error, Result};
use crate::types::{Ratio, Total};
use rust_decimal::Decimal;

fn broken(what: &str, value: impl std::fmt::Display) -> Error {
    Error::Inconsistent(format!("{value} is not a {what}"))
}

fn total(decimal: Decimal) -> Result<Total> {
    Total::from_decimal(decimal).ok_or_else(|| broken("total", decimal))
}

fn ratio(decimal: Option<Decimal>) -> Result<Option<Ratio>> {
    decimal.map(|decimal| Ratio::from_decimal(decimal).ok_or_else(|| broken("ratio", decimal))).transpose()
}
