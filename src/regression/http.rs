//! The HTTP routes of wires, measurements and trips. Backtests, batches and an operator's acts have files of their own.

mod backtest;
mod batch;
mod operate;

use super::model::{
    Action, Detector, Direction, Effect, KpiEvent, Measurement, Mode, OnStale, PolicyUpsert, RegressionPolicy,
    WireState, series_name,
};
use super::store::{self, KpiFilter, KpiRecord, TripRecord};
use crate::approval::Loosened;
use crate::approval::model::ApprovalRecord;
use crate::audit::{self, PolicyKind, PolicyVersion, Stream};
use crate::error::{Error, Result};
use crate::http::{Change, Nothing, Page, Paging, Query, errors, marked, said};
use crate::idempotency::{Asked, Once};
use crate::regression::Regression;
use crate::regression::measure::{Measurements, answer_one};
use crate::regression::{EvaluateAnswer, KpiAnswer, RegressionPolicyUpserted};
use crate::types::{
    Actor, Amount, CorrelationId, Count, Detail, Domain, Engine, EventId, Flag, Fraction, IdempotencyKey, Measured,
    Metric, PageSize, Place, Reason,
};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

said!(RegressionPolicyUpsert, EvaluateInput);
said!(with correlation_id: KpiInput);

/// The routes of this lever, relative to the base path.
pub fn router() -> OpenApiRouter<Regression> {
    OpenApiRouter::new()
        .routes(routes!(regression_policies))
        .routes(routes!(regression_policy_history))
        .routes(routes!(upsert_regression_policy))
        .routes(routes!(regression_state))
        .routes(routes!(evaluate))
        .routes(routes!(record_kpi, list_kpi))
        .routes(routes!(list_trips))
        .merge(backtest::router())
        .merge(batch::router())
        .merge(operate::router())
}

/// Lists all wires.
#[utoipa::path(
    get, path = "/regression/policies", tag = "regression",
    responses((status = 200, description = "The wires, ordered by domain and metric", body = Vec<RegressionPolicy>), errors::Read)
)]
async fn regression_policies(
    State(regression): State<Regression>,
    _: Query<Nothing>,
) -> Result<Json<Vec<RegressionPolicy>>> {
    Ok(Json(store::read_policies(&mut *regression.db().read().await?).await?))
}

/// The wire and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RegressionPolicyHistoryQuery {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// The largest number of items, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The place where the last page ended; from the first item when left out.
    cursor: Option<Place>,
}

/// Lists the changes of a wire, newest first: who, when, why, and each value before and after.
#[utoipa::path(
    get, path = "/regression/policies/history", tag = "regression", params(RegressionPolicyHistoryQuery),
    responses((status = 200, description = "A page of changes", body = Page<PolicyVersion>), errors::ReadOne)
)]
async fn regression_policy_history(
    State(regression): State<Regression>,
    Query(query): Query<RegressionPolicyHistoryQuery>,
) -> Result<Json<Page<PolicyVersion>>> {
    let paging = Paging::new("/regression/policies/history", query.limit, query.cursor)?;
    let wire = series_name(&query.domain, &query.metric);
    let (mut conn, mut page) = (regression.db().read().await?, paging.begin());
    while let Some(portion) = page.wants() {
        let rows = audit::policy_versions(&mut conn, PolicyKind::Regression, &wire, portion).await?;
        page.take(rows, |row| row.seq);
    }
    let page = page.end();
    if page.items.is_empty() && store::read_policy(&mut conn, &query.domain, &query.metric).await?.is_none() {
        return Err(Error::NotFound { what: "wire", id: wire });
    }
    Ok(Json(page))
}

/// The settings of a wire. Fields left out keep their value; a new wire starts at 50/200/50/0.20/THROTTLE, enabled.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RegressionPolicyUpsert {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// The number of events in the recent window, 1 to 10,000.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 10_000)]
    window_events: Option<Count>,
    /// The number of events in the baseline before it, 1 to 10,000.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 10_000)]
    baseline_events: Option<Count>,
    /// The least number of events in either window before the wire can trip.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 10_000)]
    min_events_to_enforce: Option<Count>,
    /// The drop that trips, as a fraction of the baseline.
    #[schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 1)]
    max_drop_fraction: Option<Fraction>,
    /// The effect of a trip.
    action: Option<Action>,
    /// The engine that a THROTTLE stops; when left out, the engine with the domain's name.
    engine: Option<Engine>,
    /// PLAIN or SEQUENTIAL; PLAIN when left out of a new wire.
    detector: Option<Detector>,
    /// `HIGHER_IS_BETTER` or `LOWER_IS_BETTER`; a rate that should be low is judged by its complement.
    direction: Option<Direction>,
    /// RELATIVE or ABSOLUTE: a fraction of the baseline, or the metric's own units.
    effect: Option<Effect>,
    /// ABSOLUTE: the drop that trips, in the metric's own units; 0 removes it, and `max_drop_fraction` of them then
    /// applies.
    max_drop_value: Option<Amount>,
    /// ENFORCE, or SHADOW, which only records the trip.
    mode: Option<Mode>,
    /// The effect of a silent series: IGNORE, WARN or TRIP.
    on_stale: Option<OnStale>,
    /// The longest silence, seconds, 1 to 31,536,000; 0 for no limit.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 31_536_000)]
    stale_after_seconds: Option<Count>,
    /// SEQUENTIAL: the least mean number of events to a false trip, from 100; 0 for the default of the action.
    false_trip_arl: Option<Count>,
    /// SEQUENTIAL: the drop below the baseline, as a fraction below 1, that counts as no evidence.
    #[schema(value_type = Option<f64>, minimum = 0, exclusive_maximum = 1)]
    tolerance_fraction: Option<Fraction>,
    /// Whether the wire watches its series. `true` on a tripped wire re-arms it and needs a reason.
    enabled: Option<Flag>,
    /// Accepts a wire that chance is likely to trip: a `KILL_SWITCH` by PLAIN on values.
    force: Option<Flag>,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Sets up a wire, or re-arms a tripped one.
#[utoipa::path(
    post, path = "/regression/policies/upsert", tag = "regression", request_body = RegressionPolicyUpsert,
    responses((status = 200, description = "The wire and the changed fields", body = RegressionPolicyUpserted), (status = 202, description = "The change waits for a second person, who approves it at Location", body = ApprovalRecord), errors::Change)
)]
async fn upsert_regression_policy(
    State(regression): State<Regression>,
    Change { input, asked }: Change<RegressionPolicyUpsert>,
) -> Result<Loosened<RegressionPolicyUpserted>> {
    let request = PolicyUpsert {
        domain: input.domain,
        metric: input.metric,
        window_events: input.window_events,
        baseline_events: input.baseline_events,
        min_events_to_enforce: input.min_events_to_enforce,
        max_drop_fraction: input.max_drop_fraction,
        action: input.action,
        engine: input.engine,
        detector: input.detector,
        direction: input.direction,
        effect: input.effect,
        max_drop_value: input.max_drop_value,
        mode: input.mode,
        on_stale: input.on_stale,
        stale_after_seconds: input.stale_after_seconds,
        false_trip_arl: input.false_trip_arl,
        tolerance_fraction: input.tolerance_fraction,
        enabled: input.enabled.map(|flag| flag.0),
    };
    let force = input.force.is_some_and(|flag| flag.0);
    regression.upsert_wire(&request, force, input.reason.as_ref(), &asked).await
}

/// Lists the state of every wire.
#[utoipa::path(
    get, path = "/regression/state", tag = "regression",
    responses((status = 200, description = "The states, ordered by domain and metric", body = Vec<WireState>), errors::Read)
)]
async fn regression_state(State(regression): State<Regression>, _: Query<Nothing>) -> Result<Json<Vec<WireState>>> {
    Ok(Json(store::read_states(&mut *regression.db().read().await?).await?))
}

/// The wire to evaluate.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EvaluateInput {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Evaluates a wire now.
///
/// Every measurement is evaluated when it is recorded, so this is a read; it acts if the wire trips.
#[utoipa::path(
    post, path = "/regression/evaluate", tag = "regression", request_body = EvaluateInput,
    responses((status = 200, description = "The state of the wire", body = EvaluateAnswer), errors::Change)
)]
async fn evaluate(
    State(regression): State<Regression>,
    Change { input, asked }: Change<EvaluateInput>,
) -> Result<Once<EvaluateAnswer>> {
    regression.evaluate(&input.domain, &input.metric, &asked).await
}

/// A measurement: `success` or `value`, never both.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KpiInput {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// Whether the measured action succeeded, for a series of successes.
    success: Option<Flag>,
    /// The measured value, for a series of values.
    value: Option<Measured>,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The caller's id for everything that belongs to one undertaking.
    correlation_id: Option<CorrelationId>,
    /// Remarks, up to 4 KiB.
    detail: Option<Detail>,
    /// The caller's own id: a repeated measurement with the same id is recorded once.
    event_id: Option<EventId>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Records a measurement and evaluates its wire.
#[utoipa::path(
    post, path = "/regression/kpi", tag = "regression", request_body = KpiInput,
    responses((status = 200, description = "The recorded measurement and its trip", body = KpiAnswer), errors::Change)
)]
async fn record_kpi(
    State(regression): State<Regression>,
    Change { input, asked }: Change<KpiInput>,
) -> Result<Response> {
    let event = KpiEvent {
        domain: input.domain,
        metric: input.metric,
        measurement: Measurement::given(input.success, input.value)?,
        event_id: input.event_id,
        detail: input.detail,
    };
    let Asked { origin, intent, .. } = asked;
    let measurements = Measurements { events: vec![(event, origin)], intent, answer: Box::new(answer_one) };
    let done = regression.record(measurements).await?;
    Ok(marked(done.replayed, Json(done.answer)))
}

/// The measurements to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct KpiQuery {
    /// Only this domain.
    domain: Option<Domain>,
    /// Only this metric.
    metric: Option<Metric>,
    /// The largest number of items, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The place where the last page ended; from the first item when left out.
    cursor: Option<Place>,
}

/// Lists measurements, newest first.
#[utoipa::path(
    get, path = "/regression/kpi", tag = "regression", params(KpiQuery),
    responses((status = 200, description = "A page of measurements", body = Page<KpiRecord>), errors::Read)
)]
async fn list_kpi(
    State(regression): State<Regression>,
    Query(query): Query<KpiQuery>,
) -> Result<Json<Page<KpiRecord>>> {
    let paging = Paging::new("/regression/kpi", query.limit, query.cursor)?;
    let filter = KpiFilter {
        domain: query.domain.as_ref().map(Domain::as_str),
        metric: query.metric.as_ref().map(Metric::as_str),
    };
    let mut conn = regression.db().read().await?;
    // An index leads to the measurements of a series.
    let mut page = match (filter.domain, filter.metric) {
        (None, None) | (Some(_), Some(_)) => paging.begin(),
        _ => paging.begin_within(1, audit::head_seq(&mut conn, Stream::Kpi).await?),
    };
    while let Some(portion) = page.wants() {
        page.take(store::kpi_events(&mut conn, filter, portion).await?, |row| row.id);
    }
    Ok(Json(page.end()))
}

/// Lists trips, newest first.
#[utoipa::path(
    get, path = "/regression/trips", tag = "regression", params(KpiQuery),
    responses((status = 200, description = "A page of trips", body = Page<TripRecord>), errors::Read)
)]
async fn list_trips(
    State(regression): State<Regression>,
    Query(query): Query<KpiQuery>,
) -> Result<Json<Page<TripRecord>>> {
    let paging = Paging::new("/regression/trips", query.limit, query.cursor)?;
    let domain = query.domain.as_ref().map(Domain::as_str);
    let metric = query.metric.as_ref().map(Metric::as_str);
    let (mut conn, mut page) = (regression.db().read().await?, paging.begin());
    while let Some(portion) = page.wants() {
        page.take(store::trips(&mut conn, domain, metric, None, portion).await?, |row| row.id);
    }
    Ok(Json(page.end()))
}
