//! The tripwire's rules: types and pure decisions.
//!
//! The detector is the original's: the mean of the recent window against the mean of the baseline before it, by order of
//! arrival. `drop = (baseline - current) / baseline`; the wire trips when `drop >= max_drop_fraction`. Compared by
//! cross-multiplied integers, so that an exact tie trips; a float misses 190/200 against 38/50.

mod drop;
mod policy;

pub use drop::{Compared, Direction, Effect, Tolerance};
pub use policy::{PolicyUpsert, loosens, upsert};

use crate::audit::{Canonical, Origin, Stamp, Stream};
use crate::types::{Count, Detail, Domain, Engine, EventId, Fraction, Measured, Metric, Ratio, Total};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most events in a window.
pub const WINDOW_MAX: i64 = 10_000;

/// What a trip does, the weaker first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// Holds the wire's engine off.
    Throttle,
    /// Engages the kill switch.
    KillSwitch,
}

impl Action {
    /// The action in the database and in notes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttle => "THROTTLE",
            Self::KillSwitch => "KILL_SWITCH",
        }
    }

    /// The action of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Throttle, Self::KillSwitch].into_iter().find(|action| action.as_str() == name)
    }
}

/// A wire: one metric of one domain, watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RegressionPolicy {
    /// The domain.
    pub domain: Domain,
    /// The metric.
    pub metric: Metric,
    /// Events in the recent window, 1 to 10,000.
    pub window_events: Count,
    /// Events in the baseline before it, 1 to 10,000.
    pub baseline_events: Count,
    /// Least events in either before the wire can trip.
    pub min_events_to_enforce: Count,
    /// The drop that trips, as a fraction of the baseline; reaching it trips.
    pub max_drop_fraction: Fraction,
    /// What a trip does.
    pub action: Action,
    /// The engine that a THROTTLE holds off; null means the one named like the domain.
    pub engine: Option<Engine>,
    /// Whether the wire is watched.
    pub enabled: bool,
    /// Who made the last change.
    pub changed_by: Option<String>,
    /// Why the last change was made.
    pub reason: Option<String>,
    /// When the last change was made.
    pub updated_at: DateTime<Utc>,
    /// Counts the changes, from 1.
    pub version: i64,
}

impl RegressionPolicy {
    /// The engine that a THROTTLE of this wire holds off; none when the domain's name is no engine's and none is named.
    #[must_use]
    pub fn throttled_engine(&self) -> Option<Engine> {
        self.engine.clone().or_else(|| self.domain.as_str().parse().ok())
    }
}

/// A measurement: a success or failure, or a value. A series keeps the kind of its first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measurement {
    /// Whether it succeeded.
    Success(bool),
    /// What it was worth.
    Value(Measured),
}

impl Measurement {
    /// What it adds to the running sum: a success counts 1.
    #[must_use]
    pub fn addend(self) -> Total {
        match self {
            Self::Success(success) => Total::from_units(if success { 1_000_000 } else { 0 }).unwrap_or_default(),
            Self::Value(value) => value.into(),
        }
    }

    /// The kind and the field that carries it.
    #[must_use]
    pub const fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Success(_) => ("BOOLEAN", "success"),
            Self::Value(_) => ("NUMERIC", "value"),
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
    /// What was measured.
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

/// Where the windows of a wire lie in its series, as counts of events: `(low, high]` is the baseline, `(high, last]` recent.
/// Events up to the watermark never count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where the baseline begins.
    pub low: i64,
    /// Where it ends and the recent window begins.
    pub high: i64,
    /// Whether the baseline of the last trip still stands in: until a whole window and baseline lie after the watermark.
    pub pinned: bool,
}

impl Span {
    /// The windows of a policy over a series of `last` events.
    #[must_use]
    pub fn of(policy: &RegressionPolicy, last: i64, watermark: i64, has_pinned: bool) -> Self {
        let (window, baseline) = (policy.window_events.get(), policy.baseline_events.get());
        Self {
            low: (last - window - baseline).max(watermark),
            high: (last - window).max(watermark),
            pinned: has_pinned && last - watermark < window + baseline,
        }
    }
}

/// What the windows say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluation {
    /// The baseline's mean; none while there are too few events.
    pub baseline: Option<Ratio>,
    /// The recent mean.
    pub current: Option<Ratio>,
    /// The drop, rounded for display.
    pub drop_fraction: Option<Ratio>,
    /// The verdict.
    pub verdict: Verdict,
}

/// The verdict of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Too few events in a window.
    InsufficientEvents {
        /// In the recent one.
        recent: i64,
        /// In the baseline.
        baseline: i64,
    },
    /// The baseline is not positive: a relative drop has no meaning.
    CannotCompute,
    /// The drop is below the threshold.
    Holds,
    /// The drop reaches the threshold.
    Trips,
}

impl Evaluation {
    /// The note, in the original's words.
    #[must_use]
    pub fn note(&self, action: Action) -> String {
        let drop = || self.drop_fraction.unwrap_or_default().short();
        match self.verdict {
            Verdict::InsufficientEvents { recent, baseline } => {
                format!("insufficient_events(recent={recent}, baseline={baseline})")
            }
            Verdict::CannotCompute => "cannot_compute_rate".into(),
            Verdict::Holds => format!("OK drop={}", drop()),
            Verdict::Trips => trip_note(self.drop_fraction.unwrap_or_default(), action),
        }
    }
}

/// The note of a trip, in the original's words.
#[must_use]
pub fn trip_note(drop: Ratio, action: Action) -> String {
    format!("TRIGGERED drop={} action={}", drop.short(), action.as_str())
}

/// Compares the windows, exactly.
#[must_use]
pub fn evaluate(policy: &RegressionPolicy, baseline: Window, recent: Window) -> Evaluation {
    let min = policy.min_events_to_enforce.get();
    if recent.events < min || baseline.events < min {
        let verdict = Verdict::InsufficientEvents { recent: recent.events, baseline: baseline.events };
        return Evaluation { baseline: None, current: None, drop_fraction: None, verdict };
    }
    let (baseline_mean, current) = (baseline.mean(), recent.mean());
    if baseline.sum <= Total::ZERO {
        return Evaluation { baseline: baseline_mean, current, drop_fraction: None, verdict: Verdict::CannotCompute };
    }
    // drop = (Sb/nb - Sc/nc) / (Sb/nb) = (Sb·nc - Sc·nb) / (Sb·nc). Sums are below 10^28 units only in theory; within 10^4
    // events of 10^18 units each, every product here is below 10^33.
    let whole = baseline.sum.units() * i128::from(recent.events);
    let lost = whole - recent.sum.units() * i128::from(baseline.events);
    let trips = lost * 1_000_000 >= policy.max_drop_fraction.units() * whole;
    Evaluation {
        baseline: baseline_mean,
        current,
        drop_fraction: Ratio::of(lost, whole),
        verdict: if trips { Verdict::Trips } else { Verdict::Holds },
    }
}

/// Where a wire stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum WireStatus {
    /// Not watched, and not tripped.
    Disabled,
    /// Watched, with too few events to judge.
    Warmup,
    /// Watched.
    Armed,
    /// Tripped, until it is re-armed.
    Tripped,
}

/// What stands of a wire, as answers show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WireState {
    /// The domain.
    pub domain: Domain,
    /// The metric.
    pub metric: Metric,
    /// Whether it tripped and was not re-armed since.
    pub triggered: bool,
    /// Where it stands.
    pub status: WireStatus,
    /// The baseline's mean at the last check.
    pub baseline: Option<Ratio>,
    /// The recent mean at the last check.
    pub current: Option<Ratio>,
    /// The drop at the last check.
    pub drop_fraction: Option<Ratio>,
    /// When it was last checked; null before the first time.
    pub last_checked_at: Option<DateTime<Utc>>,
    /// When it last tripped.
    pub last_triggered_at: Option<DateTime<Utc>>,
    /// The verdict in words; while it is tripped, that of the trip.
    pub note: String,
    /// The standing trip.
    pub trip_id: Option<i64>,
    /// Events of the series up to the last re-arm; they never count again.
    pub watermark: i64,
    /// The baseline of the last trip, kept until enough new events exist.
    #[serde(skip)]
    pub pinned: Option<Window>,
}

impl WireState {
    /// A wire that was never checked.
    #[must_use]
    pub fn new(domain: Domain, metric: Metric) -> Self {
        Self {
            domain,
            metric,
            triggered: false,
            status: WireStatus::Disabled,
            baseline: None,
            current: None,
            drop_fraction: None,
            last_checked_at: None,
            last_triggered_at: None,
            note: "policy_missing_or_disabled".into(),
            trip_id: None,
            watermark: 0,
            pinned: None,
        }
    }

    /// The status under a policy.
    #[must_use]
    pub fn status_under(&self, policy: Option<&RegressionPolicy>) -> WireStatus {
        match policy {
            _ if self.triggered => WireStatus::Tripped,
            None => WireStatus::Disabled,
            Some(policy) if !policy.enabled => WireStatus::Disabled,
            Some(_) if self.drop_fraction.is_none() && !self.note.starts_with("cannot") => WireStatus::Warmup,
            Some(_) => WireStatus::Armed,
        }
    }
}

#[cfg(test)]
mod tests;
