//! The HTTP routes of recommendations: create, list, use and revoke.

use crate::audit::{self, Stream};
use crate::db::archived;
use crate::error::{Error, Result};
use crate::heimdall::Heimdall;
use crate::heimdall::guard::{RequireAnswer, RevokeAnswer};
use crate::heimdall::store::{self, RecommendationFilter, RecommendationRecord};
use crate::heimdall::{RecommendAnswer, Recommendation};
use crate::http::{ArchivedPage, CanStop, Change, Nothing, Off, Paging, Query, Segment, Stopping, errors, said};
use crate::idempotency::Once;
use crate::types::{
    Actor, Confidence, CorrelationId, Count, Domain, Flag, IdempotencyKey, JsonObject, ModelVersion, PageSize, Place,
    Reason,
};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

said!(with correlation_id: RecommendInput, RequireInput, RevokeInput);

pub(super) fn router() -> OpenApiRouter<Heimdall> {
    OpenApiRouter::new()
        .routes(routes!(recommend))
        .routes(routes!(list_recommendations))
        .routes(routes!(get_recommendation))
        .routes(routes!(require_prod_eligible))
        .routes(routes!(revoke_recommendation))
}

/// A recommendation of an AI.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RecommendInput {
    /// Its domain.
    domain: Domain,
    /// The version of the model that made it.
    model_version: Option<ModelVersion>,
    /// The confidence that the model states.
    confidence: Confidence,
    /// The recommendation itself.
    recommendation: Option<JsonObject>,
    /// The evidence for it.
    evidence: Option<JsonObject>,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The caller's id for everything that belongs to one undertaking.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Records a recommendation and judges it.
#[utoipa::path(
    post, path = "/heimdall/recommend", tag = "heimdall", request_body = RecommendInput,
    responses((status = 200, description = "The verdict on the recommendation", body = RecommendAnswer), errors::Change)
)]
async fn recommend(
    State(heimdall): State<Heimdall>,
    Change { input, asked }: Change<RecommendInput>,
) -> Result<Once<RecommendAnswer>> {
    let made = Recommendation {
        domain: input.domain,
        model_version: input.model_version,
        confidence: input.confidence,
        recommendation: input.recommendation,
        evidence: input.evidence,
    };
    heimdall.recommend(made, &asked).await
}

/// The recommendations to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RecommendationQuery {
    /// Only recommendations of this domain.
    domain: Option<Domain>,
    /// Only those that were eligible at creation, or only those that were not.
    prod_eligible: Option<Flag>,
    /// The largest number of items, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The place where the last page ended; from the first item when left out.
    cursor: Option<Place>,
}

/// Lists recommendations, newest first.
#[utoipa::path(
    get, path = "/heimdall/recommendations", tag = "heimdall", params(RecommendationQuery),
    responses((status = 200, description = "A page of recommendations", body = ArchivedPage<RecommendationRecord>), errors::Read)
)]
async fn list_recommendations(
    State(heimdall): State<Heimdall>,
    Query(query): Query<RecommendationQuery>,
) -> Result<Json<ArchivedPage<RecommendationRecord>>> {
    let paging = Paging::new("/heimdall/recommendations", query.limit, query.cursor)?;
    let filter = RecommendationFilter {
        domain: query.domain.as_ref().map(Domain::as_str),
        prod_eligible: query.prod_eligible.map(|flag| flag.0),
        id: None,
    };
    let mut conn = archived::snapshot(heimdall.db()).await?;
    let archived = archived::since(&mut conn, Stream::Heimdall, None).await?;
    // An id is the number of the event that made it. Of one above the last archived event, every event is here.
    let lowest = archived.as_ref().map_or(0, |archived| archived.last) + 1;
    // An index leads to a domain's recommendations.
    let mut page = match filter.prod_eligible {
        None => paging.begin_between(lowest, i64::MAX - 1),
        Some(_) => paging.begin_within(lowest, audit::head_seq(&mut conn, Stream::Heimdall).await?),
    };
    while let Some(portion) = page.wants() {
        page.take(store::recommendations(&mut conn, &filter, portion).await?, |row| row.id);
    }
    Ok(Json(page.end_beside(archived)))
}

/// Returns one recommendation.
#[utoipa::path(
    get, path = "/heimdall/recommendations/{id}", tag = "heimdall",
    params(("id" = Count, Path, description = "The id of the recommendation")),
    responses((status = 200, description = "The recommendation", body = RecommendationRecord), errors::ReadOne)
)]
async fn get_recommendation(
    State(heimdall): State<Heimdall>,
    Segment(id): Segment<Count>,
    _: Query<Nothing>,
) -> Result<Json<RecommendationRecord>> {
    match store::read_recommendation(&mut *heimdall.db().read().await?, id.get()).await? {
        Some((found, None)) => Ok(Json(found)),
        Some((_, Some(segment))) => Err(segment.refusal(format!("recommendation {id}"))),
        None => Err(Error::NotFound { what: "recommendation", id: id.to_string() }),
    }
}

/// The actor and the reason of a use.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RequireInput {
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's id for everything that belongs to one undertaking.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Decides whether production may act on this recommendation now.
///
/// Every call is an event, except a replay of an allowed use.
#[utoipa::path(
    post, path = "/heimdall/recommendations/{id}/require-prod-eligible", tag = "heimdall", request_body = RequireInput,
    params(("id" = Count, Path, description = "The id of the recommendation")),
    responses((status = 200, description = "Production may act on it", body = RequireAnswer), errors::Require)
)]
async fn require_prod_eligible(
    State(heimdall): State<Heimdall>,
    Segment(id): Segment<Count>,
    Change { input, asked }: Change<RequireInput>,
) -> Result<Once<RequireAnswer>> {
    heimdall.require_prod_eligible(id.get(), input.reason, &asked).await
}

/// The actor and the reason of a revocation.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RevokeInput {
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's id for everything that belongs to one undertaking.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl CanStop for RevokeInput {
    const OFF: Option<Off> = None;
    const IN_PATH: bool = true;
}

/// Revokes a recommendation: no later use is allowed.
///
/// One that was revoked before stays as it is.
#[utoipa::path(
    post, path = "/heimdall/recommendations/{id}/revoke", tag = "heimdall", request_body = RevokeInput,
    params(("id" = Count, Path, description = "The id of the recommendation")),
    responses((status = 200, description = "The revoked recommendation", body = RevokeAnswer), errors::ChangeOfOne)
)]
async fn revoke_recommendation(
    State(heimdall): State<Heimdall>,
    Segment(id): Segment<Count>,
    Stopping { input, asked, ignored }: Stopping<RevokeInput>,
) -> Result<Response> {
    Ok(ignored.beside(heimdall.revoke(id.get(), input.reason, &asked).await?))
}
