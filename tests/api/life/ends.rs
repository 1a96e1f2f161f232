//! How a reservation ends, once: settled, late, released; and what is said to whoever ends it again.

use super::{hold, hold_for, level, policy, reservation, snapshot, status, tell};
use super::{leaves_no_trace, uncapped};
use crate::support::Service;
use serde_json::{Value, json};

const NOBODYS: &str = "00000000-0000-7000-8000-000000000000";

#[tokio::test]
async fn a_settle_after_expiry_is_late_and_counts_its_loss_and_leaves_the_open_risk_alone() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "400", 60).await;
    hold(&service, "WHOLESALE", "100").await;
    service.set_skew("61 seconds").await;
    let answer = tell(&service, &id, "settle", &json!({"realized_loss": 7})).await.ok();
    let flat = json!([answer["late"], answer["released"], answer["unmatched"], answer["flags"]]);
    assert_eq!(flat, json!([true, 0, 0, []]));
    assert_eq!(answer["reservations"], json!([{"reservation_id": id, "released": 0, "status": "SETTLED"}]));
    for engine in ["WHOLESALE", "GLOBAL"] {
        assert_eq!(level(&service, engine).await, json!([500, 100, 7, 2]), "{engine}");
    }
    assert_eq!(snapshot(&answer["ledger_engine"]), json!([500, 100, 7, 2]));
    assert_eq!(reservation(&service, &id).await["status"], "SETTLED");
}

#[tokio::test]
async fn a_late_settle_for_less_and_for_more_moves_todays_exposure() {
    let service = Service::live().await;
    let (less, more) =
        (hold_for(&service, "WHOLESALE", "400", 60).await, hold_for(&service, "WHOLESALE", "40", 60).await);
    service.set_skew("61 seconds").await;
    let answer = tell(&service, &less, "settle", &json!({"settled_amount": "150.5"})).await.ok();
    assert_eq!(json!([answer["late"], answer["flags"], answer["released"]]), json!([true, [], 0]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([190.5, 0, 0, 2]));
    let answer = tell(&service, &more, "settle", &json!({"settled_amount": 50})).await.ok();
    assert_eq!(json!([answer["late"], answer["flags"], answer["released"]]), json!([true, ["overrun"], 0]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([200.5, 0, 0, 2]));
}

#[tokio::test]
async fn a_late_settle_of_yesterdays_hold_books_loss_and_overrun_and_gives_no_exposure_back() {
    let service = Service::live().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(hold_for(&service, "WHOLESALE", "100", 60).await);
    }
    service.set_skew("1 day").await;
    hold(&service, "WHOLESALE", "10").await;
    assert_eq!(level(&service, "WHOLESALE").await, json!([10, 10, 0, 1]));
    for (id, body, expected) in [
        (&ids[0], json!({"settled_amount": 1}), json!([10, 10, 0, 1])),
        (&ids[1], json!({"realized_loss": 3}), json!([10, 10, 3, 1])),
        (&ids[2], json!({"settled_amount": 130}), json!([40, 10, 3, 1])),
    ] {
        assert_eq!(tell(&service, id, "settle", &body).await.ok()["late"], true);
        assert_eq!(level(&service, "WHOLESALE").await, expected, "{body}");
    }
}

#[tokio::test]
async fn a_late_settle_again_is_refused_with_the_late_outcome() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "400", 60).await;
    service.set_skew("61 seconds").await;
    tell(&service, &id, "settle", &json!({"realized_loss": 7})).await.ok();
    let refused = leaves_no_trace!(service, tell(&service, &id, "settle", &json!({"realized_loss": 8})).await)
        .refused(409, "ALREADY_SETTLED");
    let outcome = &refused["settled"];
    assert_eq!(json!([outcome["late"], outcome["realized_loss"], outcome["released"]]), json!([true, 7, 0]));
}

#[tokio::test]
async fn a_late_settle_agrees_with_what_was_reserved_or_with_what_was_left() {
    let service = Service::live().await;
    for (claimed, agrees) in [("40", true), ("25", true), ("24.999999", false), ("0", false)] {
        let id = hold_for(&service, "WHOLESALE", "40", 60).await;
        // Lowers it to 25.
        service.post("/risk/settle", &json!({"engine": "WHOLESALE", "reserved_amount": 15})).await.ok();
        let left = service.count("SELECT open_amount::bigint FROM risk_reservation WHERE status = 'OPEN'").await;
        assert_eq!(left, 25);
        by_the_way(&service).await;
        let answer = tell(&service, &id, "settle", &json!({"reserved_amount": claimed})).await;
        if agrees {
            assert_eq!(json!([answer.json["late"], answer.json["unmatched"]]), json!([true, 0]), "{}", answer.text);
        } else {
            let sentence = answer.invalid("reserved_amount");
            assert!(sentence.contains("40 was reserved"), "{sentence}");
        }
    }
}

/// A minute and a second pass.
async fn by_the_way(service: &Service) {
    let seconds = service.count("SELECT extract(epoch FROM skew)::bigint + 61 FROM test_clock").await;
    service.set_skew(&format!("{seconds} seconds")).await;
}

#[tokio::test]
async fn a_release_returns_open_risk_and_todays_exposure_but_not_the_action() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400").await;
    hold(&service, "WHOLESALE", "100").await;
    let answer = tell(&service, &id, "release", &json!({"reason": "the buyer went away"})).await.ok();
    let flat = json!([
        answer["ok"],
        answer["message"],
        answer["reservation_id"],
        answer["released"],
        answer["exposure_returned"]
    ]);
    assert_eq!(flat, json!([true, "Released", id, 400, 400]));
    for engine in ["WHOLESALE", "GLOBAL"] {
        assert_eq!(level(&service, engine).await, json!([100, 100, 0, 2]), "{engine}");
    }
    assert_eq!(snapshot(&answer["ledger_global"]), json!([100, 100, 0, 2]));
    let held = reservation(&service, &id).await;
    assert_eq!(json!([held["status"], held["open_amount"], held["amount"]]), json!(["RELEASED", 0, 400]));
}

#[tokio::test]
async fn reserving_and_releasing_for_ever_ends_at_the_action_cap() {
    let service = Service::live().await;
    policy(&service, json!({"engine": "WHOLESALE", "max_actions_per_day": 3})).await;
    for _ in 0..3 {
        let id = hold(&service, "WHOLESALE", "1000").await;
        tell(&service, &id, "release", &json!({})).await.ok();
    }
    assert_eq!(level(&service, "WHOLESALE").await, json!([0, 0, 0, 3]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "daily_actions_exceeded");
}

#[tokio::test]
async fn a_release_of_a_lowered_hold_returns_what_is_left() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400").await;
    service.post("/risk/settle", &json!({"engine": "WHOLESALE", "reserved_amount": 150})).await.ok();
    let answer = tell(&service, &id, "release", &json!({})).await.ok();
    assert_eq!(json!([answer["released"], answer["exposure_returned"]]), json!([250, 250]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([150, 0, 0, 1]));
}

#[tokio::test]
async fn a_release_of_yesterdays_hold_returns_open_risk_alone() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400").await;
    service.set_skew("1 day").await;
    hold(&service, "WHOLESALE", "10").await;
    let answer = tell(&service, &id, "release", &json!({})).await.ok();
    assert_eq!(json!([answer["released"], answer["exposure_returned"]]), json!([400, 0]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([10, 10, 0, 1]));
    assert_eq!(
        service.count("SELECT count(*) FROM risk_ledger_day WHERE exposure_used = 400 AND engine = 'WHOLESALE'").await,
        1,
        "yesterday's row is what it was"
    );
}

#[tokio::test]
async fn a_correction_that_took_the_exposure_first_leaves_a_release_nothing_to_return() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400").await;
    let body = json!({"corrects_seq": 1, "exposure_delta": -300, "reason": "counted twice"});
    service.post("/risk/adjustments", &body).await.ok();
    let answer = tell(&service, &id, "release", &json!({})).await.ok();
    assert_eq!(json!([answer["released"], answer["exposure_returned"]]), json!([400, 100]));
    assert_eq!(level(&service, "GLOBAL").await, json!([0, 0, 0, 1]));
}

/// A hold that has ended in this way.
async fn ended(service: &Service, how: &str) -> String {
    let id = hold_for(service, "WHOLESALE", "10", 60).await;
    match how {
        "SETTLED" => drop(tell(service, &id, "settle", &json!({"realized_loss": 1})).await.ok()),
        "RELEASED" => drop(tell(service, &id, "release", &json!({"reason": "no"})).await.ok()),
        _ => {
            by_the_way(service).await;
            super::expire_due(service).await;
        }
    }
    assert_eq!(status(service, &id).await, how);
    id
}

#[tokio::test]
async fn what_has_ended_is_not_ended_again_and_says_how_it_ended() {
    let service = Service::live().await;
    uncapped(&service, &["WHOLESALE"]).await;
    for (how, code, name) in [
        ("SETTLED", "ALREADY_SETTLED", "settled"),
        ("RELEASED", "ALREADY_RELEASED", "released"),
        ("EXPIRED", "ALREADY_EXPIRED", "expired"),
    ] {
        let id = ended(&service, how).await;
        for (what, body) in
            [("settle", json!({"realized_loss": 5})), ("release", json!({})), ("extend", json!({"ttl_seconds": 60}))]
        {
            if (how, what) == ("EXPIRED", "settle") {
                continue;
            }
            let answer = leaves_no_trace!(service, tell(&service, &id, what, &body).await);
            let refused = answer.refused(409, code);
            assert_eq!(refused["reservation_id"], id.as_str(), "{what} of {how}");
            assert_eq!(refused["closed_at"], reservation(&service, &id).await["closed_at"], "{what} of {how}");
            let outcome = &refused[name];
            match how {
                "SETTLED" => assert_eq!(json!([outcome["released"], outcome["realized_loss"]]), json!([10, 1])),
                "RELEASED" => assert_eq!(json!([outcome["released"], outcome["reservation_id"]]), json!([10, id])),
                _ => assert_eq!(outcome["reservation_id"], id.as_str()),
            }
        }
    }
}

#[tokio::test]
async fn an_unknown_reservation_and_another_engines_are_404_on_every_route() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    for (what, ttl) in [("settle", Value::Null), ("release", Value::Null), ("extend", json!(60))] {
        for (id, engine) in
            [(NOBODYS, Value::Null), (NOBODYS, json!("WHOLESALE")), (&id, json!("CAPITAL")), (&id, json!("GLOBAL"))]
        {
            let mut body = json!({"engine": engine});
            if !ttl.is_null() {
                body["ttl_seconds"] = ttl.clone();
            }
            let answer = leaves_no_trace!(service, tell(&service, id, what, &body).await);
            answer.refused(404, "NOT_FOUND");
        }
        let answer = tell(&service, "x", what, &json!({"ttl_seconds": 60})).await;
        assert!(matches!(answer.status.as_u16(), 404 | 422), "{}", answer.text);
    }
    assert_eq!(status(&service, &id).await, "OPEN");
}

#[tokio::test]
async fn every_position_can_be_released_whatever_the_switches_and_policies_say() {
    let service = Service::live().await;
    for (what, path, body) in [
        ("engine disabled", "/risk/policies/upsert", json!({"engine": "WHOLESALE", "enabled": false})),
        ("GLOBAL disabled", "/risk/policies/upsert", json!({"engine": "GLOBAL", "enabled": false})),
        ("not live", "/go-live/disable", json!({"actor": "a"})),
        ("killed", "/go-live/kill-switch/engage", json!({})),
    ] {
        let (released, settled) = (hold(&service, "WHOLESALE", "10").await, hold(&service, "WHOLESALE", "10").await);
        service.post(path, &body).await.ok();
        assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false, "{what}");
        assert_eq!(tell(&service, &released, "release", &json!({})).await.ok()["released"], 10, "{what}");
        let lost = tell(&service, &settled, "settle", &json!({"realized_loss": 1})).await.ok();
        assert_eq!(lost["released"], 10, "{what}");
        for body in [json!({"engine": "WHOLESALE", "enabled": true}), json!({"engine": "GLOBAL", "enabled": true})] {
            policy(&service, body).await;
        }
        service.post("/go-live/kill-switch/release", &json!({})).await.ok();
        service.post("/go-live/enable", &json!({"actor": "a"})).await.ok();
    }
}

#[tokio::test]
async fn a_release_is_one_event_with_what_it_moved_and_an_expiry_is_the_systems() {
    let service = Service::live().await;
    let (first, second) =
        (hold_for(&service, "WHOLESALE", "10", 60).await, hold_for(&service, "WHOLESALE", "20", 60).await);
    let words = json!({"actor": "bot", "reason": "not sold", "correlation_id": "c-1"});
    tell(&service, &first, "release", &words).await.ok();
    service.set_skew("61 seconds").await;
    super::expire_due(&service).await;
    let seen = |event: &Value| {
        json!([
            event["seq"],
            event["ok"],
            event["engine"],
            event["amount"],
            event["reservation_id"],
            event["exposure_delta"],
            event["open_delta"],
            event["loss_delta"],
            event["actions_delta"],
            event["actor"],
            event["reason"],
            event["correlation_id"]
        ])
    };
    let released = super::events(&service, "RELEASE").await;
    assert_eq!(released.len(), 1);
    assert_eq!(seen(&released[0]), json!([3, true, "WHOLESALE", 10, first, -10, -10, 0, 0, "bot", "not sold", "c-1"]));
    let expired = super::events(&service, "EXPIRE").await;
    assert_eq!(expired.len(), 1);
    assert_eq!(seen(&expired[0]), json!([4, true, "WHOLESALE", 20, second, 0, -20, 0, 0, null, null, null]));
    assert_eq!(expired[0]["principal"], "SYSTEM");
    assert_eq!(expired[0]["detail"]["reservation_id"], second.as_str());
}
