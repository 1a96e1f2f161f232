//! The thinnest line through all four levers.

use crate::support::Service;
use serde_json::json;

#[tokio::test]
async fn reserve_and_settle_move_both_levels() {
    let service = Service::live().await;
    let reserved = service.reserve("WHOLESALE", "400").await.ok();
    assert_eq!(
        (reserved["ok"].as_bool(), reserved["reserved"].as_i64()),
        (Some(true), Some(400))
    );
    let id = reserved["reservation_id"].as_str().unwrap();
    let settled = service
        .post(
            "/risk/settle",
            &json!({"reservation_id": id, "realized_loss": "25.5"}),
        )
        .await
        .ok();
    assert_eq!(
        settled["ledger_global"]["realized_loss"].as_f64(),
        Some(25.5)
    );
    assert_eq!(
        settled["ledger_engine"]["open_risk_reserved"].as_i64(),
        Some(0)
    );
}
