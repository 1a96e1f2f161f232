//! A reserve: its answer, the switches it heeds, a dry run, and refused input.

use super::{counters, decision, today};
use crate::support::{Service, Setup};
use serde_json::json;

#[tokio::test]
async fn an_allowed_reserve_answers_the_contract_and_moves_both_levels() {
    let service = Service::live().await;
    let body = json!({"engine": " wholesale", "amount": 400, "actor": "bot", "reason": "offer", "correlation_id": "c-1",
        "metadata": {"deal": 7}});
    let answer = service.post("/risk/check-and-reserve", &body).await;
    assert_eq!(decision(&answer), "allow");
    let body = answer.ok();
    let flat = json!([
        body["ok"],
        body["engine"],
        body["reserved"],
        body["message"],
        body["reason"],
        body["scope"],
        body["failures"],
        body["dry_run"],
        body["policy_snapshot"]["engine"],
        body["ledger_snapshot"]["engine"]
    ]);
    assert_eq!(flat, json!([true, "WHOLESALE", 400, "Reserved", null, null, [], false, "WHOLESALE", "WHOLESALE"]));
    for row in [today(&service, "WHOLESALE").await, today(&service, "GLOBAL").await] {
        assert_eq!(
            json!([row["exposure_used"], row["open_risk_reserved"], row["realized_loss"], row["actions_count"]]),
            json!([400, 400, 0, 1])
        );
    }
    assert_eq!(today(&service, "CAPITAL").await["actions_count"], 0);
    assert_eq!(body["ledger_snapshot"]["open_risk_reserved"], 400, "the snapshot is the one after the decision");
    let id = body["reservation_id"].as_str().unwrap();
    let held = service.get(&format!("/risk/reservations/{id}")).await.ok();
    let flat = json!([
        held["engine"],
        held["amount"],
        held["open_amount"],
        held["status"],
        held["actor"],
        held["reason"],
        held["correlation_id"],
        held["metadata"],
        held["closed_at"],
        held["closed_seq"]
    ]);
    assert_eq!(flat, json!(["WHOLESALE", 400, 400, "OPEN", "bot", "offer", "c-1", {"deal": 7}, null, null]));
}

#[tokio::test]
async fn the_same_reserve_twice_is_two_reservations() {
    let service = Service::live().await;
    let first = service.reserve("WHOLESALE", "1").await.ok();
    let second = service.reserve("WHOLESALE", "1").await.ok();
    assert_ne!(first["reservation_id"], second["reservation_id"]);
    assert_eq!(service.count("SELECT count(*) FROM risk_reservation").await, 2);
}

#[tokio::test]
async fn the_ledger_decides_alike_where_the_gate_is_off() {
    // GO_LIVE_ENFORCE=0 switches the gate off; reserve still tells the truth.
    let setup = Setup { enforce: false, ..Setup::default() };
    let service = Service::with(setup).await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "go_live_disabled");
}

#[tokio::test]
async fn development_needs_no_go_live_but_heeds_the_kill_switch() {
    for env in ["development", "dev", "TEST"] {
        let setup = Setup { env: Some(env), ..Setup::default() };
        let service = Service::with(setup).await;
        assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
        service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
        let denied = service.reserve("WHOLESALE", "1").await.ok();
        assert_eq!(denied["reason"], "kill_switch_engaged");
        assert_eq!(denied["failures"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_dry_run_decides_the_same_and_writes_nothing() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "600").await.ok();
    for (engine, amount) in [("WHOLESALE", "400"), ("WHOLESALE", "400.000001"), ("NOTIFY", "1"), ("NOBODY", "1")] {
        let (events, before) = (service.events().await, counters(&service).await);
        let body = json!({"engine": engine, "amount": amount, "dry_run": true});
        let answer = service.post("/risk/check-and-reserve", &body).await;
        let header = decision(&answer).to_owned();
        let dry = answer.ok();
        assert_eq!(json!([dry["dry_run"], dry["reservation_id"]]), json!([true, null]));
        assert_eq!(service.events().await, events);
        assert_eq!(counters(&service).await, before);
        assert_eq!(
            service.count("SELECT COALESCE(sum(denied), 0)::bigint FROM risk_denial_day").await,
            service.count("SELECT count(*) FROM risk_event WHERE action = 'DENY'").await
        );
        let answer = service.reserve(engine, amount).await;
        assert_eq!(decision(&answer), header);
        let real = answer.ok();
        for field in ["ok", "engine", "reserved", "message", "reason", "scope", "failures", "policy_snapshot"] {
            assert_eq!(dry[field], real[field], "{field} of {engine} {amount}");
        }
        for counter in ["exposure_used", "open_risk_reserved", "actions_count"] {
            assert_eq!(dry["ledger_snapshot"][counter], real["ledger_snapshot"][counter]);
        }
    }
}

#[tokio::test]
async fn an_unacceptable_reserve_is_refused_and_leaves_no_trace() {
    let service = Service::live().await;
    let events = service.events().await;
    for (field, body) in [
        ("engine", r#"{"engine":"GLOBAL","amount":1}"#),
        ("engine", r#"{"engine":"global","amount":1}"#),
        ("engine", r#"{"engine":"GLOBAL","amount":1,"dry_run":true}"#),
        ("engine", r#"{"amount":1}"#),
        ("amount", r#"{"engine":"WHOLESALE"}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":0}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":"0.000000"}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":0,"dry_run":true}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":-1}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":1000000000000.000001}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":0.0000001}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":"NaN"}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":true}"#),
        ("metadata", r#"{"engine":"WHOLESALE","amount":1,"metadata":[1]}"#),
        ("dry_run", r#"{"engine":"WHOLESALE","amount":1,"dry_run":"perhaps"}"#),
        ("ttl", r#"{"engine":"WHOLESALE","amount":1,"ttl":1}"#),
    ] {
        let _ = service.post_text("/risk/check-and-reserve", "application/json", body).await.invalid(field);
    }
    assert_eq!(service.events().await, events);
    assert!(counters(&service).await.is_empty());
}
