//! The sandbox trials of earlier days.

use super::all;
use crate::review::at;
use crate::support::Service;
use serde_json::{Value, json};

async fn trial(service: &Service, domain: &str, confidence: &str, success: bool) {
    let body = json!({"domain": domain, "confidence": confidence, "success": success});
    service.post("/heimdall/sandbox/trial", &body).await.ok();
}

/// Trials on two days of three.
async fn tried() -> Service {
    let service = Service::live().await;
    at(&service, "2040-01-02T12:00:00Z").await;
    trial(&service, "LAB", "0.9", true).await;
    trial(&service, "LAB", "0.8", false).await;
    trial(&service, "BUYER_MATCH", "0.5", true).await;
    at(&service, "2040-01-04T12:00:00Z").await;
    trial(&service, "LAB", "0.7", true).await;
    service
}

fn numbers(rows: &[Value]) -> Vec<Value> {
    let of = |row: &Value| {
        json!([
            row["from"],
            row["day"],
            row["domain"],
            row["trials"],
            row["successes"],
            row["success_rate"],
            row["avg_confidence"]
        ])
    };
    rows.iter().filter(|row| row["trials"] != 0).map(of).collect()
}

#[tokio::test]
async fn a_range_is_the_sum_of_its_days() {
    let service = tried().await;
    let rows = all(&service, "/heimdall/scorecards?from=2040-01-01&to=2040-01-05", 100).await;
    assert_eq!(rows.len(), 5, "the four with a policy, and one that has only trials");
    assert_eq!(
        numbers(&rows),
        [
            json!(["2040-01-01", "2040-01-04", "BUYER_MATCH", 1, 1, 1, 0.5]),
            json!(["2040-01-01", "2040-01-04", "LAB", 3, 2, 0.666_666_666_667, 0.8]),
        ]
    );
    for limit in [1, 2, 3, 5] {
        assert_eq!(all(&service, "/heimdall/scorecards?from=2040-01-01&to=2040-01-05", limit).await, rows, "{limit}");
    }
    let one = all(&service, "/heimdall/scorecards?from=2040-01-01&to=2040-01-05&domain=lab", 100).await;
    assert_eq!(one, rows.iter().filter(|row| row["domain"] == "LAB").cloned().collect::<Vec<_>>());
}

#[tokio::test]
async fn each_day_and_domain_is_one_row_and_today_is_the_card_of_today() {
    let service = tried().await;
    let path = "/heimdall/scorecards?from=2040-01-02&to=2040-01-05&by=day";
    let rows = all(&service, path, 100).await;
    assert_eq!(
        numbers(&rows),
        [
            json!(["2040-01-04", "2040-01-04", "LAB", 1, 1, 1, 0.7]),
            json!(["2040-01-02", "2040-01-02", "BUYER_MATCH", 1, 1, 1, 0.5]),
            json!(["2040-01-02", "2040-01-02", "LAB", 2, 1, 0.5, 0.85]),
        ]
    );
    for limit in [1, 2, 4, 14] {
        assert_eq!(all(&service, path, limit).await, rows, "{limit}");
    }
    let one = all(&service, "/heimdall/scorecards?from=2040-01-02&to=2040-01-05&by=day&domain=LAB", 2).await;
    assert_eq!(json!(one.iter().map(|row| row["trials"].clone()).collect::<Vec<_>>()), json!([1, 0, 2]));
    let today = service.get("/heimdall/scorecard/today").await.ok();
    for card in today.as_array().unwrap() {
        let mut card = card.clone();
        card.as_object_mut().unwrap().remove("gate");
        assert!(rows.contains(&card), "{card}");
    }
}

#[tokio::test]
async fn a_day_that_has_ended_never_changes_its_scorecard() {
    let service = tried().await;
    let path = "/heimdall/scorecards?from=2040-01-01&to=2040-01-04&by=day";
    let before = all(&service, path, 100).await;
    trial(&service, "LAB", "0.1", false).await;
    trial(&service, "CAPITAL_ROUTE", "0.1", false).await;
    assert_eq!(all(&service, path, 100).await, before);
}

#[tokio::test]
async fn a_domain_that_is_not_known_and_a_range_without_days_are_refused() {
    let service = tried().await;
    service.get("/heimdall/scorecards?domain=LABB").await.refused(404, "NOT_FOUND");
    for (query, field) in [
        ("from=2040-01-05", "from"),
        ("from=2040-01-04&to=2040-01-04", "to"),
        ("from=2038-01-04", "from"),
        ("by=domain,day", "by"),
        ("engine=LAB", "engine"),
        ("domain=%27", "domain"),
        ("cursor=2040-01-04.LAB.00000000", "cursor"),
    ] {
        service.get(&format!("/heimdall/scorecards?{query}")).await.invalid(field);
    }
}
