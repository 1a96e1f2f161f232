//! A hold that may expire stands longer, never shorter, and only where something new could stand.

use super::{Standing, hold, hold_for, hold_with, leaves_no_trace, level, policy, reservation, status, tell, time};
use crate::support::Service;
use chrono::TimeDelta;
use serde_json::json;

#[tokio::test]
async fn an_extension_counts_from_now_and_moves_no_counter() {
    let service = Service::live().await;
    let mut clock = Standing::at(&service, "12:00").await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    let before = level(&service, "WHOLESALE").await;
    clock.pass(TimeDelta::seconds(30)).await;
    let words = json!({"ttl_seconds": 90, "actor": "bot", "reason": "still at it", "correlation_id": "c-1"});
    let answer = tell(&service, &id, "extend", &words).await.ok();
    assert_eq!(json!([answer["ok"], answer["message"], answer["reservation_id"]]), json!([true, "Extended", id]));
    assert_eq!(time(&answer["expires_at"]), clock.at + TimeDelta::seconds(90));
    assert_eq!(reservation(&service, &id).await["expires_at"], answer["expires_at"]);
    assert_eq!(level(&service, "WHOLESALE").await, before);
    let events = super::events(&service, "EXTEND").await;
    let event = &events[0];
    let moved = json!([event["exposure_delta"], event["open_delta"], event["loss_delta"], event["actions_delta"]]);
    assert_eq!(json!([events.len(), event["ok"], event["reservation_id"], moved]), json!([1, true, id, [0, 0, 0, 0]]));
    assert_eq!(
        json!([event["actor"], event["reason"], event["correlation_id"], event["amount"]]),
        json!(["bot", "still at it", "c-1", 10])
    );
    // It stands as long as was said, and no longer.
    clock.pass(TimeDelta::seconds(89)).await;
    super::expire_due(&service).await;
    assert_eq!(status(&service, &id).await, "OPEN");
    clock.pass(TimeDelta::seconds(1)).await;
    super::expire_due(&service).await;
    assert_eq!(status(&service, &id).await, "EXPIRED");
}

#[tokio::test]
async fn an_extension_never_shortens_a_hold() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 3600).await;
    let due = reservation(&service, &id).await["expires_at"].clone();
    for ttl in [1, 60, 3000] {
        let answer = tell(&service, &id, "extend", &json!({"ttl_seconds": ttl})).await.ok();
        assert_eq!(answer["expires_at"], due, "{ttl}");
    }
    assert_eq!(reservation(&service, &id).await["expires_at"], due);
}

#[tokio::test]
async fn a_hold_that_never_expires_has_nothing_to_extend() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "10").await;
    let refused = leaves_no_trace!(service, tell(&service, &id, "extend", &json!({"ttl_seconds": 60})).await)
        .refused(409, "NEVER_EXPIRES");
    assert_eq!(refused["reservation_id"], id.as_str());
}

#[tokio::test]
async fn an_extension_stands_from_one_second_to_thirty_days() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    for ttl in [json!(0), json!(-1), json!(2_592_001), json!("1.5"), json!("soon"), json!(null)] {
        let body = json!({"ttl_seconds": ttl});
        let _ = leaves_no_trace!(service, tell(&service, &id, "extend", &body).await).invalid("ttl_seconds");
    }
    let _ = tell(&service, &id, "extend", &json!({})).await.invalid("ttl_seconds");
    for ttl in [json!(1), json!("2592000")] {
        tell(&service, &id, "extend", &json!({"ttl_seconds": ttl})).await.ok();
    }
}

#[tokio::test]
async fn an_extension_after_its_hold_is_due_comes_too_late_and_expires_it() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    service.set_skew("61 seconds").await;
    let refused = tell(&service, &id, "extend", &json!({"ttl_seconds": 60})).await.refused(409, "ALREADY_EXPIRED");
    assert_eq!(refused["expired"]["reservation_id"], id.as_str());
    assert_eq!(status(&service, &id).await, "EXPIRED");
    assert_eq!(level(&service, "WHOLESALE").await, json!([10, 0, 0, 1]));
}

#[tokio::test]
async fn an_extension_is_denied_where_a_reserve_would_be_stopped_and_the_hold_keeps_its_time() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 3600).await;
    let due = reservation(&service, &id).await["expires_at"].clone();
    let before = level(&service, "WHOLESALE").await;
    let off = |engine: &str| json!({"engine": engine, "enabled": false});
    let mut denied = 0;
    for (path, body, reason, scope, undo) in [
        ("/risk/policies/upsert", off("WHOLESALE"), "policy_disabled", "WHOLESALE", None),
        ("/risk/policies/upsert", off("GLOBAL"), "policy_disabled", "GLOBAL", None),
        ("/go-live/disable", json!({"actor": "a"}), "go_live_disabled", "SYSTEM", Some("/go-live/enable")),
        (
            "/go-live/kill-switch/engage",
            json!({}),
            "kill_switch_engaged",
            "SYSTEM",
            Some("/go-live/kill-switch/release"),
        ),
    ] {
        service.post(path, &body).await.ok();
        let answer = tell(&service, &id, "extend", &json!({"ttl_seconds": 7200})).await;
        denied += 1;
        assert_eq!(answer.headers["holdfast-decision"], "deny");
        let refused = answer.refused(409, "EXTENSION_DENIED");
        assert_eq!(
            json!([
                refused["ok"],
                refused["reason"],
                refused["scope"],
                refused["expires_at"],
                refused["reservation_id"]
            ]),
            json!([false, reason, scope, due, id])
        );
        assert!(refused["hint"].is_string() && refused["failures"][0]["reason"] == reason, "{refused}");
        let events = super::events(&service, "DENY").await;
        let event = &events[0];
        assert_eq!(
            json!([events.len(), event["ok"], event["denial"], event["scope"], event["reservation_id"]]),
            json!([denied, false, reason, scope, id])
        );
        for engine in ["WHOLESALE", "GLOBAL"] {
            policy(&service, json!({"engine": engine, "enabled": true})).await;
        }
        if let Some(undo) = undo {
            service.post(undo, &json!({"actor": "a"})).await.ok();
        }
    }
    assert_eq!(level(&service, "WHOLESALE").await, before);
    assert_eq!(reservation(&service, &id).await["expires_at"], due);
    tell(&service, &id, "extend", &json!({"ttl_seconds": 7200})).await.ok();
}

#[tokio::test]
async fn a_denied_extension_stays_denied_under_its_key() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 3600).await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    let path = format!("/risk/reservations/{id}/extend");
    let send = || service.post_with(&path, ("idempotency-key", "k-1"), &json!({"ttl_seconds": 7200}));
    let first = send().await.refused(409, "EXTENSION_DENIED");
    service.post("/go-live/kill-switch/release", &json!({})).await.ok();
    let again = leaves_no_trace!(service, send().await);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let again = again.refused(409, "EXTENSION_DENIED");
    assert_eq!(json!([again["reason"], again["expires_at"]]), json!([first["reason"], first["expires_at"]]));
    // Another key is another intent.
    let body = json!({"ttl_seconds": 7200, "idempotency_key": "k-2"});
    service.post(&path, &body).await.ok();
}

#[tokio::test]
async fn caps_that_are_used_up_do_not_stop_an_extension() {
    let service = Service::live().await;
    let id = hold_with(&service, "WHOLESALE", "1000", json!({"ttl_seconds": 60})).await;
    let caps = json!({"engine": "WHOLESALE", "max_actions_per_day": 1, "max_daily_exposure": 1, "max_open_risk": 1,
        "max_daily_loss": 1});
    policy(&service, caps).await;
    let other = hold_with(&service, "CAPITAL", "1", json!({})).await;
    tell(&service, &other, "settle", &json!({"realized_loss": 250})).await.ok();
    tell(&service, &id, "extend", &json!({"ttl_seconds": 600})).await.ok();
}
