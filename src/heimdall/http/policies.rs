//! The routes of the charter's policies.

use crate::approval::Loosened;
use crate::approval::model::ApprovalRecord;
use crate::error::Result;
use crate::heimdall::Heimdall;
use crate::heimdall::charter::HeimdallPolicyUpserted;
use crate::heimdall::model::{GateRule, HeimdallPolicy, PolicyUpsert, PolicyWarning, ScorecardWindow, Setting};
use crate::heimdall::{HeimdallPolicyRemoved, store};
use crate::http::{Caller, CanStop, Change, Nothing, Off, Query, Stopping, errors, said};
use crate::idempotency::{Asked, Once};
use crate::types::{Actor, Count, Domain, Engine, Flag, Fraction, IdempotencyKey, ModelVersion, Reason};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

said!(PromoteInput, HeimdallPolicyRemove);

pub(super) fn router() -> OpenApiRouter<Heimdall> {
    OpenApiRouter::new()
        .routes(routes!(heimdall_policies))
        .routes(routes!(upsert_heimdall_policy))
        .routes(routes!(remove_heimdall_policy))
        .routes(routes!(promote))
        .routes(routes!(demote))
}

/// A policy as the list shows it.
#[derive(Debug, Serialize, ToSchema)]
struct ListedPolicy {
    /// The policy.
    #[serde(flatten)]
    policy: HeimdallPolicy,
    /// The points that an operator should know about it.
    warnings: Vec<PolicyWarning>,
}

/// All charter policies, by domain.
#[utoipa::path(
    get, path = "/heimdall/policies", tag = "heimdall",
    responses((status = 200, description = "Ordered by domain", body = Vec<ListedPolicy>), errors::Read)
)]
async fn heimdall_policies(State(heimdall): State<Heimdall>, _: Query<Nothing>) -> Result<Json<Vec<ListedPolicy>>> {
    let mut conn = heimdall.db().read().await?;
    let policies = store::read_policies(&mut conn).await?;
    let engines = crate::risk::store::engines(&mut conn).await?;
    let listed = policies.into_iter().map(|policy| ListedPolicy { warnings: policy.warnings(&engines), policy });
    Ok(Json(listed.collect()))
}

/// The settings of a domain. Fields left out keep their value; a new domain starts at 0.90 / 50 / 0.80 / off.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HeimdallPolicyUpsert {
    /// The domain.
    domain: Domain,
    /// Least confidence of a recommendation.
    min_confidence_prod: Option<Fraction>,
    /// Least trials in the sandbox.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000)]
    min_sandbox_trials: Option<Count>,
    /// Least share of them that succeeds.
    min_sandbox_success_rate: Option<Fraction>,
    /// Whether production may act on the domain at all.
    prod_use_enabled: Option<Flag>,
    /// The risk policy that must not be disabled or throttled at a use.
    engine: Option<Engine>,
    /// Whether no engine matters any more.
    remove_engine: Option<Flag>,
    /// How long a recommendation may be used, seconds; 0: for ever. At first 259200, which is 72 h.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 31_536_000)]
    recommendation_ttl_seconds: Option<Count>,
    /// Whether a recommendation may be used once.
    single_use: Option<Flag>,
    /// Which trials count.
    scorecard_window: Option<ScorecardWindow>,
    /// The days of a rolling window; at first 30.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 365)]
    window_days: Option<Count>,
    /// How the success rate is held against its minimum.
    gate_rule: Option<GateRule>,
    /// The only model version whose trials count and whose recommendations may be used.
    approved_model_version: Option<ModelVersion>,
    /// Whether all model versions count and may be used from now on.
    remove_approved_model_version: Option<Flag>,
    /// Whether overconfidence keeps the gate shut.
    calibration_gate: Option<Flag>,
    /// The actor.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
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

/// Sets what a domain must show before production may act on it.
#[utoipa::path(
    post, path = "/heimdall/policies/upsert", tag = "heimdall", request_body = HeimdallPolicyUpsert,
    responses((status = 200, description = "The policy and what changed", body = HeimdallPolicyUpserted), (status = 202, description = "It waits for a second person: Location is where they approve", body = ApprovalRecord), errors::Change)
)]
async fn upsert_heimdall_policy(
    State(heimdall): State<Heimdall>,
    caller: Caller,
    Stopping { mut input, intent, ignored }: Stopping<HeimdallPolicyUpsert>,
) -> Result<Response> {
    let (actor, reason) = (input.actor.take(), input.reason.take());
    let asked = Asked::new(caller.origin(actor, None), intent);
    let upserted = heimdall.upsert_policy(&input.request()?, reason.as_ref(), &asked).await?;
    upserted.answer(|once| Ok(ignored.beside(once)))
}

/// A promotion.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PromoteInput {
    /// The domain.
    domain: Domain,
    /// Who.
    actor: Actor,
    /// Why.
    reason: Reason,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Lets production act on a domain whose evidence passes now, and keeps the evidence. `actor` (or `changed_by`) is required.
#[utoipa::path(
    post, path = "/heimdall/promote", tag = "heimdall", request_body = PromoteInput,
    responses((status = 200, description = "Promoted", body = HeimdallPolicyUpserted), (status = 202, description = "It waits for a second person: Location is where they approve", body = ApprovalRecord), errors::LoosenOne)
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
    /// Who.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl CanStop for DemoteInput {
    const OFF: Option<Off> = None;
}

/// Lets production act on a domain no more, whatever its evidence.
#[utoipa::path(
    post, path = "/heimdall/demote", tag = "heimdall", request_body = DemoteInput,
    responses((status = 200, description = "Demoted", body = HeimdallPolicyUpserted), errors::ChangeOfOne)
)]
async fn demote(
    State(heimdall): State<Heimdall>,
    caller: Caller,
    Stopping { input, intent, ignored }: Stopping<DemoteInput>,
) -> Result<Response> {
    let asked = Asked::new(caller.origin(input.actor, None), intent);
    Ok(ignored.beside(heimdall.demote(&input.domain, input.reason.as_ref(), &asked).await?))
}

/// The domain whose policy is removed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HeimdallPolicyRemove {
    /// The domain.
    domain: Domain,
    /// The actor who removes it.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Removes the policy of a domain that is off and that nothing was ever tried or recommended in.
#[utoipa::path(
    post, path = "/heimdall/policies/remove", tag = "heimdall", request_body = HeimdallPolicyRemove,
    responses((status = 200, description = "Removed", body = HeimdallPolicyRemoved), errors::ChangeOfOne)
)]
async fn remove_heimdall_policy(
    State(heimdall): State<Heimdall>,
    Change { input, asked }: Change<HeimdallPolicyRemove>,
) -> Result<Once<HeimdallPolicyRemoved>> {
    heimdall.remove_policy(&input.domain, input.reason.as_ref(), &asked).await
}
