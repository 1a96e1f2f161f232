//! The HTTP routes of the enforcement layer: the instances on this database, forward-auth and flags.

use super::instance::{self, Instances};
use super::outside::Outside;
use crate::db::Database;
use crate::error::Result;
use crate::http::{Nothing, Query, errors};
use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of the instances, relative to the base path.
pub fn router() -> OpenApiRouter<Database> {
    OpenApiRouter::new().routes(routes!(list_instances))
}

/// The routes of forward-auth and OFREP, with their whole paths: the end of Envoy's path is the request's path, and
/// OFREP has a prefix of its own.
#[must_use]
pub fn absolute() -> OpenApiRouter<Outside> {
    super::authz::router().merge(super::ofrep::router())
}

/// Lists the instances that were seen on this database within a day, and the settings in which the live ones differ.
#[utoipa::path(
    get, path = "/instances", tag = "enforcement",
    responses((status = 200, description = "The instances, ordered by name", body = Instances), errors::Read)
)]
async fn list_instances(State(db): State<Database>, _: Query<Nothing>) -> Result<Json<Instances>> {
    Ok(Json(instance::list(&mut *db.read().await?).await?))
}
