//! The HTTP route of the review.

use super::{Medium, Review, Source};
use crate::error::Result;
use crate::http::{Query, errors};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The route, relative to the base path.
pub fn router() -> OpenApiRouter<Source> {
    OpenApiRouter::new().routes(routes!(review))
}

/// The format of the review.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ReviewQuery {
    /// `json` or `markdown`; when left out, the format that `Accept` prefers.
    #[param(inline)]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Markdown,
}

/// Returns the Monday review in one document.
#[utoipa::path(
    get, path = "/review", tag = "review", params(ReviewQuery),
    responses(
        (status = 200, description = "The review", content((Review = "application/json"), (String = "text/markdown"))),
        errors::Read
    )
)]
async fn review(
    State(source): State<Source>,
    headers: HeaderMap,
    Query(query): Query<ReviewQuery>,
) -> Result<Response> {
    let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format =
        query.format.unwrap_or(if accepts.contains("text/markdown") { Format::Markdown } else { Format::Json });
    let review = source.review().await?;
    Ok(match format {
        Format::Json => Json(review).into_response(),
        Format::Markdown => {
            ([(CONTENT_TYPE, "text/markdown; charset=utf-8")], review.document(Medium::Markdown)).into_response()
        }
    })
}
