//! The lists: the day's ledger with its headroom, reservations and events.

use super::{Step, run, today, upsert};
use crate::support::Service;
use serde_json::{Value, json};

// Headroom.

#[tokio::test]
async fn headroom_is_what_is_left_under_each_cap() {
    let service = Service::live().await;
    upsert(&service, json!({"engine": "WHOLESALE", "max_actions_per_day": 5})).await;
    service.reserve("WHOLESALE", "250.5").await.ok();
    run(&service, &Step::Lose("WHOLESALE", "30")).await;
    assert_eq!(
        today(&service, "WHOLESALE").await["headroom"],
        json!({"exposure": 748.5, "open_risk": 749.5, "loss": 170, "actions": 3})
    );
}

#[tokio::test]
async fn headroom_is_null_where_there_is_no_cap() {
    let service = Service::fresh().await;
    assert_eq!(
        today(&service, "NOTIFY").await["headroom"],
        json!({"exposure": null, "open_risk": null, "loss": null, "actions": null})
    );
    assert_eq!(today(&service, "WHOLESALE").await["headroom"]["actions"], Value::Null);
}

#[tokio::test]
async fn headroom_is_never_below_zero_after_a_cap_is_lowered_below_what_is_used() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "500").await.ok();
    service.reserve("WHOLESALE", "1").await.ok();
    run(&service, &Step::Lose("WHOLESALE", "50")).await;
    upsert(
        &service,
        json!({"engine": "WHOLESALE", "max_daily_exposure": 400, "max_open_risk": 300, "max_daily_loss": 20,
        "max_actions_per_day": 2}),
    )
    .await;
    let row = today(&service, "WHOLESALE").await;
    assert_eq!(row["headroom"], json!({"exposure": 0, "open_risk": 0, "loss": 0, "actions": 0}));
    assert_eq!(row["open_risk_reserved"], 501, "holds stay");
}

#[tokio::test]
async fn the_ledger_has_a_row_for_every_policy_even_unused() {
    let service = Service::fresh().await;
    let rows = service.get("/risk/ledger/today").await.ok();
    let engines: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["engine"].as_str().unwrap()).collect();
    assert_eq!(engines, ["CAPITAL", "GLOBAL", "NOTIFY", "WHOLESALE"]);
    for row in rows.as_array().unwrap() {
        assert_eq!(
            json!([
                row["exposure_used"],
                row["open_risk_reserved"],
                row["realized_loss"],
                row["actions_count"],
                row["denied_count"],
                row["denials_by_reason"],
                row["updated_at"]
            ]),
            json!([0, 0, 0, 0, 0, {}, null])
        );
    }
}

// Lists.

fn column<'a>(page: &'a Value, field: &str) -> Vec<&'a Value> {
    page["items"].as_array().unwrap().iter().map(|item| &item[field]).collect()
}

/// Four reservations, one of them settled, and two denials.
async fn busy() -> Service {
    let service = Service::live().await;
    for (engine, amount, thread) in [
        ("WHOLESALE", 1, "a"),
        ("CAPITAL", 2, "a"),
        ("WHOLESALE", 3, "b"),
        ("CAPITAL", 4, "c"),
        ("NOTIFY", 5, "a"),
        ("WHOLESALE", 6000, "b"),
    ] {
        let body = json!({"engine": engine, "amount": amount, "correlation_id": thread});
        service.post("/risk/check-and-reserve", &body).await.ok();
    }
    let body = json!({"engine": "CAPITAL", "reserved_amount": 4, "correlation_id": "c"});
    service.post("/risk/settle", &body).await.ok();
    service
}

#[tokio::test]
async fn reservations_are_listed_newest_first_and_filtered() {
    let service = busy().await;
    for (query, amounts) in [
        ("", json!([4, 3, 2, 1])),
        ("?engine=capital", json!([4, 2])),
        ("?status=OPEN", json!([3, 2, 1])),
        ("?status=SETTLED", json!([4])),
        ("?correlation_id=a", json!([2, 1])),
        ("?engine=WHOLESALE&correlation_id=a", json!([1])),
        ("?engine=CAPITAL&status=OPEN&correlation_id=c", json!([])),
        ("?engine=NOBODY", json!([])),
        ("?correlation_id=A", json!([])),
    ] {
        let page = service.get(&format!("/risk/reservations{query}")).await.ok();
        assert_eq!(json!(column(&page, "amount")), amounts, "{query}");
        assert_eq!(page["next_cursor"], Value::Null);
    }
}

#[tokio::test]
async fn a_reservation_that_does_not_exist_is_404_and_a_bad_id_is_422() {
    let service = Service::fresh().await;
    service.get("/risk/reservations/00000000-0000-7000-8000-000000000000").await.refused(404, "NOT_FOUND");
    for bad in ["1", "not-a-uuid", "00000000-0000-7000-8000-00000000000g"] {
        let _ = service.get(&format!("/risk/reservations/{bad}")).await.invalid("id");
    }
}

#[tokio::test]
async fn filters_that_mean_nothing_are_422() {
    let service = Service::fresh().await;
    for (path, field) in [
        ("/risk/reservations?status=CLOSED", "status"),
        ("/risk/reservations?engine=no%20spaces", "engine"),
        ("/risk/reservations?actor=me", "actor"),
        ("/risk/events?action=SHRUG", "action"),
        ("/risk/events?ok=perhaps", "ok"),
        ("/risk/events?from=yesterday", "from"),
        ("/risk/events?reason=x", "reason"),
        ("/risk/policies?engine=CAPITAL", "engine"),
        ("/risk/ledger/today?day=2026-01-01", "day"),
    ] {
        let _ = service.get(path).await.invalid(field);
    }
}

#[tokio::test]
async fn events_are_listed_newest_first_and_filtered() {
    let service = busy().await;
    for (query, seqs) in [
        ("", json!([7, 6, 5, 4, 3, 2, 1])),
        ("?engine=wholesale", json!([6, 3, 1])),
        ("?action=RESERVE", json!([4, 3, 2, 1])),
        ("?action=DENY", json!([6, 5])),
        ("?action=SETTLE", json!([7])),
        ("?ok=false", json!([6, 5])),
        ("?ok=1", json!([7, 4, 3, 2, 1])),
        ("?correlation_id=a", json!([5, 2, 1])),
        ("?engine=WHOLESALE&ok=no&correlation_id=b", json!([6])),
        ("?action=DENY&ok=true", json!([])),
    ] {
        let page = service.get(&format!("/risk/events{query}")).await.ok();
        assert_eq!(json!(column(&page, "seq")), seqs, "{query}");
    }
}

#[tokio::test]
async fn events_are_filtered_by_time_from_inclusive_to_exclusive() {
    let service = busy().await;
    let all = service.get("/risk/events").await.ok();
    // Newest first: index 7 - seq.
    let at = |seq: usize| all["items"][7 - seq]["created_at"].as_str().unwrap().to_owned();
    for (query, seqs) in [
        (format!("?from={}", at(5)), json!([7, 6, 5])),
        (format!("?to={}", at(3)), json!([2, 1])),
        (format!("?from={}&to={}", at(3), at(5)), json!([4, 3])),
        (format!("?from={}&to={}", at(4), at(4)), json!([])),
    ] {
        let page = service.get(&format!("/risk/events{query}")).await.ok();
        assert_eq!(json!(column(&page, "seq")), seqs, "{query}");
    }
}
