//! Answers that would be larger than their cause, and reads that would keep changes waiting.

use crate::support::{BASE, Service, Setup, request};
use axum::http::{Method, StatusCode};
use holdfast::config::LimitsConfig;
use holdfast::types::Principal;
use serde_json::{Value, json};
use std::task::{Context, Poll, Waker};
use tower::ServiceExt;

/// Bytes that a page has at most, but for its last row.
const PAGE: usize = 1024 * 1024;

#[tokio::test]
async fn a_page_ends_early_where_its_rows_are_large_and_the_next_one_goes_on() {
    let service = Service::fresh().await;
    let large = json!({"words": "x".repeat(15_000)});
    for _ in 0..80 {
        let body = json!({"domain": "LAB", "confidence": 0.5, "recommendation": large, "evidence": large});
        service.post("/heimdall/recommend", &body).await.ok();
    }
    for list in ["/heimdall/recommendations", "/heimdall/events"] {
        let (mut seen, mut pages, mut next) = (Vec::new(), 0, format!("{list}?limit=1000"));
        loop {
            let answer = service.get(&next).await;
            assert!(answer.text.len() < PAGE + 64 * 1024, "{list}: {}", answer.text.len());
            let page = answer.ok();
            let items = page["items"].as_array().expect("a page");
            assert!(!items.is_empty());
            seen.extend(items.iter().map(|item| item.get("id").unwrap_or(&item["seq"]).as_i64().expect("a number")));
            pages += 1;
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            next = format!("{list}?limit=1000&cursor={cursor}");
        }
        assert!(pages >= 2 || list.ends_with("events"), "{list}: {pages}");
        assert!(seen.len() == 80 && seen.windows(2).all(|pair| pair[0] > pair[1]), "{list}: {seen:?}");
    }
}

async fn room(service: &Service) {
    for engine in ["GLOBAL", "RETAIL"] {
        let caps = json!({"engine": engine, "max_open_risk": 1_000, "max_daily_exposure": 1_000, "max_daily_loss": 1_000,
                          "max_actions_per_day": 1_000});
        service.post("/risk/policies/upsert", &caps).await.ok();
    }
}

/// Settles this many holds at once, and gives their ids and the request that did it.
async fn settled_at_once(service: &Service, count: usize) -> (Vec<Value>, Value) {
    let reserve = json!({"op": "reserve", "engine": "RETAIL", "amount": 1, "actor": "test"});
    let made = service.post("/risk/batch", &json!({"operations": vec![reserve; count]})).await.ok();
    let results = made["results"].as_array().expect("results");
    let ids = results.iter().map(|result| result["answer"]["reservation_id"].clone()).collect();
    let settle = json!({"op": "settle", "engine": "RETAIL", "reserved_amount": count, "actor": "test", "idempotency_key": "all"});
    let settled = service.post("/risk/batch", &json!({"operations": [settle]})).await.ok();
    assert_eq!(settled["results"][0]["answer"]["reservations"].as_array().map(Vec::len), Some(count), "{settled}");
    (ids, settle)
}

#[tokio::test]
async fn a_refusal_repeats_of_a_large_outcome_what_is_about_its_hold() {
    let service = Service::live().await;
    room(&service).await;
    let (ids, _) = settled_at_once(&service, 200).await;
    let refused =
        service.post("/risk/settle", &json!({"reservation_id": ids[7]})).await.refused(409, "ALREADY_SETTLED");
    let settled = &refused["settled"];
    assert_eq!(
        (&settled["reservations_count"], settled["reservations"].as_array().map(Vec::len)),
        (&json!(200), Some(1))
    );
    assert_eq!((&settled["reservations"][0]["reservation_id"], &settled["released"]), (&ids[7], &json!(200)));
    let again: Vec<_> = ids.iter().map(|id| json!({"op": "settle", "reservation_id": id})).collect();
    let answer = service.post("/risk/batch", &json!({"operations": again})).await;
    assert!(answer.text.len() < 200 * 2_048, "{}", answer.text.len());
}

#[tokio::test]
async fn a_batch_repeats_large_outcomes_up_to_a_limit_and_says_how_to_have_the_others() {
    let service = Service::live().await;
    room(&service).await;
    let (_, settle) = settled_at_once(&service, 200).await;
    let answer = service.post("/risk/batch", &json!({"operations": vec![&settle; 400]})).await;
    assert!(answer.text.len() < 4 * PAGE, "{}", answer.text.len());
    let batch = answer.ok();
    let results = batch["results"].as_array().expect("results");
    let (first, last) = (&results[0], results.last().expect("results"));
    assert_eq!((&first["replayed"], &last["error"]["error"]), (&json!(true), &json!("ANSWER_TOO_LARGE")));
    let alone = service.post("/risk/batch", &json!({"operations": [settle]})).await.ok();
    assert_eq!(alone["results"][0], *first);
}

#[tokio::test]
async fn answers_that_nobody_takes_have_a_budget_and_who_stops_is_answered() {
    let limits = LimitsConfig { answer_budget_mib: 16, ..LimitsConfig::default() };
    let service = Service::with(Setup { limits, ..Setup::default() }).await;
    let ask = || service.router.clone().oneshot(request(Method::GET, "/openapi.json", None, ""));
    let mut untaken = Vec::new();
    let refused = loop {
        let response = ask().await.unwrap();
        if response.status() != StatusCode::OK {
            break response;
        }
        untaken.push(response);
        assert!(untaken.len() < 10_000, "it never ends");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    service.post("/go-live/kill-switch/engage", &json!({"actor": "test"})).await.ok();
    service.get("/go-live/state").await.ok();
    drop(untaken);
    assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn reads_that_wait_keep_no_change_waiting() {
    let service = Service::fresh().await;
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(service.db.read().await.unwrap());
    }
    let mut waiting: Vec<_> = (0..96).map(|_| Box::pin(service.get("/review"))).collect();
    for read in &mut waiting {
        assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    service.post("/go-live/enable", &json!({"actor": "test"})).await.ok();
    service.post("/go-live/kill-switch/engage", &json!({"actor": "test"})).await.ok();
    service.post("/go-live/kill-switch/release", &json!({"actor": "test", "reason": "over"})).await.ok();
    drop((held, waiting));
}

#[tokio::test]
async fn a_long_read_waits_for_its_turn_and_a_principal_has_one() {
    let service = Service::fresh().await;
    let path = format!("{BASE}/audit/verify");
    let turn = service.app.trail.verifying.take(Principal::stored("other".to_owned())).await.unwrap();
    let mut asked = Box::pin(service.send(request(Method::GET, &path, None, "")));
    assert!(matches!(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    service.get("/audit/verify").await.refused(503, "OVERLOADED");
    drop(turn);
    assert_eq!(asked.await.ok()["ok"], true);
}

#[tokio::test]
async fn lists_of_the_review_are_bounded_and_say_how_many_more_there_are() {
    let service = Service::fresh().await;
    for number in 0..130 {
        let trial = json!({"domain": format!("D{number}"), "confidence": 0.9, "success": true});
        service.post("/heimdall/sandbox/trial", &trial).await.ok();
    }
    let review = service.get("/review").await.ok();
    assert_eq!(review["scorecards"].as_array().map(Vec::len), Some(100));
    let all = service.get("/heimdall/scorecard/today").await.ok().as_array().map(Vec::len).expect("a list");
    assert_eq!(review["more"]["scorecards"], all - 100);
    let text = service.get("/review?format=markdown").await.text;
    assert!(text.contains(&format!("- {} more in scorecards", all - 100)), "{text}");
}
