//! Engines, domains and loosening: what a scope alone does not say.

use super::{call, create, new, token};
use crate::support::{BASE, Service};
use axum::http::Method;
use serde_json::{Value, json};

async fn post(service: &Service, token: &str, path: &str, body: Value) -> (u16, String) {
    let answer = call(service, Method::POST, &format!("{BASE}{path}"), Some(token), &body).await;
    (answer.status.as_u16(), answer.json["error"].as_str().unwrap_or_default().to_owned())
}

fn ok() -> (u16, String) {
    (200, String::new())
}

fn out_of_reach() -> (u16, String) {
    (403, "OUT_OF_REACH".to_owned())
}

/// A token for engine A and domain A alone.
async fn narrow(service: &Service) -> String {
    let mut narrow = new("read,reserve,evidence,operate,release");
    narrow.engines = Some(vec!["A".parse().unwrap()]);
    narrow.domains = Some(vec!["A".parse().unwrap()]);
    create(service, narrow).await
}

pub(crate) async fn two_engines() -> Service {
    let service = Service::live().await;
    for engine in ["A", "B"] {
        let policy =
            json!({"engine": engine, "max_daily_loss": 100, "max_daily_exposure": 1000, "max_open_risk": 1000});
        service.post("/risk/policies/upsert", &policy).await.ok();
    }
    service
}

#[tokio::test]
async fn a_token_of_one_engine_changes_no_other() {
    let service = two_engines().await;
    let theirs = service.reserve("B", "5").await.ok()["reservation_id"].as_str().unwrap().to_owned();
    let seq = service.count("SELECT max(seq) FROM risk_event").await;
    let token = narrow(&service).await;
    let before = service.everything().await;
    for (path, body) in [
        ("/risk/check-and-reserve", json!({"engine": "B", "amount": 1})),
        ("/risk/check-and-reserve", json!({"engine": "B", "amount": 1, "dry_run": true})),
        ("/risk/reservations", json!({"engine": "B", "amount": 1})),
        ("/risk/settle", json!({"engine": "B", "reserved_amount": 5, "realized_loss": 0})),
        ("/risk/settle", json!({"engine": "B", "reservation_id": theirs, "realized_loss": 0})),
    ] {
        assert_eq!(post(&service, &token, path, body.clone()).await, out_of_reach(), "{path} {body}");
    }
    // By its id it is not confirmed to exist.
    let none = (404, "NOT_FOUND".to_owned());
    for (path, body) in [
        (format!("/risk/reservations/{theirs}/settle"), json!({"realized_loss": 0})),
        (format!("/risk/reservations/{theirs}/release"), json!({})),
        (format!("/risk/reservations/{theirs}/extend"), json!({"ttl_seconds": 60})),
        ("/risk/settle".to_owned(), json!({"reservation_id": theirs, "realized_loss": 0})),
    ] {
        assert_eq!(post(&service, &token, &path, body).await, none, "{path}");
    }
    let batch = json!({"operations": [
        {"op": "reserve", "engine": "B", "amount": 1},
        {"op": "release", "reservation_id": theirs},
        {"op": "settle", "engine": "B", "reserved_amount": 5, "realized_loss": 0},
        {"op": "adjust", "corrects_seq": seq, "exposure_delta": -1, "reason": "x"},
    ]});
    let answer = call(&service, Method::POST, &format!("{BASE}/risk/batch"), Some(&token), &batch).await.ok();
    let statuses: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|one| one["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [403, 404, 403, 404], "{answer}");
    assert_eq!(service.everything().await, before);
    // Control operations leave their refusal.
    for (path, body) in [
        ("/risk/policies/upsert", json!({"engine": "B", "max_open_risk": 1})),
        ("/risk/policies/upsert", json!({"engine": "GLOBAL", "max_open_risk": 1})),
        ("/regression/policies/upsert", json!({"domain": "B", "metric": "m"})),
        ("/regression/policies/upsert", json!({"domain": "A", "metric": "m", "engine": "B"})),
        ("/regression/evaluate", json!({"domain": "B", "metric": "m"})),
        ("/heimdall/policies/upsert", json!({"domain": "B"})),
        ("/heimdall/promote", json!({"domain": "B", "actor": "x", "reason": "y"})),
        ("/heimdall/demote", json!({"domain": "B"})),
        ("/regression/kpi", json!({"domain": "B", "metric": "m", "success": true})),
        ("/heimdall/sandbox/trial", json!({"domain": "B", "confidence": 0.5, "success": true})),
        ("/heimdall/recommend", json!({"domain": "B", "confidence": 0.5})),
    ] {
        assert_eq!(post(&service, &token, path, body.clone()).await, out_of_reach(), "{path} {body}");
    }
    let noted = "SELECT count(*) FROM control_event WHERE action = 'ACCESS_REFUSED' AND error = 'OUT_OF_REACH'";
    assert_eq!(service.count(noted).await, 8);
    // Its own it may.
    assert_eq!(post(&service, &token, "/risk/check-and-reserve", json!({"engine": "a", "amount": 1})).await, ok());
    assert_eq!(
        post(&service, &token, "/regression/kpi", json!({"domain": "A", "metric": "m", "success": true})).await,
        ok()
    );
    assert_eq!(
        post(&service, &token, "/regression/policies/upsert", json!({"domain": "A", "metric": "m"})).await,
        ok()
    );
}

#[tokio::test]
async fn a_recommendation_of_another_domain_cannot_be_used() {
    let service = Service::live().await;
    let made = service.post("/heimdall/recommend", &json!({"domain": "B", "confidence": 0.5})).await.ok();
    let token = narrow(&service).await;
    for what in ["require-prod-eligible", "revoke"] {
        let path = format!("/heimdall/recommendations/{}/{what}", made["id"]);
        assert_eq!(post(&service, &token, &path, json!({})).await, (404, "NOT_FOUND".to_owned()));
    }
}

const RISK: &str = "/risk/policies/upsert";
const HEIMDALL: &str = "/heimdall/policies/upsert";
const WIRE: &str = "/regression/policies/upsert";

/// Upserts that let nothing through that did not pass before, in this order, of [`two_engines`], a domain D, and its wire m on A.
pub(crate) fn tightenings() -> Vec<(&'static str, Value)> {
    let (risk, heimdall, wire) = (RISK, HEIMDALL, WIRE);
    vec![
        (risk, json!({"engine": "A", "max_open_risk": 999})),
        (risk, json!({"engine": "A", "max_actions_per_day": 5})),
        (risk, json!({"engine": "A", "enabled": false})),
        (risk, json!({"engine": "A", "default_ttl_seconds": 0})),
        (
            risk,
            json!({"engine": "N", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1, "enabled": false}),
        ),
        (heimdall, json!({"domain": "D", "min_confidence_prod": 0.95, "min_sandbox_trials": 60})),
        (heimdall, json!({"domain": "N"})),
        (
            heimdall,
            json!({"domain": "D", "gate_rule": "LCB", "single_use": true, "calibration_gate": true, "engine": "A"}),
        ),
        (heimdall, json!({"domain": "D", "recommendation_ttl_seconds": 3600})),
        // Days of a window that is not used.
        (heimdall, json!({"domain": "D", "window_days": 40})),
        (heimdall, json!({"domain": "P", "gate_rule": "POINT", "recommendation_ttl_seconds": 0})),
        (wire, json!({"domain": "D", "metric": "m", "max_drop_fraction": 0.1, "min_events_to_enforce": 40})),
        (wire, json!({"domain": "D", "metric": "m", "action": "KILL_SWITCH"})),
        (wire, json!({"domain": "D", "metric": "n"})),
        // Nothing changes.
        (risk, json!({"engine": "A", "max_open_risk": 999})),
    ]
}

/// Upserts that do, after those.
pub(crate) fn loosenings() -> Vec<(&'static str, Value)> {
    let (risk, heimdall, wire) = (RISK, HEIMDALL, WIRE);
    vec![
        (risk, json!({"engine": "A", "max_open_risk": 1000})),
        (risk, json!({"engine": "A", "max_daily_loss": 0, "allow_unlimited": true})),
        (risk, json!({"engine": "A", "max_actions_per_day": 6})),
        (risk, json!({"engine": "A", "default_ttl_seconds": 60})),
        (risk, json!({"engine": "A", "enabled": true})),
        (risk, json!({"engine": "N", "enabled": true})),
        (risk, json!({"engine": "M", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1})),
        // One that tightens beside one that loosens is a loosening.
        (risk, json!({"engine": "A", "max_daily_loss": 1, "max_open_risk": 1001})),
        (heimdall, json!({"domain": "D", "prod_use_enabled": true})),
        (heimdall, json!({"domain": "D", "min_confidence_prod": 0.94})),
        (heimdall, json!({"domain": "D", "min_sandbox_trials": 59})),
        (heimdall, json!({"domain": "D", "min_sandbox_success_rate": 0.7})),
        (heimdall, json!({"domain": "M", "prod_use_enabled": true})),
        (heimdall, json!({"domain": "D", "gate_rule": "POINT"})),
        (heimdall, json!({"domain": "D", "recommendation_ttl_seconds": 3601})),
        (heimdall, json!({"domain": "D", "recommendation_ttl_seconds": 0})),
        (heimdall, json!({"domain": "D", "single_use": false})),
        (heimdall, json!({"domain": "D", "calibration_gate": false})),
        (heimdall, json!({"domain": "D", "engine": "B"})),
        (heimdall, json!({"domain": "D", "remove_engine": true})),
        (heimdall, json!({"domain": "D", "scorecard_window": "ROLLING_DAYS"})),
        (heimdall, json!({"domain": "D", "approved_model_version": "v1"})),
        (wire, json!({"domain": "D", "metric": "m", "max_drop_fraction": 0.2})),
        (wire, json!({"domain": "D", "metric": "m", "min_events_to_enforce": 41})),
        (wire, json!({"domain": "D", "metric": "m", "action": "THROTTLE"})),
        (wire, json!({"domain": "D", "metric": "m", "engine": "B"})),
        (wire, json!({"domain": "D", "metric": "m", "window_events": 49})),
        (wire, json!({"domain": "D", "metric": "m", "enabled": false})),
    ]
}

#[tokio::test]
async fn tightening_needs_operate_and_loosening_release_as_well() {
    let service = two_engines().await;
    service.post("/heimdall/policies/upsert", &json!({"domain": "D"})).await.ok();
    service.post("/regression/policies/upsert", &json!({"domain": "D", "metric": "m", "engine": "A"})).await.ok();
    let (operator, releaser) = (token(&service, "operate").await, token(&service, "operate,release").await);
    for (path, body) in tightenings() {
        assert_eq!(post(&service, &operator, path, body.clone()).await, ok(), "{path} {body}");
    }
    let refused = (403, "INSUFFICIENT_SCOPE".to_owned());
    let loosenings = loosenings();
    for (path, body) in &loosenings {
        let events = service.count("SELECT count(*) FROM control_event WHERE ok").await;
        assert_eq!(post(&service, &operator, path, body.clone()).await, refused, "{path} {body}");
        assert_eq!(service.count("SELECT count(*) FROM control_event WHERE ok").await, events);
        // Ten refusals a second are written down; the tokens are known for two.
        service.clock.advance(100);
        super::refresh(&service).await;
    }
    let noted = "SELECT count(*) FROM control_event WHERE action = 'ACCESS_REFUSED' AND error = 'INSUFFICIENT_SCOPE'";
    assert_eq!(service.count(noted).await, i64::try_from(loosenings.len()).unwrap());
    super::refresh(&service).await;
    for (path, body) in &loosenings {
        assert_eq!(post(&service, &releaser, path, body.clone()).await, ok(), "{path} {body}");
    }
}

#[tokio::test]
async fn a_tripped_wire_is_re_armed_by_whoever_may_release() {
    let service = Service::live().await;
    let wire =
        json!({"domain": "A", "metric": "m", "window_events": 5, "baseline_events": 5, "min_events_to_enforce": 5});
    service.post("/regression/policies/upsert", &wire).await.ok();
    service.kpis("A", "m", 5, 0).await;
    service.kpis("A", "m", 5, 1).await;
    let (operator, releaser) = (token(&service, "operate").await, token(&service, "operate,release").await);
    let rearm = json!({"domain": "A", "metric": "m", "enabled": true, "reason": "mended"});
    let path = "/regression/policies/upsert";
    assert_eq!(post(&service, &operator, path, rearm.clone()).await, (403, "INSUFFICIENT_SCOPE".to_owned()));
    assert_eq!(post(&service, &releaser, path, rearm).await, ok());
}

#[tokio::test]
async fn a_token_of_one_engine_re_arms_no_wire_that_holds_another_one() {
    let service = Service::live().await;
    let wire = json!({"domain": "A", "metric": "m", "engine": "B", "window_events": 5, "baseline_events": 5, "min_events_to_enforce": 5});
    service.post("/regression/policies/upsert", &wire).await.ok();
    service.kpis("A", "m", 5, 0).await;
    service.kpis("A", "m", 5, 1).await;
    let token = narrow(&service).await;
    let rearm = json!({"domain": "A", "metric": "m", "enabled": true, "reason": "mended"});
    assert_eq!(post(&service, &token, "/regression/policies/upsert", rearm).await, out_of_reach());
    assert_eq!(service.count("SELECT count(*) FROM risk_throttle").await, 1);
}

#[tokio::test]
async fn a_correction_upwards_needs_operate_and_one_downwards_release_as_well() {
    let service = two_engines().await;
    service.reserve("A", "5").await.ok();
    let seq = service.count("SELECT max(seq) FROM risk_event").await;
    let operator = token(&service, "operate").await;
    let adjust = |delta: i64| json!({"corrects_seq": seq, "loss_delta": delta, "reason": "late fee"});
    assert_eq!(post(&service, &operator, "/risk/adjustments", adjust(3)).await, ok());
    let refused = (403, "INSUFFICIENT_SCOPE".to_owned());
    assert_eq!(post(&service, &operator, "/risk/adjustments", adjust(-1)).await, refused);
    let releaser = token(&service, "operate,release").await;
    assert_eq!(post(&service, &releaser, "/risk/adjustments", adjust(-1)).await, ok());
}

#[tokio::test]
async fn the_correlation_ids_of_a_stranger_on_another_engine_starve_no_settle() {
    let service = two_engines().await;
    let stranger = narrow(&service).await;
    let mut theirs = new("reserve");
    theirs.engines = Some(vec!["B".parse().unwrap()]);
    let theirs = create(&service, theirs).await;
    // Reserved with one, denied with the other.
    for (thread, amount) in [("deal-7", 1), ("deal-8", 5000)] {
        let body = json!({"engine": "A", "amount": amount, "correlation_id": thread});
        assert_eq!(post(&service, &stranger, "/risk/check-and-reserve", body).await.0, 200);
        let body = json!({"engine": "B", "amount": 5});
        assert_eq!(post(&service, &theirs, "/risk/check-and-reserve", body).await.0, 200);
        let body = json!({"engine": "B", "reserved_amount": 5, "correlation_id": thread});
        let answer = call(&service, Method::POST, &format!("{BASE}/risk/settle"), Some(&theirs), &body).await.ok();
        assert_eq!(json!([answer["released"], answer["unmatched"]]), json!([5, 0]), "{thread}");
        // Once the caller has used it, it is the caller's too.
        let body = json!({"engine": "B", "amount": 2000, "correlation_id": thread});
        assert_eq!(post(&service, &theirs, "/risk/check-and-reserve", body).await.0, 200);
        post(&service, &theirs, "/risk/check-and-reserve", json!({"engine": "B", "amount": 5})).await;
        let body = json!({"engine": "B", "reserved_amount": 5, "correlation_id": thread});
        let answer = call(&service, Method::POST, &format!("{BASE}/risk/settle"), Some(&theirs), &body).await.ok();
        assert_eq!(json!([answer["released"], answer["unmatched"]]), json!([0, 5]), "{thread}");
    }
}

#[tokio::test]
async fn an_operator_closes_holds_and_opens_none() {
    let service = two_engines().await;
    let hold =
        async |engine: &str| service.reserve(engine, "5").await.ok()["reservation_id"].as_str().unwrap().to_owned();
    let ids = [hold("A").await, hold("A").await, hold("A").await, hold("A").await];
    let theirs = hold("B").await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    let mut narrow = new("operate");
    narrow.engines = Some(vec!["A".parse().unwrap()]);
    let operator = create(&service, narrow).await;
    for (path, body, expected) in [
        (format!("/risk/reservations/{}/release", ids[0]), json!({"reason": "the service is gone"}), ok()),
        (format!("/risk/reservations/{}/settle", ids[1]), json!({"realized_loss": 1}), ok()),
        ("/risk/settle".to_owned(), json!({"reservation_id": ids[2], "realized_loss": 0}), ok()),
        // Its engines bound it as ever.
        (format!("/risk/reservations/{theirs}/release"), json!({}), (404, "NOT_FOUND".to_owned())),
        ("/risk/settle".to_owned(), json!({"engine": "B", "reserved_amount": 5}), out_of_reach()),
    ] {
        assert_eq!(post(&service, &operator, &path, body).await, expected, "{path}");
    }
    let refused = (403, "INSUFFICIENT_SCOPE".to_owned());
    for (path, body) in [
        ("/risk/check-and-reserve".to_owned(), json!({"engine": "A", "amount": 1})),
        ("/risk/check-and-reserve".to_owned(), json!({"engine": "A", "amount": 1, "dry_run": true})),
        ("/risk/reservations".to_owned(), json!({"engine": "A", "amount": 1})),
        (format!("/risk/reservations/{}/extend", ids[3]), json!({"ttl_seconds": 60})),
    ] {
        assert_eq!(post(&service, &operator, &path, body).await, refused, "{path}");
    }
    let batch = json!({"operations": [
        {"op": "reserve", "engine": "A", "amount": 1},
        {"op": "extend", "reservation_id": ids[3], "ttl_seconds": 60},
        {"op": "release", "reservation_id": theirs},
        {"op": "release", "reservation_id": ids[3]},
        {"op": "settle", "engine": "A", "reserved_amount": 5},
    ]});
    let answer = call(&service, Method::POST, &format!("{BASE}/risk/batch"), Some(&operator), &batch).await.ok();
    let statuses: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|one| one["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [403, 403, 404, 200, 200], "{answer}");
}

#[tokio::test]
async fn a_batch_of_a_service_holds_no_corrections() {
    let service = two_engines().await;
    service.reserve("A", "5").await.ok();
    let seq = service.count("SELECT max(seq) FROM risk_event").await;
    let batch = json!({"operations": [
        {"op": "reserve", "engine": "A", "amount": 1},
        {"op": "adjust", "corrects_seq": seq, "exposure_delta": -1, "reason": "x"},
    ]});
    // Downwards it makes room, which is a loosening.
    for (scopes, status) in [("reserve", 403), ("reserve,operate", 403), ("reserve,operate,release", 200)] {
        let token = token(&service, scopes).await;
        let answer = call(&service, Method::POST, &format!("{BASE}/risk/batch"), Some(&token), &batch).await.ok();
        assert_eq!(
            (&answer["results"][0]["status"], &answer["results"][1]["status"]),
            (&json!(200), &json!(status)),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_key_is_its_tokens_own() {
    let service = two_engines().await;
    let (one, other) = (token(&service, "reserve").await, token(&service, "reserve").await);
    let reserve = json!({"engine": "A", "amount": 1, "idempotency_key": "k"});
    let path = format!("{BASE}/risk/check-and-reserve");
    let ids: Vec<_> = futures_of(&service, &path, &[&one, &one, &other], &reserve).await;
    assert!(ids[0] == ids[1] && ids[0] != ids[2], "{ids:?}");
}

async fn futures_of(service: &Service, path: &str, tokens: &[&str], body: &Value) -> Vec<String> {
    let mut ids = Vec::new();
    for token in tokens {
        let answer = call(service, Method::POST, path, Some(token), body).await.ok();
        ids.push(answer["reservation_id"].as_str().unwrap().to_owned());
    }
    ids
}
