//! The settings of a wire.

use super::{Direction, Effect, Tolerance, Window};
use crate::error::Result;
use crate::identity::Authority;
use crate::regression::detector::Settings;
use crate::types::{Amount, Count, Domain, Engine, Fraction, Metric};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The default of `false_trip_arl` for a THROTTLE, in events.
const THROTTLE_ARL: i64 = 50_000;
/// The default of `false_trip_arl` for a `KILL_SWITCH`, in events.
const KILL_SWITCH_ARL: i64 = 500_000;

/// The effect of a trip, the weaker first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// Throttles the wire's engine.
    Throttle,
    /// Engages the kill switch.
    KillSwitch,
}

impl Action {
    /// Every action, the weaker first.
    pub const ALL: [Self; 2] = [Self::Throttle, Self::KillSwitch];

    /// The action's name in the database and in notes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttle => "THROTTLE",
            Self::KillSwitch => "KILL_SWITCH",
        }
    }

    /// The action with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// The method that tells a drop from noise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Detector {
    /// Compares the recent window with the baseline before it, as the original does: quick, and mostly wrong on a rate
    /// below 0.9.
    #[default]
    Plain,
    /// Gathers evidence against a frozen baseline, with a guarantee against false trips.
    Sequential,
}

impl Detector {
    /// The detector's name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Sequential => "SEQUENTIAL",
        }
    }

    /// The detector with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Plain, Self::Sequential].into_iter().find(|one| one.as_str() == name)
    }
}

/// Whether a trip acts, the weaker first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// A trip is recorded, but nothing is done.
    Shadow,
    /// A trip acts.
    #[default]
    Enforce,
}

impl Mode {
    /// Every mode, the weaker first.
    pub const ALL: [Self; 2] = [Self::Shadow, Self::Enforce];

    /// The mode's name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "SHADOW",
            Self::Enforce => "ENFORCE",
        }
    }

    /// The mode with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// The effect of a silent series, the weaker first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OnStale {
    /// Silence has no effect.
    Ignore,
    /// The review reports the silence.
    #[default]
    Warn,
    /// The wire trips.
    Trip,
}

impl OnStale {
    /// The effect's name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "IGNORE",
            Self::Warn => "WARN",
            Self::Trip => "TRIP",
        }
    }

    /// The effect with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Ignore, Self::Warn, Self::Trip].into_iter().find(|one| one.as_str() == name)
    }
}

/// A wire, which watches one metric of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RegressionPolicy {
    /// The domain.
    pub domain: Domain,
    /// The metric.
    pub metric: Metric,
    /// The number of events in the recent window, 1 to 10,000.
    pub window_events: Count,
    /// The number of events in the baseline before it, or in the frozen one, 1 to 10,000.
    pub baseline_events: Count,
    /// The least number of events in either window before the wire can trip.
    pub min_events_to_enforce: Count,
    /// The drop that trips, as a fraction of the baseline; equality trips.
    pub max_drop_fraction: Fraction,
    /// The effect of a trip.
    pub action: Action,
    /// The engine that a THROTTLE stops; null for the engine with the domain's name.
    pub engine: Option<Engine>,
    /// The method that tells a drop from noise.
    pub detector: Detector,
    /// The direction in which the series is good.
    pub direction: Direction,
    /// The unit of the drop.
    pub effect: Effect,
    /// The drop that trips an ABSOLUTE wire, in the metric's own units; null for `max_drop_fraction` of them.
    pub max_drop_value: Option<Amount>,
    /// Whether a trip acts or is only recorded.
    pub mode: Mode,
    /// The effect of a silent series.
    pub on_stale: OnStale,
    /// The longest silence, seconds, 1 to 31,536,000; null for no limit.
    pub stale_after_seconds: Option<Count>,
    /// SEQUENTIAL: the least mean number of events to a false trip, 100 to 10^12; null for 50,000, and 500,000 for a
    /// `KILL_SWITCH`.
    pub false_trip_arl: Option<Count>,
    /// SEQUENTIAL: the drop below the baseline, as a fraction, that counts as no evidence; null for 0, and half of
    /// `max_drop_fraction` for a `KILL_SWITCH`.
    pub tolerance_fraction: Option<Fraction>,
    /// Whether the wire watches its series.
    pub enabled: bool,
    /// The actor of the last change, as claimed.
    pub changed_by: Option<String>,
    /// The reason of the last change, in the caller's words.
    pub reason: Option<String>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
    /// The number of changes, from 1.
    pub version: i64,
}

impl RegressionPolicy {
    /// The engine that a THROTTLE of this wire stops; none if no engine is named and the domain's name is not a valid
    /// one.
    #[must_use]
    pub fn throttled_engine(&self) -> Option<Engine> {
        self.engine.clone().or_else(|| self.domain.as_str().parse().ok())
    }

    /// Refuses a caller that does not reach both the domain of the wire and its engine, whatever the wire's action is: a
    /// caller that may change the wire could release that engine. A wire without an engine belongs to every engine.
    pub fn require_reach(&self, authority: &Authority) -> Result<()> {
        authority.require_domain(&self.domain)?;
        authority.require_engine(&self.throttled_engine().unwrap_or_else(Engine::global))
    }

    /// SEQUENTIAL: the evidence that trips.
    #[must_use]
    pub fn arl(&self) -> i64 {
        let default = if self.action == Action::KillSwitch { KILL_SWITCH_ARL } else { THROTTLE_ARL };
        self.false_trip_arl.map_or(default, Count::get)
    }

    /// SEQUENTIAL: the drop below the baseline that counts as no evidence, in millionths.
    #[must_use]
    pub fn tolerated(&self) -> i128 {
        let default = if self.action == Action::KillSwitch { self.max_drop_fraction.units() / 2 } else { 0 };
        self.tolerance_fraction.map_or(default, Fraction::units)
    }

    /// The drop that trips; `boolean` is the kind of the series.
    #[must_use]
    pub fn tolerance(&self, boolean: bool) -> Tolerance {
        let limit = self.max_drop_value.map_or(self.max_drop_fraction.units(), Amount::units);
        Tolerance { direction: self.direction, effect: self.effect, boolean, limit }
    }

    /// SEQUENTIAL: the settings by which a baseline of this kind is judged.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "fractions in millionths, and at most 10^12, are below 2^53")]
    pub fn settings(&self, boolean: bool, baseline: Window) -> Settings {
        let tolerated = self.tolerated() as f64 / 1e6;
        Settings::of(self.tolerance(boolean), baseline, tolerated, self.arl() as f64)
    }
}
