//! The answers of the tripwire.

use crate::audit::FieldChange;
use crate::regression::model::{self, Action, Kind, Rebase, RegressionPolicy, TripVerdict, WireState};
use crate::regression::store::Caused;
use crate::types::{Domain, Engine, Metric, Ratio};
use serde::Serialize;
use utoipa::ToSchema;

/// A trip, as the answer to the measurement that caused it shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Tripped {
    /// The trip.
    pub trip_id: i64,
    /// Its effect.
    pub action: Action,
    /// The engine it throttled.
    pub engine: Option<Engine>,
    /// The drop.
    pub drop_fraction: Option<Ratio>,
    /// Whether the wire is in SHADOW mode: nothing was done.
    pub shadow: bool,
    /// The same in words.
    pub note: String,
}

impl Tripped {
    pub(super) fn of(caused: Caused) -> Self {
        let Caused { id: trip_id, action, engine, drop: drop_fraction, shadow } = caused;
        let note = model::trip_note(drop_fraction.unwrap_or_default(), action);
        Self { trip_id, action, engine, drop_fraction, shadow, note }
    }
}

/// The outcome of a measurement.
#[derive(Debug, Serialize, ToSchema)]
pub struct KpiAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// Its sequence number in the KPI stream.
    pub id: i64,
    /// The trip that this measurement caused; null when it caused none.
    pub tripped: Option<Tripped>,
    /// Whether an enabled wire looks at it.
    pub watched: bool,
    /// Whether it had been recorded before, under the same `event_id`.
    pub duplicate: bool,
}

/// Where the wire stands after the evaluation.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvaluateAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The wire's state.
    pub state: WireState,
}

/// The wire as it is now, and what the upsert changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegressionPolicyUpserted {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The wire.
    pub policy: RegressionPolicy,
    /// The fields that moved; empty when nothing did.
    pub changes: Vec<FieldChange>,
    /// The trip that the upsert ended.
    pub rearmed: Option<i64>,
    /// The objections of the last events of the series to this setting.
    pub warnings: Vec<String>,
}

/// The verdict on a trip.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcknowledgeAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The trip.
    pub trip_id: i64,
    /// The verdict.
    pub verdict: TripVerdict,
    /// The wire's state.
    pub state: WireState,
}

/// A wire that is armed again.
#[derive(Debug, Serialize, ToSchema)]
pub struct RearmAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The trip that this ended.
    pub trip_id: i64,
    /// The effect on the baseline.
    pub baseline: Rebase,
    /// The wire's state.
    pub state: WireState,
    /// The judgements that the wire cannot make yet.
    pub warnings: Vec<String>,
}

/// A wire with another baseline.
#[derive(Debug, Serialize, ToSchema)]
pub struct BaselineAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The baseline's version.
    pub version: i64,
    /// Where it comes from.
    pub source: Rebase,
    /// The wire's state.
    pub state: WireState,
    /// The judgements that the wire cannot make yet.
    pub warnings: Vec<String>,
}

/// The kind of a series.
#[derive(Debug, Serialize, ToSchema)]
pub struct KindAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The domain.
    pub domain: Domain,
    /// The metric.
    pub metric: Metric,
    /// The kind that its next events must have.
    pub kind: Kind,
    /// How many events are older, and never count again for a wire; 0 where all are of this kind.
    pub since: i64,
    /// Whether this request changed anything.
    pub changed: bool,
}

/// The wire that was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegressionPolicyRemoved {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The domain.
    pub domain: Domain,
    /// The metric.
    pub metric: Metric,
}
