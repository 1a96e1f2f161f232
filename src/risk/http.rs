//! The risk guard's routes.

mod answers;
mod batch;
mod inputs;
mod lists;
mod operations;

pub(crate) use answers::begin_counting;

pub(crate) use answers::AdjustAnswer;

use super::model::RiskPolicy;
use super::model::policy::{PolicyUpsert, ZeroCap};
use super::remove::RiskPolicyRemoved;
use super::{RiskPolicyUpserted, store};
use crate::approval::model::ApprovalRecord;
use crate::error::Result;
use crate::http::{Caller, CanStop, Keyed, Nothing, Query, Stopping, errors};
use crate::idempotency::{Asked, Once};
use crate::risk::Risk;
use crate::types::{Actor, Amount, Count, Engine, Flag, IdempotencyKey, Reason, Total};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The lever's routes.
pub fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new()
        .routes(routes!(risk_policies))
        .routes(routes!(upsert_risk_policy))
        .routes(routes!(remove_risk_policy))
        .routes(routes!(risk_ledger_today))
        .merge(operations::router())
        .merge(batch::router())
        .merge(lists::router())
}

/// All risk policies, by engine.
#[utoipa::path(
    get, path = "/risk/policies", tag = "risk",
    responses((status = 200, description = "Ordered by engine", body = Vec<RiskPolicy>), errors::Read)
)]
async fn risk_policies(State(risk): State<Risk>, _: Query<Nothing>) -> Result<Json<Vec<RiskPolicy>>> {
    Ok(Json(risk.policies().await?))
}

/// What to set on a policy. What is left out keeps its value; a new engine names its three caps.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
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
    /// Seconds that a hold stands which names no time of its own, up to 2592000; 0 means until somebody ends it.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 2_592_000)]
    default_ttl_seconds: Option<Count>,
    /// Whether reserves can pass. `true` on a throttled engine overrides its throttles and needs a reason.
    enabled: Option<Flag>,
    /// Whether a positive cap may be removed by setting it to 0.
    allow_unlimited: Option<Flag>,
    /// Who sets it.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl CanStop for RiskPolicyUpsert {
    const OFF: Option<&'static str> = Some("enabled");
}

/// Sets the caps of an engine or of GLOBAL.
#[utoipa::path(
    post, path = "/risk/policies/upsert", tag = "risk", request_body = RiskPolicyUpsert,
    responses(
        (status = 200, description = "The policy and what changed", body = RiskPolicyUpserted),
        (status = 202, description = "It waits for a second person: Location is where they approve", body = ApprovalRecord),
        errors::Change
    )
)]
async fn upsert_risk_policy(
    State(risk): State<Risk>,
    caller: Caller,
    Stopping { input, intent, ignored }: Stopping<RiskPolicyUpsert>,
) -> Result<Response> {
    let allow_unlimited = input.allow_unlimited.is_some_and(|flag| flag.0);
    let request = PolicyUpsert {
        engine: input.engine,
        max_daily_loss: input.max_daily_loss,
        max_daily_exposure: input.max_daily_exposure,
        max_open_risk: input.max_open_risk,
        max_actions_per_day: input.max_actions_per_day,
        default_ttl_seconds: input.default_ttl_seconds,
        enabled: input.enabled.map(|flag| flag.0),
        zero_cap: if allow_unlimited { ZeroCap::RemovesTheCap } else { ZeroCap::Refused },
    };
    let asked = Asked::new(caller.origin(input.actor, None), intent);
    let upserted = risk.upsert_policy(&request, input.reason.as_ref(), &asked).await?;
    upserted.answer(|once| Ok(ignored.beside(once)))
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
async fn risk_ledger_today(State(risk): State<Risk>, _: Query<Nothing>) -> Result<Json<Vec<LedgerToday>>> {
    let db = risk.db();
    let mut tx = db.begin_snapshot().await?;
    let now = db.history().now(&mut tx).await?;
    Ok(Json(ledger_today(&mut tx, now).await?))
}

/// Today's ledger, from one instant of the database, by the time that is believed.
pub async fn ledger_today(conn: &mut sqlx::PgConnection, now: DateTime<Utc>) -> Result<Vec<LedgerToday>> {
    let (day, rows) = store::today(&mut *conn, now).await?;
    let engines: Vec<_> = rows.iter().map(|row| row.policy.engine.to_string()).collect();
    let mut denials: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for (engine, reason, denied) in store::read_denials(conn, day, &engines).await? {
        denials.entry(engine).or_default().insert(reason, denied);
    }
    let room =
        |cap: Total, used: Total| (cap > Total::ZERO).then(|| cap.minus(used).unwrap_or_default().max(Total::ZERO));
    Ok(rows
        .into_iter()
        .map(|store::TodayRow { policy, usage }| {
            let denials_by_reason = denials.remove(policy.engine.as_str()).unwrap_or_default();
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

/// The engine whose policy is removed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RiskPolicyRemove {
    /// The engine.
    engine: Engine,
    /// The actor who removes it.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Removes the policy of an engine that is disabled and that nothing was ever reserved on.
#[utoipa::path(
    post, path = "/risk/policies/remove", tag = "risk", request_body = RiskPolicyRemove,
    responses((status = 200, description = "Removed", body = RiskPolicyRemoved), errors::ChangeOfOne)
)]
async fn remove_risk_policy(
    State(risk): State<Risk>,
    caller: Caller,
    Keyed { input, intent }: Keyed<RiskPolicyRemove>,
) -> Result<Once<RiskPolicyRemoved>> {
    let asked = Asked::new(caller.origin(input.actor, None), intent);
    risk.remove_policy(&input.engine, input.reason.as_ref(), &asked).await
}
