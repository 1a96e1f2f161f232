//! The gate, through HTTP, in front of handlers that note that they ran. What the gate blocks must not run.

use crate::support::{Answer, Service, Setup};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::routing::{any, post};
use holdfast::config::ScopeName;
use serde_json::json;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use tower::ServiceExt;

const ENABLE: &str = "/go-live/enable";
const DISABLE: &str = "/go-live/disable";
const ENGAGE: &str = "/go-live/kill-switch/engage";
const RELEASE: &str = "/go-live/kill-switch/release";

/// How long a state may be used without being read again, milliseconds.
const LEASE_MS: u64 = 2_000;

const DEALS: &str = "/api/deals";
const SANDBOX: &str = "/api/sandbox/x";
const UNKNOWN: &str = "/made/up";

/// A service of somebody else's behind the gate: every path has a handler, and each notes that it ran.
struct Upstream {
    router: holdfast::app::Service,
    reached: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    fn behind(service: &Service) -> Self {
        let reached = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&reached);
        let note = move |request: Request| {
            let line = format!("{} {}", request.method(), request.uri().path());
            notes.lock().unwrap().push(line);
            std::future::ready("done")
        };
        let router = Router::new().route(DEALS, any(note.clone())).route(SANDBOX, any(note.clone())).fallback(note);
        Self { router: service.app.serve(router), reached }
    }

    #[track_caller]
    fn send(&self, request: Request) -> impl Future<Output = Answer> + use<> {
        let caller = Location::caller();
        let router = self.router.clone();
        async move { Answer::read(router.oneshot(request).await.unwrap(), caller).await }
    }

    #[track_caller]
    fn get(&self, path: &str) -> impl Future<Output = Answer> + use<> {
        self.send(bare(&Method::GET, path))
    }

    /// What ran since the last time this was asked.
    fn reached(&self) -> Vec<String> {
        std::mem::take(&mut *self.reached.lock().unwrap())
    }
}

fn bare(method: &Method, uri: &str) -> Request {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(Body::empty())
        .unwrap_or_else(|error| panic!("{method} {uri:.100}: {error}"))
}

/// What the gate goes by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Off,
    Live,
    Killed,
    KilledWhileOff,
    Stale,
}

impl State {
    const ALL: [Self; 5] = [Self::Off, Self::Live, Self::Killed, Self::KilledWhileOff, Self::Stale];
    /// Those in which nothing passes, under the default scope.
    const CLOSED: [Self; 4] = [Self::Off, Self::Killed, Self::KilledWhileOff, Self::Stale];

    /// From whatever state the service is in.
    async fn bring_about(self, service: &Service) {
        let live = matches!(self, Self::Live | Self::Killed | Self::Stale);
        let killed = matches!(self, Self::Killed | Self::KilledWhileOff);
        switch(service, if live { ENABLE } else { DISABLE }).await;
        switch(service, if killed { ENGAGE } else { RELEASE }).await;
        service.app.feed.refresh(&service.db).await.unwrap();
        if self == Self::Stale {
            service.clock.advance(LEASE_MS + 1);
        }
    }

    /// How this state refuses.
    fn refusal(self) -> (u16, &'static str) {
        match self {
            Self::Off => (403, "GO_LIVE_DISABLED"),
            Self::Killed | Self::KilledWhileOff => (403, "KILL_SWITCH_ENGAGED"),
            Self::Stale => (503, "STATE_STALE"),
            Self::Live => unreachable!("a live service refuses nothing"),
        }
    }
}

async fn switch(service: &Service, path: &str) {
    service.post(path, &json!({"actor": "secret-operator", "reason": "secret-reason"})).await.ok();
}

async fn scoped(scope: ScopeName) -> Service {
    Service::with(Setup { scope, ..Setup::default() }).await
}

// The table

#[tokio::test]
async fn the_state_table_holds_through_http() {
    for scope in [ScopeName::All, ScopeName::ProdExec] {
        let service = scoped(scope).await;
        for state in State::ALL {
            state.bring_about(&service).await;
            let upstream = Upstream::behind(&service);
            for (path, class) in [(DEALS, "PROD_EXEC"), (SANDBOX, "SANDBOX_EXEC"), (UNKNOWN, "PROD_EXEC")] {
                let passes = match (state, scope) {
                    (State::Live, _) => true,
                    (State::Off, ScopeName::ProdExec) => class == "SANDBOX_EXEC",
                    _ => false,
                };
                for method in [Method::GET, Method::POST] {
                    let claim = format!("{scope:?} {state:?} {method} {path}");
                    let answer = upstream.send(bare(&method, path)).await;
                    if passes {
                        assert_eq!(answer.status, 200, "{claim}");
                        assert_eq!(upstream.reached(), [format!("{method} {path}")], "{claim}");
                    } else {
                        let (status, code) = state.refusal();
                        let body = answer.refused(status, code);
                        assert_eq!(body["exec_class"], class, "{claim}");
                        assert_eq!(upstream.reached(), [""; 0], "{claim}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn every_default_prod_path_is_blocked_with_all_below_it() {
    let service = scoped(ScopeName::ProdExec).await;
    let upstream = Upstream::behind(&service);
    for name in "deals intake buyers capital alerts notify followups".split(' ') {
        for below in ["", "/", "/7", "/7/offers"] {
            let path = format!("/api/{name}{below}");
            let body = upstream.get(&path).await.refused(403, "GO_LIVE_DISABLED");
            assert_eq!((&body["exec_class"], &body["path"]), (&json!("PROD_EXEC"), &json!(path)));
        }
    }
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_development_environment_or_a_switched_off_gate_blocks_nothing() {
    for (env, enforce) in [
        (Some("development"), true),
        (Some("dev"), true),
        (Some("test"), true),
        (Some(" DEV "), true),
        (None, false),
        (Some("production"), false),
    ] {
        let service = Service::with(Setup { env, enforce, ..Setup::default() }).await;
        for state in State::ALL {
            state.bring_about(&service).await;
            let upstream = Upstream::behind(&service);
            for path in [DEALS, SANDBOX, UNKNOWN] {
                assert_eq!(upstream.get(path).await.status, 200, "{env:?} {enforce} {state:?} {path}");
            }
            assert_eq!(upstream.reached().len(), 3);
            upstream.get("/api//deals").await.refused(400, "AMBIGUOUS_PATH");
            assert!(upstream.reached().is_empty(), "an ambiguous path never passes");
        }
    }
}

#[tokio::test]
async fn any_other_environment_enforces() {
    for env in ["production", "staging", "developer", "testing", "", "off"] {
        let service = Service::with(Setup { env: Some(env), ..Setup::default() }).await;
        let upstream = Upstream::behind(&service);
        upstream.get(DEALS).await.refused(403, "GO_LIVE_DISABLED");
        assert!(upstream.reached().is_empty(), "{env}");
    }
}

// What a refusal says

#[tokio::test]
async fn a_block_says_what_and_never_who_or_why() {
    let service = Service::fresh().await;
    for state in State::CLOSED {
        state.bring_about(&service).await;
        let upstream = Upstream::behind(&service);
        let answer = upstream.get("/api/deals/7?x=secret-query").await;
        assert_eq!(answer.headers["cache-control"], "no-store", "{state:?}");
        assert!(!answer.text.contains("secret"), "{state:?}: {}", answer.text);
        assert_eq!(answer.headers.contains_key("retry-after"), state == State::Stale);
        let version = service.get("/go-live/state").await.ok()["version"].clone();
        let (status, code) = state.refusal();
        let body = answer.refused(status, code);
        let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = vec![
            "detail",
            "error",
            "exec_class",
            "instance",
            "message",
            "path",
            "request_id",
            "state_version",
            "status",
            "title",
            "type",
        ];
        if state == State::Stale {
            // 503 bodies say whether the same request may be sent again.
            expected.push("retry_same_key");
            expected.sort_unstable();
        }
        assert_eq!(members, expected, "{state:?}");
        assert_eq!((&body["path"], &body["instance"]), (&json!("/api/deals/7"), &json!("/api/deals/7")));
        assert_eq!(body["message"], body["detail"]);
        let seen = if state == State::Stale { json!(null) } else { version };
        assert_eq!(body["state_version"], seen, "{state:?}");
    }
}

#[tokio::test]
async fn a_blocked_request_writes_nothing() {
    let service = Service::fresh().await;
    for state in State::CLOSED {
        state.bring_about(&service).await;
        let before = service.everything().await;
        let upstream = Upstream::behind(&service);
        for _ in 0..20 {
            let (status, code) = state.refusal();
            upstream.get(DEALS).await.refused(status, code);
        }
        assert_eq!(service.everything().await, before, "{state:?}");
    }
}

#[tokio::test]
async fn a_head_request_is_gated_like_its_get_and_has_no_body() {
    let service = Service::live().await;
    let upstream = Upstream::behind(&service);
    let head = bare(&Method::HEAD, DEALS);
    let answer = upstream.send(head).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
    assert_eq!(upstream.reached(), ["HEAD /api/deals"]);
    switch(&service, ENGAGE).await;
    let answer = upstream.send(bare(&Method::HEAD, DEALS)).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (403, ""));
    service.clock.advance(LEASE_MS + 1);
    let answer = upstream.send(bare(&Method::HEAD, DEALS)).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (503, ""));
    assert!(upstream.reached().is_empty());
}

// Exempt routes

#[tokio::test]
async fn the_control_plane_stays_reachable_in_every_state() {
    let service = Service::fresh().await;
    for state in State::ALL {
        state.bring_about(&service).await;
        for path in [
            "/health",
            "/livez",
            "/metrics",
            "/openapi.json",
            "/docs/",
            "/api/governance/go-live/state",
            "/api/governance/review",
        ] {
            assert_eq!(service.get_root(path).await.status, 200, "{state:?} {path}");
        }
        let redirect = service.get_root("/").await;
        assert!(redirect.status.is_redirection(), "{state:?}");
        let ready = service.get_root("/readyz").await;
        let expected = if state == State::Stale { 503 } else { 200 };
        assert_eq!(ready.status, expected, "{state:?}");
        assert_eq!(ready.json["ready"], expected == 200, "{state:?}");
        for path in [ENGAGE, RELEASE, DISABLE, ENABLE] {
            switch(&service, path).await;
        }
    }
}

#[tokio::test]
async fn exempt_subtrees_pass_and_their_neighbours_do_not() {
    let service = Service::fresh().await;
    for state in State::CLOSED {
        state.bring_about(&service).await;
        let upstream = Upstream::behind(&service);
        for path in [
            "/",
            "/health",
            "/docs",
            "/docs/",
            "/docs/a/b.css",
            "/console/x",
            "/ofrep/v1/evaluate/flags/x",
            "/api/governance/nope",
        ] {
            assert_eq!(upstream.get(path).await.status, 200, "{state:?} {path}");
            assert_eq!(upstream.reached(), [format!("GET {path}")]);
        }
        let (status, code) = state.refusal();
        for path in [
            "/healthz",
            "/health/",
            "/health/x",
            "/docsx",
            "/docs-evil/x",
            "/consoles",
            "/ofrepx",
            "/api",
            "/api/governanceX",
            "/metrics/x",
        ] {
            upstream.get(path).await.refused(status, code);
        }
        assert!(upstream.reached().is_empty(), "{state:?}");
    }
}

#[tokio::test]
async fn routes_that_do_not_exist_are_behind_the_gate_too() {
    let service = Service::fresh().await;
    for state in State::CLOSED {
        state.bring_about(&service).await;
        let (status, code) = state.refusal();
        service.get_root("/api/nope").await.refused(status, code);
        let only_post = service.app.serve(Router::new().route(DEALS, post(|| async { "done" })));
        let answer = only_post.oneshot(bare(&Method::GET, DEALS)).await.unwrap();
        let answer = Answer::read(answer, Location::caller()).await;
        answer.refused(status, code);
        // The control plane's own 404s and 405s are told in every state.
        service.get("/go-live/nope").await.refused(404, "ROUTE_NOT_FOUND");
        service.get(ENABLE).await.refused(405, "METHOD_NOT_ALLOWED");
    }
    let service = Service::live().await;
    service.get_root("/api/nope").await.refused(404, "ROUTE_NOT_FOUND");
    let only_post = service.app.serve(Router::new().route(DEALS, post(|| async { "done" })));
    let answer = only_post.oneshot(bare(&Method::GET, DEALS)).await.unwrap();
    let answer = Answer::read(answer, Location::caller()).await;
    answer.refused(405, "METHOD_NOT_ALLOWED");
}

#[tokio::test]
async fn merged_nested_layered_and_fallback_handlers_are_all_behind_the_gate() {
    let service = Service::fresh().await;
    let ran = Arc::new(Mutex::new(0));
    let count = {
        let ran = Arc::clone(&ran);
        move || {
            *ran.lock().unwrap() += 1;
            std::future::ready("done")
        }
    };
    let below = Router::new().route("/deep", any(count.clone()));
    let merged = Router::new().route("/merged", any(count.clone()));
    let service_below = Router::new().fallback(count.clone());
    let router = Router::new()
        .nest("/nested", below)
        .merge(merged)
        .route_service("/service", any(count.clone()))
        .nest_service("/nested-service", service_below.clone())
        .layer(tower::layer::layer_fn(|inner: axum::routing::Route| inner))
        .route("/after-the-layer", any(count))
        .fallback_service(service_below);
    let gated = service.app.serve(router);
    for path in ["/nested/deep", "/merged", "/service", "/nested-service/x", "/after-the-layer", "/nowhere"] {
        let answer = gated.clone().oneshot(bare(&Method::GET, path)).await.unwrap();
        Answer::read(answer, Location::caller()).await.refused(403, "GO_LIVE_DISABLED");
        assert_eq!(*ran.lock().unwrap(), 0, "{path}");
    }
    switch(&service, ENABLE).await;
    for (number, path) in ["/nested/deep", "/merged", "/service", "/nowhere"].into_iter().enumerate() {
        let answer = gated.clone().oneshot(bare(&Method::GET, path)).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(*ran.lock().unwrap(), number + 1, "{path}");
    }
}

// Freshness

#[tokio::test]
async fn the_lease_ends_exactly_two_seconds_after_the_last_read() {
    let service = Service::live().await;
    let upstream = Upstream::behind(&service);
    service.clock.advance(LEASE_MS);
    assert_eq!(upstream.get(DEALS).await.status, 200);
    assert_eq!(upstream.reached().len(), 1);
    service.clock.advance(1);
    let answer = upstream.get(DEALS).await;
    assert_eq!(answer.headers["retry-after"], "1");
    answer.refused(503, "STATE_STALE");
    assert!(upstream.reached().is_empty());
    service.app.feed.refresh(&service.db).await.unwrap();
    assert_eq!(upstream.get(DEALS).await.status, 200, "one good read opens it again");
}

#[tokio::test]
async fn an_instance_that_has_read_nothing_yet_blocks() {
    use holdfast::app::App;
    use holdfast::clock::Clock;
    let mut service = Service::live().await;
    service.app = App::new(&service.db, Clock::manual(0), holdfast::app::Setup::default());
    let upstream = Upstream::behind(&service);
    let body = upstream.get(DEALS).await.refused(503, "STATE_STALE");
    assert_eq!(body["state_version"], json!(null));
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_change_of_its_own_is_effective_at_once() {
    let service = Service::fresh().await;
    let upstream = Upstream::behind(&service);
    for (path, refusal) in [
        (ENABLE, None),
        (ENGAGE, Some("KILL_SWITCH_ENGAGED")),
        (RELEASE, None),
        (DISABLE, Some("GO_LIVE_DISABLED")),
        (ENABLE, None),
    ] {
        switch(&service, path).await;
        let answer = upstream.get(DEALS).await;
        if let Some(code) = refusal {
            answer.refused(403, code);
            assert!(upstream.reached().is_empty(), "after {path}");
        } else {
            assert_eq!(answer.status, 200, "after {path}");
            assert_eq!(upstream.reached().len(), 1, "after {path}");
        }
    }
}

#[tokio::test]
async fn a_kill_switch_pulled_by_a_wire_is_effective_at_once() {
    let service = Service::live().await;
    let upstream = Upstream::behind(&service);
    let wire = json!({
        "domain": "WHOLESALE", "metric": "contract_rate", "enabled": true, "action": "KILL_SWITCH",
        "window_events": 5, "baseline_events": 5, "min_events_to_enforce": 5, "actor": "bryan",
    });
    service.post("/regression/policies/upsert", &wire).await.ok();
    service.kpis("WHOLESALE", "contract_rate", 5, 0).await;
    assert_eq!(upstream.get(DEALS).await.status, 200);
    upstream.reached();
    service.kpis("WHOLESALE", "contract_rate", 5, 1).await;
    upstream.get(DEALS).await.refused(403, "KILL_SWITCH_ENGAGED");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_change_of_its_own_does_not_renew_the_lease() {
    let service = Service::fresh().await;
    let upstream = Upstream::behind(&service);
    service.clock.advance(LEASE_MS + 1);
    switch(&service, ENABLE).await;
    upstream.get(DEALS).await.refused(503, "STATE_STALE");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_change_by_another_instance_is_seen_with_the_next_read() {
    let here = Service::live().await;
    let there = Service::on(here.options.clone(), Setup::default()).await;
    let upstream = Upstream::behind(&here);
    for (path, refusal) in
        [(ENGAGE, Some("KILL_SWITCH_ENGAGED")), (RELEASE, None), (DISABLE, Some("GO_LIVE_DISABLED")), (ENABLE, None)]
    {
        switch(&there, path).await;
        here.app.feed.refresh(&here.db).await.unwrap();
        let answer = upstream.get(DEALS).await;
        if let Some(code) = refusal {
            answer.refused(403, code);
            assert!(upstream.reached().is_empty(), "after {path}");
        } else {
            assert_eq!(answer.status, 200, "after {path}");
            upstream.reached();
        }
    }
}

#[tokio::test]
async fn an_unseen_engage_blocks_when_the_lease_lapses_at_the_latest() {
    let here = Service::live().await;
    let there = Service::on(here.options.clone(), Setup::default()).await;
    let upstream = Upstream::behind(&here);
    here.clock.advance(LEASE_MS);
    switch(&there, ENGAGE).await;
    here.clock.advance(1);
    upstream.get(DEALS).await.refused(503, "STATE_STALE");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_read_that_fails_neither_renews_the_lease_nor_forgets_the_state() {
    let service = Service::live().await;
    let upstream = Upstream::behind(&service);
    service.clock.advance(LEASE_MS);
    service.db.close().await;
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    assert_eq!(upstream.get(DEALS).await.status, 200, "the lease still runs");
    upstream.reached();
    service.clock.advance(1);
    upstream.get(DEALS).await.refused(503, "STATE_STALE");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_state_row_that_is_gone_or_garbled_never_renews_the_lease() {
    for damage in ["DELETE FROM go_live_state", "ALTER TABLE go_live_state DROP COLUMN kill_switch_engaged"] {
        let service = Service::live().await;
        let upstream = Upstream::behind(&service);
        sqlx::query(damage).execute(&service.pool).await.unwrap();
        service.clock.advance(LEASE_MS + 1);
        assert!(service.app.feed.refresh(&service.db).await.is_err(), "{damage}");
        upstream.get(DEALS).await.refused(503, "STATE_STALE");
        assert!(upstream.reached().is_empty(), "{damage}");
    }
}

#[tokio::test]
async fn a_version_that_went_backwards_never_opens_the_gate() {
    let service = Service::live().await;
    switch(&service, ENGAGE).await;
    // As after the restore of a backup from before the engage.
    sqlx::query("UPDATE go_live_state SET version = 2, kill_switch_engaged = false")
        .execute(&service.pool)
        .await
        .unwrap();
    service.app.feed.refresh(&service.db).await.unwrap();
    let upstream = Upstream::behind(&service);
    assert_eq!(upstream.get(DEALS).await.status, 403);
    assert!(upstream.reached().is_empty());
}

// Bypasses. The families are those of the bypass list that the gate was designed against.

/// Paths with two readings: refused in every state, as 400.
const AMBIGUOUS: &[&str] = &[
    "/api/%64eals",
    "/api/%44eals",
    "/%61pi/governance/x",
    "/api/governanc%65/x",
    "/h%65alth",
    "/health/../api/deals",
    "/docs/..%2fapi/deals",
    "/docs/%2e%2e/api/deals",
    "/docs/%2E%2E/api/deals",
    "/docs/.%2e/api/deals",
    "/api/governance/..;/deals",
    "/api/governance/../deals",
    "/api/governance;/../deals",
    "//api/deals",
    "/api//deals",
    "/api/deals//",
    "/api/deals/.",
    "/api/deals/./",
    "/api/deals/..",
    "/./api/deals",
    "/../api/deals",
    "/api/deals%00.json",
    "/api/deals%00",
    "/api/deals%09",
    "/api/deals%0d%0aX:1",
    "/api/deals;x=/health",
    "/api/deals;",
    "/api/deals%3bx",
    "/api%2fdeals",
    "/api%2Fdeals",
    "/api%252fdeals",
    "/api%5cdeals",
    "/api/deals%23",
    "/api/deals%3f/health",
    "/api\\deals",
    "/health\\..\\api\\deals",
    "/%c0%afapi/deals",
    "/health%c0%ae%c0%ae/api/deals",
    "/api/deals%zz",
    "/api/deals%",
    "/api/deals%4",
    "/api/deals%u002e",
    "/health/%ff",
];

/// Paths with one reading, which is not exempt.
const GATED: &[&str] = &[
    "/api/governance-evil",
    "/api/governanceX/deals",
    "/api/governance%20/deals",
    "/healthz",
    "/Health",
    "/HEALTH",
    "/api/deals/",
    "/API/Deals",
    "/Api/Governance/x",
    "/api/deals%20",
    "/api/deals?x=/health",
    "/api/deals?/docs",
    "/api/deals?/../../health",
    "/api/deals?_method=GET",
    "/api/deals/health",
    "/api/deals/api/governance",
    "/api/deals:health",
    "/api/deals,/health",
    "/api/deals&/health",
    "/api/deals~",
    "/docs.html",
    "/openapi.json/",
    "/openapi.json.bak",
    "/static/app.js",
    "/favicon.ico",
    "/.well-known/x",
    "/index.html",
    "http://evil.example/api/deals",
    "http://localhost/api/deals",
    "https://user:pass@evil.example/api/deals",
];

#[tokio::test]
async fn no_spelling_of_a_path_gets_past_a_closed_gate() {
    let service = Service::fresh().await;
    for state in State::CLOSED {
        state.bring_about(&service).await;
        let upstream = Upstream::behind(&service);
        for path in AMBIGUOUS {
            for method in [Method::GET, Method::POST] {
                let answer = upstream.send(bare(&method, path)).await;
                assert_eq!(answer.status, 400, "{state:?} {path}");
                answer.refused(400, "AMBIGUOUS_PATH");
                assert!(upstream.reached().is_empty(), "{state:?} {path}");
            }
        }
        let (status, code) = state.refusal();
        for path in GATED {
            for method in [Method::GET, Method::POST] {
                let answer = upstream.send(bare(&method, path)).await;
                assert_eq!(answer.status, status, "{state:?} {path}");
                answer.refused(status, code);
                assert!(upstream.reached().is_empty(), "{state:?} {path}");
            }
        }
        let long = format!("/api/deals/{}", "a".repeat(64_000));
        upstream.get(&long).await.refused(status, code);
        assert!(upstream.reached().is_empty(), "{state:?}");
    }
}

#[tokio::test]
async fn no_ambiguous_path_reaches_a_handler_of_a_live_service() {
    let service = Service::live().await;
    let upstream = Upstream::behind(&service);
    for path in AMBIGUOUS {
        let body = upstream.get(path).await.refused(400, "AMBIGUOUS_PATH");
        assert!(body["detail"].as_str().unwrap().contains("at byte"), "{path}: {body}");
        assert!(upstream.reached().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn what_the_http_library_refuses_is_no_request_at_all() {
    for uri in ["/api/deals\t", "/api/deals x", "/api/deals\r\nX: 1", "/api/deals\0", "/api/deals\u{7f}"] {
        assert!(Request::builder().uri(uri).body(()).is_err(), "{uri:?} has to be tried against the gate");
    }
}

#[tokio::test]
async fn a_fragment_is_no_part_of_the_path_that_is_served() {
    let service = Service::fresh().await;
    let upstream = Upstream::behind(&service);
    upstream.get("/health#/../api/deals").await.ok();
    assert_eq!(upstream.reached(), ["GET /health"], "what the gate read is what was served");
    upstream.get("/api/deals#/health").await.refused(403, "GO_LIVE_DISABLED");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn no_method_gets_past_a_closed_gate() {
    const METHODS: &str = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT PROPFIND MKCOL PURGE get Get X";
    let service = Service::fresh().await;
    for state in State::CLOSED {
        state.bring_about(&service).await;
        let upstream = Upstream::behind(&service);
        let (status, _) = state.refusal();
        for path in [DEALS, UNKNOWN, "http://evil.example/api/deals"] {
            for method in METHODS.split(' ') {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let answer = upstream.send(bare(&method, path)).await;
                assert_eq!(answer.status, status, "{state:?} {method} {path}");
                assert!(upstream.reached().is_empty(), "{state:?} {method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn request_targets_that_are_no_path_are_refused() {
    let service = Service::fresh().await;
    for state in State::ALL {
        state.bring_about(&service).await;
        let upstream = Upstream::behind(&service);
        for (method, target) in [(Method::OPTIONS, "*"), (Method::CONNECT, "example.com:443"), (Method::GET, "*")] {
            let answer = upstream.send(bare(&method, target)).await;
            assert_eq!(answer.status, 400, "{state:?} {method} {target}");
            assert!(upstream.reached().is_empty(), "{state:?} {method} {target}");
        }
    }
}

/// Headers by which some program somewhere changes the method, the path or the decision.
const OVERRIDES: &[(&str, &str)] = &[
    ("x-http-method-override", "GET"),
    ("x-http-method", "GET"),
    ("x-method-override", "GET"),
    ("x-original-url", "/health"),
    ("x-rewrite-url", "/health"),
    ("x-original-uri", "/health"),
    ("x-forwarded-uri", "/health"),
    ("x-forwarded-path", "/health"),
    ("x-forwarded-prefix", "/docs"),
    ("x-forwarded-host", "localhost"),
    ("x-forwarded-for", "127.0.0.1"),
    ("forwarded", "for=127.0.0.1;host=localhost"),
    ("x-envoy-original-path", "/health"),
    ("x-replaced-path", "/health"),
    ("x-governance-decision", "allow"),
    ("x-governance-class", "OBSERVE_ONLY"),
    ("x-middleware-subrequest", "middleware:middleware:middleware"),
    ("user-agent", "kube-probe/1.30"),
    ("user-agent", "ELB-HealthChecker/2.0"),
    ("x-internal", "1"),
    ("x-exec-class", "OBSERVE_ONLY"),
    ("holdfast-decision", "allow"),
    ("authorization", "Bearer admin"),
    ("cookie", "go_live_enabled=true"),
    ("upgrade", "websocket"),
    ("expect", "100-continue"),
    ("host", "localhost/health"),
    ("referer", "/health"),
];

#[tokio::test]
async fn no_header_gets_past_a_closed_gate() {
    let service = Service::fresh().await;
    for state in State::CLOSED {
        state.bring_about(&service).await;
        let upstream = Upstream::behind(&service);
        let (status, code) = state.refusal();
        let mut all = bare(&Method::POST, DEALS);
        for (name, value) in OVERRIDES {
            let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
            let mut request = bare(&Method::POST, DEALS);
            request.headers_mut().insert(name.clone(), value.clone());
            upstream.send(request).await.refused(status, code);
            assert!(upstream.reached().is_empty(), "{state:?} {name}: {value:?}");
            all.headers_mut().append(name, value);
        }
        upstream.send(all).await.refused(status, code);
        assert!(upstream.reached().is_empty(), "{state:?}, all headers at once");
    }
}

#[tokio::test]
async fn a_header_neither_moves_an_exempt_request_nor_lightens_a_class() {
    let service = scoped(ScopeName::ProdExec).await;
    let upstream = Upstream::behind(&service);
    for name in ["x-original-url", "x-rewrite-url", "x-forwarded-uri", "x-envoy-original-path"] {
        let name = HeaderName::from_static(name);
        let mut request = bare(&Method::GET, "/health");
        request.headers_mut().insert(name.clone(), HeaderValue::from_static(DEALS));
        upstream.send(request).await.ok();
        assert_eq!(upstream.reached(), ["GET /health"], "{name} leads nowhere else");
        let mut request = bare(&Method::POST, DEALS);
        request.headers_mut().insert(name.clone(), HeaderValue::from_static(SANDBOX));
        let body = upstream.send(request).await.refused(403, "GO_LIVE_DISABLED");
        assert_eq!((&body["exec_class"], &body["path"]), (&json!("PROD_EXEC"), &json!(DEALS)));
        assert!(upstream.reached().is_empty(), "{name}");
    }
}
