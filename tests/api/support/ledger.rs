//! The ledger as the API shows it.

use super::Service;
use serde_json::{Value, json};

/// Today's ledger of an engine: exposure, open risk, loss, actions.
pub async fn level(service: &Service, engine: &str) -> Value {
    let rows = service.get("/risk/ledger/today").await.ok();
    let row = rows.as_array().unwrap().iter().find(|row| row["engine"] == engine);
    snapshot(row.unwrap_or_else(|| panic!("{engine} has no row: {rows}")))
}

/// The same out of an answer.
pub fn snapshot(ledger: &Value) -> Value {
    json!([ledger["exposure_used"], ledger["open_risk_reserved"], ledger["realized_loss"], ledger["actions_count"]])
}

pub async fn reservation(service: &Service, id: &str) -> Value {
    service.get(&format!("/risk/reservations/{id}")).await.ok()
}
