//! The charter's routes.

use super::Recommendation;
use super::model::{GateReason, HeimdallPolicy, PolicyUpsert, Scorecard};
use super::store::{self, HeimdallEventRecord, RecommendationFilter, RecommendationRecord};
use crate::app::App;
use crate::audit::FieldChange;
use crate::error::{Error, Result};
use crate::http::{Caller, Input, Nothing, Page, Paging, Query, Segment, errors};
use crate::types::{Actor, Confidence, CorrelationId, Count, Domain, Flag, Fraction, JsonObject, Reason};
use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
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
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HeimdallPolicyUpsert {
    /// The domain.
    domain: Domain,
    /// Least confidence of a recommendation.
    min_confidence_prod: Option<Fraction>,
    /// Least trials in today's sandbox.
    min_sandbox_trials: Option<Count>,
    /// Least share of them that succeeded.
    min_sandbox_success_rate: Option<Fraction>,
    /// Whether production may act on the domain at all.
    prod_use_enabled: Option<Flag>,
    /// Who sets it.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
}

/// The policy as it is now, and what the upsert changed.
#[derive(Debug, Serialize, ToSchema)]
struct HeimdallPolicyUpserted {
    #[serde(flatten)]
    policy: HeimdallPolicy,
    /// The fields that moved; empty when nothing did.
    changes: Vec<FieldChange>,
}

/// Sets what a domain must show before production may act on it.
#[utoipa::path(
    post, path = "/heimdall/policies/upsert", tag = "heimdall", request_body = HeimdallPolicyUpsert,
    responses((status = 200, description = "The policy and what changed", body = HeimdallPolicyUpserted), errors::Change)
)]
async fn upsert_heimdall_policy(
    State(app): State<App>,
    caller: Caller,
    Input(input): Input<HeimdallPolicyUpsert>,
) -> Result<Json<HeimdallPolicyUpserted>> {
    let request = PolicyUpsert {
        domain: input.domain,
        min_confidence_prod: input.min_confidence_prod,
        min_sandbox_trials: input.min_sandbox_trials,
        min_sandbox_success_rate: input.min_sandbox_success_rate,
        prod_use_enabled: input.prod_use_enabled.map(|flag| flag.0),
    };
    let origin = caller.origin(input.actor, None);
    let (policy, changes) = app.heimdall.upsert_policy(&request, input.reason.as_ref(), &origin).await?;
    Ok(Json(HeimdallPolicyUpserted { policy, changes: changes.0 }))
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
#[derive(Debug, Deserialize, ToSchema)]
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
}

/// Counts a sandbox trial.
#[utoipa::path(
    post, path = "/heimdall/sandbox/trial", tag = "heimdall", request_body = SandboxTrial,
    responses((status = 200, description = "The scorecard with it", body = Scorecard), errors::Change)
)]
async fn sandbox_trial(
    State(app): State<App>,
    caller: Caller,
    Input(input): Input<SandboxTrial>,
) -> Result<Json<Scorecard>> {
    let origin = caller.origin(input.actor, input.correlation_id);
    Ok(Json(app.heimdall.trial(input.domain, input.confidence, input.success.0, &origin).await?))
}

/// A recommendation of an AI.
#[derive(Debug, Deserialize, ToSchema)]
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
}

/// The verdict on a recommendation.
#[derive(Debug, Serialize, ToSchema)]
struct RecommendAnswer {
    /// Its id.
    id: i64,
    /// Its domain.
    domain: Domain,
    /// Its confidence.
    confidence: Confidence,
    /// Whether production may act on it, as of now.
    prod_eligible: bool,
    /// The first check that failed, or `gate_pass`.
    gate_reason: GateReason,
    /// When.
    created_at: DateTime<Utc>,
}

/// Takes a recommendation and judges it.
#[utoipa::path(
    post, path = "/heimdall/recommend", tag = "heimdall", request_body = RecommendInput,
    responses((status = 200, description = "The verdict", body = RecommendAnswer), errors::Change)
)]
async fn recommend(
    State(app): State<App>,
    caller: Caller,
    Input(input): Input<RecommendInput>,
) -> Result<Json<RecommendAnswer>> {
    let (domain, confidence) = (input.domain.clone(), input.confidence);
    let made = Recommendation {
        domain: input.domain,
        confidence,
        recommendation: input.recommendation,
        evidence: input.evidence,
    };
    let origin = caller.origin(input.actor, input.correlation_id);
    let verdict = app.heimdall.recommend(made, &origin).await?;
    Ok(Json(RecommendAnswer {
        id: verdict.stamp.seq,
        domain,
        confidence,
        prod_eligible: verdict.gate_reason.passes(),
        gate_reason: verdict.gate_reason,
        created_at: verdict.stamp.at,
    }))
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
    limit: Option<Count>,
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
    let paging = Paging::new(query.limit, query.cursor)?;
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
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RequireInput {
    /// Who acts.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's own thread.
    correlation_id: Option<CorrelationId>,
}

/// A use that is allowed.
#[derive(Debug, Serialize, ToSchema)]
struct RequireAnswer {
    /// Always true; a refusal is a 403.
    ok: bool,
    /// The recommendation.
    id: i64,
    /// Its domain.
    domain: Domain,
    /// Its confidence.
    confidence: Confidence,
    /// Always true.
    prod_eligible: bool,
    /// Always `gate_pass`.
    gate_reason: GateReason,
}

/// May production act on this recommendation, now? Every call is an event.
#[utoipa::path(
    post, path = "/heimdall/recommendations/{id}/require-prod-eligible", tag = "heimdall", request_body = RequireInput,
    params(("id" = Count, Path, description = "The recommendation")),
    responses((status = 200, description = "It may", body = RequireAnswer), errors::Require)
)]
async fn require_prod_eligible(
    State(app): State<App>,
    Segment(id): Segment<Count>,
    caller: Caller,
    Input(input): Input<RequireInput>,
) -> Result<Json<RequireAnswer>> {
    let origin = caller.origin(input.actor, input.correlation_id);
    let found = app.heimdall.require_prod_eligible(id.get(), input.reason, &origin).await?;
    Ok(Json(RequireAnswer {
        ok: true,
        id: found.id,
        domain: found.domain,
        confidence: found.confidence,
        prod_eligible: true,
        gate_reason: GateReason::GatePass,
    }))
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
    limit: Option<Count>,
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
    let paging = Paging::new(query.limit, query.cursor)?;
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
