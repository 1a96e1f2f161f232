//! The switches: what always acts, what is replayed, and that a replay moves nothing.

use super::{ENABLE, KPI, done, is_replay, kept_keys, keyed, replayed, reused};
use crate::support::{BASE, Service, request};
use axum::http::{HeaderValue, Method};
use holdfast::enforcement::gate::Source;
use serde_json::{Value, json};

const ENGAGE: &str = "/go-live/kill-switch/engage";
const RELEASE: &str = "/go-live/kill-switch/release";
const DISABLE: &str = "/go-live/disable";

async fn version(service: &Service) -> Value {
    service.get("/go-live/state").await.ok()["version"].clone()
}

#[tokio::test]
async fn engage_and_disable_act_again_whatever_key_they_are_given() {
    let service = Service::live().await;
    done(keyed(&service, ENABLE, "k", &json!({"actor": "bryan"})).await);
    let mut version = version(&service).await.as_i64().unwrap();
    for path in [ENGAGE, ENGAGE, DISABLE, DISABLE] {
        for field in [json!("k"), json!("another"), json!("x".repeat(500)), json!(7), json!({"a": [1]})] {
            let body = json!({"actor": "bryan", "idempotency_key": field});
            let state = done(keyed(&service, path, "k", &body).await);
            version += 1;
            assert_eq!(state["version"], version, "{path} {field}");
            assert!(state["warnings"].as_array().is_none_or(Vec::is_empty), "{state}");
        }
    }
    let state = done(service.post_form(ENGAGE, "idempotency_key=k&colour=red").await);
    assert_eq!(state["warnings"], json!(["colour is unknown, ignored: allowed are actor, reason"]));
    assert_eq!(kept_keys(&service).await, 1);
}

#[tokio::test]
async fn a_header_that_no_key_can_be_does_not_keep_a_switch_from_acting() {
    let service = Service::live().await;
    for path in [ENGAGE, DISABLE] {
        for header in [&b""[..], b"\xff\xfe", &[b'x'; 1000]] {
            let mut odd = request(Method::POST, &format!("{BASE}{path}"), Some("application/json"), r#"{"actor":"a"}"#);
            odd.headers_mut().append("idempotency-key", HeaderValue::from_bytes(header).unwrap());
            odd.headers_mut().append("idempotency-key", HeaderValue::from_static("twice"));
            let state = done(service.send(odd).await);
            assert!(state["warnings"].as_array().is_none_or(Vec::is_empty), "{state}");
        }
    }
}

#[tokio::test]
async fn a_replayed_enable_does_not_switch_on_what_was_switched_off_since() {
    let service = Service::fresh().await;
    let who = json!({"actor": "bryan"});
    let enabled = done(keyed(&service, ENABLE, "k", &who).await);
    service.post(DISABLE, &who).await.ok();
    let (before, gate) = (service.everything().await, service.app.feed.view());
    replayed(keyed(&service, ENABLE, "k", &who).await, &enabled);
    assert_eq!((service.everything().await, service.app.feed.view()), (before, gate));
    service.get_root("/api/deals").await.refused(403, "GO_LIVE_DISABLED");
    let anew = done(keyed(&service, ENABLE, "another", &who).await);
    assert_eq!(anew["version"], 4);
}

#[tokio::test]
async fn a_replayed_release_does_not_lift_a_newer_stop() {
    let service = Service::live().await;
    service.post(ENGAGE, &json!({})).await.ok();
    let released = done(keyed(&service, RELEASE, "k", &json!({})).await);
    service.post(ENGAGE, &json!({"reason": "again"})).await.ok();
    replayed(keyed(&service, RELEASE, "k", &json!({})).await, &released);
    service.get_root("/api/deals").await.refused(403, "KILL_SWITCH_ENGAGED");
}

/// `POST` with a key and the version that was seen.
async fn loosen(service: &Service, path: &str, if_match: &str) -> crate::support::Answer {
    let mut sent = request(Method::POST, &format!("{BASE}{path}"), Some("application/json"), r#"{"actor":"a"}"#);
    sent.headers_mut().insert("idempotency-key", HeaderValue::from_str(path).unwrap());
    sent.headers_mut().insert("if-match", HeaderValue::from_str(if_match).unwrap());
    service.send(sent).await
}

#[tokio::test]
async fn a_replay_comes_before_if_match_and_carries_the_etag_of_its_answer() {
    let service = Service::fresh().await;
    for (path, seen, made) in [(ENABLE, "\"1\"", "\"2\""), (RELEASE, "\"2\"", "\"3\"")] {
        let first = loosen(&service, path, seen).await;
        assert_eq!(first.headers["etag"], made);
        let first = done(first);
        // The version that it named is gone, by its own doing.
        for if_match in [seen, made, "\"77\""] {
            let again = loosen(&service, path, if_match).await;
            assert_eq!(again.headers["etag"], made);
            replayed(again, &first);
        }
    }
}

#[tokio::test]
async fn an_if_match_that_failed_is_not_kept() {
    let service = Service::fresh().await;
    let refused = loosen(&service, ENABLE, "\"9\"").await;
    assert!(!is_replay(&refused));
    refused.refused(412, "VERSION_MISMATCH");
    done(loosen(&service, ENABLE, "\"1\"").await);
}

#[tokio::test]
async fn release_and_enable_tell_their_keys_apart() {
    let service = Service::fresh().await;
    done(keyed(&service, ENABLE, "k", &json!({"actor": "a"})).await);
    reused(keyed(&service, RELEASE, "k", &json!({"actor": "a"})).await, &["route"]);
}

#[tokio::test]
async fn a_replayed_measurement_does_not_pull_the_kill_switch_again() {
    let service = Service::live().await;
    let wire = json!({"domain": "A", "metric": "m", "window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1,
        "action": "KILL_SWITCH"});
    service.post("/regression/policies/upsert", &wire).await.ok();
    service.post(KPI, &json!({"domain": "A", "metric": "m", "success": true})).await.ok();
    let failure = json!({"domain": "A", "metric": "m", "success": false});
    let tripped = done(keyed(&service, KPI, "k", &failure).await);
    assert_eq!(tripped["tripped"]["action"], "KILL_SWITCH");
    service.post(RELEASE, &json!({})).await.ok();
    let (before, gate) = (service.everything().await, service.app.feed.view());
    replayed(keyed(&service, KPI, "k", &failure).await, &tripped);
    assert_eq!((service.everything().await, service.app.feed.view()), (before, gate));
    service.get_root("/api/deals").await.refused(404, "ROUTE_NOT_FOUND");
}
