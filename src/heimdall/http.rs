//! The charter's routes.

use super::model::{HeimdallPolicy, PolicyUpsert, Scorecard};
use super::store::{self, HeimdallEventRecord, RecommendationFilter, RecommendationRecord};
use super::{HeimdallPolicyUpserted, RecommendAnswer, Recommendation, RequireAnswer};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::{Caller, Keyed, Nothing, Page, Paging, Query, Segment, errors};
use crate::idempotency::{Asked, Once};
use crate::types::{
    Actor, Confidence, CorrelationId, Count, Domain, Flag, Fraction, IdempotencyKey, JsonObject, PageSize, Reason,
};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The lever's routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(heimdall_policies))
        .routes(routes!(upsert_heimdall_policy))
        .routes(routes!(scorecard_today))
        .routes(routes!(sandbox_trial))
        .routes(routes!(recommend))
        .routes(routes!(list_recommendations))
        .routes(routes!(get_recommendation))
        .routes(routes!(require_prod_eligible))
        .routes(routes!(heimdall_events))
}

/// All charter policies, by domain.
#[utoipa::path(
    get, path = "/heimdall/policies", tag = "heimdall",
    responses((status = 200, description = "Ordered by domain", body = Vec<HeimdallPolicy>), errors::Read)
)]
async fn heimdall_policies(State(app): State<App>, _: Query<Nothing>) -> Result<Json<Vec<HeimdallPolicy>>> {
    Ok(Json(store::read_policies(&mut *app.heimdall.db().read().await?).await?))
}

/// What to set on a domain. What is left out keeps its value; a new domain starts at 0.90 / 50 / 0.80 / off.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HeimdallPolicyUpsert {
    /// The domain.
    domain: Domain,
    /// Least confidence of a recommendation.
    min_confidence_prod: Option<Fraction>,
    /// Least trials in today's sandbox.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000)]
    min_sandbox_trials: Option<Count>,
    /// Least share of them that succeeded.
    min_sandbox_success_rate: Option<Fraction>,
    /// Whether production may act on the domain at all.
    prod_use_enabled: Option<Flag>,
    /// Who sets it.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Sets what a domain must show before production may act on it.
#[utoipa::path(
    post, path = "/heimdall/policies/upsert", tag = "heimdall", request_body = HeimdallPolicyUpsert,
    responses((status = 200, description = "The policy and what changed", body = HeimdallPolicyUpserted), errors::Change)
)]
async fn upsert_heimdall_policy(
    State(app): State<App>,
    caller: Caller,
    Keyed { input, intent }: Keyed<HeimdallPolicyUpsert>,
) -> Result<Once<HeimdallPolicyUpserted>> {
    let request = PolicyUpsert {
        domain: input.domain,
        min_confidence_prod: input.min_confidence_prod,
        min_sandbox_trials: input.min_sandbox_trials,
        min_sandbox_success_rate: input.min_sandbox_success_rate,
        prod_use_enabled: input.prod_use_enabled.map(|flag| flag.0),
    };
    let asked = Asked::new(caller.origin(input.actor, None), intent);
    app.heimdall.upsert_policy(&request, input.reason.as_ref(), &asked).await
}

/// Today's scorecards: one for every policy, and for every other domain that has trials.
#[utoipa::path(
    get, path = "/heimdall/scorecard/today", tag = "heimdall",
    responses((status = 200, description = "Ordered by domain", body = Vec<Scorecard>), errors::Read)
)]
async fn scorecard_today(State(app): State<App>, _: Query<Nothing>) -> Result<Json<Vec<Scorecard>>> {
    Ok(Json(store::scorecards_today(&mut *app.heimdall.db().read().await?).await?))
}

/// The outcome of a sandbox trial.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SandboxTrial {
    /// The domain.
    domain: Domain,
    /// What the model stated.
    confidence: Confidence,
    /// Whether it was right.
    success: Flag,
    /// Who ran it.
    actor: Option<Actor>,
    /// The caller's own thread.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Counts a sandbox trial.
#[utoipa::path(
    post, path = "/heimdall/sandbox/trial", tag = "heimdall", request_body = SandboxTrial,
    responses((status = 200, description = "The scorecard with it", body = Scorecard), errors::Change)
)]
async fn sandbox_trial(
    State(app): State<App>,
    caller: Caller,
    Keyed { input, intent }: Keyed<SandboxTrial>,
) -> Result<Once<Scorecard>> {
    let asked = Asked::new(caller.origin(input.actor, input.correlation_id), intent);
    app.heimdall.trial(input.domain, input.confidence, input.success.0, &asked).await
}

/// A recommendation of an AI.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RecommendInput {
    /// Its domain.
    domain: Domain,
    /// What the model states.
    confidence: Confidence,
    /// What is recommended.
    recommendation: Option<JsonObject>,
    /// What it rests on.
    evidence: Option<JsonObject>,
    /// Who recommends.
    actor: Option<Actor>,
    /// The caller's own thread.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Takes a recommendation and judges it.
#[utoipa::path(
    post, path = "/heimdall/recommend", tag = "heimdall", request_body = RecommendInput,
    responses((status = 200, description = "The verdict", body = RecommendAnswer), errors::Change)
)]
async fn recommend(
    State(app): State<App>,
    caller: Caller,
    Keyed { input, intent }: Keyed<RecommendInput>,
) -> Result<Once<RecommendAnswer>> {
    let made = Recommendation {
        domain: input.domain,
        confidence: input.confidence,
        recommendation: input.recommendation,
        evidence: input.evidence,
    };
    let asked = Asked::new(caller.origin(input.actor, input.correlation_id), intent);
    app.heimdall.recommend(made, &asked).await
}

/// Which recommendations.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RecommendationQuery {
    /// Of this domain.
    domain: Option<Domain>,
    /// Eligible at creation or not.
    prod_eligible: Option<Flag>,
    /// At most so many, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// Where the last page ended.
    cursor: Option<Count>,
}

/// Recommendations, newest first.
#[utoipa::path(
    get, path = "/heimdall/recommendations", tag = "heimdall", params(RecommendationQuery),
    responses((status = 200, description = "A page", body = Page<RecommendationRecord>), errors::Read)
)]
async fn list_recommendations(
    State(app): State<App>,
    Query(query): Query<RecommendationQuery>,
) -> Result<Json<Page<RecommendationRecord>>> {
    let paging = Paging::new(query.limit, query.cursor);
    let filter = RecommendationFilter {
        domain: query.domain.as_ref().map(Domain::as_str),
        prod_eligible: query.prod_eligible.map(|flag| flag.0),
        id: None,
        before: paging.before,
        limit: paging.fetch(),
    };
    let rows = store::recommendations(&mut *app.heimdall.db().read().await?, &filter).await?;
    Ok(Json(paging.page(rows, |row| row.id)))
}

/// One recommendation.
#[utoipa::path(
    get, path = "/heimdall/recommendations/{id}", tag = "heimdall",
    params(("id" = Count, Path, description = "The recommendation")),
    responses((status = 200, description = "The recommendation", body = RecommendationRecord), errors::ReadOne)
)]
async fn get_recommendation(
    State(app): State<App>,
    Segment(id): Segment<Count>,
    _: Query<Nothing>,
) -> Result<Json<RecommendationRecord>> {
    let found = store::read_recommendation(&mut *app.heimdall.db().read().await?, id.get()).await?;
    found.map(Json).ok_or_else(|| Error::NotFound { what: "recommendation", id: id.to_string() })
}

/// Who wants to act on a recommendation.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RequireInput {
    /// Who acts.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's own thread.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// May production act on this recommendation, now? Every call is an event, but for a replay of a use that was allowed.
#[utoipa::path(
    post, path = "/heimdall/recommendations/{id}/require-prod-eligible", tag = "heimdall", request_body = RequireInput,
    params(("id" = Count, Path, description = "The recommendation")),
    responses((status = 200, description = "It may", body = RequireAnswer), errors::Require)
)]
async fn require_prod_eligible(
    State(app): State<App>,
    Segment(id): Segment<Count>,
    caller: Caller,
    Keyed { input, intent }: Keyed<RequireInput>,
) -> Result<Once<RequireAnswer>> {
    let asked = Asked::new(caller.origin(input.actor, input.correlation_id), intent);
    app.heimdall.require_prod_eligible(id.get(), input.reason, &asked).await
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HeimdallEventQuery {
    /// Of this domain.
    domain: Option<Domain>,
    /// `TRIAL`, `RECOMMEND` or `REQUIRE`.
    #[param(inline)]
    action: Option<HeimdallAction>,
    /// At most so many, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// Where the last page ended.
    cursor: Option<Count>,
}

/// What an event was.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum HeimdallAction {
    Trial,
    Recommend,
    Require,
}

/// Trials, recommendations and uses, newest first.
#[utoipa::path(
    get, path = "/heimdall/events", tag = "heimdall", params(HeimdallEventQuery),
    responses((status = 200, description = "A page", body = Page<HeimdallEventRecord>), errors::Read)
)]
async fn heimdall_events(
    State(app): State<App>,
    Query(query): Query<HeimdallEventQuery>,
) -> Result<Json<Page<HeimdallEventRecord>>> {
    let paging = Paging::new(query.limit, query.cursor);
    let action = query.action.map(|action| match action {
        HeimdallAction::Trial => "TRIAL",
        HeimdallAction::Recommend => "RECOMMEND",
        HeimdallAction::Require => "REQUIRE",
    });
    let mut conn = app.heimdall.db().read().await?;
    let rows =
        store::events(&mut conn, query.domain.as_ref().map(Domain::as_str), action, paging.before, paging.fetch())
            .await?;
    Ok(Json(paging.page(rows, |row| row.seq)))
}
