//! The ledger over its life: settling, midnight, restarts, a clock that goes wrong, and the chain, recomputed in SQL alone.

mod chain;
mod forms;
mod original;
mod past;
mod settle;
mod time;

use crate::support::{Service, level, reservation, snapshot};
use serde_json::{Value, json};

/// Reserves on a thread of the caller's; gives the id.
async fn hold(service: &Service, engine: &str, amount: &str, thread: Option<&str>) -> String {
    let body = json!({"engine": engine, "amount": amount, "actor": "bot", "correlation_id": thread});
    let answer = service.post("/risk/check-and-reserve", &body).await.ok();
    answer["reservation_id"].as_str().unwrap_or_else(|| panic!("denied: {answer}")).to_owned()
}

async fn settle(service: &Service, body: Value) -> Value {
    service.post("/risk/settle", &body).await.ok()
}
