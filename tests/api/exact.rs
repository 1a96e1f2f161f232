//! Exactly what was meant: numbers that survive a reader of doubles, and errors that name the fix of what a client's tools do to a request.

use crate::support::{Answer, Service, request};
use axum::http::{HeaderValue, Method};
use axum::{Json, Router};
use holdfast::enforcement::routes::ROUTES;
use serde_json::{Value, json};
use tower::ServiceExt;

const LARGE: &str = "9999999999.999999";

fn policy(engine: &str) -> Value {
    json!({"engine": engine, "enabled": true, "max_open_risk": LARGE, "max_daily_loss": LARGE, "max_daily_exposure": LARGE, "actor": "test"})
}

/// The same answer, with each number as a text of its digits.
fn with_texts(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.to_string()),
        Value::Array(items) => items.iter().map(with_texts).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), with_texts(value))).collect(),
        other => other.clone(),
    }
}

async fn accepting(service: &Service, path: &str, accept: &str) -> Answer {
    let mut asked = request(Method::GET, &format!("/api/governance{path}"), None, "");
    asked.headers_mut().insert("accept", HeaderValue::from_str(accept).unwrap());
    service.send(asked).await
}

#[tokio::test]
async fn with_numbers_string_each_number_of_an_answer_is_a_string_of_the_same_digits() {
    let service = Service::live().await;
    service.post("/risk/policies/upsert", &policy("GLOBAL")).await.ok();
    service.post("/risk/policies/upsert", &policy("A")).await.ok();
    let reserve = format!("/risk/check-and-reserve?engine=A&actor=test&amount={LARGE}&correlation_id=x");
    let held = service.post_form(&format!("{reserve}&numbers=string&idempotency_key=k"), "").await.ok();
    assert_eq!(held["ledger_snapshot"]["open_risk_reserved"], LARGE, "{held}");
    // How the answer is written is no part of what was asked: the key stands for the same request.
    let again = service.post_form(&format!("{reserve}&idempotency_key=k"), "").await;
    assert_eq!(again.headers["idempotent-replayed"], "true", "{}", again.text);
    assert!(again.text.contains(&format!(r#""open_risk_reserved":{LARGE}"#)), "{}", again.text);

    let asked = "application/json;numbers=string";
    for path in ["/risk/ledger/today", "/risk/reservations", "/risk/policies", "/risk/events", "/go-live/state"] {
        let plain = service.get(path).await;
        let by_query = service.get(&format!("{path}?numbers=string")).await;
        assert_eq!(by_query.headers["content-length"], by_query.text.len().to_string().as_str(), "{path}");
        let by_header = accepting(&service, path, asked).await;
        assert_eq!(by_query.text, by_header.text, "{path}");
        // The amounts of these are not whole, or small: a double would print them as they are.
        if path == "/go-live/state" {
            assert_eq!(by_query.json["version"], plain.json["version"].to_string());
            continue;
        }
        assert!(by_query.text.contains(&format!(r#""{LARGE}""#)), "{path}: {}", by_query.text);
        assert_eq!(by_query.text.replace('"', ""), plain.text.replace('"', ""), "{path}");
        assert_eq!(with_texts(&by_query.json), by_query.json, "{path} has a number left");
    }
    // HEAD states no length that GET would not have.
    let head = service.send(request(Method::HEAD, "/api/governance/risk/policies?numbers=string", None, "")).await;
    assert_eq!((head.status.as_u16(), head.headers.get("content-length")), (200, None));
    // A refusal has its amounts as texts, and its status as the standard of problems wants it.
    let reserve = "/risk/reservations?numbers=string";
    let denied = service.post(reserve, &json!({"engine": "A", "amount": 1, "actor": "test"})).await;
    assert!(denied.text.contains(&format!(r#""{LARGE}""#)), "{}", denied.text);
    let refused = service.get("/nope?numbers=string").await.refused(404, "ROUTE_NOT_FOUND");
    assert_eq!(refused["status"], 404, "{refused}");
    let denied = denied.json;
    assert_eq!(denied["status"], 409, "{denied}");
    let mut others = denied.clone();
    others.as_object_mut().unwrap().remove("status");
    assert_eq!(with_texts(&others), others);
}

#[tokio::test]
async fn numbers_string_leaves_alone_what_others_serve_behind_the_gate_and_text_that_looks_like_a_number() {
    let service = Service::live().await;
    let theirs = Router::new().fallback(async || Json(json!({"theirs": 1})));
    for path in ["/api/deals?numbers=string", "/api/governance-like?numbers=string"] {
        let answer = service.app.serve(theirs.clone()).oneshot(request(Method::GET, path, None, "")).await.unwrap();
        let bytes = axum::body::to_bytes(answer.into_body(), 1_000).await.unwrap();
        assert_eq!(bytes, r#"{"theirs":1}"#, "{path}");
    }
    let reason = r#"1,"2":-3.5 \"4\" {"a": 5}"#;
    let body = json!({"actor": "7", "reason": reason});
    service.post("/go-live/disable?numbers=string", &body).await.ok();
    let events = service.get("/audit/events?action=GO_LIVE_DISABLE&numbers=string").await.ok();
    assert_eq!(json!([events["items"][0]["actor"], events["items"][0]["reason"]]), json!(["7", reason]));
}

#[tokio::test]
async fn a_settle_with_a_rounded_amount_says_which_hold_it_left_open_and_with_what() {
    let service = Service::live().await;
    for engine in ["GLOBAL", "A"] {
        let mut policy = policy(engine);
        policy["max_daily_exposure"] = json!("99999999999");
        service.post("/risk/policies/upsert", &policy).await.ok();
    }
    let reserve = format!("/risk/reservations?engine=A&actor=test&amount={LARGE}&correlation_id=x&numbers=string");
    let held = service.post_form(&reserve, "").await;
    // The value in jq 1.6.
    let settle = "engine=A&reserved_amount=9999999999.999998&correlation_id=x&actor=test";
    let settled = service.post_form("/risk/settle", settle).await.ok();
    let id = held.json["reservation_id"].as_str().unwrap();
    assert_eq!(settled["flags"], json!([format!("dust_left: reservation {id} stays open with 0.000001")]));
    let rest = service.post_form("/risk/settle", &format!("reservation_id={id}&actor=test")).await.ok();
    assert_eq!(rest["flags"], json!([]));
    // The amount as it was answered, as a text, leaves nothing.
    let held = service.post_form(&reserve.replace("=x", "=y"), "").await;
    let amount = held.json["reserved"].as_str().unwrap();
    let settle = format!("engine=A&reserved_amount={amount}&correlation_id=y&actor=test");
    let settled = service.post_form("/risk/settle", &settle).await.ok();
    assert_eq!(json!([settled["flags"], settled["reservations"][0]["status"]]), json!([[], "SETTLED"]));
}

#[tokio::test]
async fn every_read_takes_numbers_string_and_no_other_value() {
    let service = Service::fresh().await;
    let reads = ROUTES.iter().filter(|row| {
        row.method == Some(Method::GET) && (row.template.starts_with("/api/") || row.template == "/readyz")
    });
    for path in reads.map(|row| row.template.replace("{id}", "7")) {
        let [plain, with] = [path.clone(), format!("{path}?numbers=string")];
        assert_eq!(service.get_root(&with).await.status, service.get_root(&plain).await.status, "{path}");
        if service.get_root(&plain).await.status == 200 {
            service.get_root(&format!("{path}?numbers=text")).await.invalid("numbers");
        }
    }
    // A stop acts on every input, and has nothing to warn of here.
    let engaged = service.post("/go-live/kill-switch/engage?numbers=string", &json!({"actor": "t"})).await.ok();
    assert_eq!(engaged["warnings"].as_array().map_or(0, Vec::len), 0, "{engaged}");
    assert_eq!(with_texts(&engaged), engaged);
}

#[tokio::test]
async fn a_plus_that_became_a_space_is_told_with_its_fix() {
    let service = Service::fresh().await;
    for path in ["/audit/events?from=", "/audit/events?to=", "/risk/events?from=", "/audit/as-of?at="] {
        let refused = service.get(&format!("{path}2026-01-01T00:00:00+00:00")).await;
        let field = path.split(['?', '=']).nth(1).unwrap();
        let sentence = refused.invalid(field);
        assert!(["+", "%2B", "Z"].iter().all(|part| sentence.contains(part)), "{path}: {sentence}");
    }
    service.get("/audit/events?from=2026-01-01T00:00:00%2B00:00").await.ok();
}

#[tokio::test]
async fn a_route_that_is_not_there_names_the_nearest_with_its_method_and_repeats_nothing() {
    let service = Service::live().await;
    let told = async |method: Method, path: &str| {
        let refused = service.send(request(method, path, None, "")).await.refused(404, "ROUTE_NOT_FOUND");
        refused["detail"].as_str().unwrap().to_owned()
    };
    let detail = told(Method::GET, "/api/governance/go-live/state/").await;
    assert_eq!(
        detail,
        "there is no such route; the nearest: GET /api/governance/go-live/state; see /docs/ for all of them"
    );
    let detail = told(Method::POST, "/api/governance/kill-switch/engage").await;
    assert!(detail.contains("POST /api/governance/go-live/kill-switch/engage"), "{detail}");
    let detail = told(Method::GET, "/api/governance/risk/%3Cscript%3E").await;
    assert!(detail.len() < 300 && !detail.contains("script"), "{detail}");
    assert_eq!(told(Method::GET, "/nope").await, "there is no such route: see /docs/ for all of them");
}
