//! Ids that callers choose, and reserving for clients that look only at the status.

use super::{hold, hold_for, hold_with, leaves_no_trace, level, policy, reservation, tell, time};
use crate::support::{Answer, BASE, Service};
use chrono::{Days, NaiveTime};
use serde_json::{Value, json};

const ID: &str = "7e57ab1e-0000-4000-8000-000000000001";

fn chosen(more: &Value) -> Value {
    let mut body = json!({"engine": "WHOLESALE", "amount": "10", "actor": "bot", "reason": "r", "correlation_id": "c",
        "metadata": {"a": 1}, "ttl_seconds": 60, "reservation_id": ID});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn the_same_id_and_input_reserves_once_and_is_answered_alike() {
    let service = Service::live().await;
    let first = service.post("/risk/check-and-reserve", &chosen(&json!({}))).await;
    assert!(!first.headers.contains_key("idempotent-replayed"));
    let first = first.ok();
    assert_eq!(first["reservation_id"], ID);
    for spelling in [
        json!({}),
        json!({"amount": 10}),
        json!({"engine": "wholesale"}),
        json!({"ttl_seconds": "60"}),
        json!({"reservation_id": ID.to_uppercase()}),
        json!({"ttl_seconds": null}),
    ] {
        let again = leaves_no_trace!(service, service.post("/risk/check-and-reserve", &chosen(&spelling)).await);
        assert_eq!(again.headers["idempotent-replayed"], "true", "{spelling}");
        assert_eq!(again.headers["holdfast-decision"], "allow");
        let mut told = again.ok();
        assert_eq!(told["replayed"], true);
        told["replayed"] = json!(false);
        told["expires_in_seconds"] = first["expires_in_seconds"].clone();
        assert_eq!(told, first);
    }
    // On the other route, too, and after it has ended.
    tell(&service, ID, "release", &json!({})).await.ok();
    let again = leaves_no_trace!(service, service.post("/risk/reservations", &chosen(&json!({}))).await);
    assert_eq!(again.status, 409);
    let flat = json!([again.json["reservation_id"], again.json["ok"], again.json["reason"]]);
    assert_eq!(flat, json!([ID, false, "hold_ended"]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([0, 0, 0, 1]));
}

#[tokio::test]
async fn the_same_id_and_other_input_is_refused_and_names_what_differs() {
    let service = Service::live().await;
    service.post("/risk/check-and-reserve", &chosen(&json!({}))).await.ok();
    for (other, fields) in [
        (json!({"amount": "10.000001"}), json!(["amount"])),
        (json!({"engine": "CAPITAL"}), json!(["engine"])),
        (json!({"ttl_seconds": 61}), json!(["ttl_seconds"])),
        (json!({"actor": "other"}), json!(["actor"])),
        (json!({"actor": null}), json!(["actor"])),
        (json!({"reason": "s"}), json!(["reason"])),
        (json!({"correlation_id": "d"}), json!(["correlation_id"])),
        (json!({"metadata": {"a": 2}}), json!(["metadata"])),
        (json!({"metadata": null, "amount": 11, "engine": "NOBODY"}), json!(["engine", "amount", "metadata"])),
    ] {
        for path in ["/risk/check-and-reserve", "/risk/reservations"] {
            let answer = leaves_no_trace!(service, service.post(path, &chosen(&other)).await);
            let refused = answer.refused(409, "RESERVATION_EXISTS");
            assert_eq!(json!([refused["reservation_id"], refused["fields"]]), json!([ID, fields]), "{other}");
        }
    }
}

#[tokio::test]
async fn an_id_that_was_made_here_is_taken_like_one_that_was_chosen() {
    let service = Service::live().await;
    let id = hold(&service, "CAPITAL", "1").await;
    let body = json!({"engine": "WHOLESALE", "amount": 1, "actor": "bot", "reservation_id": id});
    let refused = service.post("/risk/check-and-reserve", &body).await.refused(409, "RESERVATION_EXISTS");
    assert_eq!(refused["fields"], json!(["engine"]));
}

#[tokio::test]
async fn a_time_that_the_policy_gave_is_part_of_the_input_only_when_it_is_named() {
    let service = Service::live().await;
    policy(&service, json!({"engine": "WHOLESALE", "default_ttl_seconds": 120})).await;
    let body = |ttl: Value| json!({"engine": "WHOLESALE", "amount": 1, "ttl_seconds": ttl, "reservation_id": ID});
    service.post("/risk/check-and-reserve", &body(Value::Null)).await.ok();
    // The policy may have changed since.
    policy(&service, json!({"engine": "WHOLESALE", "default_ttl_seconds": 0})).await;
    for same in [Value::Null, json!(120)] {
        service.post("/risk/check-and-reserve", &body(same)).await.ok();
    }
    let refused = service.post("/risk/check-and-reserve", &body(json!(60))).await.refused(409, "RESERVATION_EXISTS");
    assert_eq!(refused["fields"], json!(["ttl_seconds"]));
}

#[tokio::test]
async fn an_extended_hold_is_replayed_with_the_time_that_it_was_made_with() {
    let service = Service::live().await;
    let first = service.post("/risk/check-and-reserve", &chosen(&json!({}))).await.ok();
    tell(&service, ID, "extend", &json!({"ttl_seconds": 600})).await.ok();
    let again = service.post("/risk/check-and-reserve", &chosen(&json!({}))).await.ok();
    assert_eq!(again["expires_at"], first["expires_at"]);
}

#[tokio::test]
async fn a_denied_id_is_not_taken() {
    let service = Service::live().await;
    let body = chosen(&json!({"amount": 5000}));
    let denied = service.post("/risk/check-and-reserve", &body).await.ok();
    assert_eq!(json!([denied["ok"], denied["reservation_id"]]), json!([false, null]));
    service.get(&format!("/risk/reservations/{ID}")).await.refused(404, "NOT_FOUND");
    assert_eq!(service.post("/risk/check-and-reserve", &chosen(&json!({}))).await.ok()["ok"], true);
}

#[tokio::test]
async fn an_id_that_is_none_is_refused() {
    let service = Service::live().await;
    for id in ["00000000-0000-0000-0000-000000000000", "x", "7e57ab1e-0000-4000-8000-00000000000g"] {
        let body = chosen(&json!({"reservation_id": id}));
        let answer = leaves_no_trace!(service, service.post("/risk/check-and-reserve", &body).await);
        let _ = answer.invalid("reservation_id");
    }
}

#[tokio::test]
async fn a_reservation_is_made_with_201_and_its_place() {
    let service = Service::live().await;
    let answer =
        service.post("/risk/reservations", &json!({"engine": "WHOLESALE", "amount": 10, "ttl_seconds": 60})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let id = answer.json["reservation_id"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("{BASE}/risk/reservations/{id}"));
    assert_eq!(answer.headers["holdfast-decision"], "allow");
    assert_eq!(
        json!([answer.json["ok"], answer.json["reserved"], answer.json["message"]]),
        json!([true, 10, "Reserved"])
    );
    let held = service.get_root(answer.headers["location"].to_str().unwrap()).await.ok();
    assert_eq!(json!([held["reservation_id"], held["expires_at"]]), json!([id, answer.json["expires_at"]]));
}

/// The members that a denied reserve has on either route.
const MEMBERS: [&str; 12] = [
    "ok",
    "engine",
    "reserved",
    "message",
    "policy_snapshot",
    "ledger_snapshot",
    "reservation_id",
    "expires_at",
    "reason",
    "scope",
    "failures",
    "dry_run",
];

/// Denied on both routes alike; gives the 409.
async fn denied(service: &Service, engine: &str, amount: &str) -> Value {
    let dry = json!({"engine": engine, "amount": amount, "dry_run": true});
    let told = service.post("/risk/check-and-reserve", &dry).await.ok();
    let asked = leaves_no_trace!(service, service.post("/risk/reservations", &dry).await);
    asked.refused(409, "RESERVATION_DENIED");
    let answer: Answer = service.post("/risk/reservations", &json!({"engine": engine, "amount": amount})).await;
    assert_eq!(answer.headers["holdfast-decision"], "deny");
    let refused = answer.refused(409, "RESERVATION_DENIED");
    for member in MEMBERS {
        let same = if member == "dry_run" { &json!(false) } else { &told[member] };
        assert_eq!(refused.get(member), Some(same), "{member}: {refused}");
    }
    assert_eq!(refused["detail"], refused["message"]);
    refused
}

#[tokio::test]
async fn a_denied_reservation_is_409_with_the_decision_when_it_resets_and_what_to_do() {
    let service = Service::live().await;
    policy(&service, json!({"engine": "WHOLESALE", "max_actions_per_day": 2, "max_open_risk": 900})).await;
    let id = hold(&service, "WHOLESALE", "800").await;
    let midnight = |refused: &Value| {
        let day: chrono::NaiveDate = refused["ledger_snapshot"]["day"].as_str().unwrap().parse().unwrap();
        day.checked_add_days(Days::new(1)).unwrap().and_time(NaiveTime::MIN).and_utc()
    };
    let check = async |engine: &str, amount: &str, reason: &str, daily: bool, hint: &str| {
        let refused = denied(&service, engine, amount).await;
        assert_eq!(refused["reason"], reason);
        let hinted = refused["hint"].as_str().unwrap();
        assert!(hinted.contains(hint), "{reason}: {hinted}");
        if daily {
            assert_eq!(time(&refused["resets_at"]), midnight(&refused), "{reason}");
        } else {
            assert_eq!(refused["resets_at"], Value::Null, "{reason}");
        }
    };
    check("NOBODY", "1", "policy_missing", false, "NOBODY has no policy").await;
    check("NOTIFY", "1", "policy_disabled", false, "NOTIFY is disabled").await;
    // The other cap that fails leaves less room, and no midnight ends it.
    check("WHOLESALE", "201", "daily_exposure_exceeded", false, "at most 100").await;
    policy(&service, json!({"engine": "WHOLESALE", "max_open_risk": 2000})).await;
    check("WHOLESALE", "201", "daily_exposure_exceeded", true, "at most 200, or wait until midnight UTC").await;
    check("WHOLESALE", "1001", "daily_exposure_exceeded", false, "at most 200").await;
    policy(&service, json!({"engine": "WHOLESALE", "max_open_risk": 900})).await;
    check("WHOLESALE", "101", "open_risk_exceeded", false, "at most 100").await;
    hold(&service, "WHOLESALE", "1").await;
    check("WHOLESALE", "1", "daily_actions_exceeded", true, "no more actions").await;
    policy(&service, json!({"engine": "WHOLESALE", "max_actions_per_day": 100})).await;
    tell(&service, &id, "settle", &json!({"realized_loss": 200})).await.ok();
    check("WHOLESALE", "1", "daily_loss_reached", true, "has reached its cap: wait until midnight UTC").await;
    service.post("/go-live/disable", &json!({"actor": "a"})).await.ok();
    check("CAPITAL", "1", "go_live_disabled", false, "go-live").await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    check("CAPITAL", "1", "kill_switch_engaged", false, "kill file").await;
}

#[tokio::test]
async fn a_hint_names_no_amount_that_would_be_denied_as_well() {
    let service = Service::live().await;
    policy(
        &service,
        json!({"engine": "WHOLESALE", "max_daily_exposure": 100, "max_open_risk": 100, "max_daily_loss": 50}),
    )
    .await;
    let id = hold(&service, "WHOLESALE", "60").await;
    let hint = async |amount: &str| {
        let denied = service.reserve("WHOLESALE", amount).await.ok();
        assert_eq!(denied["ok"], false, "{denied}");
        assert_eq!(denied.get("resets_at"), None, "what a hint names is there");
        denied["hint"].as_str().unwrap().to_owned()
    };
    assert_eq!(hint("41").await, "ask for at most 40");
    tell(&service, &id, "settle", &json!({"realized_loss": 50, "settled_amount": 60})).await.ok();
    assert_eq!(
        hint("41").await,
        "the day's loss has reached its cap: wait until midnight UTC",
        "40 would be denied, too"
    );
    policy(
        &service,
        json!({"engine": "WHOLESALE", "max_daily_loss": 0, "allow_unlimited": true, "max_daily_exposure": 60}),
    )
    .await;
    assert_eq!(hint("1").await, "nothing fits now: wait until midnight UTC");
    policy(&service, json!({"engine": "WHOLESALE", "max_daily_exposure": 1000})).await;
    hold(&service, "WHOLESALE", "100").await;
    assert_eq!(hint("1").await, "nothing fits now: settle or release open reservations");
}

#[tokio::test]
async fn a_denial_under_a_key_stays_one_on_this_route_too() {
    let service = Service::live().await;
    let send = || {
        service.post_with(
            "/risk/reservations",
            ("idempotency-key", "k"),
            &json!({"engine": "WHOLESALE", "amount": 1001}),
        )
    };
    let first = send().await.refused(409, "RESERVATION_DENIED");
    policy(&service, json!({"engine": "WHOLESALE", "max_daily_exposure": 1400, "max_open_risk": 1400})).await;
    let again = leaves_no_trace!(service, send().await);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.refused(409, "RESERVATION_DENIED")["failures"], first["failures"]);
}

#[tokio::test]
async fn a_dry_run_that_would_pass_is_200_without_a_place() {
    let service = Service::live().await;
    let body = json!({"engine": "WHOLESALE", "amount": 10, "dry_run": true});
    let answer = leaves_no_trace!(service, service.post("/risk/reservations", &body).await);
    assert!(!answer.headers.contains_key("location"));
    let answer = answer.ok();
    assert_eq!(json!([answer["ok"], answer["dry_run"], answer["reservation_id"]]), json!([true, true, null]));
}

// Lists.

#[tokio::test]
async fn holds_that_were_left_behind_are_found_by_status_and_age() {
    let service = Service::live().await;
    let old = hold(&service, "WHOLESALE", "1").await;
    let ended = hold(&service, "WHOLESALE", "2").await;
    tell(&service, &ended, "release", &json!({})).await.ok();
    let due = hold_for(&service, "WHOLESALE", "3", 60).await;
    service.set_skew("2 hours").await;
    let settled = hold(&service, "CAPITAL", "4").await;
    tell(&service, &settled, "settle", &json!({})).await.ok();
    let young = hold_with(&service, "CAPITAL", "5", json!({})).await;
    let listed = async |query: &str| {
        let page = service.get(&format!("/risk/reservations?{query}")).await.ok();
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["reservation_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("status=OPEN").await, [young.clone(), old.clone()]);
    assert_eq!(listed("status=OPEN&older_than=3600").await, [&*old]);
    assert_eq!(listed("status=OPEN&older_than=0").await, [young.clone(), old.clone()]);
    assert_eq!(listed("status=OPEN&older_than=7300").await, [""; 0]);
    assert_eq!(listed("older_than=3600").await, [due.clone(), ended.clone(), old.clone()]);
    assert_eq!(listed("status=EXPIRED").await, [due]);
    assert_eq!(listed("status=RELEASED&engine=WHOLESALE").await, [ended]);
    assert_eq!(listed("status=SETTLED&engine=CAPITAL").await, [settled]);
    assert_eq!(listed("status=SETTLED&engine=WHOLESALE").await, [""; 0]);
    for query in ["older_than=-1", "older_than=x", "status=GONE"] {
        let field = query.split('=').next().unwrap();
        let _ = service.get(&format!("/risk/reservations?{query}")).await.invalid(field);
    }
    let record = reservation(&service, &young).await;
    assert_eq!(json!([record["status"], record["closed_at"], record["closed_seq"]]), json!(["OPEN", null, null]));
}
