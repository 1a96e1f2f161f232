//! The risk guard's routes.

mod lists;

use super::model::policy::{PolicyUpsert, ZeroCap};
use super::model::reserve::{Decision, DenialReason, Failure};
use super::model::settle::{SettledReservation, Settlement};
use super::model::{LedgerSnapshot, PolicySnapshot, RiskPolicy, Words};
use super::{ReserveRequest, Run, SettleRequest, store};
use crate::app::App;
use crate::audit::FieldChange;
use crate::error::Result;
use crate::http::{Caller, Input, Nothing, Query, errors};
use crate::types::{Actor, Amount, CorrelationId, Count, Engine, Flag, JsonObject, Reason, Total};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// Says what a ledger decision was without reading the body: `allow` or `deny`.
const DECISION: HeaderName = HeaderName::from_static("holdfast-decision");

/// The lever's routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(risk_policies))
        .routes(routes!(upsert_risk_policy))
        .routes(routes!(risk_ledger_today))
        .routes(routes!(reserve))
        .routes(routes!(settle))
        .merge(lists::router())
}

/// All risk policies, by engine.
#[utoipa::path(
    get, path = "/risk/policies", tag = "risk",
    responses((status = 200, description = "Ordered by engine", body = Vec<RiskPolicy>), errors::Read)
)]
async fn risk_policies(State(app): State<App>, _: Query<Nothing>) -> Result<Json<Vec<RiskPolicy>>> {
    Ok(Json(app.risk.policies().await?))
}

/// What to set on a policy. What is left out keeps its value; a new engine names its three caps.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RiskPolicyUpsert {
    /// The engine, or `GLOBAL`.
    engine: Engine,
    /// Realised loss of a day at which new reserves stop. 0 means no cap.
    max_daily_loss: Option<Amount>,
    /// Most that may be reserved in a day. 0 means no cap.
    max_daily_exposure: Option<Amount>,
    /// Most that may be outstanding at once. 0 means no cap.
    max_open_risk: Option<Amount>,
    /// Most reserves in a day. 0 means no cap.
    max_actions_per_day: Option<Count>,
    /// Whether reserves can pass. `true` on a throttled engine overrides its throttles and needs a reason.
    enabled: Option<Flag>,
    /// Whether a positive cap may be removed by setting it to 0.
    allow_unlimited: Option<Flag>,
    /// Who sets it.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
}

/// The policy as it is now, and what the upsert changed.
#[derive(Debug, Serialize, ToSchema)]
struct RiskPolicyUpserted {
    #[serde(flatten)]
    policy: RiskPolicy,
    /// The fields that moved; empty when nothing did.
    changes: Vec<FieldChange>,
}

/// Sets the caps of an engine or of GLOBAL.
#[utoipa::path(
    post, path = "/risk/policies/upsert", tag = "risk", request_body = RiskPolicyUpsert,
    responses((status = 200, description = "The policy and what changed", body = RiskPolicyUpserted), errors::Change)
)]
async fn upsert_risk_policy(
    State(app): State<App>,
    caller: Caller,
    Input(input): Input<RiskPolicyUpsert>,
) -> Result<Json<RiskPolicyUpserted>> {
    let allow_unlimited = input.allow_unlimited.is_some_and(|flag| flag.0);
    let request = PolicyUpsert {
        engine: input.engine,
        max_daily_loss: input.max_daily_loss,
        max_daily_exposure: input.max_daily_exposure,
        max_open_risk: input.max_open_risk,
        max_actions_per_day: input.max_actions_per_day,
        enabled: input.enabled.map(|flag| flag.0),
        zero_cap: if allow_unlimited { ZeroCap::RemovesTheCap } else { ZeroCap::Refused },
    };
    let origin = caller.origin(input.actor, None);
    let (policy, changes) = app.risk.upsert_policy(&request, input.reason.as_ref(), &origin).await?;
    Ok(Json(RiskPolicyUpserted { policy, changes: changes.0 }))
}

/// Room left under each cap of a policy; null where there is no cap, 0 where it is used up.
#[derive(Debug, Serialize, ToSchema)]
pub struct Headroom {
    /// Under `max_daily_exposure`.
    pub exposure: Option<Total>,
    /// Under `max_open_risk`.
    pub open_risk: Option<Total>,
    /// Under `max_daily_loss`.
    pub loss: Option<Total>,
    /// Under `max_actions_per_day`.
    pub actions: Option<i64>,
}

/// A level of today's ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerToday {
    /// The business day: the UTC day of the database clock.
    pub day: NaiveDate,
    /// The engine, or `GLOBAL`.
    pub engine: Engine,
    /// Reserved today, less what was settled for less today.
    pub exposure_used: Total,
    /// Outstanding now, whatever day it was reserved on.
    pub open_risk_reserved: Total,
    /// Lost today.
    pub realized_loss: Total,
    /// Reserves accepted today.
    pub actions_count: i64,
    /// When one of them last moved; null when nothing has yet.
    pub updated_at: Option<DateTime<Utc>>,
    /// Reserves for this engine that were denied today, at whatever level; on GLOBAL, all of them.
    pub denied_count: i64,
    /// The same by first reason.
    pub denials_by_reason: BTreeMap<String, i64>,
    /// Room left under each cap.
    pub headroom: Headroom,
}

/// Today's ledger: a row for every policy.
#[utoipa::path(
    get, path = "/risk/ledger/today", tag = "risk",
    responses((status = 200, description = "Ordered by engine", body = Vec<LedgerToday>), errors::Read)
)]
async fn risk_ledger_today(State(app): State<App>, _: Query<Nothing>) -> Result<Json<Vec<LedgerToday>>> {
    let mut tx = app.risk.db().begin_snapshot().await?;
    Ok(Json(ledger_today(&mut tx).await?))
}

/// Today's ledger, from one instant of the database.
pub async fn ledger_today(conn: &mut sqlx::PgConnection) -> Result<Vec<LedgerToday>> {
    let (day, rows) = store::today(&mut *conn).await?;
    let denials = store::read_denials(conn, day, day).await?;
    let room =
        |cap: Total, used: Total| (cap > Total::ZERO).then(|| cap.minus(used).unwrap_or_default().max(Total::ZERO));
    Ok(rows
        .into_iter()
        .map(|store::TodayRow { policy, usage }| {
            let mut denials_by_reason = BTreeMap::new();
            for (engine, reason, denied) in &denials {
                if policy.engine.is_global() || engine == policy.engine.as_str() {
                    *denials_by_reason.entry(reason.clone()).or_insert(0) += denied;
                }
            }
            let max_actions = policy.max_actions_per_day.get();
            LedgerToday {
                day,
                exposure_used: usage.exposure_used,
                open_risk_reserved: usage.open_risk_reserved,
                realized_loss: usage.realized_loss,
                actions_count: usage.actions_count,
                updated_at: usage.updated_at,
                denied_count: denials_by_reason.values().sum(),
                denials_by_reason,
                headroom: Headroom {
                    exposure: room(policy.max_daily_exposure.into(), usage.exposure_used),
                    open_risk: room(policy.max_open_risk.into(), usage.open_risk_reserved),
                    loss: room(policy.max_daily_loss.into(), usage.realized_loss),
                    actions: (max_actions > 0).then(|| (max_actions - usage.actions_count).max(0)),
                },
                engine: policy.engine,
            }
        })
        .collect())
}

/// A reserve that is asked for, before the action is done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CheckAndReserve {
    /// The engine that acts.
    engine: Engine,
    /// How much is put at risk; more than 0.
    amount: Amount,
    /// Who acts.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's own thread; a settle can name it.
    correlation_id: Option<CorrelationId>,
    /// Whatever else belongs to it.
    metadata: Option<JsonObject>,
    /// Ask without reserving: the same decision, and nothing is written. Never blank: that could be meant either way.
    #[serde(default, deserialize_with = "some_flag")]
    dry_run: Option<Flag>,
}

/// A flag that is there or not, but never blank.
fn some_flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Flag>, D::Error> {
    let blank = || serde::de::Error::custom("is blank: send true or false, or leave it out");
    Option::<Flag>::deserialize(deserializer)?.map(Some).ok_or_else(blank)
}

/// A decision. `ok` says whether the action may be done; the status is 200 either way.
#[derive(Debug, Serialize, ToSchema)]
struct ReserveAnswer {
    /// Whether the action may be done.
    ok: bool,
    /// The engine asked for.
    engine: Engine,
    /// What was reserved; 0 when denied.
    reserved: Amount,
    /// `Reserved`, or the first failure as a sentence.
    message: String,
    /// The caps of the level that failed first, else of the engine; null where there is no policy.
    policy_snapshot: Option<PolicySnapshot>,
    /// The counters of that level, after the decision.
    ledger_snapshot: LedgerSnapshot,
    /// What a settle names; null when denied or dry.
    reservation_id: Option<Uuid>,
    /// The first failure; null when allowed.
    reason: Option<DenialReason>,
    /// The level of the first failure: `SYSTEM`, `GLOBAL` or the engine.
    scope: Option<String>,
    /// Everything that failed, in order.
    failures: Vec<Failure>,
    /// Whether it was only asked.
    dry_run: bool,
}

/// Checks both levels and reserves, or says why not.
#[utoipa::path(
    post, path = "/risk/check-and-reserve", tag = "risk", request_body = CheckAndReserve,
    responses(
        (status = 200, description = "Allowed or denied: read `ok`, or the header Holdfast-Decision", body = ReserveAnswer),
        errors::Change
    )
)]
async fn reserve(
    State(app): State<App>,
    caller: Caller,
    Input(input): Input<CheckAndReserve>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<ReserveAnswer>)> {
    let (engine, amount) = (input.engine.clone(), input.amount);
    let dry_run = input.dry_run.is_some_and(|flag| flag.0);
    let request = ReserveRequest {
        engine: input.engine,
        amount: input.amount,
        words: Words { reason: input.reason, metadata: input.metadata },
        run: if dry_run { Run::Dry } else { Run::Real },
    };
    let origin = caller.origin(input.actor, input.correlation_id);
    let reserved = app.risk.reserve(request, &origin).await?;
    let Decision { policy, ledger, .. } = reserved.decision.clone();
    let decision = reserved.decision;
    let first = decision.failures.first();
    let outcome = first.map_or("reserved", |failure| failure.reason.as_str());
    metrics::counter!("holdfast_reserve_decisions_total", "outcome" => outcome).increment(1);
    let header = HeaderValue::from_static(if decision.is_allowed() { "allow" } else { "deny" });
    let answer = ReserveAnswer {
        ok: decision.is_allowed(),
        engine,
        reserved: if decision.is_allowed() { amount } else { Amount::ZERO },
        message: decision.message(),
        policy_snapshot: policy,
        ledger_snapshot: ledger,
        reservation_id: reserved.reservation_id,
        reason: first.map(|failure| failure.reason),
        scope: first.map(|failure| failure.scope.clone()),
        failures: decision.failures,
        dry_run,
    };
    Ok(([(DECISION, header)], Json(answer)))
}

/// The outcome of an action. Name the reservation; or, as the original did, engine and reserved amount.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SettleInput {
    /// The engine that acted; required without a `reservation_id`.
    engine: Option<Engine>,
    /// What was reserved; required without a `reservation_id`.
    reserved_amount: Option<Amount>,
    /// What was really used; left out, exactly what was reserved.
    settled_amount: Option<Amount>,
    /// What was lost; left out, nothing.
    realized_loss: Option<Amount>,
    /// Who acted.
    actor: Option<Actor>,
    /// What came of it.
    reason: Option<Reason>,
    /// The caller's own thread: without a `reservation_id`, its reservations are the ones that are matched.
    correlation_id: Option<CorrelationId>,
    /// The reservation.
    reservation_id: Option<Uuid>,
}

/// What came of a settle.
#[derive(Debug, Serialize, ToSchema)]
struct SettleAnswer {
    /// Always true: what happened is recorded.
    ok: bool,
    /// `Settled`.
    message: &'static str,
    /// `overrun`, `over_release`, `… daily loss cap reached`.
    flags: Vec<String>,
    /// The engine's counters after it.
    ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after it.
    ledger_global: LedgerSnapshot,
    /// Open risk returned.
    released: Total,
    /// What found no open reservation.
    unmatched: Total,
    /// The reservations it touched, in order.
    reservations: Vec<SettledReservation>,
}

/// Records the outcome of an action and returns its open risk.
#[utoipa::path(
    post, path = "/risk/settle", tag = "risk", request_body = SettleInput,
    responses((status = 200, description = "Settled", body = SettleAnswer), errors::ChangeOfOne)
)]
async fn settle(
    State(app): State<App>,
    caller: Caller,
    Input(input): Input<SettleInput>,
) -> Result<Json<SettleAnswer>> {
    let request = SettleRequest {
        engine: input.engine,
        reservation_id: input.reservation_id,
        reserved_amount: input.reserved_amount,
        settled_amount: input.settled_amount,
        realized_loss: input.realized_loss.unwrap_or_default(),
        words: Words { reason: input.reason, metadata: None },
    };
    let origin = caller.origin(input.actor, input.correlation_id);
    let Settlement { flags, released, unmatched, reservations, ledger_engine, ledger_global, .. } =
        app.risk.settle(request, &origin).await?;
    let message = "Settled";
    Ok(Json(SettleAnswer { ok: true, message, flags, ledger_engine, ledger_global, released, unmatched, reservations }))
}
