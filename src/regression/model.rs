//! The tripwire's rules: types and pure decisions.
//!
//! A [`Wire`] meets the events of its series one by one. PLAIN, the original's detector, holds the mean of the recent
//! window against that of the baseline before it, by order of arrival; SEQUENTIAL ([`crate::regression::detector`]) gathers
//! evidence against a frozen baseline. How much worse a series is, is exact ([`Tolerance`]): a tie trips, where a float misses
//! 190/200 against 38/50.

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
use crate::types::{Detail, Domain, EventId, Measured, Metric, Ratio, Total};

/// Most events in a window.
pub const WINDOW_MAX: i64 = 10_000;

/// A measurement: a success or failure, or a value. A series keeps the kind of its first event,
/// until an operator says another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measurement {
    /// Whether it succeeded.
    Success(bool),
    /// Its value.
    Value(Measured),
}

impl Measurement {
    /// Its addition to the running sum: a success counts 1.
    #[must_use]
    pub fn addend(self) -> Total {
        match self {
            Self::Success(success) => Total::from_units(if success { 1_000_000 } else { 0 }).unwrap_or_default(),
            Self::Value(value) => value.into(),
        }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Success(_) => Kind::Boolean,
            Self::Value(_) => Kind::Numeric,
        }
    }
}

/// A measurement on its way into its series.
#[derive(Debug, Clone)]
pub struct KpiEvent {
    /// The domain.
    pub domain: Domain,
    /// The metric.
    pub metric: Metric,
    /// The measured value.
    pub measurement: Measurement,
    /// The caller's own id.
    pub event_id: Option<EventId>,
    /// Remarks.
    pub detail: Option<Detail>,
}

/// A place in a series: how many events up to here, and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Events of the series so far.
    pub events: i64,
    /// Their sum.
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

/// Events and their sum: a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// How many.
    pub events: i64,
    /// Their sum.
    pub sum: Total,
}

impl Window {
    /// The window from after `from` up to `to`.
    #[must_use]
    pub fn between(from: Mark, to: Mark) -> Self {
        // Both sums are within the range of a total, and so is what lies between them.
        Self { events: to.events - from.events, sum: to.sum.minus(from.sum).unwrap_or_default() }
    }

    /// Its mean: the success rate of booleans.
    #[must_use]
    pub fn mean(self) -> Option<Ratio> {
        Ratio::of(self.sum.units(), i128::from(self.events) * 1_000_000)
    }
}

#[cfg(test)]
mod tests;
