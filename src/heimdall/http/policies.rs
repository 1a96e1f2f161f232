//! The HTTP routes of the charter's policies.

use crate::approval::Loosened;
use crate::approval::model::ApprovalRecord;
use crate::audit::{self, PolicyKind, PolicyVersion};
use crate::error::Result;
use crate::heimdall::Heimdall;
use crate::heimdall::charter::{HeimdallPolicyUpserted, no_policy};
use crate::heimdall::model::{GateRule, HeimdallPolicy, PolicyUpsert, PolicyWarning, ScorecardWindow, Setting};
use crate::heimdall::{HeimdallPolicyRemoved, store};
use crate::http::{CanStop, Change, Nothing, Off, Page, Paging, Query, Stopping, errors, said};
use crate::idempotency::Once;
use crate::types::{
    Actor, Count, Domain, Engine, Flag, Fraction, IdempotencyKey, ModelVersion, PageSize, Place, Reason,
};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

said!(HeimdallPolicyUpsert, PromoteInput, DemoteInput, HeimdallPolicyRemove);

pub(super) fn router() -> OpenApiRouter<Heimdall> {
    OpenApiRouter::new()
        .routes(routes!(heimdall_policies))
        .routes(routes!(heimdall_policy_history))
        .routes(routes!(upsert_heimdall_policy))
        .routes(routes!(remove_heimdall_policy))
        .routes(routes!(promote))
        .routes(routes!(demote))
}

/// A policy in the list.
#[derive(Debug, Serialize, ToSchema)]
struct ListedPolicy {
    /// The policy.
    #[serde(flatten)]
    policy: HeimdallPolicy,
    /// The points that an operator should know about the policy.
    warnings: Vec<PolicyWarning>,
}

/// Lists all charter policies.
#[utoipa::path(
    get, path = "/heimdall/policies", tag = "heimdall",
    responses((status = 200, description = "The policies, ordered by domain", body = Vec<ListedPolicy>), errors::Read)
)]
async fn heimdall_policies(State(heimdall): State<Heimdall>, _: Query<Nothing>) -> Result<Json<Vec<ListedPolicy>>> {
    let mut conn = heimdall.db().read().await?;
    let policies = store::read_policies(&mut conn).await?;
    let engines = crate::risk::store::engines(&mut conn).await?;
    let listed = policies.into_iter().map(|policy| ListedPolicy { warnings: policy.warnings(&engines), policy });
    Ok(Json(listed.collect()))
}

/// The policy and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HeimdallPolicyHistoryQuery {
    /// The domain.
    domain: Domain,
    /// The largest number of items, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The place where the last page ended; from the first item when left out.
    cursor: Option<Place>,
}

/// Lists the changes of a domain's policy, promotions and demotions among them, newest first: who, when, why, and each
/// value before and after.
#[utoipa::path(
    get, path = "/heimdall/policies/history", tag = "heimdall", params(HeimdallPolicyHistoryQuery),
    responses((status = 200, description = "A page of changes", body = Page<PolicyVersion>), errors::ReadOne)
)]
async fn heimdall_policy_history(
    State(heimdall): State<Heimdall>,
    Query(query): Query<HeimdallPolicyHistoryQuery>,
) -> Result<Json<Page<PolicyVersion>>> {
    let paging = Paging::new("/heimdall/policies/history", query.limit, query.cursor)?;
    let (mut conn, mut page) = (heimdall.db().read().await?, paging.begin());
    while let Some(portion) = page.wants() {
        let rows = audit::policy_versions(&mut conn, PolicyKind::Heimdall, query.domain.as_str(), portion).await?;
        page.take(rows, |row| row.seq);
    }
    let page = page.end();
    if page.items.is_empty() && store::read_policy(&mut conn, &query.domain).await?.is_none() {
        return Err(no_policy(&query.domain));
    }
    Ok(Json(page))
}

/// The settings of a domain. Fields left out keep their value; a new domain starts at 0.90 / 50 / 0.80 / off.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HeimdallPolicyUpsert {
    /// The domain.
    domain: Domain,
    /// The least confidence of a recommendation, 0 to 1.
    min_confidence_prod: Option<Fraction>,
    /// The least number of trials in the sandbox.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000)]
    min_sandbox_trials: Option<Count>,
    /// The least success rate of those trials, 0 to 1.
    min_sandbox_success_rate: Option<Fraction>,
    /// Whether production may act on the domain.
    prod_use_enabled: Option<Flag>,
    /// The engine whose risk policy must be neither disabled nor throttled at a use.
    engine: Option<Engine>,
    /// Removes the engine from the policy, so that no engine matters.
    remove_engine: Option<Flag>,
    /// The lifetime of a recommendation, seconds; 0 for unlimited. A new policy has 259200, which is 72 h.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 31_536_000)]
    recommendation_ttl_seconds: Option<Count>,
    /// Whether a recommendation may be used only once.
    single_use: Option<Flag>,
    /// The window of the trials that count.
    scorecard_window: Option<ScorecardWindow>,
    /// The days of a rolling window; a new policy has 30.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 365)]
    window_days: Option<Count>,
    /// The rule by which the success rate is compared with its minimum.
    gate_rule: Option<GateRule>,
    /// The only model version whose trials count and whose recommendations may be used.
    approved_model_version: Option<ModelVersion>,
    /// Removes the approved model version, so that all versions count and may be used.
    remove_approved_model_version: Option<Flag>,
    /// Whether overconfidence keeps the gate shut.
    calibration_gate: Option<Flag>,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl CanStop for HeimdallPolicyUpsert {
    const OFF: Option<Off> = Some(Off { thing: "domain", flag: "prod_use_enabled" });
}

impl HeimdallPolicyUpsert {
    fn request(self) -> Result<PolicyUpsert> {
        let flag = |flag: Option<Flag>| flag.map(|flag| flag.0);
        let (without_engine, without_version) = (flag(self.remove_engine), flag(self.remove_approved_model_version));
        Ok(PolicyUpsert {
            domain: self.domain,
            min_confidence_prod: self.min_confidence_prod,
            min_sandbox_trials: self.min_sandbox_trials,
            min_sandbox_success_rate: self.min_sandbox_success_rate,
            prod_use_enabled: flag(self.prod_use_enabled),
            engine: Setting::of("engine", self.engine, without_engine)?,
            recommendation_ttl_seconds: self.recommendation_ttl_seconds,
            single_use: flag(self.single_use),
            scorecard_window: self.scorecard_window,
            window_days: self.window_days,
            gate_rule: self.gate_rule,
            approved_model_version: Setting::of(
                "approved_model_version",
                self.approved_model_version,
                without_version,
            )?,
            calibration_gate: flag(self.calibration_gate),
        })
    }
}

/// Sets the requirements that a domain must meet before production may act on it.
#[utoipa::path(
    post, path = "/heimdall/policies/upsert", tag = "heimdall", request_body = HeimdallPolicyUpsert,
    responses((status = 200, description = "The policy and the changed fields", body = HeimdallPolicyUpserted), (status = 202, description = "The change waits for a second person, who approves it at Location", body = ApprovalRecord), errors::Change)
)]
async fn upsert_heimdall_policy(
    State(heimdall): State<Heimdall>,
    Stopping { mut input, asked, ignored }: Stopping<HeimdallPolicyUpsert>,
) -> Result<Response> {
    let reason = input.reason.take();
    let upserted = heimdall.upsert_policy(&input.request()?, reason.as_ref(), &asked).await?;
    upserted.answer(|once| Ok(ignored.beside(once)))
}

/// A promotion.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PromoteInput {
    /// The domain.
    domain: Domain,
    /// The person or program that acts, as the caller claims.
    actor: Actor,
    /// The reason, in the caller's words.
    reason: Reason,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Lets production act on a domain whose evidence passes now, and keeps the evidence.
///
/// `actor` (or `changed_by`) is required.
#[utoipa::path(
    post, path = "/heimdall/promote", tag = "heimdall", request_body = PromoteInput,
    responses((status = 200, description = "The promoted policy", body = HeimdallPolicyUpserted), (status = 202, description = "The change waits for a second person, who approves it at Location", body = ApprovalRecord), errors::LoosenOne)
)]
async fn promote(
    State(heimdall): State<Heimdall>,
    Change { input, asked }: Change<PromoteInput>,
) -> Result<Loosened<HeimdallPolicyUpserted>> {
    heimdall.promote(&input.domain, &input.reason, &asked).await
}

/// A demotion.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DemoteInput {
    /// The domain.
    domain: Domain,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl CanStop for DemoteInput {
    const OFF: Option<Off> = None;
}

/// Stops production from acting on a domain, whatever its evidence.
#[utoipa::path(
    post, path = "/heimdall/demote", tag = "heimdall", request_body = DemoteInput,
    responses((status = 200, description = "The demoted policy", body = HeimdallPolicyUpserted), errors::ChangeOfOne)
)]
async fn demote(
    State(heimdall): State<Heimdall>,
    Stopping { input, asked, ignored }: Stopping<DemoteInput>,
) -> Result<Response> {
    Ok(ignored.beside(heimdall.demote(&input.domain, input.reason.as_ref(), &asked).await?))
}

/// The domain whose policy is removed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HeimdallPolicyRemove {
    /// The domain.
    domain: Domain,
    /// The person or program that removes it, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Removes the policy of a domain that is off and has never had a trial or a recommendation.
#[utoipa::path(
    post, path = "/heimdall/policies/remove", tag = "heimdall", request_body = HeimdallPolicyRemove,
    responses((status = 200, description = "The domain whose policy was removed", body = HeimdallPolicyRemoved), errors::ChangeOfOne)
)]
async fn remove_heimdall_policy(
    State(heimdall): State<Heimdall>,
    Change { input, asked }: Change<HeimdallPolicyRemove>,
) -> Result<Once<HeimdallPolicyRemoved>> {
    heimdall.remove_policy(&input.domain, input.reason.as_ref(), &asked).await
}
