//! The table of states, and the text of a refusal.

use super::{DEALS, ENGAGE, LEASE_MS, SANDBOX, State, UNKNOWN, Upstream, bare, scoped, switch};
use crate::support::{Service, Setup};
use axum::http::Method;
use holdfast::config::ScopeName;
use serde_json::json;

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

// The contents of a refusal

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
