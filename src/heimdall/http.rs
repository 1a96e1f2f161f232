//! The HTTP routes of the charter's trials and events. Policies and recommendations have files of their own.

mod history;
mod policies;
mod recommendations;

use super::TrialReport;
use super::charter;
use super::model::{Scorecard, Standing};
use super::store::{self, HeimdallEventRecord};
use crate::audit::{self, Stream};
use crate::db::archived;
use crate::error::Result;
use crate::heimdall::Heimdall;
use crate::http::{ArchivedPage, Change, Nothing, Paging, Query, errors, said};
use crate::idempotency::Once;
use crate::types::{
    Actor, Confidence, CorrelationId, Domain, Flag, HeimdallAction, IdempotencyKey, ModelVersion, PageSize, Place,
};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

said!(with correlation_id: SandboxTrial);

/// The routes of this lever, relative to the base path.
pub fn router() -> OpenApiRouter<Heimdall> {
    OpenApiRouter::new()
        .merge(policies::router())
        .routes(routes!(scorecard_today))
        .merge(history::router())
        .routes(routes!(sandbox_trial))
        .merge(recommendations::router())
        .routes(routes!(heimdall_events))
}

/// A domain's trials of today, and its standing before the gate.
#[derive(Debug, Serialize, ToSchema)]
struct ScorecardToday {
    /// Today's trials, whatever window the policy counts.
    #[serde(flatten)]
    card: Scorecard,
    /// The policy's checks and the counted trials; null without a policy.
    gate: Option<Standing>,
}

/// Lists today's scorecards: one for every policy, and for every other domain that has trials.
#[utoipa::path(
    get, path = "/heimdall/scorecard/today", tag = "heimdall",
    responses((status = 200, description = "The scorecards, ordered by domain", body = Vec<ScorecardToday>), errors::Read)
)]
async fn scorecard_today(State(heimdall): State<Heimdall>, _: Query<Nothing>) -> Result<Json<Vec<ScorecardToday>>> {
    let db = heimdall.db();
    let mut tx = db.begin_snapshot().await?;
    let day = db.history().now(&mut tx).await?.date_naive();
    let cards = store::scorecards_today(&mut tx, day).await?;
    let mut standings = charter::standings(&mut tx, day).await?;
    let mut gate = |card: &Scorecard| standings.extract_if(.., |standing| standing.domain == card.domain).next();
    Ok(Json(cards.into_iter().map(|card| ScorecardToday { gate: gate(&card), card }).collect()))
}

/// The outcome of a sandbox trial.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SandboxTrial {
    /// The domain.
    domain: Domain,
    /// The version of the model that was tried.
    model_version: Option<ModelVersion>,
    /// The confidence that the model stated.
    confidence: Confidence,
    /// Whether the model was right.
    success: Flag,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The caller's id for everything that belongs to one undertaking.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Counts a sandbox trial.
#[utoipa::path(
    post, path = "/heimdall/sandbox/trial", tag = "heimdall", request_body = SandboxTrial,
    responses((status = 200, description = "The scorecard of the day with this trial", body = Scorecard), errors::Change)
)]
async fn sandbox_trial(
    State(heimdall): State<Heimdall>,
    Change { input, asked }: Change<SandboxTrial>,
) -> Result<Once<Scorecard>> {
    let report = TrialReport {
        domain: input.domain,
        model_version: input.model_version,
        confidence: input.confidence,
        success: input.success.0,
    };
    heimdall.trial(report, &asked).await
}

/// The events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HeimdallEventQuery {
    /// Only events of this domain.
    domain: Option<Domain>,
    /// Only events with this action: `TRIAL`, `RECOMMEND`, `REQUIRE` or `REVOKE`.
    #[param(inline)]
    action: Option<HeimdallAction>,
    /// The largest number of items, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The place where the last page ended; from the first item when left out.
    cursor: Option<Place>,
}

/// Lists trials, recommendations, uses and revocations, newest first.
#[utoipa::path(
    get, path = "/heimdall/events", tag = "heimdall", params(HeimdallEventQuery),
    responses((status = 200, description = "A page of events", body = ArchivedPage<HeimdallEventRecord>), errors::Read)
)]
async fn heimdall_events(
    State(heimdall): State<Heimdall>,
    Query(query): Query<HeimdallEventQuery>,
) -> Result<Json<ArchivedPage<HeimdallEventRecord>>> {
    let paging = Paging::new("/heimdall/events", query.limit, query.cursor)?;
    let domain = query.domain.as_ref().map(Domain::as_str);
    let mut conn = archived::snapshot(heimdall.db()).await?;
    let (lowest, last) = audit::between(&mut conn, Stream::Heimdall, None, None).await?;
    let archived = archived::since(&mut conn, Stream::Heimdall, None).await?;
    // An index leads to a domain's events.
    let mut page = match query.action {
        None => paging.begin_between(lowest, last),
        Some(_) => paging.begin_within(lowest, last),
    };
    while let Some(portion) = page.wants() {
        page.take(store::events(&mut conn, domain, query.action, portion).await?, |row| row.seq);
    }
    Ok(Json(page.end_beside(archived)))
}
