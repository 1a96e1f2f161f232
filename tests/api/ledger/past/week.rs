//! The review beside the week before.

use super::{all, hold, settle};
use crate::review::at;
use crate::support::Service;
use serde_json::{Value, json};

async fn trial(service: &Service, success: bool) {
    let body = json!({"domain": "LAB", "confidence": 0.9, "success": success});
    service.post("/heimdall/sandbox/trial", &body).await.ok();
}

/// 2040-01-02 is a Monday: something happened in each of the three weeks before the 18th.
async fn three_weeks() -> Service {
    let service = Service::live().await;
    at(&service, "2040-01-08T12:00:00Z").await;
    hold(&service, "CAPITAL", 500).await;
    at(&service, "2040-01-09T00:00:30Z").await;
    let held = hold(&service, "WHOLESALE", 90).await;
    assert_eq!(service.reserve("NOTIFY", "1").await.ok()["ok"], false);
    trial(&service, true).await;
    trial(&service, false).await;
    at(&service, "2040-01-15T23:59:30Z").await;
    settle(&service, &held, 8).await;
    at(&service, "2040-01-18T12:00:00Z").await;
    hold(&service, "WHOLESALE", 120).await;
    for _ in 0..3 {
        assert_eq!(service.reserve("NOTIFY", "1").await.ok()["ok"], false);
    }
    assert_eq!(service.reserve("NOBODY", "1").await.ok()["ok"], false);
    trial(&service, true).await;
    service
}

#[tokio::test]
async fn the_review_has_the_numbers_of_the_week_before_beside_those_of_the_week() {
    let service = three_weeks().await;
    let review = service.get("/review").await.ok();
    assert_eq!(review["since"], "2040-01-16T00:00:00Z");
    for (week, from, day, to) in
        [("week", "2040-01-16", "2040-01-18", "2040-01-19"), ("week_before", "2040-01-09", "2040-01-15", "2040-01-16")]
    {
        let week = &review[week];
        assert_eq!(json!([week["from"], week["day"]]), json!([from, day]));
        let rows = all(&service, &format!("/risk/ledger?from={from}&to={to}&by=engine"), 100).await;
        let with_policy: Vec<_> = rows.into_iter().filter(|row| row["engine"] != "NOBODY").collect();
        assert_eq!(week["ledger"], json!(with_policy));
        let cards = all(&service, &format!("/heimdall/scorecards?from={from}&to={to}"), 100).await;
        assert_eq!(week["scorecards"], json!(cards));
    }
    let denials = review["denials"].as_array().unwrap();
    let told: Vec<_> =
        denials.iter().map(|row| json!([row["engine"], row["denied"], row["denied_week_before"]])).collect();
    assert_eq!(told, [json!(["NOBODY", 1, 0]), json!(["NOTIFY", 3, 1])]);
    // 2 of 2 reserves in vain of GLOBAL's, and 1 of 2 the week before.
    let slo = &review["slo"];
    assert_eq!(json!([slo["denial_rate"]["value"], slo["denial_rate"]["value_week_before"]]), json!([0.8, 0.5]));
    let rate = &slo["sandbox_success_rate"];
    assert_eq!(json!([rate["value"], rate["value_week_before"]]), json!([1, 0.5]));
    assert_eq!(slo["go_live_uptime"]["value_week_before"], Value::Null, "no day's row counts it");
}

#[tokio::test]
async fn the_denials_by_reason_of_the_week_add_up_to_the_reviews() {
    let service = three_weeks().await;
    let review = service.get("/review").await.ok();
    let ledger = service.get("/risk/ledger?from=2040-01-16&by=engine&engine=GLOBAL").await.ok();
    let global = &ledger["items"][0];
    for (reason, count) in global["denials_by_reason"].as_object().unwrap() {
        let denials = review["denials"].as_array().unwrap().iter().filter(|row| row["reason"] == *reason);
        assert_eq!(
            denials.map(|row| row["denied"].as_i64().unwrap()).sum::<i64>(),
            count.as_i64().unwrap(),
            "{reason}"
        );
    }
    assert_eq!(global["denied_count"], 4);
}

#[tokio::test]
async fn the_text_of_the_review_shows_both_weeks() {
    let service = three_weeks().await;
    let text = service.get("/review?format=markdown").await.text;
    for line in [
        "## Risk since 2040-01-16",
        "The week before is 2040-01-09 to 2040-01-15.",
        "| GLOBAL | 120 (week before: 90) | 620 (week before: 500) | 0 (week before: 8) | 1 (week before: 1) | 4 (week before: 1) |",
        "| NOTIFY | 0 | 0 | 0 | 0 | 3 (week before: 1) |",
        "| NOTIFY | policy_disabled | 3 (week before: 1) |",
        "| LAB | 1 (week before: 2) | 100.000 % (week before: 50.000 %) |",
        "80.000 % (week before: 50.000 %)",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn a_first_week_has_nothing_before_it() {
    let service = Service::live().await;
    let review = service.get("/review").await.ok();
    for row in review["week_before"]["ledger"].as_array().unwrap() {
        assert_eq!(json!([row["exposure_used"], row["open_risk_reserved"], row["denied_count"]]), json!([0, 0, 0]));
    }
    assert_eq!(review["slo"]["denial_rate"]["value_week_before"], Value::Null);
}
