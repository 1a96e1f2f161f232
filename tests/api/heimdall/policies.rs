//! Policies: the seeds, and an upsert's changes.

use super::{UPSERT, policy};
use crate::support::Service;
use serde_json::{Value, json};

#[tokio::test]
async fn policies_are_seeded_and_all_off() {
    let service = Service::fresh().await;
    let policies = service.get("/heimdall/policies").await.ok();
    let rows: Vec<Value> = policies
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            json!([
                row["domain"],
                row["min_confidence_prod"],
                row["min_sandbox_trials"],
                row["min_sandbox_success_rate"],
                row["prod_use_enabled"],
                row["version"]
            ])
        })
        .collect();
    assert_eq!(
        json!(rows),
        json!([
            ["BUYER_MATCH", 0.90, 50, 0.80, false, 1],
            ["CAPITAL_ROUTE", 0.95, 100, 0.85, false, 1],
            ["FOLLOWUP_NEXT_ACTION", 0.90, 60, 0.80, false, 1],
            ["WHOLESALE_OFFER", 0.92, 75, 0.82, false, 1],
        ])
    );
}

#[tokio::test]
async fn a_new_domain_starts_at_the_originals_defaults() {
    let service = Service::fresh().await;
    let made = service.post(UPSERT, &json!({"domain": "NEW"})).await.ok();
    assert_eq!(
        made,
        json!({
            "domain": "NEW", "min_confidence_prod": 0.9, "min_sandbox_trials": 50, "min_sandbox_success_rate": 0.8,
            "prod_use_enabled": false, "engine": null, "recommendation_ttl_seconds": 259_200, "single_use": false,
            "scorecard_window": "DAY", "window_days": 30, "gate_rule": "POINT", "approved_model_version": null,
            "calibration_gate": false, "evidence": null, "promotion": null, "changed_by": null, "reason": null,
            "updated_at": made["updated_at"], "version": 1,
            "changes": [
                {"field": "min_confidence_prod", "from": null, "to": 0.9},
                {"field": "min_sandbox_trials", "from": null, "to": 50},
                {"field": "min_sandbox_success_rate", "from": null, "to": 0.8},
                {"field": "prod_use_enabled", "from": null, "to": false},
            ],
            "warnings": [{
                "id": "closes_each_midnight",
                "detail": "DAY counts today alone: the gate closes each midnight UTC until 50 new trials arrive",
            }],
        })
    );
}

#[tokio::test]
async fn an_upsert_changes_what_it_names_and_keeps_the_rest() {
    let service = Service::fresh().await;
    let body = json!({"domain": "BUYER_MATCH", "min_sandbox_trials": 60, "changed_by": "bryan", "reason": "more"});
    let done = service.post(UPSERT, &body).await.ok();
    assert_eq!(done["changes"], json!([{"field": "min_sandbox_trials", "from": 50, "to": 60}]));
    let now = policy(&service, "BUYER_MATCH").await;
    assert_eq!(
        now,
        json!({
            "domain": "BUYER_MATCH", "min_confidence_prod": 0.9, "min_sandbox_trials": 60, "min_sandbox_success_rate": 0.8,
            "prod_use_enabled": false, "engine": null, "recommendation_ttl_seconds": 259_200, "single_use": false,
            "scorecard_window": "DAY", "window_days": 30, "gate_rule": "POINT", "approved_model_version": null,
            "calibration_gate": false, "evidence": null, "promotion": null, "changed_by": "bryan", "reason": "more",
            "updated_at": now["updated_at"], "version": 2, "warnings": now["warnings"],
        })
    );
}

#[tokio::test]
async fn the_same_upsert_twice_is_one_change() {
    let service = Service::fresh().await;
    let body = json!({"domain": "BUYER_MATCH", "min_confidence_prod": "0.91", "actor": "bryan"});
    service.post(UPSERT, &body).await.ok();
    let (events, before) = (service.events().await, policy(&service, "BUYER_MATCH").await);
    let again = service.post(UPSERT, &body).await.ok();
    assert_eq!(again["changes"], json!([]));
    assert_eq!(policy(&service, "BUYER_MATCH").await, before);
    assert_eq!(service.events().await, events);
}

#[tokio::test]
async fn an_upsert_means_the_same_as_json_form_and_query() {
    let service = Service::fresh().await;
    let fields = "domain=form&min_sandbox_trials=7&prod_use_enabled=yes&min_confidence_prod=0.5";
    service.post_form(UPSERT, fields).await.ok();
    service.post_query(UPSERT, &fields.replace("form", "query")).await.ok();
    let json = json!({"domain": "json", "min_sandbox_trials": 7, "prod_use_enabled": true, "min_confidence_prod": 0.5});
    service.post(UPSERT, &json).await.ok();
    let mut seen = Vec::new();
    for domain in ["FORM", "QUERY", "JSON"] {
        let mut row = policy(&service, domain).await;
        row["domain"].take();
        row["updated_at"].take();
        row["promotion"].take();
        seen.push(row);
    }
    assert_eq!(seen[0]["min_sandbox_trials"], 7);
    assert_eq!(seen[0]["prod_use_enabled"], true);
    assert!(seen.iter().all(|row| *row == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn an_upsert_is_a_change_of_the_control_plane() {
    let service = Service::fresh().await;
    let body = json!({"domain": "BUYER_MATCH", "prod_use_enabled": true, "actor": "bryan", "reason": "earned"});
    service.post(UPSERT, &body).await.ok();
    let review = service.get("/review").await.ok();
    let change = &review["changes"][0];
    assert_eq!(change["action"], "HEIMDALL_POLICY_UPSERT");
    assert_eq!(change["subject"], "BUYER_MATCH");
    assert_eq!((&change["actor"], &change["reason"]), (&json!("bryan"), &json!("earned")));
    assert_eq!(change["detail"]["changes"], json!([{"field": "prod_use_enabled", "from": false, "to": true}]));
    assert_eq!(change["detail"]["evidence"], "not_met");
}
