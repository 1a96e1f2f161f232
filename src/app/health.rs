//! Is the process up, can it decide, and what has it done: for load balancers, orchestrators and Prometheus.

use super::App;
use crate::access::register::Mode;
use crate::clock::belief::Doubt;
use crate::enforcement::gate::Source;
use crate::http::{Nothing, Query, errors};
use crate::identity::Admitted;
use crate::types::Scope;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::IntoResponse;
use axum::{Extension, Json};
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

/// Whether the instance can decide, and what it enforces. Without the scope `read`, once there are tokens, `ready` alone.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// Whether it can.
    ready: bool,
    /// Why not; null when it can.
    #[schema(required = false)]
    reason: Option<&'static str>,
    /// Holdfast's version.
    #[schema(required = false)]
    version: &'static str,
    /// The version of the go-live state it goes by; null when that is not known.
    #[schema(required = false)]
    state_version: Option<i64>,
    /// How old that knowledge is, milliseconds; null before the first read.
    #[schema(required = false)]
    state_age_ms: Option<u64>,
    /// `all`, `prod_exec` or `off`: what the gate blocks while go-live is off.
    #[schema(required = false)]
    enforcement: &'static str,
    /// How old that knowledge may be, milliseconds; beyond it everything is blocked.
    #[schema(required = false)]
    state_lease_ms: u64,
    /// Whether other instances' changes are heard of at once; without that they are seen half a second later.
    #[schema(required = false)]
    notified: bool,
    /// Whether this instance's kill file exists, so that it blocks everything.
    #[schema(required = false)]
    kill_file: bool,
    /// Why enforcement is off; null when it is on.
    #[schema(required = false)]
    enforcement_off: Option<&'static str>,
    /// Whether callers are authenticated.
    #[schema(required = false)]
    authentication: &'static str,
}

/// The same, for callers who may not read more: whether it can, and while it starts, why not.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// Why not, while it starts: then nobody is known who may read more.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// What a caller may know of it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ReadyzAnswer {
    /// With the scope `read`, and in open mode.
    Whole(Box<Readiness>),
    /// Without.
    Status(Ready),
}

/// Whether the instance can decide: it has started, the go-live state was read within the lease, no migration is missing, its
/// writers run, the database's clock is believed, and it is not shutting down.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot: see `reason`", body = Readiness),
        errors::Local
    )
)]
async fn readyz(State(app): State<App>, caller: Option<Extension<Admitted>>, _: Query<Nothing>) -> impl IntoResponse {
    let view = app.feed.view();
    let pending = app.feed.pending_migrations();
    let stage = app.stage();
    let reason = if stage.reason().is_some() {
        stage.reason()
    } else if !app.writers_run() {
        Some("a writer has ended, and so will this process")
    } else if app.feed.is_rewound() {
        Some(
            "the database went back, or lacks events that were answered: the log says which, and holdfast db accept-rewind that this \
             is meant",
        )
    } else if app.feed.age().is_none_or(|age| age > app.feed.lease()) {
        Some("the go-live state was not read within the lease: the database is away or slow")
    } else if pending > 0 {
        Some("migrations are missing: run holdfast migrate")
    } else if app.db.disk().is_full() {
        Some("DISK_FULL: the disk of the database is full, and nothing that needs room is recorded: make room")
    } else {
        app.feed.belief().doubt().map(of_the_clock)
    };
    let readiness = Readiness {
        ready: reason.is_none(),
        reason,
        version: ALIVE.version,
        state_version: view.version(),
        state_age_ms: app.feed.age().and_then(|age| u64::try_from(age.as_millis()).ok()),
        state_lease_ms: u64::try_from(app.feed.lease().as_millis()).unwrap_or(0),
        notified: app.feed.is_listening(),
        kill_file: app.feed.is_killed_locally(),
        enforcement: app.enforcement.as_str(),
        enforcement_off: app.enforcement_off,
        authentication: match app.access.register().mode() {
            Mode::Tokens => "tokens",
            Mode::Open => "none: open mode, events say UNAUTHENTICATED",
            Mode::Unknown => "unknown: nobody is let in",
        },
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let retry_after = (!readiness.ready).then_some([(RETRY_AFTER, "1")]);
    let authority = caller.and_then(|Extension(admitted)| admitted.authority);
    let answer = if authority.is_some_and(|authority| authority.holds(Scope::Read)) {
        ReadyzAnswer::Whole(Box::new(readiness))
    } else {
        ReadyzAnswer::Status(Ready { ready: readiness.ready, reason: reason.filter(|_| stage.is_start()) })
    };
    (status, retry_after, Json(answer))
}

/// Why an instance whose database's clock is not believed is not ready: it refuses every reserve.
const fn of_the_clock(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Ahead(_) => {
            "CLOCK_JUMPED: the database clock jumped ahead and reserves are halted; they go on by themselves once the machine's \
             clock and the database's have agreed for a minute"
        }
        Doubt::Behind(_) => {
            "CLOCK_WENT_BACK: the database clock is behind the last recorded event and reserves are halted until it is right, or holdfast db \
             accept-clock says that it is"
        }
    }
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
