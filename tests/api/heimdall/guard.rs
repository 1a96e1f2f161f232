//! The ends of a recommendation: time, a revocation, its one use, another model version, its engine, the switches.

use super::{RECOMMEND, UPSERT, eligible, events, of, recommend, refused_use, require, set, trials};
use crate::support::{Answer, Service};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::task::JoinSet;

async fn revoke(service: &Service, id: i64) -> Answer {
    let body = json!({"actor": "ops", "reason": "wrong price"});
    service.post(&format!("/heimdall/recommendations/{id}/revoke"), &body).await
}

async fn require_as(service: &Service, id: i64, key: &str) -> Answer {
    let path = format!("/heimdall/recommendations/{id}/require-prod-eligible");
    service.post_with(&path, ("idempotency-key", key), &json!({})).await
}

async fn record(service: &Service, id: i64) -> Value {
    service.get(&format!("/heimdall/recommendations/{id}")).await.ok()
}

#[tokio::test]
async fn eligibility_ends_by_itself_after_the_policys_time() {
    let service = Service::live().await;
    set(&service, json!({"recommendation_ttl_seconds": 3600})).await;
    let id = eligible(&service, "D").await;
    service.set_skew("59 minutes").await;
    require(&service, id).await.ok();
    service.set_skew("61 minutes").await;
    refused_use(require(&service, id).await, id, "recommendation_expired");
    let lived: f64 =
        sqlx::query_scalar("SELECT extract(epoch FROM expires_at - created_at)::float8 FROM heimdall_recommendation")
            .fetch_one(&service.pool)
            .await
            .unwrap();
    assert!((lived - 3600.0).abs() < f64::EPSILON, "{lived}");
    // A longer life is for what is made from then on.
    set(&service, json!({"recommendation_ttl_seconds": 7200})).await;
    refused_use(require(&service, id).await, id, "recommendation_expired");
}

#[tokio::test]
async fn advice_of_a_friday_survives_till_monday_and_no_longer_unless_it_never_expires() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    set(&service, json!({"recommendation_ttl_seconds": 0})).await;
    let made = recommend(&service, "D", "0.95").await;
    assert_eq!((&made["gate_reason"], &made["expires_at"]), (&json!("gate_pass"), &Value::Null));
    service.set_skew("71 hours").await;
    require(&service, id).await.ok();
    service.set_skew("73 hours").await;
    refused_use(require(&service, id).await, id, "recommendation_expired");
    service.set_skew("300 days").await;
    require(&service, made["id"].as_i64().unwrap()).await.ok();
}

#[tokio::test]
async fn a_revoked_recommendation_is_used_no_more_and_says_by_whom() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    require(&service, id).await.ok();
    let revoked = revoke(&service, id).await.ok();
    let expected = json!({
        "ok": true, "id": id, "domain": "D", "revoked_at": revoked["revoked_at"], "revoked_by": "ops", "reason": "wrong price",
    });
    assert_eq!(revoked, expected);
    refused_use(require(&service, id).await, id, "recommendation_revoked");
    let record = record(&service, id).await;
    assert_eq!(
        json!([record["revoked_at"], record["revoked_by"], record["revoke_reason"], record["prod_eligible"]]),
        json!([revoked["revoked_at"], "ops", "wrong price", true])
    );
    assert!(record["used_at"].is_string(), "{record}");
    let event = &events(&service, "&action=REVOKE").await[0];
    assert_eq!(
        json!([event["recommendation_id"], event["ok"], event["actor"], event["reason"], event["domain"]]),
        json!([id, true, "ops", "wrong price", "D"])
    );
}

#[tokio::test]
async fn a_second_revocation_changes_nothing_and_an_unknown_one_is_404() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    let first = revoke(&service, id).await.ok();
    let before = service.everything().await;
    let path = format!("/heimdall/recommendations/{id}/revoke");
    assert_eq!(service.post(&path, &json!({"actor": "late"})).await.ok(), first);
    revoke(&service, id + 1).await.refused(404, "NOT_FOUND");
    service.post("/heimdall/recommendations/x/revoke", &json!({})).await.invalid("id");
    service.post(&path, &json!({"id": 1})).await.invalid("id");
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn what_was_never_eligible_can_be_revoked_and_keeps_its_own_reason() {
    let service = Service::live().await;
    let id = recommend(&service, "D", "0.95").await["id"].as_i64().unwrap();
    revoke(&service, id).await.ok();
    refused_use(require(&service, id).await, id, "prod_use_disabled");
}

#[tokio::test]
async fn a_retried_single_use_claim_passes_once_and_every_other_is_refused() {
    let service = Service::live().await;
    set(&service, json!({"single_use": true})).await;
    let id = eligible(&service, "D").await;
    let first = require_as(&service, id, "act-1").await;
    let claimed = first.ok();
    let before = service.everything().await;
    for _ in 0..3 {
        let again = require_as(&service, id, "act-1").await;
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(again.ok(), claimed);
    }
    assert_eq!(service.everything().await, before, "a replay claims nothing");
    refused_use(require_as(&service, id, "act-2").await, id, "recommendation_already_used");
    refused_use(require(&service, id).await, id, "recommendation_already_used");
    // A refusal is not kept, and the claim stays whose it is.
    refused_use(require_as(&service, id, "act-2").await, id, "recommendation_already_used");
    assert_eq!(require_as(&service, id, "act-1").await.ok(), claimed);
    // A recommendation for one use stays one.
    set(&service, json!({"single_use": false})).await;
    refused_use(require(&service, id).await, id, "recommendation_already_used");
}

#[tokio::test]
async fn a_use_from_before_counts_once_only_one_is_allowed() {
    let service = Service::live().await;
    let (used, unused) =
        (eligible(&service, "D").await, recommend(&service, "D", "0.95").await["id"].as_i64().unwrap());
    require(&service, used).await.ok();
    require(&service, used).await.ok();
    set(&service, json!({"single_use": true})).await;
    refused_use(require(&service, used).await, used, "recommendation_already_used");
    require(&service, unused).await.ok();
    refused_use(require(&service, unused).await, unused, "recommendation_already_used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_claims_at_once_exactly_one_passes() {
    let service = Service::live().await;
    set(&service, json!({"single_use": true})).await;
    let id = eligible(&service, "D").await;
    let mut tasks = JoinSet::new();
    for number in 0..40 {
        // Half of them are retries of another one's key.
        let key = format!("act-{}", number / 2);
        let claim = {
            let path = format!("/heimdall/recommendations/{id}/require-prod-eligible");
            service.post_with(&path, ("idempotency-key", &key), &json!({}))
        };
        tasks.spawn(async move {
            let answer = claim.await;
            (answer.status.as_u16(), key)
        });
    }
    let answers = tasks.join_all().await;
    let passed: BTreeSet<&String> = answers.iter().filter(|(status, _)| *status == 200).map(|(_, key)| key).collect();
    assert_eq!(passed.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(status, key)| (*status == 200) == passed.contains(key)), "{answers:?}");
    assert_eq!(service.count("SELECT count(*) FROM heimdall_event WHERE action = 'REQUIRE' AND ok").await, 1);
}

#[tokio::test]
async fn eligibility_ends_when_another_model_version_is_approved() {
    let service = Service::live().await;
    set(&service, json!({"min_sandbox_trials": 1, "prod_use_enabled": true, "approved_model_version": "v1"})).await;
    for version in ["v1", "v2"] {
        let trial = json!({"domain": "D", "confidence": 0.9, "success": true, "model_version": version});
        service.post("/heimdall/sandbox/trial", &trial).await.ok();
    }
    let made = async |version: Option<&str>| {
        let body = json!({"domain": "D", "confidence": 0.95, "model_version": version});
        let made = service.post(RECOMMEND, &body).await.ok();
        assert_eq!(made["model_version"], json!(version));
        (made["id"].as_i64().unwrap(), made["gate_reason"].as_str().unwrap().to_owned())
    };
    let (first, verdict) = made(Some("v1")).await;
    assert_eq!(verdict, "gate_pass");
    let (second, verdict) = made(Some("v2")).await;
    assert_eq!(verdict, "model_version_not_approved");
    assert_eq!(made(None).await.1, "model_version_not_approved");
    assert_eq!(made(Some("V1")).await.1, "model_version_not_approved", "a version is what its owner writes");
    require(&service, first).await.ok();
    set(&service, json!({"approved_model_version": "v2"})).await;
    refused_use(require(&service, first).await, first, "model_version_not_approved");
    // A recommendation that was not eligible never becomes eligible.
    refused_use(require(&service, second).await, second, "model_version_not_approved");
    set(&service, json!({"remove_approved_model_version": true})).await;
    require(&service, first).await.ok();
    refused_use(require(&service, second).await, second, "model_version_not_approved");
}

#[tokio::test]
async fn eligibility_rests_while_the_engine_is_off_by_hand_by_a_trip_or_unknown() {
    let service = Service::live().await;
    set(&service, json!({"engine": "wholesale"})).await;
    let id = eligible(&service, "D").await;
    require(&service, id).await.ok();
    let switch = async |enabled: bool| {
        let body = json!({"engine": "WHOLESALE", "enabled": enabled, "reason": "test"});
        service.post("/risk/policies/upsert", &body).await.ok();
    };
    switch(false).await;
    refused_use(require(&service, id).await, id, "engine_throttled");
    switch(true).await;
    require(&service, id).await.ok();
    let mut wire = json!({
        "domain": "WHOLESALE", "metric": "m", "window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1, "enabled": true,
    });
    service.post("/regression/policies/upsert", &wire).await.ok();
    service.kpis("WHOLESALE", "m", 2, 2).await;
    refused_use(require(&service, id).await, id, "engine_throttled");
    wire["reason"] = json!("mended");
    service.post("/regression/policies/upsert", &wire).await.ok();
    require(&service, id).await.ok();
    set(&service, json!({"engine": "NOBODYS"})).await;
    refused_use(require(&service, id).await, id, "engine_throttled");
    set(&service, json!({"remove_engine": true})).await;
    require(&service, id).await.ok();
}

#[tokio::test]
async fn every_use_keeps_what_it_was_decided_by() {
    let service = Service::live().await;
    set(&service, json!({"engine": "WHOLESALE", "single_use": true})).await;
    let id = eligible(&service, "D").await;
    require(&service, id).await.ok();
    require(&service, id).await.refused(403, "NOT_PROD_ELIGIBLE");
    let uses = events(&service, "&action=REQUIRE").await;
    let (refused, allowed) = (&uses[0]["detail"], &uses[1]["detail"]);
    let record = record(&service, id).await;
    assert_eq!(
        *allowed,
        json!({
            "eligible_at_creation": true, "gate_reason_at_creation": "gate_pass", "confidence": 0.95, "model_version": null,
            "expires_at": record["expires_at"], "revoked_seq": null, "used_seq": null, "single_use": true,
            "policy": {
                "version": 2, "prod_use_enabled": true, "min_confidence_prod": 0.9, "single_use": true,
                "approved_model_version": null, "engine": "WHOLESALE",
            },
            "engine_active": true, "kill_switch_engaged": false, "live": true, "at": allowed["at"],
        })
    );
    assert_eq!(refused["used_seq"], uses[1]["seq"]);
    assert_eq!(record["used_at"], uses[1]["created_at"]);
}

/// The reasons of the spec, in their order; each is reached below.
const REASONS: [&str; 13] = [
    "prod_use_disabled",
    "confidence_below_threshold",
    "insufficient_sandbox_trials",
    "sandbox_success_rate_below_threshold",
    "calibration_overconfident",
    "gate_pass",
    "recommendation_expired",
    "recommendation_revoked",
    "recommendation_already_used",
    "model_version_not_approved",
    "engine_throttled",
    "kill_switch_engaged",
    "go_live_disabled",
];

#[tokio::test]
async fn every_reason_is_reached_through_http_and_stands_in_its_event() {
    let service = Service::live().await;
    let mut seen = Vec::new();
    // At creation, from the first check to the last.
    seen.push(recommend(&service, "D", "0.1").await["gate_reason"].clone());
    set(&service, json!({"prod_use_enabled": true, "min_sandbox_trials": 4, "calibration_gate": true})).await;
    seen.push(recommend(&service, "D", "0.1").await["gate_reason"].clone());
    trials(&service, "D", 1, 0).await;
    seen.push(recommend(&service, "D", "0.95").await["gate_reason"].clone());
    trials(&service, "D", 2, 1).await;
    seen.push(recommend(&service, "D", "0.95").await["gate_reason"].clone());
    // Half of them right, and all of them nearly sure.
    set(&service, json!({"min_sandbox_success_rate": 0.5})).await;
    trials(&service, "D", 0, 2).await;
    seen.push(recommend(&service, "D", "0.95").await["gate_reason"].clone());
    set(&service, json!({"calibration_gate": false, "recommendation_ttl_seconds": 3600, "single_use": true})).await;
    // At use, all that is wrong at once and mended one by one.
    let ids: Vec<i64> = {
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(recommend(&service, "D", "0.95").await["id"].as_i64().unwrap());
        }
        ids
    };
    seen.push(require(&service, ids[0]).await.ok()["gate_reason"].clone());
    let again = require(&service, ids[0]).await.refused(403, "NOT_PROD_ELIGIBLE")["gate_reason"].clone();
    revoke(&service, ids[1]).await.ok();
    let revoked = require(&service, ids[1]).await.refused(403, "NOT_PROD_ELIGIBLE")["gate_reason"].clone();
    set(&service, json!({"approved_model_version": "v1", "engine": "NOTIFY"})).await;
    service.post("/go-live/disable", &json!({"actor": "ops"})).await.ok();
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    let mut ended = Vec::new();
    ended.push(require(&service, ids[2]).await.refused(403, "NOT_PROD_ELIGIBLE")["gate_reason"].clone());
    set(&service, json!({"remove_approved_model_version": true})).await;
    ended.push(require(&service, ids[2]).await.refused(403, "NOT_PROD_ELIGIBLE")["gate_reason"].clone());
    set(&service, json!({"remove_engine": true})).await;
    ended.push(require(&service, ids[2]).await.refused(403, "NOT_PROD_ELIGIBLE")["gate_reason"].clone());
    service.post("/go-live/kill-switch/release", &json!({})).await.ok();
    ended.push(require(&service, ids[2]).await.refused(403, "NOT_PROD_ELIGIBLE")["gate_reason"].clone());
    service.set_skew("2 hours").await;
    seen.push(require(&service, ids[3]).await.refused(403, "NOT_PROD_ELIGIBLE")["gate_reason"].clone());
    seen.extend([revoked, again]);
    seen.extend(ended);
    assert_eq!(json!(seen), json!(REASONS));
    let in_events: BTreeSet<String> = events(&service, "")
        .await
        .iter()
        .filter_map(|event| event["gate_reason"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(in_events, REASONS.map(str::to_owned).into());
}

#[tokio::test]
async fn a_verdict_is_kept_with_every_check() {
    let service = Service::live().await;
    set(&service, json!({"prod_use_enabled": true, "min_sandbox_trials": 4, "gate_rule": "LCB"})).await;
    trials(&service, "D", 3, 0).await;
    let made = recommend(&service, "D", "0.5").await;
    assert_eq!(made["gate_reason"], "confidence_below_threshold");
    let checks = made["gate_checks"].as_array().unwrap();
    let told: Vec<Value> =
        checks.iter().map(|one| json!([one["check"], one["result"], one["value"], one["threshold"]])).collect();
    assert_eq!(
        json!(told),
        json!([
            ["prod_use", "PASS", null, null],
            ["confidence", "FAIL", 0.5, 0.9],
            ["sandbox_trials", "INSUFFICIENT_EVIDENCE", 3, 4],
            ["sandbox_success_rate", "INSUFFICIENT_EVIDENCE", 0.525_76, 0.8],
        ])
    );
    let page = service.get("/heimdall/recommendations").await.ok();
    let kept = &page["items"][0];
    assert_eq!(kept["gate_checks"], made["gate_checks"]);
    assert_eq!(events(&service, "&action=RECOMMEND").await[0]["detail"], json!({"checks": made["gate_checks"]}));
    // Without a policy there is one check to tell.
    let none = recommend(&service, "NOBODYS", "0.5").await;
    assert_eq!(none["gate_checks"].as_array().unwrap().len(), 1);
    assert_eq!(of(&service.get("/heimdall/policies").await.ok(), "NOBODYS"), Value::Null);
}

#[tokio::test]
async fn a_retry_of_an_allowed_use_passes_only_while_it_still_may() {
    let service = Service::live().await;
    for (single_use, key) in [(false, "act"), (true, "claim")] {
        set(&service, json!({"single_use": single_use})).await;
        let id = eligible(&service, "D").await;
        let keyed = async |id: i64| require_as(&service, id, key).await;
        let allowed = keyed(id).await.ok();
        assert_eq!(keyed(id).await.ok(), allowed);
        let events = service.count("SELECT count(*) FROM heimdall_event WHERE action = 'REQUIRE'").await;
        service.post("/go-live/kill-switch/engage", &json!({"reason": "stop"})).await.ok();
        refused_use(keyed(id).await, id, "kill_switch_engaged");
        assert_eq!(service.count("SELECT count(*) FROM heimdall_event WHERE action = 'REQUIRE'").await, events + 1);
        service.post("/go-live/kill-switch/release", &json!({"actor": "a", "reason": "over"})).await.ok();
        assert_eq!(keyed(id).await.ok(), allowed);
        service.post(&format!("/heimdall/recommendations/{id}/revoke"), &json!({"reason": "wrong"})).await.ok();
        refused_use(keyed(id).await, id, "recommendation_revoked");
    }
}

#[tokio::test]
async fn an_engine_that_no_risk_policy_names_is_warned_of() {
    let service = Service::fresh().await;
    let warned = |shown: &Value| {
        shown["warnings"].as_array().unwrap().iter().any(|warning| {
            warning["id"] == "unknown_engine"
                && warning["detail"].as_str().unwrap().contains("no risk policy is named NOBODY")
        })
    };
    let set = service.post(UPSERT, &json!({"domain": "NEW", "engine": "NOBODY"})).await.ok();
    assert!(warned(&set), "{set}");
    assert!(warned(&super::policy(&service, "NEW").await));
    let again = service.post(UPSERT, &json!({"domain": "NEW", "engine": "NOBODY"})).await.ok();
    assert!(warned(&again), "{again}");
    let caps = json!({"engine": "NOBODY", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1});
    service.post("/risk/policies/upsert", &caps).await.ok();
    assert!(!warned(&super::policy(&service, "NEW").await));
}
