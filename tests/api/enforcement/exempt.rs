//! Routes that are exempt, and the many that are not.

use super::{DEALS, DISABLE, ENABLE, ENGAGE, RELEASE, State, Upstream, bare, switch};
use crate::support::{Answer, Service};
use axum::Router;
use axum::http::Method;
use axum::routing::{any, post};
use std::panic::Location;
use std::sync::{Arc, Mutex};
use tower::ServiceExt;

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
