//! The trip: the event at which it comes, its effects, and the latch that it leaves.

use super::{KPI, UPSERT, engine, evaluate, kpi, policy, quiet, rearm, small_wire, state, tripped, trips, upsert};
use crate::support::Service;
use serde_json::{Value, json};

/// tripwire.md 5.1, the column PLAIN: 250 events with a failure at every m-th, then the pattern. All eight meet an exact tie
/// at 20 %; the sixth is the one that `(b - c) / b >= d` in doubles reaches an event late.
#[tokio::test]
async fn golden_streams_trip_at_exactly_their_event() {
    const ALL: &[bool] = &[false];
    const ALTERNATE: &[bool] = &[false, true];
    const TWO_OF_THREE: &[bool] = &[false, true, true];
    let rows = [
        (5, ALL, 9, 160),
        (5, ALTERNATE, 23, 160),
        (5, TWO_OF_THREE, 49, 160),
        (10, ALL, 9, 180),
        (10, ALTERNATE, 19, 180),
        (20, ALL, 10, 190),
        (20, ALTERNATE, 19, 190),
        (20, TWO_OF_THREE, 31, 190),
    ];
    let service = Service::live().await;
    for (row, (every, pattern, trips_at, successes)) in rows.into_iter().enumerate() {
        let domain = format!("GOLDEN_{row}");
        upsert(&service, json!({"domain": domain, "metric": "m"})).await;
        service.kpis(&domain, "m", 250, every).await;
        assert_eq!(trips(&service, &format!("&domain={domain}")).await.len(), 0, "row {row}");
        for number in 1..trips_at {
            let done = kpi(&service, &domain, "m", pattern[(number - 1) % pattern.len()]).await;
            assert_eq!(done["tripped"], Value::Null, "row {row}, bad event {number}");
        }
        let done = kpi(&service, &domain, "m", pattern[(trips_at - 1) % pattern.len()]).await;
        assert_eq!(done["tripped"]["drop_fraction"], json!(0.2), "row {row}: {done}");
        let trip = &trips(&service, &format!("&domain={domain}")).await[0];
        assert_eq!(
            json!([
                trip["series_seq"],
                trip["baseline_events"],
                trip["baseline_sum"],
                trip["current_events"],
                trip["current_sum"]
            ]),
            json!([250 + trips_at, 200, successes, 50, successes / 5]),
            "row {row}"
        );
    }
}

#[tokio::test]
async fn the_tripping_event_says_so_and_the_next_reserve_is_denied() {
    let service = Service::live().await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    small_wire(&service, "WHOLESALE", "m", json!({})).await;
    quiet(&service, "WHOLESALE", "m", 15, true).await;
    let done = kpi(&service, "WHOLESALE", "m", false).await;
    let trip_id = done["tripped"]["trip_id"].clone();
    assert_eq!(
        done["tripped"],
        json!({
            "trip_id": trip_id, "action": "THROTTLE", "engine": "WHOLESALE", "drop_fraction": 0.2,
            "note": "TRIGGERED drop=0.200 action=THROTTLE", "shadow": false,
        })
    );
    assert_eq!(done["watched"], true);
    let denied = service.reserve("WHOLESALE", "1").await.ok();
    assert_eq!(
        json!([denied["ok"], denied["reason"], denied["scope"], denied["message"]]),
        json!([false, "policy_disabled", "WHOLESALE", "WHOLESALE hard stop: Policy disabled"])
    );
    // Only that engine.
    assert_eq!(service.reserve("CAPITAL", "1").await.ok()["ok"], true);
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(
        json!([
            engine["enabled"],
            engine["throttled_by"],
            engine["reason"],
            engine["changed_by"],
            engine["max_daily_exposure"]
        ]),
        json!([false, [trip_id], "Regression tripwire: WHOLESALE.m drop=0.200", "shop", 1000])
    );
    let checklist = service.get("/go-live/checklist").await.ok();
    assert!(checklist["warnings"].to_string().contains("WHOLESALE.m"), "{checklist}");
}

#[tokio::test]
async fn a_trip_is_kept_with_its_numbers() {
    let service = Service::live().await;
    let made = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let trip = trips(&service, "").await[0].clone();
    assert_eq!(
        trip,
        json!({
            "id": made["trip_id"], "domain": "WHOLESALE", "metric": "m", "kpi_seq": 16, "series_seq": 16,
            "baseline_events": 10, "baseline_sum": 10, "current_events": 5, "current_sum": 4, "drop_fraction": 0.2,
            "action": "THROTTLE", "engine": "WHOLESALE", "actor": "shop", "tripped_at": trip["tripped_at"],
            "rearmed_at": null, "rearmed_by": null, "rearm_reason": null, "rearm_baseline": null, "detector": "PLAIN",
            "cause": "DROP", "shadow": false, "evidence": null, "began_at_event": null, "acknowledged_at": null,
            "acknowledged_by": null, "verdict": null,
        })
    );
    let state = state(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([state["triggered"], state["status"], state["trip_id"], state["last_triggered_at"], state["note"]]),
        json!([true, "TRIPPED", made["trip_id"], trip["tripped_at"], "TRIGGERED drop=0.200 action=THROTTLE"])
    );
}

#[tokio::test]
async fn a_trip_by_an_event_that_names_nobody_is_the_systems() {
    let service = Service::live().await;
    small_wire(&service, "WHOLESALE", "m", json!({})).await;
    quiet(&service, "WHOLESALE", "m", 15, true).await;
    let done = service.post(KPI, &json!({"domain": "WHOLESALE", "metric": "m", "success": false})).await.ok();
    assert!(done["tripped"].is_object());
    assert_eq!(engine(&service, "WHOLESALE").await["changed_by"], "system");
}

#[tokio::test]
async fn a_tripped_wire_acts_once_and_its_numbers_go_on() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let before = (
        trips(&service, "").await,
        engine(&service, "WHOLESALE").await,
        service.get("/go-live/state").await.ok(),
        service.count("SELECT count(*) FROM control_event").await,
    );
    for (failures, drop) in [(2, 0.4), (3, 0.6), (4, 0.8)] {
        let done = kpi(&service, "WHOLESALE", "m", false).await;
        assert_eq!((&done["tripped"], &done["watched"]), (&Value::Null, &json!(true)));
        let state = evaluate(&service, "WHOLESALE", "m").await;
        assert_eq!(
            json!([state["triggered"], state["note"], state["trip_id"], state["status"], state["drop_fraction"]]),
            json!([true, "TRIGGERED drop=0.200 action=THROTTLE", trip["trip_id"], "TRIPPED", drop]),
            "{failures} failures"
        );
    }
    // It stays tripped when all is well again.
    quiet(&service, "WHOLESALE", "m", 20, true).await;
    let calm = state(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([calm["triggered"], calm["note"], calm["current"]]),
        json!([true, "TRIGGERED drop=0.200 action=THROTTLE", 1])
    );
    let after = (
        trips(&service, "").await,
        engine(&service, "WHOLESALE").await,
        service.get("/go-live/state").await.ok(),
        service.count("SELECT count(*) FROM control_event").await,
    );
    assert_eq!(after, before);
}

#[tokio::test]
async fn disabling_a_tripped_wire_keeps_its_latch_and_its_throttle() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let off = upsert(&service, json!({"domain": "WHOLESALE", "metric": "m", "enabled": false})).await;
    assert_eq!((&off["policy"]["enabled"], &off["rearmed"]), (&json!(false), &Value::Null));
    for state in [state(&service, "WHOLESALE", "m").await, evaluate(&service, "WHOLESALE", "m").await] {
        assert_eq!(
            json!([state["triggered"], state["status"], state["trip_id"], state["note"]]),
            json!([true, "TRIPPED", trip["trip_id"], "TRIGGERED drop=0.200 action=THROTTLE"])
        );
    }
    assert_eq!(kpi(&service, "WHOLESALE", "m", true).await["watched"], false);
    assert_eq!(engine(&service, "WHOLESALE").await["throttled_by"], json!([trip["trip_id"]]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false);
    // Enabling it again is a re-arm like any other.
    let on = json!({"domain": "WHOLESALE", "metric": "m", "enabled": true});
    service.post(UPSERT, &on).await.refused(409, "WIRE_TRIPPED");
    rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn another_setting_of_a_tripped_wire_does_not_rearm_it() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let body = json!({"domain": "WHOLESALE", "metric": "m", "max_drop_fraction": 0.9, "reason": "tuning"});
    assert_eq!(upsert(&service, body).await["rearmed"], Value::Null);
    assert_eq!(state(&service, "WHOLESALE", "m").await["trip_id"], trip["trip_id"]);
    assert_eq!(engine(&service, "WHOLESALE").await["enabled"], false);
}

#[tokio::test]
async fn a_kill_switch_wire_stops_everything_at_once() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({"action": "KILL_SWITCH"})).await;
    assert_eq!(
        json!([trip["action"], trip["engine"], trip["note"]]),
        json!(["KILL_SWITCH", null, "TRIGGERED drop=0.200 action=KILL_SWITCH"])
    );
    // This instance's gate knows without reading the state again.
    service.get_root("/api/deals").await.refused(403, "KILL_SWITCH_ENGAGED");
    let denied = service.reserve("CAPITAL", "1").await.ok();
    assert_eq!(json!([denied["reason"], denied["scope"]]), json!(["kill_switch_engaged", "SYSTEM"]));
    let state = service.get("/go-live/state").await.ok();
    assert_eq!(
        json!([state["kill_switch_engaged"], state["kill_switch"]["by"], state["kill_switch"]["reason"]]),
        json!([true, "shop", "Regression tripwire: WHOLESALE.m drop=0.200"])
    );
    // No engine is throttled.
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(json!([engine["enabled"], engine["throttled_by"]]), json!([true, []]));
}

#[tokio::test]
async fn a_trip_keeps_the_first_engagement_of_the_kill_switch() {
    let service = Service::live().await;
    let engage = json!({"actor": "ops", "reason": "by hand"});
    let first = service.post("/go-live/kill-switch/engage", &engage).await.ok();
    tripped(&service, "WHOLESALE", "m", json!({"action": "KILL_SWITCH"})).await;
    let state = service.get("/go-live/state").await.ok();
    assert_eq!(state["kill_switch"], first["kill_switch"]);
    // A release that has not seen the trip loses.
    assert_eq!(state["version"].as_i64().unwrap(), first["version"].as_i64().unwrap() + 1);
    assert_eq!(state["reason"], "Regression tripwire: WHOLESALE.m drop=0.200");
}

#[tokio::test]
async fn a_throttle_on_an_engine_without_a_policy_makes_a_disabled_one() {
    let service = Service::live().await;
    assert_eq!(engine(&service, "NEWCOMER").await, Value::Null);
    let trip = tripped(&service, "NEWCOMER", "m", json!({})).await;
    let made = engine(&service, "NEWCOMER").await;
    assert_eq!(
        json!([made["enabled"], made["throttled_by"], made["reason"], made["max_daily_exposure"]]),
        json!([false, [trip["trip_id"]], "Regression tripwire: NEWCOMER.m drop=0.200", 0])
    );
    // A policy that nobody set up does not come on by itself.
    rearm(&service, "NEWCOMER", "m").await;
    let lifted = engine(&service, "NEWCOMER").await;
    assert_eq!(json!([lifted["enabled"], lifted["throttled_by"]]), json!([false, []]));
    assert_eq!(service.reserve("NEWCOMER", "1").await.ok()["reason"], "policy_disabled");
}

#[tokio::test]
async fn a_wire_can_throttle_everything_through_global() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({"engine": "GLOBAL"})).await;
    let denied = service.reserve("CAPITAL", "1").await.ok();
    assert_eq!(json!([denied["reason"], denied["scope"]]), json!(["policy_disabled", "GLOBAL"]));
}

#[tokio::test]
async fn a_trip_of_one_pair_leaves_the_others_alone() {
    let service = Service::live().await;
    for (domain, metric) in [("WHOLESALE", "n"), ("CAPITAL", "m")] {
        small_wire(&service, domain, metric, json!({})).await;
        quiet(&service, domain, metric, 15, true).await;
    }
    let others = async || {
        (
            state(&service, "WHOLESALE", "n").await,
            state(&service, "CAPITAL", "m").await,
            policy(&service, "WHOLESALE", "n").await,
            engine(&service, "CAPITAL").await,
        )
    };
    let before = others().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    assert_eq!(others().await, before);
    // The other wire of the same engine still acts by itself.
    assert!(kpi(&service, "WHOLESALE", "n", false).await["tripped"].is_object());
    assert_eq!(engine(&service, "WHOLESALE").await["throttled_by"].as_array().unwrap().len(), 2);
    rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(state(&service, "WHOLESALE", "n").await["triggered"], true);
}

#[tokio::test]
async fn a_trip_and_its_end_are_changes_of_the_control_plane() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    rearm(&service, "WHOLESALE", "m").await;
    let review = service.get("/review").await.ok();
    let actions: Vec<Value> = review["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| json!([change["action"], change["subject"], change["actor"]]))
        .collect();
    assert_eq!(
        json!(actions),
        json!([
            ["REGRESSION_POLICY_UPSERT", "WHOLESALE.m", "fixer"],
            ["REGRESSION_REARM", "WHOLESALE.m", "fixer"],
            ["REGRESSION_TRIP", "WHOLESALE.m", "shop"],
            ["REGRESSION_POLICY_UPSERT", "WHOLESALE.m", "setup"],
            ["GO_LIVE_ENABLE", null, "test"],
        ])
    );
    assert_eq!(review["changes"][2]["seq"], trip["trip_id"]);
    assert_eq!(
        review["changes"][1]["detail"],
        json!({"trip_id": trip["trip_id"], "watermark": 16, "baseline": "KEEP", "shadow": false})
    );
}
