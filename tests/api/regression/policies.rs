//! Wires: the seeds, their state, and an upsert's changes and refusals.

use super::{UPSERT, of, policy, upsert};
use crate::support::Service;
use serde_json::{Value, json};

#[tokio::test]
async fn policies_are_seeded_and_all_off() {
    let service = Service::fresh().await;
    let policies = service.get("/regression/policies").await.ok();
    let rows: Vec<Value> = policies
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            json!([
                row["domain"],
                row["metric"],
                row["window_events"],
                row["baseline_events"],
                row["min_events_to_enforce"],
                row["max_drop_fraction"],
                row["action"],
                row["engine"],
                row["enabled"]
            ])
        })
        .collect();
    assert_eq!(
        json!(rows),
        json!([
            ["BUYER_MATCH", "match_success", 50, 200, 50, 0.25, "THROTTLE", null, false],
            ["CAPITAL", "roi_event", 50, 200, 50, 0.3, "KILL_SWITCH", null, false],
            ["WHOLESALE", "contract_rate", 50, 200, 50, 0.2, "THROTTLE", null, false],
            ["WHOLESALE", "offer_accept_rate", 50, 200, 50, 0.15, "THROTTLE", null, false],
        ])
    );
}

#[tokio::test]
async fn every_policy_has_a_state_from_the_start() {
    let service = Service::fresh().await;
    let states = service.get("/regression/state").await.ok();
    assert_eq!(states.as_array().unwrap().len(), 4);
    assert_eq!(
        of(&states, "WHOLESALE", "contract_rate"),
        json!({
            "domain": "WHOLESALE", "metric": "contract_rate", "triggered": false, "status": "DISABLED", "baseline": null,
            "current": null, "drop_fraction": null, "last_checked_at": null, "last_triggered_at": null,
            "note": "policy_missing_or_disabled", "trip_id": null, "watermark": 0, "baseline_events": 0,
            "current_events": 0, "evidence": null, "evidence_pct": null, "began_at_event": null, "guarantee": null,
            "baseline_version": 0,
        })
    );
}

#[tokio::test]
async fn a_new_wire_starts_at_the_originals_defaults_and_enabled() {
    let service = Service::fresh().await;
    let made = upsert(&service, json!({"domain": "new", "metric": "Rate"})).await;
    let policy = &made["policy"];
    assert_eq!(
        *policy,
        json!({
            "domain": "NEW", "metric": "rate", "window_events": 50, "baseline_events": 200, "min_events_to_enforce": 50,
            "max_drop_fraction": 0.2, "action": "THROTTLE", "engine": null, "enabled": true, "changed_by": null,
            "reason": null, "updated_at": policy["updated_at"], "version": 1, "detector": "PLAIN",
            "direction": "HIGHER_IS_BETTER", "effect": "RELATIVE", "max_drop_value": null, "mode": "ENFORCE",
            "on_stale": "WARN", "stale_after_seconds": null, "false_trip_arl": null, "tolerance_fraction": null,
        })
    );
    assert_eq!((&made["ok"], &made["rearmed"]), (&json!(true), &Value::Null));
    assert_eq!(made["changes"].as_array().unwrap().len(), 11);
}

#[tokio::test]
async fn an_upsert_changes_what_it_names_and_keeps_the_rest() {
    let service = Service::fresh().await;
    let body = json!({"domain": "CAPITAL", "metric": "roi_event", "max_drop_fraction": "0.25", "changed_by": "bryan"});
    let done = upsert(&service, body).await;
    assert_eq!(done["changes"], json!([{"field": "max_drop_fraction", "from": 0.3, "to": 0.25}]));
    let now = policy(&service, "CAPITAL", "roi_event").await;
    assert_eq!(
        json!([
            now["window_events"],
            now["max_drop_fraction"],
            now["action"],
            now["enabled"],
            now["changed_by"],
            now["version"]
        ]),
        json!([50, 0.25, "KILL_SWITCH", false, "bryan", 2])
    );
}

#[tokio::test]
async fn the_same_upsert_twice_is_one_change() {
    let service = Service::fresh().await;
    let body =
        json!({"domain": "WHOLESALE", "metric": "contract_rate", "enabled": true, "actor": "bryan", "reason": "watch"});
    upsert(&service, body.clone()).await;
    let before = (service.events().await, policy(&service, "WHOLESALE", "contract_rate").await);
    assert_eq!(upsert(&service, body).await["changes"], json!([]));
    let after = (service.events().await, policy(&service, "WHOLESALE", "contract_rate").await);
    assert_eq!(after, before);
}

#[tokio::test]
async fn an_impossible_wire_is_refused_with_its_field_and_leaves_no_trace() {
    let service = Service::fresh().await;
    let cases = [
        (json!({"metric": "m"}), "domain"),
        (json!({"domain": "D"}), "metric"),
        (json!({"domain": "A B", "metric": "m"}), "domain"),
        (json!({"domain": "D", "metric": "m".repeat(65)}), "metric"),
        (json!({"domain": "D", "metric": "m", "window_events": 0}), "window_events"),
        (json!({"domain": "D", "metric": "m", "window_events": 10_001}), "window_events"),
        (json!({"domain": "D", "metric": "m", "baseline_events": 10_001}), "baseline_events"),
        (json!({"domain": "D", "metric": "m", "baseline_events": "2.5"}), "baseline_events"),
        (json!({"domain": "D", "metric": "m", "min_events_to_enforce": 0}), "min_events_to_enforce"),
        (json!({"domain": "D", "metric": "m", "min_events_to_enforce": 51}), "min_events_to_enforce"),
        (json!({"domain": "D", "metric": "m", "window_events": 20}), "min_events_to_enforce"),
        (json!({"domain": "D", "metric": "m", "max_drop_fraction": 0}), "max_drop_fraction"),
        (json!({"domain": "D", "metric": "m", "max_drop_fraction": 1.1}), "max_drop_fraction"),
        (json!({"domain": "D", "metric": "m", "max_drop_fraction": "-0.2"}), "max_drop_fraction"),
        (json!({"domain": "D", "metric": "m", "max_drop_fraction": "0.1234567"}), "max_drop_fraction"),
        (json!({"domain": "D", "metric": "m", "action": "STOP"}), "action"),
        (json!({"domain": "D", "metric": "m", "engine": "A B"}), "engine"),
        (json!({"domain": "D".repeat(51), "metric": "m"}), "engine"),
        (json!({"domain": "D", "metric": "m", "enabled": "perhaps"}), "enabled"),
        (json!({"domain": "D", "metric": "m", "window": 5}), "window"),
    ];
    let before = (service.events().await, service.get("/regression/policies").await.ok());
    for (body, field) in cases {
        service.post(UPSERT, &body).await.invalid(field);
    }
    assert_eq!((service.events().await, service.get("/regression/policies").await.ok()), before);
    // A long domain needs an engine only for a throttle.
    let kill = json!({"domain": "D".repeat(80), "metric": "m".repeat(64), "action": "KILL_SWITCH"});
    upsert(&service, kill).await;
}
