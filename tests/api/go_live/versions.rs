//! Versions that a loosening may name, and the trail of changes.

use super::{DISABLE, ENABLE, ENGAGE, RELEASE, events, state, switch};
use crate::support::{BASE, Service, request};
use axum::http::Method;
use serde_json::json;

#[tokio::test]
async fn a_loosening_with_the_version_it_saw_works() {
    let service = Service::fresh().await;
    let mut version = 1;
    for path in [ENABLE, RELEASE] {
        for form in ["\"V\"", "W/\"V\"", "*", "\"77\", \"V\"", "\"V\" , \"77\""] {
            let header = form.replace('V', &version.to_string());
            let answer = service.post_with(path, ("if-match", &header), &json!({"actor": "bryan"})).await;
            version += 1;
            assert_eq!(answer.ok()["version"], version, "{path} {header}");
        }
    }
}

#[tokio::test]
async fn a_loosening_with_another_version_is_refused_and_recorded() {
    let service = Service::fresh().await;
    switch(&service, ENGAGE, "ann").await;
    let before = state(&service).await;
    let mut attempts = 0;
    for (path, action) in [(ENABLE, "GO_LIVE_ENABLE"), (RELEASE, "KILL_SWITCH_RELEASE")] {
        for header in ["\"1\"", "\"3\"", "W/\"1\"", "\"1\", \"3\"", "\"22\"", "\"-2\"", "\"2.0\"", "", "latest"] {
            let refused = service
                .post_with(path, ("if-match", header), &json!({"actor": "bob"}))
                .await
                .refused(412, "VERSION_MISMATCH");
            attempts += 1;
            assert_eq!(refused["version"], 2, "{path} {header}");
            assert_eq!(refused["blockers"][0]["id"], "version", "{path} {header}");
            assert_eq!(state(&service).await, before, "{path} {header}");
            let events = events(&service).await;
            assert_eq!(events.len(), 1 + attempts, "{path} {header}");
            let event = &events[0];
            assert_eq!(
                (&event["action"], &event["ok"], &event["error"], &event["actor"]),
                (&json!(action), &json!(false), &json!("VERSION_MISMATCH"), &json!("bob"))
            );
        }
    }
}

#[tokio::test]
async fn an_if_match_that_is_not_text_matches_nothing() {
    let service = Service::fresh().await;
    let mut request = request(Method::POST, &format!("{BASE}{RELEASE}"), Some("application/json"), "{}");
    let header = axum::http::HeaderValue::from_bytes(b"\"1\xff\"").unwrap();
    request.headers_mut().insert("if-match", header);
    service.send(request).await.refused(412, "VERSION_MISMATCH");
}

#[tokio::test]
async fn a_late_release_loses_against_a_newer_engage() {
    let service = Service::fresh().await;
    let seen = switch(&service, ENGAGE, "ann").await["version"].clone();
    switch(&service, ENGAGE, "bob").await;
    let header = format!("\"{seen}\"");
    service.post_with(RELEASE, ("if-match", &header), &json!({"actor": "ann"})).await.refused(412, "VERSION_MISMATCH");
    assert_eq!(state(&service).await["kill_switch_engaged"], true);
}

#[tokio::test]
async fn events_are_newest_first_with_what_was_before_and_after() {
    let service = Service::fresh().await;
    let mut states = vec![state(&service).await];
    for path in [ENABLE, ENGAGE, RELEASE, DISABLE] {
        service.post_with(path, ("x-request-id", "monday-7"), &json!({"actor": "bryan", "reason": "drill"})).await.ok();
        states.push(state(&service).await);
    }
    let events = events(&service).await;
    let actions: Vec<_> = events.iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["GO_LIVE_DISABLE", "KILL_SWITCH_RELEASE", "KILL_SWITCH_ENGAGE", "GO_LIVE_ENABLE"]);
    for (event, (before, after)) in events.iter().rev().zip(states.iter().zip(states.iter().skip(1))) {
        assert_eq!(event["detail"], json!({"before": before, "after": after}));
        assert_eq!(event["at"], after["updated_at"]);
        assert_eq!((&event["ok"], &event["error"], &event["subject"]), (&json!(true), &json!(null), &json!(null)));
        assert_eq!((&event["actor"], &event["reason"]), (&json!("bryan"), &json!("drill")));
        assert_eq!((&event["request_id"], &event["principal"]), (&json!("monday-7"), &json!("UNAUTHENTICATED")));
        assert_eq!(event["hash"].as_str().unwrap().len(), 64);
    }
}

#[tokio::test]
async fn the_events_of_this_lever_are_its_own() {
    let service = Service::live().await;
    let policy = json!({"engine": "GLOBAL", "max_daily_loss": 100, "actor": "bryan"});
    service.post("/risk/policies/upsert", &policy).await.ok();
    let events = events(&service).await;
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn times_of_changes_strictly_increase_even_if_the_clock_goes_back() {
    let service = Service::fresh().await;
    let first = switch(&service, ENGAGE, "ann").await;
    service.set_skew("-30 minutes").await;
    let second = switch(&service, RELEASE, "ann").await;
    service.set_skew("-3 days").await;
    let third = switch(&service, ENGAGE, "ann").await;
    let times = [&first, &second, &third]
        .map(|state| chrono::DateTime::parse_from_rfc3339(state["updated_at"].as_str().unwrap()).unwrap());
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}
