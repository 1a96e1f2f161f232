//! The rules of the tripwire: types and pure decisions.
//!
//! A [`Wire`] takes the events of its series one by one. PLAIN, the original's detector, compares the mean of the
//! recent window with that of the baseline before it, by order of arrival; SEQUENTIAL ([`crate::regression::detector`])
//! gathers evidence against a frozen baseline. The size of the drop is exact ([`Tolerance`]): a tie trips, where a
//! float misses 190/200 against 38/50.

mod drop;
mod policy;
mod series;
mod silence;
mod state;
mod upsert;
pub mod wire;

pub use drop::{Compared, Direction, Effect, Tolerance};
pub use policy::{Action, Detector, Mode, OnStale, RegressionPolicy};
pub use series::{Kind, Series, series_name};
pub use silence::{Between, EngineMove, Throttle, engine_off, outside, switched_off};
pub use state::{FrozenSpan, Guarantee, Rebase, TripVerdict, Verdict, WireState, WireStatus, trip_note};
pub use upsert::{PolicyUpsert, loosening, loosens, rebases, refreezes, upsert};
pub use wire::{Reading, Span, Sums, Wire};

use crate::audit::{Canonical, Origin, Stamp, Stream};
use crate::error::{Error, FieldError, Result};
use crate::types::{Detail, Domain, EventId, Flag, Measured, Metric, Ratio, Total};

/// The fewest events in a window.
pub const WINDOW_MIN: i64 = 1;
/// The most events in a window.
pub const WINDOW_MAX: i64 = 10_000;

/// A measurement: a success or failure, or a value. A series keeps the kind of its first event, until an operator sets
/// another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measurement {
    /// Whether the measured action succeeded.
    Success(bool),
    /// The measured value.
    Value(Measured),
}

impl Measurement {
    /// Combines the two fields of a request, of which exactly one must be given.
    pub fn given(success: Option<Flag>, value: Option<Measured>) -> Result<Self> {
        match (success, value) {
            (Some(success), None) => Ok(Self::Success(success.0)),
            (None, Some(value)) => Ok(Self::Value(value)),
            (given, _) => {
                let detail =
                    if given.is_some() { "and value are both given: send one" } else { "or value is required" };
                Err(Error::Invalid(vec![FieldError::new("success", detail)]))
            }
        }
    }

    /// The measurement's addition to the running sum: a success counts 1.
    #[must_use]
    pub fn addend(self) -> Total {
        match self {
            Self::Success(success) => Total::from_units(if success { 1_000_000 } else { 0 }).unwrap_or_default(),
            Self::Value(value) => value.into(),
        }
    }

    /// The kind of series that the measurement belongs to.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Success(_) => Kind::Boolean,
            Self::Value(_) => Kind::Numeric,
        }
    }
}

/// A measurement before it is appended to its series.
#[derive(Debug, Clone)]
pub struct KpiEvent {
    /// The domain.
    pub domain: Domain,
    /// The metric.
    pub metric: Metric,
    /// The measured value.
    pub measurement: Measurement,
    /// The caller's own id, which makes a repeated measurement count once.
    pub event_id: Option<EventId>,
    /// The caller's remarks, up to 4 KiB.
    pub detail: Option<Detail>,
}

/// A place in a series: the number of events up to here, and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number of events of the series so far.
    pub events: i64,
    /// The sum of those events.
    pub sum: Total,
}

impl KpiEvent {
    /// The bytes that the chain covers, in column order.
    #[must_use]
    pub fn canonical(&self, stamp: Stamp, origin: &Origin, mark: Mark) -> Canonical {
        let (success, value) = match self.measurement {
            Measurement::Success(success) => (Some(success), None),
            Measurement::Value(value) => (None, Some(value)),
        };
        Canonical::begin(Stream::Kpi, stamp, origin)
            .text(Some(self.domain.as_str()))
            .text(Some(self.metric.as_str()))
            .shown(Some(mark.events))
            .shown(success)
            .shown(value)
            .shown(Some(mark.sum))
            .text(self.event_id.as_ref().map(EventId::as_str))
            .digest(self.detail.as_ref().map(Detail::as_str))
    }
}

/// A window: a number of events and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// The number of events.
    pub events: i64,
    /// The sum of the events.
    pub sum: Total,
}

impl Window {
    /// The window from after `from` up to `to`.
    #[must_use]
    pub fn between(from: Mark, to: Mark) -> Self {
        // Both sums are within the range of a total, and so is their difference.
        Self { events: to.events - from.events, sum: to.sum.minus(from.sum).unwrap_or_default() }
    }

    /// The mean of the events; for booleans, the success rate. None without events.
    #[must_use]
    pub fn mean(self) -> Option<Ratio> {
        Ratio::of(self.sum.units(), i128::from(self.events) * 1_000_000)
    }
}

#[cfg(test)]
mod tests;
