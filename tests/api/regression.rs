//! Lever 4 through HTTP: wires, measurements, the trip, the latch, the re-arm.

mod evaluation;
mod measurements;
mod policies;
mod rearm;
mod trip;

use crate::support::Service;
use serde_json::{Value, json};

const UPSERT: &str = "/regression/policies/upsert";
const KPI: &str = "/regression/kpi";
const EVALUATE: &str = "/regression/evaluate";

/// The row of a pair in a list; null when there is none.
fn of(list: &Value, domain: &str, metric: &str) -> Value {
    let rows = list.as_array().expect("a list");
    let found = rows.iter().find(|row| row["domain"] == domain && row["metric"] == metric);
    found.cloned().unwrap_or_default()
}

async fn policy(service: &Service, domain: &str, metric: &str) -> Value {
    of(&service.get("/regression/policies").await.ok(), domain, metric)
}

async fn state(service: &Service, domain: &str, metric: &str) -> Value {
    of(&service.get("/regression/state").await.ok(), domain, metric)
}

async fn engine(service: &Service, name: &str) -> Value {
    let policies = service.get("/risk/policies").await.ok();
    let found = policies.as_array().expect("a list").iter().find(|row| row["engine"] == name);
    found.cloned().unwrap_or_default()
}

async fn trips(service: &Service, filter: &str) -> Vec<Value> {
    let page = service.get(&format!("/regression/trips?limit=1000{filter}")).await.ok();
    page["items"].as_array().expect("a page").clone()
}

async fn upsert(service: &Service, body: Value) -> Value {
    service.post(UPSERT, &body).await.ok()
}

/// A wire that judges 5 recent events by the 10 before them, with whatever else is given.
async fn small_wire(service: &Service, domain: &str, metric: &str, more: Value) -> Value {
    let mut body = json!({
        "domain": domain, "metric": metric, "window_events": 5, "baseline_events": 10, "min_events_to_enforce": 5,
        "enabled": true, "actor": "setup",
    });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    upsert(service, body).await
}

async fn kpi(service: &Service, domain: &str, metric: &str, success: bool) -> Value {
    let body = json!({"domain": domain, "metric": metric, "success": success, "actor": "shop"});
    service.post(KPI, &body).await.ok()
}

/// Records this many measurements and expects that none of them trips.
async fn quiet(service: &Service, domain: &str, metric: &str, count: usize, success: bool) {
    for number in 1..=count {
        let done = kpi(service, domain, metric, success).await;
        assert_eq!(done["tripped"], Value::Null, "event {number} of {count}: {done}");
    }
}

async fn value(service: &Service, domain: &str, metric: &str, value: &str) -> Value {
    let body = format!(r#"{{"domain":"{domain}","metric":"{metric}","value":{value},"actor":"shop"}}"#);
    service.post_text(KPI, "application/json", &body).await.ok()
}

async fn evaluate(service: &Service, domain: &str, metric: &str) -> Value {
    let body = json!({"domain": domain, "metric": metric, "actor": "friday"});
    let done = service.post(EVALUATE, &body).await.ok();
    assert_eq!(done["ok"], true);
    done["state"].clone()
}

/// A small wire that has just tripped: 15 successes, then one failure. Gives the trip.
async fn tripped(service: &Service, domain: &str, metric: &str, more: Value) -> Value {
    small_wire(service, domain, metric, more).await;
    quiet(service, domain, metric, 15, true).await;
    let done = kpi(service, domain, metric, false).await;
    assert!(done["tripped"].is_object(), "{done}");
    done["tripped"].clone()
}

async fn rearm(service: &Service, domain: &str, metric: &str) -> Value {
    let body = json!({"domain": domain, "metric": metric, "enabled": true, "actor": "fixer", "reason": "fixed"});
    upsert(service, body).await
}
