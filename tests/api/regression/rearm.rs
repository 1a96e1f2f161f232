//! The re-arm: it needs a reason, lifts its own throttle alone, and judges by the baseline of the trip.

use super::{UPSERT, engine, evaluate, kpi, policy, quiet, rearm, small_wire, state, tripped, trips, upsert};
use crate::support::Service;
use serde_json::{Value, json};

#[tokio::test]
async fn a_rearm_without_a_reason_is_refused_and_leaves_no_trace() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let snapshot = async || {
        (
            service.events().await,
            policy(&service, "WHOLESALE", "m").await,
            state(&service, "WHOLESALE", "m").await,
            engine(&service, "WHOLESALE").await,
        )
    };
    let before = snapshot().await;
    for reason in [Value::Null, json!("  ")] {
        let body =
            json!({"domain": "WHOLESALE", "metric": "m", "enabled": true, "max_drop_fraction": 0.5, "reason": reason});
        let refusal = service.post(UPSERT, &body).await.refused(409, "WIRE_TRIPPED");
        assert_eq!(refusal["trip_id"], trip["trip_id"]);
    }
    assert_eq!(snapshot().await, before);
}

#[tokio::test]
async fn a_rearm_ends_the_trip_and_lifts_its_throttle() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let done = rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(done["rearmed"], trip["trip_id"]);
    let ended = trips(&service, "").await[0].clone();
    assert_eq!(json!([ended["rearmed_by"], ended["rearm_reason"]]), json!(["fixer", "fixed"]));
    assert!(ended["rearmed_at"].is_string());
    let state = state(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([
            state["triggered"],
            state["status"],
            state["trip_id"],
            state["watermark"],
            state["note"],
            state["last_triggered_at"]
        ]),
        json!([false, "WARMUP", null, 16, "insufficient_events(recent=0, baseline=10)", ended["tripped_at"]])
    );
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(
        json!([engine["enabled"], engine["throttled_by"], engine["reason"], engine["changed_by"]]),
        json!([true, [], "fixed", "fixer"])
    );
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    // Twice is safe: there is nothing left to re-arm.
    let events = service.events().await;
    let again = rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(json!([again["rearmed"], again["changes"]]), json!([null, []]));
    assert_eq!(service.events().await, events);
}

#[tokio::test]
async fn two_wires_hold_one_engine_and_each_lifts_only_its_own_throttle() {
    let service = Service::live().await;
    let shared = json!({"engine": "wholesale"});
    let first = tripped(&service, "LEADS", "m", shared.clone()).await;
    let second = tripped(&service, "OFFERS", "m", shared).await;
    assert_eq!(first["engine"], "WHOLESALE");
    assert_eq!(engine(&service, "WHOLESALE").await["throttled_by"], json!([first["trip_id"], second["trip_id"]]));
    rearm(&service, "LEADS", "m").await;
    let held = engine(&service, "WHOLESALE").await;
    assert_eq!(json!([held["enabled"], held["throttled_by"]]), json!([false, [second["trip_id"]]]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "policy_disabled");
    rearm(&service, "OFFERS", "m").await;
    assert_eq!(engine(&service, "WHOLESALE").await["enabled"], true);
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    // Neither of the domains became an engine.
    assert_eq!(engine(&service, "LEADS").await, Value::Null);
}

#[tokio::test]
async fn a_rearm_does_not_switch_on_what_a_person_switched_off() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    let off = json!({"engine": "WHOLESALE", "enabled": false, "actor": "ops", "reason": "by hand"});
    service.post("/risk/policies/upsert", &off).await.ok();
    rearm(&service, "WHOLESALE", "m").await;
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(json!([engine["enabled"], engine["throttled_by"]]), json!([false, []]));
}

#[tokio::test]
async fn a_rearm_after_the_throttle_was_overridden_by_hand_still_ends_the_trip() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    let on = json!({"engine": "WHOLESALE", "enabled": true, "actor": "ops", "reason": "override"});
    service.post("/risk/policies/upsert", &on).await.ok();
    assert_eq!(state(&service, "WHOLESALE", "m").await["triggered"], true);
    rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(state(&service, "WHOLESALE", "m").await["triggered"], false);
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(json!([engine["enabled"], engine["reason"]]), json!([true, "override"]));
}

/// With 50 bad events in its history; then the baseline of the trip judges the next 50.
#[tokio::test]
async fn a_rearmed_wire_forgets_the_bad_events_and_remembers_its_baseline() {
    let service = Service::live().await;
    upsert(&service, json!({"domain": "WHOLESALE", "metric": "m"})).await;
    service.kpis("WHOLESALE", "m", 250, 20).await;
    quiet(&service, "WHOLESALE", "m", 9, false).await;
    assert!(kpi(&service, "WHOLESALE", "m", false).await["tripped"].is_object());
    quiet(&service, "WHOLESALE", "m", 40, false).await;
    rearm(&service, "WHOLESALE", "m").await;
    let state_now = evaluate(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([state_now["note"], state_now["triggered"], state_now["watermark"]]),
        json!(["insufficient_events(recent=0, baseline=200)", false, 300])
    );
    quiet(&service, "WHOLESALE", "m", 49, false).await;
    assert_eq!(state(&service, "WHOLESALE", "m").await["note"], "insufficient_events(recent=49, baseline=200)");
    let done = kpi(&service, "WHOLESALE", "m", false).await;
    assert_eq!(done["tripped"]["drop_fraction"], 1, "{done}");
    let trip = &trips(&service, "").await[0];
    assert_eq!(
        json!([
            trip["series_seq"],
            trip["baseline_events"],
            trip["baseline_sum"],
            trip["current_events"],
            trip["current_sum"]
        ]),
        json!([350, 200, 190, 50, 0])
    );
}

#[tokio::test]
async fn a_rearmed_wire_stays_quiet_while_the_new_events_are_good() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    rearm(&service, "WHOLESALE", "m").await;
    quiet(&service, "WHOLESALE", "m", 5, true).await;
    let state = state(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([state["note"], state["status"], state["baseline"], state["current"]]),
        json!(["OK drop=0.000", "ARMED", 1, 1])
    );
}

#[tokio::test]
async fn the_baseline_of_the_trip_judges_until_a_whole_window_and_baseline_are_new() {
    let service = Service::live().await;
    small_wire(&service, "WHOLESALE", "m", json!({"max_drop_fraction": 0.5})).await;
    quiet(&service, "WHOLESALE", "m", 15, true).await;
    quiet(&service, "WHOLESALE", "m", 2, false).await;
    assert!(kpi(&service, "WHOLESALE", "m", false).await["tripped"].is_object());
    rearm(&service, "WHOLESALE", "m").await;
    // 3 of every 5 from here on: a drop of 0.4 from the old baseline, none from the new one.
    let pattern = [true, true, true, false, false];
    for number in 0..14 {
        let done = kpi(&service, "WHOLESALE", "m", pattern[number % 5]).await;
        assert_eq!(done["tripped"], Value::Null);
    }
    let pinned = state(&service, "WHOLESALE", "m").await;
    assert_eq!(json!([pinned["baseline"], pinned["current"], pinned["note"]]), json!([1, 0.6, "OK drop=0.400"]));
    kpi(&service, "WHOLESALE", "m", pattern[14 % 5]).await;
    let rolled = state(&service, "WHOLESALE", "m").await;
    assert_eq!(json!([rolled["baseline"], rolled["current"], rolled["note"]]), json!([0.6, 0.6, "OK drop=0.000"]));
    kpi(&service, "WHOLESALE", "m", true).await;
    let on = state(&service, "WHOLESALE", "m").await;
    assert_eq!(json!([on["baseline"], on["current"]]), json!([0.6, 0.6]));
}

#[tokio::test]
async fn a_rearm_does_not_release_the_kill_switch() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({"action": "KILL_SWITCH"})).await;
    let before = service.get("/go-live/state").await.ok();
    rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(service.get("/go-live/state").await.ok(), before);
    service.post("/go-live/kill-switch/release", &json!({"actor": "ops"})).await.ok();
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}
