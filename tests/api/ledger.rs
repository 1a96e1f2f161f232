//! The ledger over its life: settling, midnight, restarts, a clock that goes wrong, and the chain, recomputed in SQL alone.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod chain;
mod original;
mod settle;
mod time;

use crate::support::Service;
use serde_json::{Value, json};

/// Today's ledger of an engine: exposure, open risk, loss, actions.
async fn level(service: &Service, engine: &str) -> Value {
    let rows = service.get("/risk/ledger/today").await.ok();
    let row = rows.as_array().unwrap().iter().find(|row| row["engine"] == engine).unwrap();
    json!([row["exposure_used"], row["open_risk_reserved"], row["realized_loss"], row["actions_count"]])
}

/// The same out of a settle's answer.
fn snapshot(ledger: &Value) -> Value {
    json!([ledger["exposure_used"], ledger["open_risk_reserved"], ledger["realized_loss"], ledger["actions_count"]])
}

/// Reserves on a thread of the caller's; gives the id.
async fn hold(service: &Service, engine: &str, amount: &str, thread: Option<&str>) -> String {
    let body = json!({"engine": engine, "amount": amount, "actor": "bot", "correlation_id": thread});
    let answer = service.post("/risk/check-and-reserve", &body).await.ok();
    answer["reservation_id"].as_str().unwrap_or_else(|| panic!("denied: {answer}")).to_owned()
}

async fn settle(service: &Service, body: Value) -> Value {
    service.post("/risk/settle", &body).await.ok()
}

async fn reservation(service: &Service, id: &str) -> Value {
    service.get(&format!("/risk/reservations/{id}")).await.ok()
}
