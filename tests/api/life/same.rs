//! A dry run is the decision that would be made, on whatever state, and writes nothing.

use super::{by_hand, hold, hold_for, policy, tell, uncapped};
use crate::support::Service;
use serde_json::{Value, json};

/// A decision, without the parts that only a real one has.
fn decision(mut answer: Value) -> Value {
    for member in ["reservation_id", "dry_run", "status", "expires_in_seconds"] {
        answer.as_object_mut().unwrap().remove(member);
    }
    // Allowed, the real one has moved the counters at a time of its own.
    answer["ledger_snapshot"].as_object_mut().unwrap().remove("updated_at");
    let expires = !answer["expires_at"].is_null();
    answer["expires_at"] = json!(expires);
    answer
}

/// Dry and then real, for reserves around every cap.
async fn dry_is_real(service: &Service, state: &str) {
    for (engine, amount) in [
        ("WHOLESALE", "0.000001"),
        ("WHOLESALE", "100"),
        ("WHOLESALE", "100.000001"),
        ("WHOLESALE", "999999999999"),
        ("CAPITAL", "750"),
        ("NOTIFY", "1"),
        ("NOBODY", "1"),
    ] {
        for more in [json!({}), json!({"ttl_seconds": 60})] {
            let mut body = json!({"engine": engine, "amount": amount, "actor": "bot"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let mut dry_body = body.clone();
            dry_body["dry_run"] = json!(true);
            let before = service.everything().await;
            let dry = service.post("/risk/check-and-reserve", &dry_body).await;
            let dry_head = dry.headers.get("holdfast-decision").cloned();
            let dry = dry.ok();
            assert_eq!(json!([dry["dry_run"], dry["reservation_id"]]), json!([true, null]), "{state}");
            assert_eq!(service.everything().await, before, "{state}: a dry run wrote");
            let real = service.post("/risk/check-and-reserve", &body).await;
            assert_eq!(real.headers.get("holdfast-decision").cloned(), dry_head, "{state}");
            let real = real.ok();
            let id = real["reservation_id"].as_str().map(str::to_owned);
            assert_eq!(decision(dry), decision(real), "{state}: {body}");
            // Back to the state, but for the count.
            if let Some(id) = id {
                tell(service, &id, "release", &json!({})).await.ok();
            }
        }
    }
}

#[tokio::test]
async fn a_dry_run_decides_as_the_reserve_would_on_any_state() {
    let service = Service::live().await;
    dry_is_real(&service, "fresh").await;
    hold(&service, "WHOLESALE", "900").await;
    dry_is_real(&service, "nearly full").await;
    policy(&service, json!({"engine": "WHOLESALE", "max_actions_per_day": 12, "default_ttl_seconds": 60})).await;
    dry_is_real(&service, "running out of actions").await;
    policy(&service, json!({"engine": "WHOLESALE", "max_actions_per_day": 1000})).await;
    let id = hold(&service, "WHOLESALE", "1").await;
    tell(&service, &id, "settle", &json!({"realized_loss": 200})).await.ok();
    dry_is_real(&service, "loss reached").await;
    service.set_skew("1 day").await;
    dry_is_real(&service, "a day later").await;
    policy(&service, json!({"engine": "WHOLESALE", "enabled": false})).await;
    dry_is_real(&service, "disabled").await;
    policy(&service, json!({"engine": "WHOLESALE", "enabled": true})).await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    dry_is_real(&service, "killed").await;
}

#[tokio::test]
async fn a_dry_run_counts_what_is_due_as_the_reserve_would() {
    for due in [1, 600] {
        let service = Service::live().await;
        uncapped(&service, &["WHOLESALE"]).await;
        let operations: Vec<_> =
            (0..due).map(|_| json!({"op": "reserve", "engine": "WHOLESALE", "amount": 1, "ttl_seconds": 60})).collect();
        service.post("/risk/batch", &json!({"operations": operations})).await.ok();
        // A little more than one batch leaves of them.
        let left = (due - 512_i32).max(0);
        policy(&service, json!({"engine": "WHOLESALE", "max_open_risk": left + 10, "max_daily_exposure": due + 10}))
            .await;
        service.set_skew("61 seconds").await;
        for (amount, ok) in [("10.000001", false), ("10", true)] {
            let body = |dry: bool| json!({"engine": "WHOLESALE", "amount": amount, "dry_run": dry});
            let before = service.everything().await;
            let dry = service.post("/risk/check-and-reserve", &body(true)).await.ok();
            assert_eq!(service.everything().await, before, "a dry run expires nothing");
            assert_eq!(dry["ok"], ok, "{due} due, {amount}: {dry}");
            if ok {
                // Denied, the real one has expired them before; these are the same, then.
                let real = service.post("/risk/check-and-reserve", &body(false)).await.ok();
                assert_eq!(decision(dry), decision(real), "{due} due, {amount}");
            }
        }
    }
}

#[tokio::test]
async fn a_dry_run_under_an_id_that_exists_is_the_reserve_that_was_made_and_writes_nothing() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    let mut body = json!({"engine": "WHOLESALE", "amount": 10, "actor": "bot", "ttl_seconds": 60, "reservation_id": id, "dry_run": true});
    let before = service.everything().await;
    let dry = service.post("/risk/check-and-reserve", &body).await.ok();
    assert_eq!(json!([dry["ok"], dry["dry_run"]]), json!([true, true]));
    body["amount"] = json!(11);
    service.post("/risk/check-and-reserve", &body).await.refused(409, "RESERVATION_EXISTS");
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn a_dry_run_keeps_no_key_and_heeds_none() {
    let service = Service::live().await;
    let dry = |amount: i32| {
        let body = json!({"engine": "WHOLESALE", "amount": amount, "dry_run": true, "idempotency_key": "k"});
        service.post("/risk/check-and-reserve", &body)
    };
    let before = service.everything().await;
    assert_eq!(dry(1).await.ok()["ok"], true);
    assert_eq!(dry(5000).await.ok()["ok"], false);
    assert_eq!(service.everything().await, before);
    let real = json!({"engine": "WHOLESALE", "amount": 1, "idempotency_key": "k"});
    assert_eq!(service.post("/risk/check-and-reserve", &real).await.ok()["ok"], true);
    assert_eq!(dry(5000).await.ok()["ok"], false, "the key stands for the real one, which this is not");
}

#[tokio::test]
async fn a_dry_run_is_halted_with_the_book() {
    let service = Service::live().await;
    hold(&service, "WHOLESALE", "1").await;
    by_hand(&service, "UPDATE risk_open SET open_amount = 2 WHERE engine = 'WHOLESALE'").await;
    service.get("/risk/reconciliation").await.ok();
    for path in ["/risk/check-and-reserve", "/risk/reservations"] {
        let body = json!({"engine": "WHOLESALE", "amount": 1, "dry_run": true});
        service.post(path, &body).await.refused(503, "LEDGER_HALTED");
    }
    by_hand(&service, "UPDATE risk_open SET open_amount = 1 WHERE engine = 'WHOLESALE'").await;
}
