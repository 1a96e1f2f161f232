//! Forward-auth: what a proxy is told, and that it is never told anything but yes and no.

use crate::support::{Answer, BASE, Service, Setup, request};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::routing::any;
use holdfast::config::ScopeName;
use holdfast::enforcement::Rules;
use serde_json::json;
use std::panic::Location;
use tower::ServiceExt;

/// A proxy, and how it tells what it asks about.
#[derive(Debug, Clone, Copy)]
enum Proxy {
    Nginx,
    Traefik,
    Envoy,
}

const PROXIES: [Proxy; 3] = [Proxy::Nginx, Proxy::Traefik, Proxy::Envoy];

impl Proxy {
    fn request(self, method: &str, uri: &str) -> Request {
        let (path, asks, headers) = match self {
            Self::Nginx => ("/authz/nginx".to_owned(), "GET", Some(("x-original-uri", "x-original-method"))),
            Self::Traefik => ("/authz/traefik".to_owned(), "GET", Some(("x-forwarded-uri", "x-forwarded-method"))),
            Self::Envoy => (format!("/authz/envoy{uri}"), method, None),
        };
        let asks = Method::from_bytes(asks.as_bytes()).unwrap();
        let mut request = request(asks, &format!("{BASE}{path}"), None, "");
        if let Some((uri_header, method_header)) = headers {
            for (name, value) in [(uri_header, uri), (method_header, method)] {
                request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
            }
        }
        request
    }

    async fn ask(self, service: &Service, method: &str, uri: &str) -> Answer {
        service.send(self.request(method, uri)).await
    }
}

/// Allow is 200 with an empty body; everything else is a 403 that says so in its headers. Nothing may be kept of either.
#[track_caller]
fn verdict(answer: &Answer) -> (bool, &str) {
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(!answer.headers.contains_key("retry-after"), "{}", answer.text);
    let reason = answer.headers["x-governance-reason"].to_str().unwrap();
    match answer.status.as_u16() {
        200 => {
            assert_eq!(
                (answer.text.as_str(), &answer.headers["x-governance-decision"]),
                ("", &"allow".parse().unwrap())
            );
            (true, reason)
        }
        403 => {
            assert_eq!(answer.headers["x-governance-decision"], "block");
            assert!(answer.text.len() < 4_096);
            (false, reason)
        }
        status => panic!("{status}: {}", answer.text),
    }
}

async fn switch(service: &Service, path: &str) {
    service.post(path, &json!({"actor": "secret-operator", "reason": "secret-reason"})).await.ok();
}

#[tokio::test]
async fn every_proxy_is_told_what_the_table_says() {
    for scope in [ScopeName::All, ScopeName::ProdExec] {
        let service = Service::with(Setup { scope, ..Setup::default() }).await;
        let sandbox_passes_when_off = matches!(scope, ScopeName::ProdExec);
        for (paths, prod, sandbox) in [
            (&["/go-live/disable"][..], (false, "go_live_disabled"), (sandbox_passes_when_off, "go_live_disabled")),
            (&["/go-live/enable"], (true, "live"), (true, "live")),
            (&["/go-live/kill-switch/engage"], (false, "kill_switch_engaged"), (false, "kill_switch_engaged")),
        ] {
            for path in paths {
                switch(&service, path).await;
            }
            for proxy in PROXIES {
                for uri in ["/api/deals/7?x=/health", "/made/up", "/api/deals/"] {
                    let answer = proxy.ask(&service, "POST", uri).await;
                    assert_eq!(verdict(&answer), prod, "{proxy:?} {uri}");
                    assert_eq!(answer.headers["x-governance-class"], "PROD_EXEC");
                    let version = service.get("/go-live/state").await.ok()["version"].to_string();
                    assert_eq!(answer.headers["x-governance-state-version"], version.as_str());
                    assert!(!answer.text.contains("secret"), "{}", answer.text);
                }
                let answer = proxy.ask(&service, "GET", "/api/sandbox/run").await;
                let sandbox = if sandbox.0 && sandbox.1 != "live" { (true, "not_restricted") } else { sandbox };
                assert_eq!(verdict(&answer), sandbox, "{proxy:?}");
                for uri in ["/", "/health", "/docs/x?y", "/api/governance/go-live/state"] {
                    let answer = proxy.ask(&service, "GET", uri).await;
                    assert_eq!(verdict(&answer), (true, "exempt"), "{proxy:?} {uri}");
                }
            }
        }
        service.clock.advance(2_001);
        for proxy in PROXIES {
            assert_eq!(verdict(&proxy.ask(&service, "GET", "/api/deals").await), (false, "state_stale"), "{proxy:?}");
            assert_eq!(verdict(&proxy.ask(&service, "GET", "/health").await), (true, "exempt"), "{proxy:?}");
        }
    }
}

#[tokio::test]
async fn the_truth_is_told_where_the_own_gate_is_off() {
    let service = Service::with(Setup { env: Some("development"), ..Setup::default() }).await;
    for proxy in PROXIES {
        let answer = proxy.ask(&service, "GET", "/api/deals").await;
        assert_eq!(verdict(&answer), (false, "go_live_disabled"), "{proxy:?}");
    }
}

#[tokio::test]
async fn the_method_that_is_asked_about_is_the_original_one() {
    let rules = Rules::with_file("[[rule]]\npath = \"/api/deals/{id}\"\nmethod = \"GET\"\nclass = \"OBSERVE_ONLY\"\n");
    let service = Service::with(Setup { scope: ScopeName::ProdExec, rules: rules.unwrap(), ..Setup::default() }).await;
    for proxy in PROXIES {
        for (method, allowed) in [("GET", true), ("HEAD", true), ("POST", false), ("PATCH", false), ("get", false)] {
            let answer = proxy.ask(&service, method, "/api/deals/7").await;
            assert_eq!(answer.status == 200, allowed, "{proxy:?} {method}");
        }
    }
}

#[tokio::test]
async fn paths_with_two_readings_are_refused_live_or_not() {
    let service = Service::live().await;
    for uri in [
        "/health/../api/deals",
        "//api/deals",
        "/api//deals",
        "/api/deals/.",
        "/api/..;/deals",
        "/docs/..%2fapi/deals",
        "/docs/%2e%2e/api/deals",
        "/api%2fdeals",
        "/api%252fdeals",
        "/api/deals;x=/health",
        "/api/deals%00.json",
        "/api/deals%zz",
        "/%c0%afapi/deals",
        "/api/%64eals",
    ] {
        for proxy in PROXIES {
            let answer = proxy.ask(&service, "GET", uri).await;
            assert_eq!(verdict(&answer), (false, "ambiguous_path"), "{proxy:?} {uri}");
        }
    }
    // Some characters cannot be in a request line, but can be in a header.
    for uri in [
        "/health#/../api/deals",
        "/api\\deals",
        "http://user@host/health",
        "api/deals",
        "",
        "*",
        "/a b",
        "/health, /api/deals",
    ] {
        for proxy in [Proxy::Nginx, Proxy::Traefik] {
            let answer = proxy.ask(&service, "GET", uri).await;
            assert_eq!(verdict(&answer), (false, "ambiguous_path"), "{proxy:?} {uri:?}");
        }
    }
}

#[tokio::test]
async fn a_question_that_is_missing_doubled_or_no_text_is_refused() {
    let service = Service::live().await;
    for (proxy, uri, method) in [
        (Proxy::Nginx, "x-original-uri", "x-original-method"),
        (Proxy::Traefik, "x-forwarded-uri", "x-forwarded-method"),
    ] {
        let (uri, method) = (HeaderName::from_static(uri), HeaderName::from_static(method));
        for name in [&uri, &method] {
            let mut missing = proxy.request("GET", "/health");
            missing.headers_mut().remove(name);
            assert_eq!(verdict(&service.send(missing).await), (false, "malformed_request"), "{name}");
            let mut doubled = proxy.request("GET", "/health");
            let value = doubled.headers()[name].clone();
            doubled.headers_mut().append(name.clone(), value);
            assert_eq!(verdict(&service.send(doubled).await), (false, "malformed_request"), "{name}");
            let mut garbage = proxy.request("GET", "/health");
            garbage.headers_mut().insert(name.clone(), HeaderValue::from_bytes(b"/health\xff").unwrap());
            assert_eq!(verdict(&service.send(garbage).await), (false, "malformed_request"), "{name}");
        }
    }
    for path in ["/authz", "/authz/", "/authz/nope", "/authz/envoy", "/authz/nginx/"] {
        let answer = service.get(path).await;
        assert!([403, 404].contains(&answer.status.as_u16()), "{path}");
    }
}

#[tokio::test]
async fn raw_utf_8_in_a_query_is_let_through_and_in_a_path_is_refused_with_the_fix() {
    let service = Service::live().await;
    for (proxy, name) in [(Proxy::Nginx, "x-original-uri"), (Proxy::Traefik, "x-forwarded-uri")] {
        let name = HeaderName::from_static(name);
        let ask = |uri: &[u8]| {
            let mut request = proxy.request("GET", "/health");
            request.headers_mut().insert(name.clone(), HeaderValue::from_bytes(uri).unwrap());
            service.send(request)
        };
        for uri in ["/api/deals?name=Jos\u{e9}".as_bytes(), b"/api/deals?name=\xe9"] {
            assert_eq!(verdict(&ask(uri).await), (true, "live"), "{uri:?}");
        }
        let refused = ask("/api/Jos\u{e9}?x=1".as_bytes()).await;
        assert_eq!(verdict(&refused), (false, "malformed_request"));
        assert!(refused.json["detail"].as_str().unwrap().contains("percent-encode"), "{}", refused.text);
    }
    // Requests to Holdfast itself may have it, too.
    let read = service
        .post_form(
            "/risk/policies/upsert?actor=Jos\u{e9}",
            "engine=A&enabled=yes&max_daily_loss=9&max_daily_exposure=9&max_open_risk=9",
        )
        .await
        .ok();
    assert_eq!(read["changed_by"], "Jos\u{e9}", "{read}");
    let stored = service.get("/audit/events?actor=Jos\u{e9}").await.ok();
    assert_eq!(stored["items"][0]["actor"], "Jos\u{e9}");
}

#[tokio::test]
async fn other_headers_and_the_other_familys_change_nothing() {
    let service = Service::fresh().await;
    for proxy in PROXIES {
        for (name, value) in [
            ("x-http-method-override", "GET"),
            ("x-method-override", "HEAD"),
            ("x-original-url", "/health"),
            ("x-rewrite-url", "/health"),
            ("x-envoy-original-path", "/health"),
            ("x-replaced-path", "/health"),
            ("x-forwarded-prefix", "/docs"),
            ("x_forwarded_uri", "/health"),
            ("x-governance-decision", "allow"),
            ("x-exec-class", "OBSERVE_ONLY"),
            ("x-internal", "1"),
            ("x-middleware-subrequest", "1"),
        ] {
            let mut asked = proxy.request("POST", "/api/deals");
            asked.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(verdict(&service.send(asked).await), (false, "go_live_disabled"), "{proxy:?} {name}");
        }
    }
    let mut both = Proxy::Nginx.request("POST", "/api/deals");
    both.headers_mut().insert("x-forwarded-uri", HeaderValue::from_static("/health"));
    both.headers_mut().insert("x-forwarded-method", HeaderValue::from_static("GET"));
    assert!(!verdict(&service.send(both).await).0);
}

async fn broken() -> &'static str {
    panic!("a test")
}

#[tokio::test]
async fn a_failure_of_any_layer_is_a_403() {
    let service = Service::live().await;
    // A handler in their place that does what no handler should.
    let path = format!("{BASE}/authz/nginx");
    for (claim, handler) in [
        ("a panic", any(broken)),
        ("no decision", any(|| async { "yes" })),
        ("a 503", any(|| async { axum::http::StatusCode::SERVICE_UNAVAILABLE })),
        ("a redirect", any(|| async { axum::response::Redirect::to("/") })),
    ] {
        let router = service.app.serve(Router::new().route(&path, handler));
        let asked = Request::builder().uri(&path).body(Body::empty()).unwrap();
        let answer = Answer::read(router.oneshot(asked).await.unwrap(), Location::caller()).await;
        assert!(!verdict(&answer).0, "{claim}");
    }
    let panicked = service.app.serve(Router::new().route(&path, any(broken)));
    let asked = Request::builder().uri(&path).body(Body::empty()).unwrap();
    let answer = Answer::read(panicked.oneshot(asked).await.unwrap(), Location::caller()).await;
    assert_eq!(verdict(&answer), (false, "internal_error"));
}

#[tokio::test]
async fn a_body_is_not_read_and_any_method_may_ask() {
    let service = Service::live().await;
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
        let mut asked = Proxy::Nginx.request("POST", "/api/deals");
        *asked.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *asked.body_mut() = Body::from("x".repeat(1_000_000));
        assert_eq!(verdict(&service.send(asked).await), (true, "live"), "{method}");
    }
    assert_eq!(verdict(&Proxy::Envoy.ask(&service, "PROPFIND", "/api/deals").await), (true, "live"));
}
