//! Bypasses. The families are those of the bypass list that the gate was designed against.

use super::{DEALS, SANDBOX, State, UNKNOWN, Upstream, bare, scoped};
use crate::support::Service;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method};
use holdfast::config::ScopeName;
use serde_json::json;

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
