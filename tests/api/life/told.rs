//! Answers that cannot mislead a program: what is told again says that it is, and how things stand now.

use super::{expire_due, hold_for, policy, tell};
use crate::support::{Answer, Service};
use serde_json::{Value, json};

const RESERVE: &str = "/risk/check-and-reserve";
const RESERVATIONS: &str = "/risk/reservations";

fn keyed(ttl: &Value) -> Value {
    json!({"engine": "WHOLESALE", "amount": 10, "actor": "bot", "ttl_seconds": ttl, "idempotency_key": "k"})
}

fn chosen() -> Value {
    json!({"engine": "WHOLESALE", "amount": 10, "actor": "bot", "ttl_seconds": 60,
        "reservation_id": "7e57ab1e-0000-4000-8000-000000000001"})
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Sends a reserve again, on each of its routes, and expects that it may not be done now, for this reason.
async fn denied_again(service: &Service, body: &Value, reason: &str, status: &str) {
    for path in [RESERVE, RESERVATIONS] {
        // A key belongs to its path.
        if path == RESERVATIONS && body.get("idempotency_key").is_some() {
            continue;
        }
        let again = service.post(path, body).await;
        assert_eq!(header(&again, "idempotent-replayed"), "true", "{path} {reason}");
        assert_eq!(header(&again, "holdfast-decision"), "deny", "{path} {reason}");
        let told = &again.json;
        let standing = if path == RESERVE { &told["status"] } else { &told["hold_status"] };
        let flat = json!([told["ok"], told["reason"], told["replayed"], standing, told["reserved"]]);
        assert_eq!(flat, json!([false, reason, true, status, 0]), "{path} {told}");
        assert!(told["reservation_id"].is_string() && told["hint"].is_string(), "{told}");
        assert_eq!(again.status, if path == RESERVE { 200 } else { 409 });
    }
}

#[tokio::test]
async fn a_replay_whose_hold_has_ended_is_denied_whatever_its_end_was_and_whatever_named_it() {
    for body in [keyed(&json!(60)), chosen()] {
        for (end, status) in [("settle", "SETTLED"), ("release", "RELEASED"), ("", "EXPIRED")] {
            let service = Service::live().await;
            let first = service.post(RESERVE, &body).await.ok();
            let id = first["reservation_id"].as_str().unwrap();
            if end.is_empty() {
                service.set_skew("61 seconds").await;
            } else {
                tell(&service, id, end, &json!({})).await.ok();
            }
            denied_again(&service, &body, "hold_ended", status).await;
        }
    }
}

#[tokio::test]
async fn a_201_that_is_sent_again_after_its_hold_ended_is_409_and_says_not_to_act_again() {
    let service = Service::live().await;
    let made = service.post(RESERVATIONS, &keyed(&Value::Null)).await;
    assert_eq!((made.status.as_u16(), header(&made, "holdfast-decision")), (201, "allow"));
    let again = service.post(RESERVATIONS, &keyed(&Value::Null)).await;
    assert_eq!((again.status.as_u16(), header(&again, "holdfast-decision")), (201, "allow"));
    tell(&service, made.json["reservation_id"].as_str().unwrap(), "settle", &json!({})).await.ok();
    let again = service.post(RESERVATIONS, &keyed(&Value::Null)).await;
    assert_eq!(header(&again, "holdfast-decision"), "deny");
    let body = again.refused(409, "RESERVATION_DENIED");
    assert_eq!(json!([body["reason"], body["hold_status"]]), json!(["hold_ended", "SETTLED"]));
    assert!(body["hint"].as_str().unwrap().contains("do not repeat it"), "{body}");
}

#[tokio::test]
async fn a_replay_is_denied_while_something_stops_new_actions_and_allowed_again_after_it() {
    let service = Service::live().await;
    service.post(RESERVE, &keyed(&json!(60))).await.ok();
    service.post(RESERVE, &chosen()).await.ok();
    let off = |engine: &str| json!({"engine": engine, "enabled": false});
    let on = |engine: &str| json!({"engine": engine, "enabled": true, "reason": "over"});
    let (kill, release) = ("/go-live/kill-switch/engage", "/go-live/kill-switch/release");
    let upsert = "/risk/policies/upsert";
    for (stop, start, reason) in [
        ((kill, json!({})), (release, json!({})), "kill_switch_engaged"),
        (("/go-live/disable", json!({"actor": "a"})), ("/go-live/enable", json!({"actor": "a"})), "go_live_disabled"),
        ((upsert, off("WHOLESALE")), (upsert, on("WHOLESALE")), "policy_disabled"),
        ((upsert, off("GLOBAL")), (upsert, on("GLOBAL")), "policy_disabled"),
    ] {
        service.post(stop.0, &stop.1).await.ok();
        denied_again(&service, &keyed(&json!(60)), reason, "OPEN").await;
        denied_again(&service, &chosen(), reason, "OPEN").await;
        service.post(start.0, &start.1).await.ok();
        let again = service.post(RESERVE, &keyed(&json!(60))).await;
        assert_eq!(header(&again, "holdfast-decision"), "allow", "{reason}");
    }
}

#[tokio::test]
async fn every_answer_says_whether_it_is_told_again_and_how_the_hold_stands_now() {
    let service = Service::live().await;
    let first = service.post(RESERVE, &keyed(&json!(60))).await.ok();
    let flat = |answer: &Value| json!([answer["replayed"], answer["status"], answer["expires_in_seconds"]]);
    assert_eq!(flat(&first), json!([false, "OPEN", 60]));
    let id = first["reservation_id"].as_str().unwrap().to_owned();
    let extend = json!({"ttl_seconds": 600, "idempotency_key": "extend"});
    assert_eq!(flat(&tell(&service, &id, "extend", &extend).await.ok()), json!([false, "OPEN", 600]));
    service.set_skew("100 seconds").await;
    for (what, again) in [
        ("reserve", service.post(RESERVE, &keyed(&json!(60))).await),
        ("extend", tell(&service, &id, "extend", &extend).await),
    ] {
        let told = flat(&again.ok());
        assert_eq!((&told[0], &told[1]), (&json!(true), &json!("OPEN")), "{what}");
        assert!((400..=500).contains(&told[2].as_i64().unwrap()), "{what} {told}");
    }
    // The original's way to settle a part of it, and the rest by its id.
    let part = json!({"engine": "WHOLESALE", "reserved_amount": 4, "idempotency_key": "part"});
    let settled = service.post("/risk/settle", &part).await.ok();
    assert_eq!(json!([settled["replayed"], settled["status"]]), json!([false, "OPEN"]));
    let rest = json!({"idempotency_key": "rest"});
    assert_eq!(flat(&tell(&service, &id, "settle", &rest).await.ok()), json!([false, "SETTLED", null]));
    for again in [service.post("/risk/settle", &part).await, tell(&service, &id, "settle", &rest).await] {
        let told = again.ok();
        assert_eq!(flat(&told), json!([true, "SETTLED", null]));
        assert_eq!(told["reservations"][0]["status"], "SETTLED", "{told}");
    }
    let extended = tell(&service, &id, "extend", &extend).await;
    assert_eq!(header(&extended, "holdfast-decision"), "deny");
    let body = extended.refused(409, "EXTENSION_DENIED");
    assert_eq!(json!([body["reason"], body["hold_status"], body["replayed"]]), json!(["hold_ended", "SETTLED", true]));
    let other = hold_for(&service, "WHOLESALE", "5", 60).await;
    let release = json!({"idempotency_key": "release"});
    assert_eq!(flat(&tell(&service, &other, "release", &release).await.ok()), json!([false, "RELEASED", null]));
    assert_eq!(flat(&tell(&service, &other, "release", &release).await.ok()), json!([true, "RELEASED", null]));
    let adjust = json!({"corrects_seq": 1, "loss_delta": 1, "reason": "late", "idempotency_key": "adjust"});
    assert_eq!(service.post("/risk/adjustments", &adjust).await.ok()["replayed"], false);
    assert_eq!(service.post("/risk/adjustments", &adjust).await.ok()["replayed"], true);
}

#[tokio::test]
async fn an_operation_of_a_batch_that_is_told_again_says_so_itself() {
    let service = Service::live().await;
    let operations = json!({"operations": [
        {"op": "reserve", "engine": "WHOLESALE", "amount": 1, "ttl_seconds": 60},
        {"op": "reserve", "engine": "WHOLESALE", "amount": 2, "ttl_seconds": 600},
        {"op": "reserve", "engine": "WHOLESALE", "amount": 90000},
    ], "idempotency_key": "all"});
    let first = service.post("/risk/batch", &operations).await.ok();
    assert_eq!(first["results"][1]["answer"]["expires_in_seconds"], 600);
    service.set_skew("61 seconds").await;
    let again = service.post("/risk/batch", &operations).await.ok();
    let told = |place: usize| {
        let answer = &again["results"][place]["answer"];
        json!([answer["ok"], answer["reason"], answer["status"], answer["replayed"]])
    };
    assert_eq!(told(0), json!([false, "hold_ended", "EXPIRED", true]));
    assert_eq!(told(1), json!([true, null, "OPEN", true]));
    assert_eq!(told(2), json!([false, "daily_exposure_exceeded", null, true]));
}

#[tokio::test]
async fn a_denial_that_is_kept_under_its_key_names_a_new_key_as_the_way_on() {
    let service = Service::live().await;
    let body = json!({"engine": "WHOLESALE", "amount": 5000, "idempotency_key": "k"});
    let hint = |answer: &Value| answer["hint"].as_str().unwrap_or_default().to_owned();
    assert!(!hint(&service.post(RESERVE, &body).await.ok()).contains("new key"));
    policy(&service, json!({"engine": "WHOLESALE", "max_daily_exposure": 9000, "max_open_risk": 9000})).await;
    policy(&service, json!({"engine": "GLOBAL", "max_daily_exposure": 9000, "max_open_risk": 9000})).await;
    let again = service.post(RESERVE, &body).await.ok();
    assert!(hint(&again).contains("use a new key"), "{again}");
    let other = json!({"engine": "WHOLESALE", "amount": 5000, "idempotency_key": "other"});
    assert_eq!(service.post(RESERVE, &other).await.ok()["ok"], true);
}

#[tokio::test]
async fn no_list_shows_a_hold_as_open_whose_time_is_up() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "5", 60).await;
    let listed = |status: &'static str| {
        let page = service.get(&format!("/risk/reservations?status={status}"));
        async move { page.await.ok()["items"].as_array().unwrap().len() }
    };
    assert_eq!((listed("OPEN").await, listed("EXPIRED").await), (1, 0));
    service.set_skew("61 seconds").await;
    for _ in 0..2 {
        assert_eq!((listed("OPEN").await, listed("EXPIRED").await), (0, 1));
        let all = service.get("/risk/reservations").await.ok();
        assert_eq!(all["items"][0]["status"], "EXPIRED");
        assert_eq!(service.get(&format!("/risk/reservations/{id}")).await.ok()["status"], "EXPIRED");
        // Booked as expired or not yet, it is told alike.
        expire_due(&service).await;
    }
}
