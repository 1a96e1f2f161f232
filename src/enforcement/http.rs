//! The routes of the enforcement layer: who runs on this database, forward-auth and flags.

use super::feed::Feed;
use super::gate::EnforcementScope;
use super::instance::{self, Instances};
use super::rules::Rules;
use crate::db::Database;
use crate::error::Result;
use crate::http::{Nothing, Query, errors};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below the base path.
pub fn router() -> OpenApiRouter<Database> {
    OpenApiRouter::new().routes(routes!(list_instances))
}

/// The decision for services outside, with the routes that name their whole path: the end of Envoy's is what it asks about, and OFREP has
/// a place of its own.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The state as this instance knows it.
    pub feed: Feed,
    /// The class of a method and a path.
    pub rules: Arc<Rules>,
    /// The requests that are blocked while go-live is off, also where this instance enforces nothing itself.
    pub scope: EnforcementScope,
}

/// Their routes.
#[must_use]
pub fn absolute() -> OpenApiRouter<Outside> {
    super::authz::router().merge(super::ofrep::router())
}

/// The instances on this database: every one that wrote within a day, and in what the live ones differ.
#[utoipa::path(
    get, path = "/instances", tag = "enforcement",
    responses((status = 200, description = "By name", body = Instances), errors::Read)
)]
async fn list_instances(State(db): State<Database>, _: Query<Nothing>) -> Result<Json<Instances>> {
    Ok(Json(instance::list(&mut *db.read().await?).await?))
}
