//! Uses: a recommendation can be used repeatedly until something ends its eligibility.

use super::{UPSERT, eligible, events, recommend, refused_use, require, trials};
use crate::support::{Service, Setup};
use serde_json::{Value, json};

#[tokio::test]
async fn an_eligible_recommendation_may_be_used_as_often_as_it_is_asked() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    for _ in 0..2 {
        let allowed = require(&service, id).await.ok();
        let expected = json!({
            "ok": true, "id": id, "domain": "D", "model_version": null, "confidence": 0.95, "prod_eligible": true,
            "gate_reason": "gate_pass", "expires_at": allowed["expires_at"],
        });
        assert_eq!(allowed, expected);
    }
    let uses = events(&service, "&action=REQUIRE").await;
    assert_eq!(uses.len(), 2);
    let seen = ["recommendation_id", "ok", "gate_reason", "actor", "reason", "correlation_id"]
        .map(|member| uses[0][member].clone());
    assert_eq!(json!(seen), json!([id, true, "gate_pass", "sender", "send", "deal-1"]));
}

#[tokio::test]
async fn a_use_needs_no_body() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    let path = format!("/heimdall/recommendations/{id}/require-prod-eligible");
    service.post_query(&path, "").await.ok();
    service.post(&path, &json!({"id": 1})).await.invalid("id");
}

#[tokio::test]
async fn a_use_is_refused_with_the_verdict_at_creation_even_after_the_gate_opens() {
    let service = Service::live().await;
    let set = async |body: Value| service.post(UPSERT, &body).await.ok();
    let never_id = async |confidence: &str| {
        let made = recommend(&service, "D", confidence).await;
        made["id"].as_i64().unwrap()
    };
    let off = never_id("0.95").await;
    set(json!({"domain": "D", "min_sandbox_trials": 2, "prod_use_enabled": true})).await;
    let unsure = never_id("0.5").await;
    let untried = never_id("0.95").await;
    trials(&service, "D", 1, 1).await;
    let unproven = never_id("0.95").await;
    let verdicts = [
        (off, "prod_use_disabled"),
        (unsure, "confidence_below_threshold"),
        (untried, "insufficient_sandbox_trials"),
        (unproven, "sandbox_success_rate_below_threshold"),
    ];
    for (id, reason) in verdicts {
        refused_use(require(&service, id).await, id, reason);
    }
    // Now every check would pass for all of them.
    set(json!({"domain": "D", "min_confidence_prod": 0.1})).await;
    trials(&service, "D", 8, 0).await;
    assert_eq!(recommend(&service, "D", "0.5").await["gate_reason"], "gate_pass");
    for (id, reason) in verdicts {
        refused_use(require(&service, id).await, id, reason);
    }
    let uses = events(&service, "&action=REQUIRE").await;
    assert_eq!(uses.len(), 8);
    assert!(uses.iter().all(|one| one["ok"] == false && one["gate_reason"] != "gate_pass"));
}

#[tokio::test]
async fn eligibility_ends_when_production_use_is_switched_off() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    let set = async |on: bool| service.post(UPSERT, &json!({"domain": "D", "prod_use_enabled": on})).await.ok();
    set(false).await;
    refused_use(require(&service, id).await, id, "prod_use_disabled");
    set(true).await;
    require(&service, id).await.ok();
}

#[tokio::test]
async fn eligibility_ends_when_the_threshold_rises_above_its_confidence() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    let set = async |least: &str| {
        let body = json!({"domain": "D", "min_confidence_prod": least});
        service.post(UPSERT, &body).await.ok()
    };
    set("0.950001").await;
    refused_use(require(&service, id).await, id, "confidence_below_threshold");
    set("0.95").await;
    require(&service, id).await.ok();
}

#[tokio::test]
async fn the_kill_switch_and_go_live_off_forbid_every_use() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    let switch = async |path: &str| service.post(path, &json!({"actor": "ops"})).await.ok();
    switch("/go-live/disable").await;
    refused_use(require(&service, id).await, id, "go_live_disabled");
    // The kill switch is named first.
    switch("/go-live/kill-switch/engage").await;
    refused_use(require(&service, id).await, id, "kill_switch_engaged");
    switch("/go-live/enable").await;
    refused_use(require(&service, id).await, id, "kill_switch_engaged");
    switch("/go-live/kill-switch/release").await;
    require(&service, id).await.ok();
    let reasons: Vec<Value> =
        events(&service, "&action=REQUIRE").await.iter().map(|one| one["gate_reason"].clone()).collect();
    assert_eq!(json!(reasons), json!(["gate_pass", "kill_switch_engaged", "kill_switch_engaged", "go_live_disabled"]));
}

#[tokio::test]
async fn a_development_environment_needs_no_go_live_but_heeds_the_kill_switch() {
    for env in ["development", "dev", "test"] {
        let setup = Setup { env: Some(env), ..Setup::default() };
        let service = Service::with(setup).await;
        let id = eligible(&service, "D").await;
        require(&service, id).await.ok();
        service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
        refused_use(require(&service, id).await, id, "kill_switch_engaged");
    }
    let setup = Setup { env: Some("production"), ..Setup::default() };
    let service = Service::with(setup).await;
    let id = eligible(&service, "D").await;
    refused_use(require(&service, id).await, id, "go_live_disabled");
}

#[tokio::test]
async fn midnight_does_not_void_yesterdays_pass() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    service.set_skew("1 day").await;
    require(&service, id).await.ok();
}
