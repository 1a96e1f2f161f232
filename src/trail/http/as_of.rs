//! What was in force at an instant.

use crate::audit::as_of::AsOf;
use crate::audit::store;
use crate::error::Result;
use crate::http::{Query, errors};
use crate::trail::Trail;
use crate::types::Time;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<Trail> {
    OpenApiRouter::new().routes(routes!(audit_as_of))
}

/// When.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AsOfQuery {
    /// The instant, RFC 3339; now when left out.
    #[param(inline)]
    at: Option<Time>,
}

/// The go-live state, the components and every policy that were in force at an instant, out of the trail alone.
#[utoipa::path(
    get, path = "/audit/as-of", tag = "audit", params(AsOfQuery),
    responses((status = 200, description = "What was in force, and since which event", body = AsOf), errors::Read)
)]
async fn audit_as_of(State(trail): State<Trail>, Query(query): Query<AsOfQuery>) -> Result<Json<AsOf>> {
    let mut tx = trail.db().begin_snapshot().await?;
    Ok(Json(store::as_of::as_of(&mut tx, query.at.map(|time| time.0)).await?))
}
