//! The caps of the engines and of GLOBAL.

use crate::approval::model::ApprovalRecord;
use crate::audit::{self, PolicyKind, PolicyVersion};
use crate::error::{Error, Result};
use crate::http::{CanStop, Change, Nothing, Off, Page, Paging, Query, Stopping, errors, said};
use crate::idempotency::Once;
use crate::risk::model::RiskPolicy;
use crate::risk::model::policy::{PolicyUpsert, ZeroCap};
use crate::risk::remove::RiskPolicyRemoved;
use crate::risk::{Risk, RiskPolicyUpserted, store};
use crate::types::{Actor, Amount, Count, Engine, Flag, IdempotencyKey, PageSize, Place, Reason};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

said!(RiskPolicyUpsert, RiskPolicyRemove);

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new()
        .routes(routes!(risk_policies))
        .routes(routes!(risk_policy_history))
        .routes(routes!(upsert_risk_policy))
        .routes(routes!(remove_risk_policy))
}

/// Lists all risk policies, by engine.
#[utoipa::path(
    get, path = "/risk/policies", tag = "risk",
    responses((status = 200, description = "Ordered by engine", body = Vec<RiskPolicy>), errors::Read)
)]
async fn risk_policies(State(risk): State<Risk>, _: Query<Nothing>) -> Result<Json<Vec<RiskPolicy>>> {
    Ok(Json(risk.policies().await?))
}

/// The policy and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RiskPolicyHistoryQuery {
    /// The engine, or `GLOBAL`.
    engine: Engine,
    /// The most rows of the page, 1 to 1000; 100 if left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The end of the last page, from `next_cursor`.
    cursor: Option<Place>,
}

/// Lists the changes of an engine's policy, newest first: who, when, why, and each value before and after.
#[utoipa::path(
    get, path = "/risk/policies/history", tag = "risk", params(RiskPolicyHistoryQuery),
    responses((status = 200, description = "A page", body = Page<PolicyVersion>), errors::ReadOne)
)]
async fn risk_policy_history(
    State(risk): State<Risk>,
    Query(query): Query<RiskPolicyHistoryQuery>,
) -> Result<Json<Page<PolicyVersion>>> {
    let paging = Paging::new("/risk/policies/history", query.limit, query.cursor)?;
    let (mut conn, mut page) = (risk.db().read().await?, paging.begin());
    while let Some(portion) = page.wants() {
        let rows = audit::policy_versions(&mut conn, PolicyKind::Risk, query.engine.as_str(), portion).await?;
        page.take(rows, |row| row.seq);
    }
    let page = page.end();
    if page.items.is_empty() && !store::has_policy(&mut conn, &query.engine).await? {
        return Err(Error::NotFound { what: "engine", id: query.engine.to_string() });
    }
    Ok(Json(page))
}

/// The settings of a policy. Fields that are left out keep their value; a new engine needs its three caps.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RiskPolicyUpsert {
    /// The engine, or `GLOBAL`.
    engine: Engine,
    /// The realised loss of a day at which new reserves stop. 0 means no cap.
    max_daily_loss: Option<Amount>,
    /// The most that may be reserved in a day. 0 means no cap.
    max_daily_exposure: Option<Amount>,
    /// The most that may be outstanding at once. 0 means no cap.
    max_open_risk: Option<Amount>,
    /// The most reserves in a day. 0 means no cap.
    max_actions_per_day: Option<Count>,
    /// The lifetime in seconds of a hold that names none, up to 2592000; 0 means without expiry.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 2_592_000)]
    default_ttl_seconds: Option<Count>,
    /// True if reserves can pass. `true` on a throttled engine overrides its throttles and needs a reason.
    enabled: Option<Flag>,
    /// True to allow the removal of a positive cap by setting it to 0.
    allow_unlimited: Option<Flag>,
    /// The acting person or program.
    actor: Option<Actor>,
    /// The reason for the change.
    reason: Option<Reason>,
    /// The idempotency key; the header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl CanStop for RiskPolicyUpsert {
    const OFF: Option<Off> = Some(Off { thing: "engine", flag: "enabled" });
}

/// Sets the caps of an engine or of GLOBAL.
#[utoipa::path(
    post, path = "/risk/policies/upsert", tag = "risk", request_body = RiskPolicyUpsert,
    responses(
        (status = 200, description = "The policy and the changes", body = RiskPolicyUpserted),
        (status = 202, description = "The change waits for a second person, who approves it at Location", body = ApprovalRecord),
        errors::Change
    )
)]
async fn upsert_risk_policy(
    State(risk): State<Risk>,
    Stopping { input, asked, ignored }: Stopping<RiskPolicyUpsert>,
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
    let upserted = risk.upsert_policy(&request, input.reason.as_ref(), &asked).await?;
    upserted.answer(|once| Ok(ignored.beside(once)))
}

/// The engine whose policy is removed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RiskPolicyRemove {
    /// The engine; not `GLOBAL`.
    engine: Engine,
    /// The acting person or program.
    actor: Option<Actor>,
    /// The reason for the removal.
    reason: Option<Reason>,
    /// The idempotency key; the header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Removes the policy of a disabled engine that never had a reservation.
#[utoipa::path(
    post, path = "/risk/policies/remove", tag = "risk", request_body = RiskPolicyRemove,
    responses((status = 200, description = "Removed", body = RiskPolicyRemoved), errors::ChangeOfOne)
)]
async fn remove_risk_policy(
    State(risk): State<Risk>,
    Change { input, asked }: Change<RiskPolicyRemove>,
) -> Result<Once<RiskPolicyRemoved>> {
    risk.remove_policy(&input.engine, input.reason.as_ref(), &asked).await
}
