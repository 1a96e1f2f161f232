//! The probes for load balancers and orchestrators, and the metrics for Prometheus. The probes change nothing.

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

/// The answer of a process that runs.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    status: &'static str,
    /// Holdfast's version.
    version: &'static str,
}

const ALIVE: Health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };

/// Tells whether the process answers. It says nothing about the database.
#[utoipa::path(
    get, path = "/health", tag = "service",
    responses((status = 200, description = "The process answers", body = Health), errors::Local)
)]
async fn health(_: Query<Nothing>) -> Json<Health> {
    Json(ALIVE)
}

/// The same as `/health`, under the other usual name.
#[utoipa::path(
    get, path = "/livez", tag = "service",
    responses((status = 200, description = "The process answers", body = Health), errors::Local)
)]
async fn livez(_: Query<Nothing>) -> Json<Health> {
    Json(ALIVE)
}

/// The readiness of the instance, and the state that its gate uses. Once there are tokens, a caller without the scope
/// `read` sees only `ready`.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// Whether the instance can decide.
    ready: bool,
    /// The reason why it cannot decide; null when it can.
    #[schema(required = false)]
    reason: Option<&'static str>,
    /// Holdfast's version.
    #[schema(required = false)]
    version: &'static str,
    /// The version of the go-live state that the instance uses; null when it knows none.
    #[schema(required = false)]
    state_version: Option<i64>,
    /// The age of that state, milliseconds; null before the first read.
    #[schema(required = false)]
    state_age_ms: Option<u64>,
    /// The classes that the gate blocks while go-live is off: `all` or `prod_exec`; `off` where the gate is off.
    #[schema(required = false)]
    enforcement: &'static str,
    /// The longest age at which the state is used, milliseconds; beyond it everything is blocked.
    #[schema(required = false)]
    state_lease_ms: u64,
    /// Whether notifications bring other instances' changes at once. Without them a change is seen half a second later.
    #[schema(required = false)]
    notified: bool,
    /// Whether this instance's kill file exists, which blocks everything.
    #[schema(required = false)]
    kill_file: bool,
    /// The reason why the gate is off; null when it is on.
    #[schema(required = false)]
    enforcement_off: Option<&'static str>,
    /// The authentication of callers: `tokens`, or a sentence that begins with `none` or `unknown`.
    #[schema(required = false)]
    authentication: &'static str,
}

/// The readiness for a caller who may not read more.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// The reason during the start, when no token can be checked yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The readiness, as much of it as the caller may read.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ReadyzAnswer {
    /// For a caller with the scope `read`, and in open mode.
    Whole(Box<Readiness>),
    /// For every other caller.
    Status(Ready),
}

/// Tells whether the instance can decide.
///
/// It can when it has started, the go-live state was read within the lease, no migration is missing, its writers run,
/// the database's clock is believed, and no stop was announced.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses(
        (status = 200, description = "The instance can decide", body = Readiness),
        (status = 503, description = "The instance cannot decide: see `reason`", body = Readiness),
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
        Some("a writer has ended; this process ends, too")
    } else if app.feed.is_rewound() {
        Some(
            "the database went back, or lacks events that were answered: see the log for them; if this is intended, run \
             holdfast db accept-rewind",
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
            Mode::Unknown => "unknown: every caller is refused",
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

/// The reason why an instance is not ready while it doubts the database's clock: it refuses every reserve.
const fn of_the_clock(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Ahead(_) => {
            "CLOCK_JUMPED: the database clock jumped ahead and reserves are halted; they go on by themselves once the machine's \
             clock and the database's have agreed for a minute"
        }
        Doubt::Behind(_) => {
            "CLOCK_WENT_BACK: the database clock is behind the last recorded event and reserves are halted until it is right; if it is right, \
             run holdfast db accept-clock"
        }
    }
}

/// The instance's metrics, in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain"), errors::Local)
)]
async fn metrics(State(app): State<App>, _: Query<Nothing>) -> impl IntoResponse {
    app.report_gauges();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}
