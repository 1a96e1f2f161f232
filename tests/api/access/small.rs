//! The harm that a token could do to others by small means.

use super::reach::two_engines;
use super::{call, create, new, refresh, token};
use crate::support::{BASE, Service, request};
use axum::http::Method;
use serde_json::{Value, json};

async fn post(service: &Service, token: &str, path: &str, body: Value) -> (u16, Value) {
    let answer = call(service, Method::POST, &format!("{BASE}{path}"), Some(token), &body).await;
    (answer.status.as_u16(), answer.json)
}

fn losses_refused(service: &Service) -> u64 {
    let metrics = service.app.metrics.render();
    let value = metrics.lines().find_map(|line| line.strip_prefix("holdfast_losses_refused_total "));
    value.expect("it counts from the start").parse().unwrap()
}

#[tokio::test]
async fn a_loss_beyond_the_bound_of_its_token_is_refused_and_stops_nobody_else() {
    let service = two_engines().await;
    service.reserve("A", "5").await.ok();
    let mut bounded = new("reserve");
    bounded.engines = Some(vec!["A".parse().unwrap()]);
    bounded.max_loss = Some("10".parse().unwrap());
    let token = create(&service, bounded).await;
    let settle = |loss: &str| json!({"engine": "A", "reserved_amount": 1, "realized_loss": loss});
    let before = losses_refused(&service);
    for loss in ["1000000000000", "10.000001"] {
        let (status, refused) = post(&service, &token, "/risk/settle", settle(loss)).await;
        assert_eq!((status, &refused["error"]), (403, &json!("OUT_OF_REACH")), "{refused}");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("up to 10 at once, and this is {loss}")), "{detail}");
    }
    let batch = json!({"operations": [
        {"op": "settle", "engine": "A", "reserved_amount": 1, "realized_loss": 11},
        {"op": "settle", "engine": "A", "reserved_amount": 1, "realized_loss": 10},
    ]});
    let (_, answer) = post(&service, &token, "/risk/batch", batch).await;
    assert_eq!(json!([answer["results"][0]["status"], answer["results"][1]["status"]]), json!([403, 200]), "{answer}");
    assert_eq!(service.count("SELECT sum(loss_delta)::bigint FROM risk_event").await, 10);
    // Other tests of the process may count as well.
    let refused = losses_refused(&service) - before;
    assert!(refused >= 3, "{refused}");
}

#[tokio::test]
async fn exposure_that_was_never_reserved_is_bound_like_a_loss() {
    let service = two_engines().await;
    let mut bounded = new("reserve,operate,release");
    bounded.engines = Some(vec!["A".parse().unwrap()]);
    bounded.max_loss = Some("10".parse().unwrap());
    let token = create(&service, bounded).await;
    let body = json!({"engine": "A", "amount": 5});
    let held = post(&service, &token, "/risk/check-and-reserve", body).await.1["reservation_id"].clone();
    let by_id = format!("/risk/reservations/{}/settle", held.as_str().unwrap());
    let before = service.count("SELECT max(seq) FROM risk_event").await;
    for (path, body) in [
        ("/risk/settle", json!({"engine": "A", "reserved_amount": 0, "settled_amount": 1_000_000_000_000_u64})),
        ("/risk/settle", json!({"engine": "A", "reserved_amount": 1, "settled_amount": "11.000001"})),
        (by_id.as_str(), json!({"settled_amount": 16})),
        ("/risk/adjustments", json!({"corrects_seq": 1, "exposure_delta": 11, "reason": "told wrong"})),
    ] {
        let (status, refused) = post(&service, &token, path, body).await;
        assert_eq!((status, &refused["error"]), (403, &json!("OUT_OF_REACH")), "{refused}");
    }
    assert_eq!(service.count("SELECT max(seq) FROM risk_event").await, before);
    assert_eq!(post(&service, &token, &by_id, json!({"settled_amount": 15})).await.0, 200);
}

#[tokio::test]
async fn a_chosen_id_belongs_to_the_caller_who_reserved_with_it() {
    let service = two_engines().await;
    let body = json!({"engine": "A", "amount": 5, "reservation_id": "0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5f"});
    let (first, second) = (token(&service, "reserve").await, token(&service, "reserve").await);
    let made = post(&service, &first, "/risk/check-and-reserve", body.clone()).await.1;
    let (status, refused) = post(&service, &second, "/risk/check-and-reserve", body.clone()).await;
    assert_eq!(json!([status, refused["error"], refused["fields"]]), json!([409, "RESERVATION_EXISTS", ["principal"]]));
    let again = post(&service, &first, "/risk/check-and-reserve", body).await.1;
    assert_eq!(json!([again["replayed"], again["reservation_id"]]), json!([true, made["reservation_id"]]));
}

#[tokio::test]
async fn a_reservation_id_of_another_engine_is_told_nothing_of() {
    let service = two_engines().await;
    let id = "0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5f";
    let body = |engine: &str| json!({"engine": engine, "amount": 5, "reservation_id": id});
    service.post("/risk/check-and-reserve", &body("B")).await.ok();
    let mut narrow = new("reserve");
    narrow.engines = Some(vec!["A".parse().unwrap()]);
    let token = create(&service, narrow).await;
    let (status, refused) = post(&service, &token, "/risk/check-and-reserve", body("A")).await;
    assert_eq!((status, &refused["error"]), (404, &json!("NOT_FOUND")), "{refused}");
    assert_eq!(refused["fields"], Value::Null, "{refused}");
}

#[tokio::test]
async fn refusals_of_one_kind_crowd_no_refused_switch_out_of_the_trail() {
    let service = Service::live().await;
    let token = token(&service, "read").await;
    for _ in 0..20 {
        assert_eq!(post(&service, &token, "/risk/policies/upsert", json!({"engine": "A"})).await.0, 403);
        assert_eq!(post(&service, &token, "/go-live/kill-switch/engage", json!({})).await.0, 403);
    }
    for path in ["/go-live/kill-switch/release", "/go-live/enable", "/go-live/disable"] {
        assert_eq!(post(&service, &token, path, json!({"actor": "x"})).await.0, 403);
    }
    refresh(&service).await;
    for (noted, subject) in [
        (
            "SELECT count(*) FROM control_event WHERE action = 'ACCESS_REFUSED' AND subject LIKE '%kill-switch/release'",
            1,
        ),
        ("SELECT count(*) FROM control_event WHERE action = 'ACCESS_REFUSED' AND subject LIKE '%go-live/enable'", 1),
        ("SELECT count(*) FROM control_event WHERE action = 'ACCESS_REFUSED' AND subject LIKE '%go-live/disable'", 1),
        (
            "SELECT count(*) FROM control_event WHERE action = 'ACCESS_REFUSED' AND subject LIKE '%kill-switch/engage'",
            10,
        ),
    ] {
        assert_eq!(service.count(noted).await, subject, "{noted}");
    }
}

#[tokio::test]
async fn an_age_that_no_time_has_is_refused() {
    let service = Service::live().await;
    for age in ["300000000000", "3155760001", "9223372036854775807"] {
        service.get(&format!("/risk/reservations?older_than={age}")).await.invalid("older_than");
    }
    service.get("/risk/reservations?older_than=3155760000").await.ok();
}

#[tokio::test]
async fn marks_of_direction_are_no_text() {
    let service = Service::live().await;
    for mark in ["\u{200e}", "\u{200f}", "\u{061c}", "\u{202e}", "\u{2066}"] {
        let body = json!({"actor": format!("an{mark}n"), "reason": "x"});
        service
            .post("/regression/kind", &{
                let mut body = body;
                body["domain"] = json!("D");
                body["metric"] = json!("m");
                body["kind"] = json!("BOOLEAN");
                body
            })
            .await
            .invalid("actor");
    }
}

#[tokio::test]
async fn no_engine_is_named_as_holdfast_itself() {
    let service = Service::live().await;
    service.post("/risk/policies/upsert", &json!({"engine": "system", "max_open_risk": 1})).await.invalid("engine");
    service
        .post("/regression/policies/upsert", &json!({"domain": "D", "metric": "m", "engine": "SYSTEM"}))
        .await
        .invalid("engine");
    service.post("/regression/policies/upsert", &json!({"domain": "SYSTEM", "metric": "m"})).await.invalid("engine");
}

#[tokio::test]
async fn a_page_of_the_docs_runs_nothing_of_others_and_is_framed_by_nobody() {
    let service = Service::live().await;
    for path in ["/docs/", "/docs/index.html", "/docs/swagger-ui.css", "/docs/nothing"] {
        let answer = service.send(request(Method::GET, path, None, "")).await;
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        assert!(header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert_eq!((header("x-frame-options"), header("x-content-type-options")), ("DENY".into(), "nosniff".into()));
        assert!(!answer.text.contains("<script>"), "{path} has a script in line, which the policy forbids");
    }
}

#[tokio::test]
async fn the_ledger_of_today_holds_what_was_booked_a_moment_ahead_of_midnight() {
    let service = two_engines().await;
    service.reserve("A", "5").await.ok();
    // Another instance has booked on the day that begins, while this database still has yesterday.
    let row = |today: Value| today.as_array().unwrap().iter().find(|row| row["engine"] == "A").unwrap().clone();
    let before = row(service.get("/risk/ledger/today").await.ok());
    let ahead = service.count("SELECT (date_trunc('day', test_now() AT TIME ZONE 'UTC' + interval '1 day') - (test_now() AT TIME ZONE 'UTC') > interval '30 minutes')::int::bigint").await;
    assert_eq!(before["exposure_used"], 5);
    if ahead == 1 {
        service.set_skew("1 day").await;
        service.reserve("A", "7").await.ok();
        service.jump("23 hours 59 minutes").await;
        let shown = row(service.get("/risk/ledger/today").await.ok());
        assert_eq!(shown["exposure_used"], 7, "{shown}");
        service.set_skew("1 day").await;
    }
}
