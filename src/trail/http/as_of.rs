//! The settings in force at an instant.

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

/// The instant of the wanted settings.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AsOfQuery {
    /// The instant, RFC 3339; now if left out.
    #[param(inline)]
    at: Option<Time>,
}

/// Shows the go-live state, the components and every policy that were in force at an instant, computed from the trail
/// alone.
#[utoipa::path(
    get, path = "/audit/as-of", tag = "audit", params(AsOfQuery),
    responses((status = 200, description = "The settings in force, each with its event", body = AsOf), errors::Read)
)]
async fn audit_as_of(State(trail): State<Trail>, Query(query): Query<AsOfQuery>) -> Result<Json<AsOf>> {
    let mut tx = trail.db().begin_snapshot().await?;
    Ok(Json(store::as_of::as_of(&mut tx, query.at.map(|time| time.0)).await?))
}
