//! Reads stay small, however many rows exist.

use crate::support::Service;
use chrono::{DateTime, Utc};
use serde_json::json;

#[tokio::test]
async fn denials_of_engines_that_never_were_are_summed_on_global_and_the_review_lists_the_worst() {
    let service = Service::live().await;
    service.post("/risk/policies/upsert", &json!({"engine": "CAPITAL", "enabled": false})).await.ok();
    for _ in 0..3 {
        assert_eq!(service.reserve("CAPITAL", "1").await.ok()["ok"], false);
    }
    // In the order of names, the last one is the worst.
    for engine in (1..=110).chain([99; 4]) {
        assert_eq!(service.reserve(&format!("X{engine}"), "1").await.ok()["ok"], false);
    }
    let ledger = service.get("/risk/ledger/today").await.ok();
    let rows = ledger.as_array().unwrap();
    assert_eq!(rows.len(), 4, "those with a policy");
    let of = |engine: &str| rows.iter().find(|row| row["engine"] == engine).unwrap();
    assert_eq!(of("GLOBAL")["denied_count"], 117);
    assert_eq!(of("GLOBAL")["denials_by_reason"]["policy_missing"], 114);
    assert_eq!(of("CAPITAL")["denied_count"], 3);
    assert_eq!(of("WHOLESALE")["denials_by_reason"], json!({}));
    let review = service.get("/review").await.ok();
    let denials = review["denials"].as_array().unwrap();
    assert_eq!(json!([denials.len(), review["more"]["denials"]]), json!([100, 11]));
    let worst: Vec<_> = denials.iter().filter(|row| row["denied"] != 1).map(|row| &row["engine"]).collect();
    assert_eq!(json!(worst), json!(["CAPITAL", "X99"]), "by engine, and none of the worst is left out");
}

#[tokio::test]
async fn switches_that_are_moved_again_and_again_where_they_stand_are_read_once_and_counted_as_down() {
    let service = Service::live().await;
    for turn in 0..6 {
        let path = if turn % 2 == 0 { "/go-live/kill-switch/engage" } else { "/go-live/disable" };
        service.post(path, &json!({"actor": "wild"})).await.ok();
    }
    assert_eq!(service.count("SELECT count(*) FROM control_event").await, 7);
    let mut conn = service.pool.acquire().await.unwrap();
    let stretches = holdfast::go_live::store::stretches(&mut conn, DateTime::UNIX_EPOCH).await.unwrap();
    let live: Vec<_> = stretches.iter().map(|stretch| stretch.live).collect();
    assert_eq!(live, [true, false, false], "an enable, the first engage, the first disable");
    // One event before the period gives the state at its beginning.
    let last: DateTime<Utc> =
        sqlx::query_scalar("SELECT max(at) FROM control_event").fetch_one(&mut *conn).await.unwrap();
    let stretches = holdfast::go_live::store::stretches(&mut conn, last).await.unwrap();
    let told: Vec<_> = stretches.iter().map(|stretch| (stretch.from < last, stretch.live)).collect();
    assert_eq!(told, [(true, false), (false, false)], "the engage before it, and the last disable: {stretches:?}");
}

#[tokio::test]
async fn the_review_says_how_many_changes_it_does_not_list() {
    let service = Service::live().await;
    for cap in 1..=205 {
        service.post("/risk/policies/upsert", &json!({"engine": "CAPITAL", "max_daily_loss": cap})).await.ok();
    }
    let review = service.get("/review").await.ok();
    let changes = review["changes"].as_array().unwrap();
    assert_eq!(json!([changes.len(), review["more"]["changes"]]), json!([200, 6]));
}
