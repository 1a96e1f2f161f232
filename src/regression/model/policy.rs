//! A wire as it is set up.

use super::{Direction, Effect, Tolerance, Window};
use crate::regression::detector::Settings;
use crate::types::{Amount, Count, Domain, Engine, Fraction, Metric};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Events to a false trip of a THROTTLE, where nothing else is said.
const THROTTLE_ARL: i64 = 50_000;
/// The same of a `KILL_SWITCH`.
const KILL_SWITCH_ARL: i64 = 500_000;

/// The effect of a trip, the weaker first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// Holds the wire's engine off.
    Throttle,
    /// Engages the kill switch.
    KillSwitch,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Throttle, Self::KillSwitch];

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
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// How a drop is told from noise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Detector {
    /// The recent window against the baseline before it, as the original does: quick, and on a rate below 0.9 mostly wrong.
    #[default]
    Plain,
    /// Evidence against a frozen baseline, with a guarantee against false trips.
    Sequential,
}

impl Detector {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Sequential => "SEQUENTIAL",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Plain, Self::Sequential].into_iter().find(|one| one.as_str() == name)
    }
}

/// Whether a trip acts, the weaker first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// It is recorded, and nothing is done.
    Shadow,
    /// It acts.
    #[default]
    Enforce,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Shadow, Self::Enforce];

    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "SHADOW",
            Self::Enforce => "ENFORCE",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// The meaning of a silent series, the weaker first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OnStale {
    /// Nothing.
    Ignore,
    /// The review says so.
    #[default]
    Warn,
    /// The wire trips.
    Trip,
}

impl OnStale {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "IGNORE",
            Self::Warn => "WARN",
            Self::Trip => "TRIP",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Ignore, Self::Warn, Self::Trip].into_iter().find(|one| one.as_str() == name)
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
    /// Events in the baseline before it, or in the frozen one, 1 to 10,000.
    pub baseline_events: Count,
    /// Least events in either before the wire can trip.
    pub min_events_to_enforce: Count,
    /// The drop that trips, as a fraction of the baseline; reaching it trips.
    pub max_drop_fraction: Fraction,
    /// The effect of a trip.
    pub action: Action,
    /// The engine that a THROTTLE holds off; null means the one named like the domain.
    pub engine: Option<Engine>,
    /// How a drop is told from noise.
    pub detector: Detector,
    /// Which way the series is good.
    pub direction: Direction,
    /// The unit of the drop.
    pub effect: Effect,
    /// The drop that trips an ABSOLUTE wire, in the metric's own units; null means `max_drop_fraction` of them.
    pub max_drop_value: Option<Amount>,
    /// Whether a trip acts.
    pub mode: Mode,
    /// The meaning of silence.
    pub on_stale: OnStale,
    /// How long the series may be silent, seconds, 1 to 31,536,000; null means for ever.
    pub stale_after_seconds: Option<Count>,
    /// SEQUENTIAL: events to a false trip on average, at least, 100 to 10^12; null means 50,000, and 500,000 for a `KILL_SWITCH`.
    pub false_trip_arl: Option<Count>,
    /// SEQUENTIAL: how much worse than its baseline, as a fraction, a series may be without evidence against it; null means 0, and
    /// half of `max_drop_fraction` for a `KILL_SWITCH`.
    pub tolerance_fraction: Option<Fraction>,
    /// Whether the wire is watched.
    pub enabled: bool,
    /// The actor of the last change, as claimed.
    pub changed_by: Option<String>,
    /// The reason of the last change, in the caller's words.
    pub reason: Option<String>,
    /// The time of the last change.
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

    /// SEQUENTIAL: the evidence that trips.
    #[must_use]
    pub fn arl(&self) -> i64 {
        let default = if self.action == Action::KillSwitch { KILL_SWITCH_ARL } else { THROTTLE_ARL };
        self.false_trip_arl.map_or(default, Count::get)
    }

    /// SEQUENTIAL: how much worse than its baseline the series may be without evidence against it, in millionths.
    #[must_use]
    pub fn tolerated(&self) -> i128 {
        let default = if self.action == Action::KillSwitch { self.max_drop_fraction.units() / 2 } else { 0 };
        self.tolerance_fraction.map_or(default, Fraction::units)
    }

    /// How much worse the series may become; `boolean` is its kind.
    #[must_use]
    pub fn tolerance(&self, boolean: bool) -> Tolerance {
        let limit = self.max_drop_value.map_or(self.max_drop_fraction.units(), Amount::units);
        Tolerance { direction: self.direction, effect: self.effect, boolean, limit }
    }

    /// SEQUENTIAL: how a baseline of this kind is judged.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "fractions in millionths, and at most 10^12, are below 2^53")]
    pub fn settings(&self, boolean: bool, baseline: Window) -> Settings {
        let tolerated = self.tolerated() as f64 / 1e6;
        Settings::of(self.tolerance(boolean), baseline, tolerated, self.arl() as f64)
    }
}
