//! Measurements: recorded in their series, each event id once, and listed.

use super::{KPI, kpi, quiet, small_wire, tripped, trips, upsert, value};
use crate::support::Service;
use serde_json::json;

#[tokio::test]
async fn a_measurement_is_recorded_in_its_series() {
    let service = Service::fresh().await;
    let body = json!({
        "domain": "wholesale", "metric": "Contract_Rate", "success": true, "actor": "shop", "correlation_id": "deal-1",
        "detail": "first", "event_id": "e-1",
    });
    let done = service.post(KPI, &body).await.ok();
    assert_eq!(done, json!({"ok": true, "id": 1, "tripped": null, "watched": false, "duplicate": false}));
    value(&service, "CAPITAL", "roi", "-12.345678").await;
    let page = service.get(KPI).await.ok();
    let (newest, oldest) = (&page["items"][0], &page["items"][1]);
    assert_eq!(
        *oldest,
        json!({
            "id": 1, "domain": "WHOLESALE", "metric": "contract_rate", "series_seq": 1, "success": true, "value": null,
            "event_id": "e-1", "actor": "shop", "correlation_id": "deal-1", "detail": "first",
            "created_at": oldest["created_at"], "hash": oldest["hash"],
        })
    );
    assert_eq!(oldest["hash"].as_str().unwrap().len(), 64);
    assert_eq!(
        json!([newest["id"], newest["series_seq"], newest["success"], newest["value"]]),
        json!([2, 1, null, -12.345_678])
    );
}

#[tokio::test]
async fn measurements_without_an_event_id_count_each_time() {
    let service = Service::fresh().await;
    for number in 1..=3 {
        let done = kpi(&service, "D", "m", true).await;
        assert_eq!((&done["id"], &done["duplicate"]), (&json!(number), &json!(false)));
    }
}

#[tokio::test]
async fn a_measurement_means_the_same_as_json_form_and_query() {
    let service = Service::fresh().await;
    service.post_form(KPI, "domain=d&metric=m&value=1.5&changed_by=shop").await.ok();
    service.post_query(KPI, "domain=d&metric=m&value=1.5&actor=shop").await.ok();
    service.post(KPI, &json!({"domain": "d", "metric": "m", "value": "1.5", "actor": "shop"})).await.ok();
    let page = service.get("/regression/kpi?domain=D").await.ok();
    for row in page["items"].as_array().unwrap() {
        assert_eq!(json!([row["value"], row["actor"]]), json!([1.5, "shop"]));
    }
}

#[tokio::test]
async fn a_bad_measurement_is_refused_and_leaves_no_trace() {
    let service = Service::fresh().await;
    kpi(&service, "D", "m", true).await;
    let cases = [
        (json!({"metric": "m", "success": true}), "domain"),
        (json!({"domain": "D", "success": true}), "metric"),
        (json!({"domain": "D", "metric": "m"}), "success"),
        (json!({"domain": "D", "metric": "m", "success": null}), "success"),
        (json!({"domain": "D", "metric": "m", "success": true, "value": 1}), "success"),
        (json!({"domain": "D", "metric": "m", "success": 2}), "success"),
        (json!({"domain": "D", "metric": "x", "value": "1.0000001"}), "value"),
        (json!({"domain": "D", "metric": "x", "value": "1000000000000.000001"}), "value"),
        (json!({"domain": "D", "metric": "x", "value": "-1000000000000.000001"}), "value"),
        (json!({"domain": "D", "metric": "x", "value": "NaN"}), "value"),
        (json!({"domain": "D", "metric": "x", "value": "-0"}), "value"),
        (json!({"domain": "D", "metric": "m", "success": true, "event_id": "e".repeat(201)}), "event_id"),
        (json!({"domain": "D", "metric": "m", "success": true, "detail": "d".repeat(4097)}), "detail"),
        (json!({"domain": "D", "metric": "m", "success": true, "id": 7}), "id"),
    ];
    for (body, field) in cases {
        service.post(KPI, &body).await.invalid(field);
    }
    assert_eq!(service.events().await, 1);
}

#[tokio::test]
async fn a_series_keeps_the_kind_of_its_first_event() {
    let service = Service::fresh().await;
    kpi(&service, "D", "rate", true).await;
    value(&service, "D", "money", "5").await;
    let cases = [
        (json!({"domain": "D", "metric": "rate", "value": 1}), "success", "BOOLEAN"),
        (json!({"domain": "D", "metric": "money", "success": true}), "value", "NUMERIC"),
    ];
    for (body, wanted, kind) in cases {
        let refusal = service.post(KPI, &body).await.refused(422, "SERIES_KIND_MISMATCH");
        assert_eq!(refusal["errors"][0]["field"], wanted);
        assert!(refusal["detail"].as_str().unwrap().contains(kind), "{refusal}");
    }
    assert_eq!(service.events().await, 2);
    // Another pair is another series.
    value(&service, "E", "rate", "1").await;
}

#[tokio::test]
async fn the_same_event_id_again_is_one_event() {
    let service = Service::fresh().await;
    let body = json!({"domain": "D", "metric": "m", "success": false, "event_id": "e-1", "detail": "x"});
    let first = service.post(KPI, &body).await.ok();
    let again = service.post(KPI, &body).await.ok();
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
    assert_eq!(first["duplicate"], false);
    assert_eq!(service.events().await, 1);
    // The id is the series' own.
    let other = json!({"domain": "D", "metric": "n", "success": false, "event_id": "e-1"});
    assert_eq!(service.post(KPI, &other).await.ok()["duplicate"], false);
}

#[tokio::test]
async fn an_event_id_with_another_content_is_refused_and_leaves_no_trace() {
    let service = Service::fresh().await;
    let first = json!({"domain": "D", "metric": "m", "success": true, "event_id": "e-1", "detail": "x"});
    service.post(KPI, &first).await.ok();
    let cases = [
        (json!({"success": false, "detail": "x"}), json!(["success"])),
        (json!({"success": true, "detail": "y"}), json!(["detail"])),
        (json!({"success": true}), json!(["detail"])),
        (json!({"success": false}), json!(["success", "detail"])),
        (json!({"value": 1, "detail": "x"}), json!(["value"])),
    ];
    for (mut body, fields) in cases {
        (body["domain"], body["metric"], body["event_id"]) = (json!("D"), json!("m"), json!("e-1"));
        let refusal = service.post(KPI, &body).await.refused(409, "EVENT_ID_REUSED");
        assert_eq!(refusal["fields"], fields, "{body}");
    }
    assert_eq!(service.events().await, 1);
}

#[tokio::test]
async fn an_event_id_sent_again_does_not_trip_twice() {
    let service = Service::live().await;
    small_wire(&service, "WHOLESALE", "m", json!({})).await;
    quiet(&service, "WHOLESALE", "m", 15, true).await;
    let bad = json!({"domain": "WHOLESALE", "metric": "m", "success": false, "event_id": "bad"});
    assert!(service.post(KPI, &bad).await.ok()["tripped"].is_object());
    let events = service.events().await;
    assert_eq!(service.post(KPI, &bad).await.ok()["duplicate"], true);
    assert_eq!(service.events().await, events);
    assert_eq!(trips(&service, "").await.len(), 1);
}

#[tokio::test]
async fn watched_says_whether_an_enabled_wire_looks_at_the_event() {
    let service = Service::fresh().await;
    let watched = async |metric: &str| kpi(&service, "WHOLESALE", metric, true).await["watched"].clone();
    assert_eq!(watched("nobody_watches").await, false);
    assert_eq!(watched("contract_rate").await, false);
    upsert(&service, json!({"domain": "WHOLESALE", "metric": "contract_rate", "enabled": true})).await;
    assert_eq!(watched("contract_rate").await, true);
    upsert(&service, json!({"domain": "WHOLESALE", "metric": "contract_rate", "enabled": false})).await;
    assert_eq!(watched("contract_rate").await, false);
}

#[tokio::test]
async fn measurements_and_trips_are_listed_by_pair_newest_first() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    tripped(&service, "CAPITAL", "m", json!({})).await;
    kpi(&service, "CAPITAL", "n", true).await;
    for (filter, measured, tripped) in [
        ("", 33, 2),
        ("&domain=wholesale", 16, 1),
        ("&domain=CAPITAL", 17, 1),
        ("&domain=CAPITAL&metric=M", 16, 1),
        ("&metric=n", 1, 0),
        ("&domain=NOBODY", 0, 0),
    ] {
        let page = service.get(&format!("{KPI}?limit=1000{filter}")).await.ok();
        let ids: Vec<i64> = page["items"].as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), measured, "{filter}");
        assert!(ids.is_sorted_by(|a, b| a > b), "{filter}: {ids:?}");
        assert_eq!(trips(&service, filter).await.len(), tripped, "{filter}");
    }
    for path in [KPI, "/regression/trips"] {
        service.get(&format!("{path}?domain=A+B")).await.invalid("domain");
        service.get(&format!("{path}?pair=x")).await.invalid("pair");
    }
}
