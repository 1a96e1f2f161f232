//! Is the process up, can it decide, and what has it done: for load balancers, orchestrators and Prometheus.

use super::{Nothing, Query, errors};
use crate::app::App;
use crate::enforcement::gate::{Enforcement, Source, View};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(livez)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// That the process answers.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    status: &'static str,
    /// Holdfast's version.
    version: &'static str,
}

const ALIVE: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

/// Whether the process answers. Says nothing about the database.
#[utoipa::path(get, path = "/health", tag = "service", responses((status = 200, description = "It does", body = Health), errors::Local))]
async fn health(_: Query<Nothing>) -> Json<Health> {
    Json(ALIVE)
}

/// The same, by the other usual name.
#[utoipa::path(get, path = "/livez", tag = "service", responses((status = 200, description = "It does", body = Health), errors::Local))]
async fn livez(_: Query<Nothing>) -> Json<Health> {
    Json(ALIVE)
}

/// Whether the instance can decide, and what it enforces.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// Whether it can.
    ready: bool,
    /// Why not; null when it can.
    reason: Option<&'static str>,
    /// Holdfast's version.
    version: &'static str,
    /// The version of the go-live state it goes by; null when that is not known.
    state_version: Option<i64>,
    /// How old that knowledge is, milliseconds; null before the first read.
    state_age_ms: Option<u64>,
    /// `all`, `prod_exec` or `off`: what the gate blocks while go-live is off.
    enforcement: &'static str,
    /// Why enforcement is off; null when it is on.
    enforcement_off: Option<&'static str>,
    /// Whether callers are authenticated.
    authentication: &'static str,
}

/// Whether the instance can decide: the go-live state was read recently and it is not shutting down.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot: see `reason`", body = Readiness),
        errors::Local
    )
)]
async fn readyz(State(app): State<App>, _: Query<Nothing>) -> impl IntoResponse {
    use crate::enforcement::gate::EnforcementScope;
    let state_version = match app.feed.view() {
        View::Fresh { version, .. } => Some(version),
        View::Stale => None,
    };
    let reason = if app.is_shutting_down() {
        Some("shutting down")
    } else if state_version.is_none() {
        Some("the go-live state was not read within the lease: the database is away or slow")
    } else {
        None
    };
    let readiness = Readiness {
        ready: reason.is_none(),
        reason,
        version: ALIVE.version,
        state_version,
        state_age_ms: app.feed.age_ms(),
        enforcement: match app.enforcement {
            Enforcement::Off => "off",
            Enforcement::On(EnforcementScope::All) => "all",
            Enforcement::On(EnforcementScope::ProdExec) => "prod_exec",
        },
        enforcement_off: app.enforcement_off,
        authentication: "none: open mode, events say UNAUTHENTICATED",
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let retry_after = (!readiness.ready).then_some([(RETRY_AFTER, "1")]);
    (status, retry_after, Json(readiness))
}

/// What the instance has done and knows, in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain"), errors::Local)
)]
async fn metrics(State(app): State<App>, _: Query<Nothing>) -> impl IntoResponse {
    app.report_gauges();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}
