//! The gate as a service: every state, and the bypass families A to D and F.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderName, StatusCode, Uri};
use axum::routing::post;
use tower::ServiceExt;

use super::*;

const KILLED: View = fresh(true, true);
const OFF: View = fresh(false, false);
const LIVE: View = fresh(true, false);
const ALL: Enforcement = Enforcement::On(EnforcementScope::All);
const PROD_ONLY: Enforcement = Enforcement::On(EnforcementScope::ProdExec);

const REFUSED: StatusCode = StatusCode::BAD_REQUEST;
const BLOCKED: StatusCode = StatusCode::FORBIDDEN;
const UNKNOWN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// Every closed state, with the status it answers for `PROD_EXEC`.
const CLOSED: [(View, Enforcement, StatusCode); 8] = [
    (KILLED, ALL, BLOCKED),
    (KILLED, PROD_ONLY, BLOCKED),
    (OFF, ALL, BLOCKED),
    (OFF, PROD_ONLY, BLOCKED),
    (View::Stale, ALL, UNKNOWN),
    (View::Stale, PROD_ONLY, UNKNOWN),
    (View::Rewound, ALL, UNKNOWN),
    (View::Killed, PROD_ONLY, BLOCKED),
];

const fn fresh(go_live_enabled: bool, kill_switch_engaged: bool) -> View {
    View::Fresh { version: 7, go_live_enabled, kill_switch_engaged }
}

impl Source for View {
    fn view(&self) -> View {
        *self
    }
}

/// The handler. It records the targets for which it was called.
#[derive(Clone, Default)]
struct Handler(Arc<Mutex<Vec<String>>>);

impl Handler {
    fn calls(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }
}

impl Service<Request<Body>> for Handler {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut calls = self.0.lock().expect("not poisoned");
        calls.push(request.uri().to_string());
        ready(Ok(StatusCode::IM_A_TEAPOT.into_response()))
    }
}

/// A request as hyper would hand it over; `None` if hyper itself refuses the target.
fn request(method: &str, target: &str) -> Option<Request<Body>> {
    let uri = target.parse::<Uri>().ok()?;
    let request = Request::builder().method(method).uri(uri);
    Some(request.body(Body::empty()).expect("a method"))
}

/// Sends one request through a gate. Returns the status and the handler's calls.
async fn send(view: View, enforcement: Enforcement, request: Request<Body>) -> (StatusCode, Vec<String>) {
    let handler = Handler::default();
    let gate = GateLayer::new(view, enforcement, Arc::new(Rules::default())).layer(handler.clone());
    let response = gate.oneshot(request).await.expect("infallible");
    (response.status(), handler.calls())
}

/// Asserts that the gate itself answers `status` and does not call the handler.
async fn assert_shut(view: View, enforcement: Enforcement, target: &str, status: StatusCode) {
    let sent = request("POST", target).expect(target);
    let got = send(view, enforcement, sent).await;
    assert_eq!(got, (status, vec![]), "{target} {view:?} {enforcement:?}");
}

/// Asserts that the handler answers, with the target unchanged.
async fn assert_open(view: View, enforcement: Enforcement, target: &str) {
    let sent = request("POST", target).expect(target);
    let got = send(view, enforcement, sent).await;
    let expected = (StatusCode::IM_A_TEAPOT, vec![target.to_owned()]);
    assert_eq!(got, expected, "{target} {view:?} {enforcement:?}");
}

#[test]
fn the_table_holds_for_every_class_state_and_scope() {
    use EnforcementScope::{All, ProdExec as ProdOnly};
    use ExecutionClass::{ObserveOnly, ProdExec, SandboxExec};
    const KILL: Verdict = Verdict::Block(Block::KillSwitchEngaged);
    const FILE: Verdict = Verdict::Block(Block::KilledLocally);
    const DOWN: Verdict = Verdict::Block(Block::GoLiveDisabled);
    const STALE: Verdict = Verdict::Block(Block::StateStale);
    const BACK: Verdict = Verdict::Block(Block::StateRewound);
    const PASS: Verdict = Verdict::Allow;
    for (view, scope, verdicts) in [
        (KILLED, All, [KILL, KILL, KILL]),
        (KILLED, ProdOnly, [KILL, KILL, KILL]),
        (fresh(false, true), All, [KILL, KILL, KILL]),
        (fresh(false, true), ProdOnly, [KILL, KILL, KILL]),
        (OFF, All, [DOWN, DOWN, DOWN]),
        (OFF, ProdOnly, [PASS, PASS, DOWN]),
        (LIVE, All, [PASS, PASS, PASS]),
        (LIVE, ProdOnly, [PASS, PASS, PASS]),
        (View::Stale, All, [STALE, STALE, STALE]),
        (View::Stale, ProdOnly, [STALE, STALE, STALE]),
        (View::Rewound, All, [BACK, BACK, BACK]),
        (View::Rewound, ProdOnly, [BACK, BACK, BACK]),
        (View::Killed, All, [FILE, FILE, FILE]),
        (View::Killed, ProdOnly, [FILE, FILE, FILE]),
    ] {
        let classes = [ObserveOnly, SandboxExec, ProdExec].map(RouteClass::Class);
        let decided = classes.map(|class| decide(class, view, scope));
        assert_eq!(decided, verdicts, "{view:?} {scope:?}");
        assert_eq!(decide(RouteClass::Exempt, view, scope), PASS, "{view:?}");
    }
}

#[tokio::test]
async fn kill_switch_blocks_every_class_and_never_calls_the_handler() {
    for enforcement in [ALL, PROD_ONLY] {
        for target in ["/api/deals", "/api/sandbox/runs", "/nobody/knows/this"] {
            assert_shut(KILLED, enforcement, target, BLOCKED).await;
            assert_shut(View::Stale, enforcement, target, UNKNOWN).await;
        }
    }
}

#[tokio::test]
async fn go_live_off_blocks_the_sandbox_only_in_the_wide_scope() {
    assert_shut(OFF, ALL, "/api/sandbox/runs", BLOCKED).await;
    assert_open(OFF, PROD_ONLY, "/api/sandbox/runs").await;
    assert_shut(OFF, PROD_ONLY, "/api/deals", BLOCKED).await;
}

#[tokio::test]
async fn a_live_state_and_an_enforcement_that_is_off_hand_everything_on_unchanged() {
    for target in ["/api/deals?x=%2f..", "/nobody/knows/this/", "/health"] {
        assert_open(LIVE, ALL, target).await;
        assert_open(LIVE, PROD_ONLY, target).await;
        assert_open(KILLED, Enforcement::Off, target).await;
        assert_open(View::Stale, Enforcement::Off, target).await;
    }
}

const EXEMPT: &str = "
    / /health /livez /readyz /metrics /openapi.json /docs /docs/ /docs/index.css /console
    /console/app.js /ofrep/v1/evaluate/flags /api/governance/go-live/kill-switch/release
";

#[tokio::test]
async fn exempt_paths_pass_in_every_state() {
    for (view, enforcement, _) in CLOSED {
        for target in EXEMPT.split_whitespace() {
            assert_open(view, enforcement, target).await;
        }
    }
}

/// Family A, the part with one reading: blocked like any unknown path.
const DISGUISED: &str = r"
    /api/governance-evil /api/governanceX /api/governanceX/deals /api/governances /healthz
    /health/ /health/x /healthcare-export /docs-internal /docsX/a /api/administer
    /openapi.json/ /metricsX /consoles /ofrepX /api/deals/ /API/Deals /API/GOVERNANCE/x
    /Health /api/deals%20 /health%20 /api/deals?x=/health
    /api/deals?/docs /api/deals?_method=GET /api/deals?/../../health /api/deals#/health
    http://localhost/api/deals http://health/api/deals
    https://evil.example/api/deals?/health
";

#[tokio::test]
async fn no_near_miss_and_no_query_passes_for_an_exempt_path() {
    let long = format!("/api/deals/{}", "a".repeat(60_000));
    for (view, enforcement, status) in CLOSED {
        for target in DISGUISED.split_whitespace().chain([long.as_str()]) {
            assert_shut(view, enforcement, target, status).await;
        }
    }
}

/// Families A and B, the part with two readings.
const AMBIGUOUS: &str = r"
    /health/../api/deals /docs/..%2fapi/deals /docs/%2e%2e/api/deals /docs/%2E./api/deals
    /api/governance/..;/deals /api/governance/../deals //api/deals /api//deals
    /api/governance//x /health// /api/deals/. /./api/deals /docs/.. /api/deals%00.json
    /health%00 /api/deals%09 /api/deals%0d%0a /api/deals;x=/health /health;/api/deals
    /api%2fdeals /api%252fdeals /api%5cdeals /api\deals /docs/..\api\deals /%c0%afapi/deals
    /docs/%c0%ae%c0%ae/api /api/deals%zz /api/deals%4 /api/deals% /health%23/api/deals
    /health%3f/api/deals /health%3b/api/deals /docs/é http://localhost//api/deals
    http://localhost/health/../api/deals * localhost:443
";

#[tokio::test]
async fn ambiguous_paths_are_refused_in_every_state_and_while_enforcement_is_off() {
    for target in AMBIGUOUS.split_whitespace() {
        for (view, enforcement, _) in CLOSED {
            assert_shut(view, enforcement, target, REFUSED).await;
        }
        assert_shut(LIVE, ALL, target, REFUSED).await;
        assert_shut(LIVE, Enforcement::Off, target, REFUSED).await;
    }
}

#[tokio::test]
async fn a_raw_fragment_is_gone_before_gate_and_router_read_the_path() {
    let sent = request("POST", "/health#/../api/deals").expect("a target");
    assert_eq!(send(KILLED, ALL, sent).await.1, ["/health"]);
    for raw in ["/api/deals ", "/api/deals\t", "/api/deals\0", "api/deals"] {
        assert!(request("POST", raw).is_none(), "{raw:?} is no target");
    }
}

/// Family B: preflight, tunnel, extension, the method that Unleash forgot, and one in lower case.
const METHODS: &str = "GET HEAD OPTIONS POST PUT PATCH DELETE TRACE CONNECT PROPFIND get X";

#[tokio::test]
async fn no_method_is_lighter_than_another() {
    for (view, enforcement, status) in CLOSED {
        for method in METHODS.split(' ') {
            for (target, status) in [("/api/deals", status), ("*", REFUSED), ("localhost:443", REFUSED)] {
                let sent = request(method, target).expect("a target");
                let got = send(view, enforcement, sent).await;
                assert_eq!(got, (status, vec![]), "{method} {target}");
            }
        }
    }
}

/// Families C and D: headers that opened other gates.
const HEADERS: &str = "
    x-http-method-override=GET x-http-method=HEAD x-method-override=OPTIONS
    x-original-url=/health x-rewrite-url=/health x-forwarded-uri=/health
    x-original-uri=/health x-envoy-original-path=/health x-replaced-path=/health
    x-forwarded-prefix=/api/governance x-forwarded-method=OPTIONS host=health
    x-governance-decision=allow x-governance-class=OBSERVE_ONLY
    x-exec-class=OBSERVE_ONLY x-middleware-subrequest=middleware x-internal=1
    user-agent=kube-probe/1.30 user-agent=GoogleHC/1.0 upgrade=websocket
    authorization=Bearer
";

#[tokio::test]
async fn no_header_opens_the_gate() {
    for (view, enforcement, status) in CLOSED {
        for header in HEADERS.split_whitespace() {
            let (name, value) = header.split_once('=').expect("name=value");
            let name = HeaderName::from_static(name);
            let mut sent = request("POST", "/api/deals").expect("a target");
            let headers = sent.headers_mut();
            headers.insert(name, value.parse().expect("a value"));
            let got = send(view, enforcement, sent).await;
            assert_eq!(got, (status, vec![]), "{header}");
        }
    }
}

/// A router of every kind of route; only GET /health answers without calling the handler.
fn router(handler: &Handler, with_fallback: bool) -> Router {
    let nested = Router::new().route_service("/deep", handler.clone());
    let router = Router::new()
        .route("/api/deals", post(|| async {}))
        .route_service("/static/{*rest}", handler.clone())
        .merge(Router::new().route_service("/merged", handler.clone()))
        .nest("/nested", nested)
        .layer(axum::middleware::map_response(async |answer: Response| answer))
        .route_service("/late", handler.clone())
        .route("/health", axum::routing::get(async || "ok"));
    if with_fallback { router.fallback_service(handler.clone()) } else { router }
}

#[tokio::test]
async fn merged_nested_and_late_routes_fallbacks_404_and_405_are_behind_the_gate() {
    // GET /api/deals would be a 405, /nowhere a 404: while closed, the gate does not reveal which routes exist.
    const TARGETS: &str = "/api/deals /static/a.js /merged /nested/deep /nested/none /late /nowhere";
    for (view, enforcement, status) in CLOSED {
        for with_fallback in [true, false] {
            let handler = Handler::default();
            let gate =
                GateLayer::new(view, enforcement, Arc::new(Rules::default())).layer(router(&handler, with_fallback));
            let get = async |target| {
                let sent = request("GET", target).expect("a target");
                gate.clone().oneshot(sent).await.expect("infallible")
            };
            for target in TARGETS.split(' ') {
                assert_eq!(get(target).await.status(), status, "{target} {view:?}");
            }
            assert_eq!(get("/health").await.status(), StatusCode::OK);
            assert!(handler.calls().is_empty());
        }
    }
}

#[test]
fn a_refusal_carries_class_and_version_and_no_version_when_stale() {
    let admit = |view: View| {
        let gate = GateLayer::new(view, ALL, Arc::new(Rules::default())).layer(());
        gate.admit(&Method::POST, "/api/sandbox/runs")
    };
    let blocked =
        |block, state_version| Err(Refusal::Blocked { block, exec_class: ExecutionClass::SandboxExec, state_version });
    assert_eq!(admit(KILLED), blocked(Block::KillSwitchEngaged, Some(7)));
    assert_eq!(admit(OFF), blocked(Block::GoLiveDisabled, Some(7)));
    assert_eq!(admit(View::Stale), blocked(Block::StateStale, None));
    assert_eq!(admit(LIVE), Ok(()));
}
