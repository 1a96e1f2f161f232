//! The state at an instant, from the trail alone, equals the levers' answers at that instant.

use crate::support::Service;
use chrono::{DateTime, TimeDelta, Utc};
use holdfast::audit::Origin;
use holdfast::go_live;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The valid settings, by kind and name.
type InForce = BTreeMap<String, Value>;

/// The answers of the levers' own routes.
async fn said(service: &Service) -> InForce {
    let mut said = InForce::new();
    said.insert("go_live".into(), service.get("/go-live/state").await.ok());
    for (path, kind, names) in [
        ("/go-live/packs", "packs", &["id"][..]),
        ("/risk/policies", "risk_policies", &["engine"]),
        ("/heimdall/policies", "heimdall_policies", &["domain"]),
        ("/regression/policies", "regression_policies", &["domain", "metric"]),
        ("/regression/state", "wires", &["domain", "metric"]),
    ] {
        for row in service.get(path).await.ok().as_array().unwrap() {
            let name = names.iter().map(|name| row[name].as_str().unwrap()).collect::<Vec<_>>().join(".");
            let mut row = row.clone();
            // Said about a policy, and no part of it.
            row.as_object_mut().unwrap().remove("warnings");
            if kind == "wires" {
                if row["last_triggered_at"].is_null() {
                    continue;
                }
                let kept = ["domain", "metric", "triggered", "trip_id", "last_triggered_at", "watermark"];
                row = kept.into_iter().map(|name| (name.to_owned(), row[name].clone())).collect::<Map<_, _>>().into();
            }
            said.insert(format!("{kind} {name}"), row);
        }
    }
    said
}

/// The state according to the trail; without an instant, the current one.
async fn told(service: &Service, at: Option<DateTime<Utc>>) -> (Value, InForce) {
    let at = at.map_or_else(String::new, |at| format!("?at={}", at.format("%Y-%m-%dT%H:%M:%S%.6fZ")));
    let body = service.get(&format!("/audit/as-of{at}")).await.ok();
    let mut told = InForce::new();
    for (kind, things) in body.as_object().unwrap() {
        match things {
            Value::Object(_) => drop(told.insert(kind.clone(), things["value"].clone())),
            Value::Array(things) if kind != "unknown_trips" => {
                for thing in things {
                    assert_eq!((&thing["erased"], thing["value"].is_null()), (&json!(false), false), "{thing}");
                    told.insert(format!("{kind} {}", thing["name"].as_str().unwrap()), thing["value"].clone());
                }
            }
            _ => {}
        }
    }
    (body, told)
}

/// The same, but for the times of what was installed, which no event tells.
#[track_caller]
fn check(told: &InForce, said: &InForce, when: &str) {
    let names = |all: &InForce| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(told), names(said), "{when}");
    for (name, said) in said {
        let mut said = said.clone();
        if told[name]["updated_at"].is_null() && said.get("updated_at").is_some() {
            said["updated_at"] = Value::Null;
        }
        assert_eq!(told[name], said, "{name} {when}");
    }
}

async fn head(service: &Service) -> (i64, DateTime<Utc>) {
    let head = sqlx::query_as("SELECT seq, at FROM audit_head WHERE stream = 'control'");
    head.fetch_one(&service.pool).await.unwrap()
}

/// Changes of every kind, one a line; what is refused, and what changes nothing, is among them.
fn changes() -> Vec<(&'static str, Value)> {
    let wire = |domain: &str, action: &str, engine: Value| {
        json!({
            "domain": domain, "metric": "m", "window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1,
            "enabled": true, "action": action, "engine": engine, "actor": "bryan",
        })
    };
    let measured = |domain: &str, success: bool| json!({"domain": domain, "metric": "m", "success": success});
    let rearmed =
        |domain: &str| json!({"domain": domain, "metric": "m", "enabled": true, "reason": "mended", "actor": "eve"});
    let rebased = |domain: &str| json!({"domain": domain, "metric": "m", "source": "LAST_N", "force": true});
    let (wires, kpi, risk) = ("/regression/policies/upsert", "/regression/kpi", "/risk/policies/upsert");
    let reset = "/regression/baseline/reset";
    vec![
        ("/go-live/enable", json!({"actor": "bryan", "reason": "Monday"})),
        ("/go-live/packs", json!({"id": "crm", "status": "missing"})),
        ("/go-live/packs", json!({"id": "crm", "status": "installed", "version": "2", "actor": "crm"})),
        (risk, json!({"engine": "CAPITAL", "max_daily_loss": "150.25", "default_ttl_seconds": 60, "actor": "bryan"})),
        (risk, json!({"engine": "CAPITAL", "max_daily_loss": "150.25"})),
        (
            risk,
            json!({"engine": "NEW", "max_daily_loss": 1, "max_daily_exposure": "999999999999.999999", "max_open_risk": 3}),
        ),
        (risk, json!({"engine": "NEW", "max_daily_loss": -1})),
        (
            "/heimdall/policies/upsert",
            json!({"domain": "BUYER_MATCH", "min_confidence_prod": "0.123456", "actor": "eve"}),
        ),
        ("/heimdall/policies/upsert", json!({"domain": "OTHER", "prod_use_enabled": true})),
        ("/heimdall/demote", json!({"domain": "OTHER", "actor": "bryan", "reason": "not earned"})),
        (
            "/heimdall/policies/upsert",
            json!({"domain": "OTHER", "min_sandbox_trials": 1, "gate_rule": "POINT", "engine": "CAPITAL", "single_use": true}),
        ),
        ("/heimdall/sandbox/trial", json!({"domain": "OTHER", "confidence": 0.9, "success": true})),
        ("/heimdall/promote", json!({"domain": "OTHER", "actor": "bryan", "reason": "earned"})),
        ("/heimdall/policies/upsert", json!({"domain": "OTHER", "remove_engine": true})),
        (wires, wire("WHOLESALE", "THROTTLE", Value::Null)),
        (wires, wire("OFFERS", "THROTTLE", json!("WHOLESALE"))),
        (kpi, measured("WHOLESALE", true)),
        (kpi, measured("WHOLESALE", false)),
        (risk, json!({"engine": "WHOLESALE", "max_daily_loss": 199, "actor": "bryan", "reason": "while throttled"})),
        (kpi, measured("OFFERS", true)),
        (kpi, measured("OFFERS", false)),
        (wires, rearmed("WHOLESALE")),
        (wires, rearmed("OFFERS")),
        (kpi, measured("WHOLESALE", false)),
        (risk, json!({"engine": "WHOLESALE", "enabled": true, "reason": "override"})),
        (wires, rearmed("WHOLESALE")),
        (kpi, measured("WHOLESALE", false)),
        (risk, json!({"engine": "WHOLESALE", "enabled": false})),
        (wires, rearmed("WHOLESALE")),
        (reset, rebased("WHOLESALE")),
        (wires, wire("NOBODYS", "THROTTLE", json!("NOBODYS"))),
        (kpi, measured("NOBODYS", true)),
        (reset, rebased("NOBODYS")),
        (kpi, measured("NOBODYS", true)),
        (kpi, measured("NOBODYS", false)),
        (wires, wire("STOP", "KILL_SWITCH", Value::Null)),
        (kpi, measured("STOP", true)),
        (kpi, measured("STOP", false)),
        (reset, rebased("STOP")),
        ("/go-live/kill-switch/engage", json!({"actor": "again"})),
        ("/go-live/kill-switch/release", json!({"actor": "bryan", "reason": "drill over"})),
        (wires, rearmed("NOBODYS")),
        ("/go-live/disable", json!({"actor": "bryan"})),
    ]
}

#[tokio::test]
async fn what_was_in_force_at_each_instant_is_what_the_levers_said_then() {
    let service = Service::fresh().await;
    // The test's clock may stand before the one by which the template was made.
    let yesterday = "UPDATE _sqlx_migrations SET installed_on = installed_on - interval '1 day'";
    sqlx::query(yesterday).execute(&service.pool).await.unwrap();
    let (body, fresh) = told(&service, None).await;
    check(&fresh, &said(&service).await, "as installed");
    assert_eq!((&body["seq"], &body["go_live"]["seq"]), (&json!(0), &Value::Null));
    let mut steps = vec![(head(&service).await.0, said(&service).await)];
    for (path, change) in changes() {
        let answer = service.post(path, &change).await;
        let when = format!("after {path} {change}");
        assert_eq!(answer.status == 200, change["max_daily_loss"] != -1, "{when}: {}", answer.text);
        let now = said(&service).await;
        check(&told(&service, None).await.1, &now, &when);
        steps.push((head(&service).await.0, now));
    }
    // A refused attempt is an event, and changes nothing.
    let refused = service.post_with("/go-live/enable", ("if-match", "\"1\""), &json!({"actor": "late"})).await;
    refused.refused(412, "VERSION_MISMATCH");
    steps.push((head(&service).await.0, said(&service).await));
    let origin = Origin::system(None);
    go_live::accept_rewind(&service.db, &"restored".parse().unwrap(), &origin).await.unwrap();
    steps.push((head(&service).await.0, said(&service).await));

    let times: Vec<DateTime<Utc>> =
        sqlx::query_scalar("SELECT at FROM control_event ORDER BY seq").fetch_all(&service.pool).await.unwrap();
    let time = |seq: i64| times[usize::try_from(seq - 1).unwrap()];
    let mut asked = 0;
    for (number, (seq, then)) in steps.iter().enumerate().skip(1) {
        let (before, earlier) = &steps[number - 1];
        if seq == before {
            continue;
        }
        // An event counts at its very time, and not a microsecond earlier.
        let (body, told_then) = told(&service, Some(time(*seq))).await;
        check(&told_then, then, &format!("at event {seq}"));
        assert_eq!(body["seq"], *seq);
        let just_before = time(before + 1) - TimeDelta::microseconds(1);
        check(&told(&service, Some(just_before)).await.1, earlier, &format!("before event {}", before + 1));
        asked += 1;
    }
    assert!(asked > 25, "{asked}");
}

#[tokio::test]
async fn each_thing_names_the_event_that_it_comes_from() {
    let service = Service::live().await;
    service.post("/risk/policies/upsert", &json!({"engine": "CAPITAL", "max_daily_loss": 7})).await.ok();
    let (body, _) = told(&service, None).await;
    let events = service.get("/audit/events?stream=control&order=asc").await.ok()["items"].clone();
    let of = |kind: &str, name: &str| {
        let things = body[kind].as_array().unwrap();
        things.iter().find(|thing| thing["name"] == name).unwrap().clone()
    };
    assert_eq!((&body["go_live"]["seq"], &body["go_live"]["at"]), (&json!(1), &events[0]["at"]));
    let capital = of("risk_policies", "CAPITAL");
    assert_eq!((&capital["seq"], &capital["at"]), (&json!(2), &events[1]["at"]));
    let global = of("risk_policies", "GLOBAL");
    assert_eq!((&global["seq"], &global["at"], &global["erased"]), (&Value::Null, &Value::Null, &json!(false)));
}

#[tokio::test]
async fn before_it_was_installed_nothing_was_in_force_and_the_future_is_refused() {
    let service = Service::live().await;
    let body = service.get("/audit/as-of?at=2001-01-01T00:00:00Z").await.ok();
    assert_eq!((&body["go_live"], &body["risk_policies"], &body["seq"]), (&Value::Null, &json!([]), &json!(0)));
    for at in ["9999-12-31T23:59:59Z", "tomorrow", "2026-01-01"] {
        service.get(&format!("/audit/as-of?at={at}")).await.invalid("at");
    }
    service.get("/audit/as-of?when=now").await.invalid("when");
    // A recorded change is in force, even if the clock went back afterwards.
    let state = said(&service).await;
    service.jump("-2 hours").await;
    check(&told(&service, None).await.1, &state, "after the clock went back");
}
