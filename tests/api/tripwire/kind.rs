//! The kind of a series, set by an operator.

use super::{named, record, state, tripped, wire};
use crate::access::{call, create, new};
use crate::support::{BASE, Service};
use axum::http::Method;
use serde_json::{Value, json};

const KIND: &str = "/regression/kind";

fn value(metric: &str, value: i64) -> Value {
    json!({"domain": "LAB", "metric": metric, "value": value})
}

#[tokio::test]
async fn a_kind_that_was_declared_keeps_a_first_event_of_the_other_kind_out() {
    let service = Service::live().await;
    let set = service.post(KIND, &named("rate", json!({"kind": "BOOLEAN", "reason": "new"}))).await.ok();
    assert_eq!((&set["kind"], &set["since"], &set["changed"]), (&json!("BOOLEAN"), &json!(0), &json!(true)), "{set}");
    let refused = service.post("/regression/kpi", &value("rate", 1)).await;
    assert_eq!((refused.status.as_u16(), &refused.json["error"]), (422, &json!("SERIES_KIND_MISMATCH")));
    record(&service, "rate", &[true]).await;
    // Said again, nothing changes, and nothing is written.
    let events = service.events().await;
    let again = service.post(KIND, &named("rate", json!({"kind": "BOOLEAN"}))).await.ok();
    assert_eq!(again["changed"], false);
    assert_eq!(service.events().await, events);
}

#[tokio::test]
async fn a_series_that_a_first_event_spoilt_is_given_the_other_kind_and_its_wire_judges_what_comes_then() {
    for detector in ["PLAIN", "SEQUENTIAL"] {
        let service = Service::live().await;
        wire(&service, "rate", json!({"detector": detector})).await;
        service.post("/regression/kpi", &value("rate", 1_000_000)).await.ok();
        // Under a wire that is on, the past would vanish without a loosening.
        let set = named("rate", json!({"kind": "BOOLEAN", "reason": "spoilt"}));
        service.post(KIND, &set).await.invalid("kind");
        wire(&service, "rate", json!({"enabled": false})).await;
        let done = service.post(KIND, &set).await.ok();
        assert_eq!((&done["since"], &done["changed"]), (&json!(1), &json!(true)), "{done}");
        wire(&service, "rate", json!({"enabled": true})).await;
        assert_eq!(state(&service, "rate").await["watermark"], 1);
        let refused = service.post("/regression/kpi", &value("rate", 1)).await;
        assert_eq!(refused.status.as_u16(), 422);
        assert_eq!(record(&service, "rate", &[true; 15]).await, [0; 0], "{detector}");
        if detector == "PLAIN" {
            assert_eq!(record(&service, "rate", &[false]).await, [1]);
        } else {
            assert_eq!(state(&service, "rate").await["baseline"], 1, "the value from before would show");
        }
        let replay = service.post("/regression/backtest", &json!({"domain": "LAB", "metric": "rate"})).await.ok();
        assert_eq!(replay["events"], 15 + i32::from(detector == "PLAIN"), "{replay}");
        let event = service.get("/audit/events?stream=control&limit=100").await.ok();
        assert!(event.to_string().contains("REGRESSION_KIND"), "{event}");
    }
}

#[tokio::test]
async fn a_series_without_a_wire_that_gets_one_later_is_judged_by_its_own_kind_alone() {
    let service = Service::live().await;
    for _ in 0..20 {
        service.post("/regression/kpi", &value("rate", 1_000_000)).await.ok();
    }
    service.post(KIND, &named("rate", json!({"kind": "BOOLEAN"}))).await.ok();
    wire(&service, "rate", json!({})).await;
    assert_eq!(record(&service, "rate", &[true; 15]).await, [0; 0]);
    assert_eq!(state(&service, "rate").await["baseline"], 1);
}

#[tokio::test]
async fn a_wire_that_stands_tripped_keeps_its_kind_until_it_is_re_armed() {
    let service = Service::live().await;
    tripped(&service, "rate", json!({})).await;
    wire(&service, "rate", json!({"enabled": false})).await;
    let refused = service.post(KIND, &named("rate", json!({"kind": "NUMERIC"}))).await;
    assert_eq!((refused.status.as_u16(), &refused.json["error"]), (409, &json!("WIRE_TRIPPED")));
}

#[tokio::test]
async fn a_kind_is_set_by_whoever_reaches_the_wire() {
    let service = Service::live().await;
    wire(&service, "rate", json!({"engine": "B"})).await;
    let mut narrow = new("operate");
    narrow.engines = Some(vec!["A".parse().unwrap()]);
    let token = create(&service, narrow).await;
    let set = named("rate", json!({"kind": "NUMERIC"}));
    let answer = call(&service, Method::POST, &format!("{BASE}{KIND}"), Some(&token), &set).await;
    assert_eq!((answer.status.as_u16(), &answer.json["error"]), (403, &json!("OUT_OF_REACH")));
}
