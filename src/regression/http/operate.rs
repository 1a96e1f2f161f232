//! The HTTP routes of an operator's acts on a wire and its series: give a verdict on a trip, re-arm, set another
//! baseline, remove the wire, set the kind of the series.

use crate::approval::Loosened;
use crate::approval::model::ApprovalRecord;
use crate::error::Result;
use crate::http::{Change, Query, errors, said};
use crate::idempotency::Once;
use crate::regression::Regression;
use crate::regression::model::{Kind, Rebase, TripVerdict};
use crate::regression::store::{self, BaselineRecord};
use crate::regression::{AcknowledgeAnswer, BaselineAnswer, KindAnswer, RearmAnswer, RegressionPolicyRemoved};
use crate::types::{Actor, Count, Domain, Flag, IdempotencyKey, Metric, Reason};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

said!(AcknowledgeTrip, RearmWire, ResetBaseline, RegressionPolicyRemove, SetSeriesKind);

pub(super) fn router() -> OpenApiRouter<Regression> {
    OpenApiRouter::new()
        .routes(routes!(acknowledge_trip))
        .routes(routes!(rearm_wire))
        .routes(routes!(reset_baseline))
        .routes(routes!(list_baselines))
        .routes(routes!(remove_regression_policy))
        .routes(routes!(set_series_kind))
}

/// A verdict on a trip.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AcknowledgeTrip {
    /// The domain of the wire.
    domain: Domain,
    /// The metric of the wire.
    metric: Metric,
    /// `TRUE_REGRESSION`, `FALSE_ALARM` or `EXPECTED_CHANGE`.
    verdict: TripVerdict,
    /// The id of an earlier trip of the wire; when left out, the standing trip.
    #[schema(value_type = Option<i64>, minimum = 1)]
    trip_id: Option<Count>,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Gives a verdict on a trip.
///
/// The wire stays as it is. A later verdict replaces an earlier one.
#[utoipa::path(
    post, path = "/regression/acknowledge", tag = "regression", request_body = AcknowledgeTrip,
    responses((status = 200, description = "The verdict and the state of the wire", body = AcknowledgeAnswer), errors::ChangeOfOne)
)]
async fn acknowledge_trip(
    State(regression): State<Regression>,
    Change { input, asked }: Change<AcknowledgeTrip>,
) -> Result<Once<AcknowledgeAnswer>> {
    let trip_id = input.trip_id.map(Count::get);
    let wire = (&input.domain, &input.metric);
    regression.acknowledge(wire, trip_id, input.verdict, input.reason.as_ref(), &asked).await
}

/// The wire to re-arm.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RearmWire {
    /// The domain of the wire.
    domain: Domain,
    /// The metric of the wire.
    metric: Metric,
    /// KEEP (the default), `RESET_LAST_N` or `RESET_NEXT_N`.
    baseline: Option<Rebase>,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The cause, and its repair.
    reason: Reason,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Re-arms a tripped wire and lifts its throttle.
///
/// Events up to now never count again. A kill switch that it engaged stays engaged.
#[utoipa::path(
    post, path = "/regression/rearm", tag = "regression", request_body = RearmWire,
    responses((status = 200, description = "The ended trip and the state of the wire", body = RearmAnswer), (status = 202, description = "The change waits for a second person, who approves it at Location", body = ApprovalRecord), errors::ChangeOfOne)
)]
async fn rearm_wire(
    State(regression): State<Regression>,
    Change { input, asked }: Change<RearmWire>,
) -> Result<Loosened<RearmAnswer>> {
    let wire = (&input.domain, &input.metric);
    regression.rearm(wire, input.baseline.unwrap_or_default(), &input.reason, &asked).await
}

/// The source of a new baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum BaselineSource {
    /// The last `baseline_events` events.
    LastN,
    /// The next `baseline_events` events; until they have arrived, nothing is judged.
    NextN,
}

/// The wire that gets another baseline.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResetBaseline {
    /// The domain of the wire.
    domain: Domain,
    /// The metric of the wire.
    metric: Metric,
    /// `LAST_N` (the default) or `NEXT_N`.
    source: Option<BaselineSource>,
    /// Accepts the reset although the wire is tripped or the new baseline is worse.
    force: Option<Flag>,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Gives a wire another baseline, as in the Friday procedure.
#[utoipa::path(
    post, path = "/regression/baseline/reset", tag = "regression", request_body = ResetBaseline,
    responses((status = 200, description = "The baseline's version and the state of the wire", body = BaselineAnswer), (status = 202, description = "The change waits for a second person, who approves it at Location", body = ApprovalRecord), errors::ChangeOfOne)
)]
async fn reset_baseline(
    State(regression): State<Regression>,
    Change { input, asked }: Change<ResetBaseline>,
) -> Result<Loosened<BaselineAnswer>> {
    let source = match input.source {
        None | Some(BaselineSource::LastN) => Rebase::ResetLastN,
        Some(BaselineSource::NextN) => Rebase::ResetNextN,
    };
    let force = input.force.is_some_and(|flag| flag.0);
    regression.reset_baseline((&input.domain, &input.metric), source, force, input.reason.as_ref(), &asked).await
}

/// The wires whose baselines to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct BaselineQuery {
    /// Only this domain.
    domain: Option<Domain>,
    /// Only this metric.
    metric: Option<Metric>,
}

/// Lists the baselines that wires were given, newest first, at most 1000.
#[utoipa::path(
    get, path = "/regression/baselines", tag = "regression", params(BaselineQuery),
    responses((status = 200, description = "The baselines, newest first", body = Vec<BaselineRecord>), errors::Read)
)]
async fn list_baselines(
    State(regression): State<Regression>,
    Query(query): Query<BaselineQuery>,
) -> Result<Json<Vec<BaselineRecord>>> {
    let mut conn = regression.db().read().await?;
    Ok(Json(store::baselines(&mut conn, query.domain.as_ref(), query.metric.as_ref()).await?))
}

/// The wire to remove.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RegressionPolicyRemove {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// The person or program that removes it, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Removes a disabled wire and the declared kind of a series that has no measurement.
#[utoipa::path(
    post, path = "/regression/policies/remove", tag = "regression", request_body = RegressionPolicyRemove,
    responses((status = 200, description = "The removed wire", body = RegressionPolicyRemoved), errors::ChangeOfOne)
)]
async fn remove_regression_policy(
    State(regression): State<Regression>,
    Change { input, asked }: Change<RegressionPolicyRemove>,
) -> Result<Once<RegressionPolicyRemoved>> {
    regression.remove_wire((&input.domain, &input.metric), input.reason.as_ref(), &asked).await
}

/// The kind that the events of a series must have.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetSeriesKind {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// `BOOLEAN` for successes and failures, `NUMERIC` for values.
    kind: Kind,
    /// The person or program that sets it, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Sets the kind of the events of a series.
///
/// This is possible before its first event, or while no enabled wire watches it. Older events never count again for a
/// wire.
#[utoipa::path(
    post, path = "/regression/kind", tag = "regression", request_body = SetSeriesKind,
    responses((status = 200, description = "The kind of the series", body = KindAnswer), errors::Change)
)]
async fn set_series_kind(
    State(regression): State<Regression>,
    Change { input, asked }: Change<SetSeriesKind>,
) -> Result<Once<KindAnswer>> {
    regression.set_kind((&input.domain, &input.metric), input.kind, input.reason.as_ref(), &asked).await
}
