//! The routes of the enforcement layer: who runs on this database, forward-auth and flags.

use super::instance::{self, Instances};
use crate::app::App;
use crate::error::Result;
use crate::http::{Nothing, Query, errors};
use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below the base path.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_instances))
}

/// The routes that name their whole path: what Envoy asks about is the end of its own, and OFREP has a place of its own.
#[must_use]
pub fn absolute() -> OpenApiRouter<App> {
    super::authz::router().merge(super::ofrep::router())
}

/// Who runs on this database: every instance that wrote within a day, and in what the live ones differ.
#[utoipa::path(
    get, path = "/instances", tag = "enforcement",
    responses((status = 200, description = "By name", body = Instances), errors::Read)
)]
async fn list_instances(State(app): State<App>, _: Query<Nothing>) -> Result<Json<Instances>> {
    Ok(Json(instance::list(&mut *app.go_live.db().read().await?).await?))
}
