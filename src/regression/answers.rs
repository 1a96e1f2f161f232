//! The answers of the tripwire's changes.

use crate::audit::FieldChange;
use crate::regression::model::{self, Action, Kind, Rebase, RegressionPolicy, TripVerdict, WireState};
use crate::regression::store::Caused;
use crate::types::{Domain, Engine, Metric, Ratio};
use serde::Serialize;
use utoipa::ToSchema;

/// A trip, in the answer to the measurement that caused it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Tripped {
    /// The id of the trip.
    pub trip_id: i64,
    /// The effect of the trip.
    pub action: Action,
    /// The throttled engine; null for a kill switch.
    pub engine: Option<Engine>,
    /// The drop that tripped; null if the series went silent.
    pub drop_fraction: Option<Ratio>,
    /// Whether the wire is in SHADOW mode, so that nothing was done.
    pub shadow: bool,
    /// The trip as a sentence.
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
    /// The measurement's sequence number in the KPI stream.
    pub id: i64,
    /// The trip that this measurement caused; null if it caused none.
    pub tripped: Option<Tripped>,
    /// Whether an enabled wire watches the series.
    pub watched: bool,
    /// Whether the measurement had been recorded before, under the same `event_id`.
    pub duplicate: bool,
}

/// The state of the wire after an evaluation.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvaluateAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The state of the wire after this.
    pub state: WireState,
}

/// The wire after an upsert, and the changes of the upsert.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegressionPolicyUpserted {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The wire's settings after this.
    pub policy: RegressionPolicy,
    /// The fields that changed; empty if none did.
    pub changes: Vec<FieldChange>,
    /// The trip that the upsert ended; null if it ended none.
    pub rearmed: Option<i64>,
    /// The warnings that follow from the last events of the series.
    pub warnings: Vec<String>,
}

/// The verdict on a trip.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcknowledgeAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The id of the trip.
    pub trip_id: i64,
    /// The verdict.
    pub verdict: TripVerdict,
    /// The state of the wire after this.
    pub state: WireState,
}

/// A wire that was re-armed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RearmAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The id of the trip that this ended.
    pub trip_id: i64,
    /// The effect on the baseline.
    pub baseline: Rebase,
    /// The state of the wire after this.
    pub state: WireState,
    /// The judgements that the wire cannot make yet, as sentences.
    pub warnings: Vec<String>,
}

/// A wire that was given a new baseline.
#[derive(Debug, Serialize, ToSchema)]
pub struct BaselineAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The version of the baseline.
    pub version: i64,
    /// The source of the baseline.
    pub source: Rebase,
    /// The state of the wire after this.
    pub state: WireState,
    /// The judgements that the wire cannot make yet, as sentences.
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
    /// The kind that the next events must have.
    pub kind: Kind,
    /// The number of older events, which never count again for a wire; 0 if all are of this kind.
    pub since: i64,
    /// Whether this request changed the kind.
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
