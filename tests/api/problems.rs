//! Everything that is not a success: one body, whatever layer it comes from.

use crate::support::{Answer, BASE, Service, request};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::routing::get;
use holdfast::enforcement::routes::ROUTES;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use sqlx::Executor;
use std::panic::Location;
use tower::ServiceExt;

const ENABLE: &str = "/go-live/enable";

/// Sends to a router of one's own behind the whole stack.
async fn send(service: &Service, router: Router, request: Request) -> Answer {
    let response = service.app.serve(router).oneshot(request).await.unwrap();
    Answer::read(response, Location::caller()).await
}

/// Checks every member that all problems have.
#[track_caller]
fn assert_problem(answer: Answer, status: u16, code: &str, instance: &str) -> Value {
    let request_id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let body = answer.refused(status, code);
    let kind = format!("urn:holdfast:problem:{}", code.to_lowercase().replace('_', "-"));
    assert_eq!((&body["type"], &body["status"], &body["instance"]), (&json!(kind), &json!(status), &json!(instance)));
    assert_eq!(body["request_id"], request_id.as_str());
    for member in ["title", "detail"] {
        assert!(!body[member].as_str().unwrap().is_empty(), "{body}");
    }
    body
}

#[tokio::test]
async fn every_refusal_has_the_same_body() {
    let service = Service::live().await;
    let post = |path: &str, content_type, body: &str| service.post_bytes(path, content_type, body.to_owned());
    let json_type = Some("application/json");
    let big = " ".repeat(65 * 1024);
    for (answer, status, code, path) in [
        (service.get("/nope?x=1").await, 404, "ROUTE_NOT_FOUND", "/api/governance/nope"),
        (service.get_root("/nope").await, 404, "ROUTE_NOT_FOUND", "/nope"),
        (service.get(ENABLE).await, 405, "METHOD_NOT_ALLOWED", "/api/governance/go-live/enable"),
        (service.get_root("/api//x").await, 400, "AMBIGUOUS_PATH", "/api//x"),
        (post(ENABLE, json_type, "{").await, 400, "MALFORMED_REQUEST", "/api/governance/go-live/enable"),
        (
            post(ENABLE, json_type, r#"{"actor":"a","actor":"b"}"#).await,
            400,
            "CONTRADICTORY_INPUT",
            "/api/governance/go-live/enable",
        ),
        (post(ENABLE, json_type, &big).await, 413, "BODY_TOO_LARGE", "/api/governance/go-live/enable"),
        (
            post(ENABLE, Some("text/plain"), "hello").await,
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "/api/governance/go-live/enable",
        ),
        (post(ENABLE, None, "hello").await, 415, "UNSUPPORTED_MEDIA_TYPE", "/api/governance/go-live/enable"),
        (post(ENABLE, json_type, "{}").await, 422, "VALIDATION_FAILED", "/api/governance/go-live/enable"),
        (
            service.get("/heimdall/recommendations/7").await,
            404,
            "NOT_FOUND",
            "/api/governance/heimdall/recommendations/7",
        ),
        (
            service.get("/heimdall/recommendations/x").await,
            422,
            "VALIDATION_FAILED",
            "/api/governance/heimdall/recommendations/x",
        ),
    ] {
        assert_problem(answer, status, code, path);
    }
}

#[tokio::test]
async fn validation_names_the_field_and_the_fix() {
    let service = Service::live().await;
    let body = service.post(ENABLE, &json!({"actor": "a\u{0}b"})).await.refused(422, "VALIDATION_FAILED");
    let errors = body["errors"].as_array().unwrap();
    assert_eq!((errors.len(), &errors[0]["field"]), (1, &json!("actor")));
    assert!(errors[0]["detail"].as_str().unwrap().contains("remove it"), "{body}");
    assert_eq!(body["detail"], format!("actor {}", errors[0]["detail"].as_str().unwrap()));
}

#[tokio::test]
async fn a_405_says_which_methods_the_route_takes() {
    let service = Service::fresh().await;
    for (method, path, allowed) in [
        (Method::GET, "/go-live/enable", vec!["POST"]),
        (Method::DELETE, "/go-live/state", vec!["GET", "HEAD"]),
        (Method::PUT, "/go-live/packs", vec!["GET", "HEAD", "POST"]),
        (Method::OPTIONS, "/risk/settle", vec!["POST"]),
        (Method::TRACE, "/risk/settle", vec!["POST"]),
    ] {
        let path = format!("{BASE}{path}");
        let answer = service.send(request(method.clone(), &path, None, "")).await;
        let allow = answer
            .headers
            .get("allow")
            .unwrap_or_else(|| panic!("{method} {path}: no Allow header"))
            .to_str()
            .unwrap()
            .to_owned();
        let mut methods: Vec<_> = allow.split(',').map(str::trim).collect();
        methods.sort_unstable();
        assert_eq!(methods, allowed, "{method} {path}");
        assert_problem(answer, 405, "METHOD_NOT_ALLOWED", &path);
    }
}

#[tokio::test]
async fn a_head_request_that_is_refused_has_no_body() {
    let service = Service::fresh().await;
    for (path, status) in [
        ("/api/governance/nope", 404),
        ("/api/governance/go-live/enable", 405),
        ("/api/deals", 403),
        ("/api//deals", 400),
    ] {
        let answer = service.send(request(Method::HEAD, path, None, "")).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (status, ""), "{path}");
    }
}

#[tokio::test]
async fn a_panic_is_an_opaque_500_of_one_request() {
    async fn boom() -> &'static str {
        panic!("the secret of the handler")
    }
    let service = Service::live().await;
    let router = Router::new().route("/boom", get(boom)).route("/fine", get(|| async { "fine" }));
    let answer = send(&service, router.clone(), request(Method::GET, "/boom", None, "")).await;
    assert!(!answer.text.contains("secret"), "{}", answer.text);
    assert_problem(answer, 500, "INTERNAL_ERROR", "/boom");
    let answer = send(&service, router, request(Method::GET, "/fine", None, "")).await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, "fine"));
}

#[tokio::test]
async fn what_the_database_says_stays_in_the_log() {
    let service = Service::live().await;
    service.pool.execute("ALTER TABLE go_live_state RENAME TO secret_state").await.unwrap();
    let by = json!({"actor": "bryan"});
    for answer in [
        service.get("/go-live/state").await,
        service.post(ENABLE, &by).await,
        service.post("/go-live/disable", &by).await,
        service.get("/review").await,
        service.post("/go-live/kill-switch/engage", &by).await,
    ] {
        for word in ["state\" does not exist", "relation", "SELECT", "secret", "postgres", "sqlx", "42P01"] {
            assert!(!answer.text.contains(word), "{}", answer.text);
        }
        assert!(answer.json["detail"].as_str().unwrap().contains("request_id"), "{}", answer.text);
        // An engage has stopped this instance all the same.
        if answer.status == 503 {
            answer.refused(503, "ENGAGED_LOCALLY");
        } else {
            answer.refused(500, "INTERNAL_ERROR");
        }
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_a_503_to_try_again() {
    let service = Service::live().await;
    service.db.close().await;
    let by = json!({"actor": "bryan"});
    let reserve = json!({"engine": "WHOLESALE", "amount": 1});
    for answer in [
        service.get("/go-live/state").await,
        service.get("/risk/ledger/today").await,
        service.post("/go-live/disable", &by).await,
        service.post("/risk/check-and-reserve", &reserve).await,
    ] {
        assert_eq!(answer.headers["retry-after"], "1");
        let path = answer.json["instance"].as_str().unwrap().to_owned();
        let body = assert_problem(answer, 503, "DATABASE_UNAVAILABLE", &path);
        assert_eq!(body["retry_same_key"], true);
    }
}

#[tokio::test]
async fn a_bare_404_or_405_of_any_router_gets_the_body() {
    let service = Service::live().await;
    let router = Router::new()
        .route("/there", get(|| async { "there" }))
        .route("/bare", get(|| async { StatusCode::NOT_FOUND }));
    for (method, path, status, code) in [
        (Method::GET, "/nowhere", 404, "ROUTE_NOT_FOUND"),
        (Method::GET, "/bare", 404, "ROUTE_NOT_FOUND"),
        (Method::POST, "/there", 405, "METHOD_NOT_ALLOWED"),
    ] {
        let answer = send(&service, router.clone(), request(method, path, None, "")).await;
        assert_problem(answer, status, code, path);
    }
}

#[tokio::test]
async fn an_answer_of_the_handlers_own_passes_unchanged() {
    let service = Service::live().await;
    let router = Router::new().route("/own", get(|| async { (StatusCode::NOT_FOUND, "no such deal") }));
    let response = service.app.serve(router).oneshot(request(Method::GET, "/own", None, "")).await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
    assert_eq!(body, "no such deal");
}

// X-Request-Id

#[tokio::test]
async fn a_harmless_request_id_is_echoed_in_header_body_and_event() {
    let service = Service::fresh().await;
    let longest = "a".repeat(64);
    for id in ["7", "monday-7", "Trace_01HZX", "0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5e", longest.as_str()] {
        let header = ("x-request-id", id);
        let answer = service.post_with(ENABLE, header, &json!({})).await;
        assert_eq!(answer.headers["x-request-id"], id);
        assert_eq!(answer.refused(422, "VALIDATION_FAILED")["request_id"], id);
        let answer = service.post_with(ENABLE, header, &json!({"actor": "bryan"})).await;
        assert_eq!(answer.headers["x-request-id"], id);
        answer.ok();
        let events = service.get("/go-live/events?limit=1").await.ok();
        assert_eq!(events["items"][0]["request_id"], id);
    }
}

#[tokio::test]
async fn a_request_id_that_could_do_harm_is_replaced() {
    let service = Service::fresh().await;
    let long = "a".repeat(65);
    let harmful: [&[u8]; 9] =
        [b"", b"a b", b"a;b", b"../../etc", b"<script>", b"a\tb", b"\"quoted\"", b"caf\xc3\xa9", long.as_bytes()];
    for id in harmful {
        let mut request = request(Method::GET, "/health", None, "");
        let value = HeaderValue::from_bytes(id).unwrap();
        request.headers_mut().insert("x-request-id", value);
        let answer = service.send(request).await;
        let given = answer.headers["x-request-id"].to_str().unwrap();
        assert!(given.len() == 32 && given.bytes().all(|byte| byte.is_ascii_hexdigit()), "{given}");
    }
}

#[tokio::test]
async fn every_request_without_an_id_gets_its_own() {
    let service = Service::fresh().await;
    let first = service.get_root("/health").await;
    let second = service.get_root("/health").await;
    assert_ne!(first.headers["x-request-id"], second.headers["x-request-id"]);
}

// Caching

#[tokio::test]
async fn no_read_may_be_cached() {
    let service = Service::live().await;
    for route in ROUTES {
        if route.method != Some(Method::GET) || route.template.starts_with("/docs/") {
            continue;
        }
        let path = route.template.replace("{id}", "7");
        for method in [Method::GET, Method::HEAD] {
            let answer = service.send(request(method, &path, None, "")).await;
            assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
        }
    }
}

#[tokio::test]
async fn a_body_that_never_ends_does_not_hold_up_a_refusal_by_path() {
    let service = Service::fresh().await;
    let endless = || Body::new(Full::from("x").with_trailers(std::future::pending()));
    service.post_bytes("/nope", Some("application/json"), endless()).await.refused(404, "ROUTE_NOT_FOUND");
    let mut blocked = request(Method::POST, "/api/deals", Some("application/json"), "");
    *blocked.body_mut() = endless();
    service.send(blocked).await.refused(403, "GO_LIVE_DISABLED");
}
