//! Lever 3 through HTTP: policies, the day's scorecard, the gate at creation and the checks at use.

mod evidence;
mod guard;
mod policies;
mod promotion;
mod recommendations;
mod refused;
mod trials;
mod uses;

use crate::support::{Answer, Service};
use serde_json::{Value, json};

const UPSERT: &str = "/heimdall/policies/upsert";
const TRIAL: &str = "/heimdall/sandbox/trial";
const RECOMMEND: &str = "/heimdall/recommend";

/// The row of a domain in a list; null when there is none.
fn of(list: &Value, domain: &str) -> Value {
    let rows = list.as_array().expect("a list");
    let found = rows.iter().find(|row| row["domain"] == domain);
    found.cloned().unwrap_or_default()
}

async fn policy(service: &Service, domain: &str) -> Value {
    of(&service.get("/heimdall/policies").await.ok(), domain)
}

async fn card(service: &Service, domain: &str) -> Value {
    of(&service.get("/heimdall/scorecard/today").await.ok(), domain)
}

async fn trials(service: &Service, domain: &str, successes: usize, failures: usize) {
    for number in 0..successes + failures {
        let success = number < successes;
        let body = json!({"domain": domain, "confidence": 0.9, "success": success});
        service.post(TRIAL, &body).await.ok();
    }
}

/// A domain that passes its gate with a confidence of 0.9: two of two trials succeeded.
async fn open_gate(service: &Service, domain: &str) {
    let on = json!({"domain": domain, "min_sandbox_trials": 2, "prod_use_enabled": true});
    service.post(UPSERT, &on).await.ok();
    trials(service, domain, 2, 0).await;
}

async fn recommend(service: &Service, domain: &str, confidence: &str) -> Value {
    let body = format!(r#"{{"domain":"{domain}","confidence":{confidence}}}"#);
    let answer = service.post_text(RECOMMEND, "application/json", &body);
    answer.await.ok()
}

/// A recommendation that passed its gate, with a confidence of 0.95.
async fn eligible(service: &Service, domain: &str) -> i64 {
    open_gate(service, domain).await;
    let made = recommend(service, domain, "0.95").await;
    assert_eq!(made["gate_reason"], "gate_pass");
    made["id"].as_i64().expect("an id")
}

async fn require(service: &Service, id: i64) -> Answer {
    let path = format!("/heimdall/recommendations/{id}/require-prod-eligible");
    let body = json!({"actor": "sender", "reason": "send", "correlation_id": "deal-1"});
    service.post(&path, &body).await
}

async fn events(service: &Service, filter: &str) -> Vec<Value> {
    let page = service.get(&format!("/heimdall/events?limit=1000{filter}"));
    let page = page.await.ok();
    page["items"].as_array().expect("a page").clone()
}

/// Sets something on the policy of D.
async fn set(service: &Service, mut body: Value) -> Value {
    body["domain"] = json!("D");
    service.post(UPSERT, &body).await.ok()
}

/// Expects the use to be refused for this reason, with its whole body and its event.
#[track_caller]
fn refused_use(answer: Answer, id: i64, reason: &str) {
    let body = answer.refused(403, "NOT_PROD_ELIGIBLE");
    let members = ["id", "domain", "prod_eligible", "gate_reason"].map(|member| body[member].clone());
    assert_eq!(json!(members), json!([id, "D", false, reason]));
    assert_eq!(body["detail"], format!("recommendation {id} may not be used in production: {reason}"));
}
