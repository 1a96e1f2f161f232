//! The limits of a batch, and the refusals of a whole batch.

use super::{leaves_no_trace, level, uncapped};
use crate::support::Service;
use serde_json::{Value, json};

fn reserves(count: usize) -> Value {
    json!({"operations": vec![json!({"op": "reserve", "engine": "WHOLESALE", "amount": 1}); count]})
}

#[tokio::test]
async fn one_to_a_thousand_operations_are_a_batch() {
    let service = Service::live().await;
    uncapped(&service, &["WHOLESALE"]).await;
    for count in [0, 1001, 5000] {
        let answer = leaves_no_trace!(service, service.post("/risk/batch", &reserves(count)).await);
        let sentence = answer.invalid("operations");
        assert!(sentence.contains("1 to 1000"), "{sentence}");
    }
    for count in [1, 1000] {
        let answer = service.post("/risk/batch", &reserves(count)).await.ok();
        assert_eq!(answer["results"].as_array().unwrap().len(), count);
    }
    assert_eq!(level(&service, "WHOLESALE").await, json!([1001, 1001, 0, 1001]));
    assert_eq!(service.count("SELECT count(DISTINCT xmin::text) FROM risk_event").await, 2, "a commit each");
}

#[tokio::test]
async fn a_body_that_is_no_batch_is_refused_whole() {
    let service = Service::live().await;
    for (body, field) in [
        (json!({}), "operations"),
        (json!({"operations": null}), "operations"),
        (json!({"operations": 5}), "operations"),
        (json!({"operations": {"op": "release"}}), "operations"),
        (json!({"operations": [{"op": "release"}], "atomic": true}), "atomic"),
    ] {
        let answer = leaves_no_trace!(service, service.post("/risk/batch", &body).await);
        let _ = answer.invalid(field);
    }
    for text in ["", "[]", "{\"operations\": [", "{\"operations\": [{}]} x", "nonsense"] {
        let answer = leaves_no_trace!(service, service.post_text("/risk/batch", "application/json", text).await);
        assert!(matches!(answer.status.as_u16(), 400 | 422), "{text}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_list_of_something_else_than_objects_is_refused_whole() {
    let service = Service::live().await;
    for other in ["5", "\"x\"", "null", "[]", "true"] {
        let text = format!(r#"{{"operations": [{{"op": "reserve", "engine": "WHOLESALE", "amount": 1}}, {other}]}}"#);
        let answer = leaves_no_trace!(service, service.post_text("/risk/batch", "application/json", &text).await);
        let _ = answer.invalid("operations");
    }
}

#[tokio::test]
async fn a_field_twice_in_an_operation_is_its_own_error() {
    let service = Service::live().await;
    let text = r#"{"operations": [{"op": "reserve", "engine": "WHOLESALE", "amount": 1, "amount": 2},
        {"op": "reserve", "engine": "WHOLESALE", "amount": 3}, {"op": "reserve", "op": "settle"}]}"#;
    let answer = service.post_text("/risk/batch", "application/json", text).await.ok();
    let statuses: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|result| result["status"].clone()).collect();
    assert_eq!(json!(statuses), json!([400, 200, 400]), "{answer}");
    assert_eq!(level(&service, "WHOLESALE").await, json!([3, 3, 0, 1]));
}

#[tokio::test]
async fn a_batch_of_more_than_two_mebibytes_is_413_and_one_of_nearly_as_much_is_decided() {
    let service = Service::live().await;
    let filled = |bytes: usize| {
        // The most operations that are allowed, each with the longest texts.
        let operation =
            json!({"op": "reserve", "engine": "WHOLESALE", "amount": 1, "reason": "r".repeat(900)}).to_string();
        let mut text = r#"{"operations": ["#.to_owned();
        text.push_str(&vec![operation; 1000].join(","));
        text.push_str("]}");
        let padding = bytes.checked_sub(text.len()).unwrap();
        text + &" ".repeat(padding)
    };
    let most = 2 * 1024 * 1024;
    let answer =
        leaves_no_trace!(service, service.post_text("/risk/batch", "application/json", &filled(most + 1)).await);
    answer.refused(413, "BODY_TOO_LARGE");
    let answer = service.post_text("/risk/batch", "application/json", &filled(most)).await.ok();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.iter().filter(|result| result["answer"]["ok"] == true).count(), 1000);
}

#[tokio::test]
async fn an_operation_alone_may_not_be_as_large_as_a_batch() {
    let service = Service::live().await;
    let text = format!(r#"{{"engine": "WHOLESALE", "amount": 1}}{}"#, " ".repeat(64 * 1024));
    let answer =
        leaves_no_trace!(service, service.post_text("/risk/check-and-reserve", "application/json", &text).await);
    answer.refused(413, "BODY_TOO_LARGE");
}

#[tokio::test]
async fn a_settle_that_looked_at_a_thousand_holds_says_that_more_are_open() {
    let service = Service::live().await;
    uncapped(&service, &["WHOLESALE"]).await;
    for count in [1000, 200] {
        service.post("/risk/batch", &reserves(count)).await.ok();
    }
    let settle = async |amount: i64| {
        let answer =
            service.post("/risk/settle", &json!({"engine": "WHOLESALE", "reserved_amount": amount})).await.ok();
        json!([answer["released"], answer["unmatched"], answer["flags"]])
    };
    let more_open = "more_open: settle again with the unmatched amount";
    assert_eq!(settle(1200).await, json!([1000, 200, [more_open]]));
    assert_eq!(settle(200).await, json!([200, 0, []]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([1200, 0, 0, 1200]));
    // Of exactly as many as it looks at nothing stays open.
    service.post("/risk/batch", &reserves(1000)).await.ok();
    assert_eq!(settle(1001).await, json!([1000, 1, ["over_release"]]));
}
