//! Ids in paths, and the queries of reads.

use super::furnished;
use crate::support::{BASE, Service};
use axum::http::Method;
use holdfast::enforcement::routes::ROUTES;
use serde_json::json;

#[tokio::test]
async fn a_hostile_id_in_the_path_is_refused() {
    let service = furnished().await;
    let before = service.everything().await;
    for id in [
        "0",
        "-1",
        "3",
        "999999999999",
        "1e400",
        "NaN",
        "x",
        "0x2",
        "2.5",
        "9223372036854775808",
        "1111111111222222222233333333334444444444",
        "%20",
        "%80",
        "%e2%80%ae",
        "2'--",
        "..",
        "2%2f..",
        "%00",
    ] {
        for path in [format!("/heimdall/recommendations/{id}"), format!("/risk/reservations/{id}")] {
            let answer = service.get(&path).await;
            assert!(answer.status.is_client_error(), "{path}: {}", answer.text);
        }
        let path = format!("/heimdall/recommendations/{id}/require-prod-eligible");
        let answer = service.post(&path, &json!({"actor": "a"})).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.text);
    }
    assert_eq!(service.everything().await, before);
}

/// Every read below the base path.
fn gets() -> Vec<String> {
    ROUTES
        .iter()
        .filter(|route| route.method == Some(Method::GET))
        .filter_map(|route| route.template.strip_prefix(BASE))
        .map(|template| {
            let id = if template.starts_with("/risk") { "0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5e" } else { "2" };
            template.replace("{id}", id)
        })
        .collect()
}

#[tokio::test]
async fn a_read_refuses_a_parameter_that_it_does_not_know_and_names_those_it_does() {
    let service = Service::fresh().await;
    for path in gets() {
        let sentence = service.get(&format!("{path}?colour=red")).await.invalid("colour");
        assert!(sentence.starts_with("is unknown: allowed are "), "{path}: {sentence}");
    }
    for (path, allowed) in [
        ("/go-live/state", "none"),
        ("/go-live/events", "limit, cursor"),
        ("/review", "format"),
        ("/risk/reservations", "engine, status, older_than, correlation_id, limit, cursor"),
        ("/risk/events", "engine, action, ok, correlation_id, from, to, limit, cursor"),
        ("/regression/kpi", "domain, metric, limit, cursor"),
    ] {
        let sentence = service.get(&format!("{path}?colour=red")).await.invalid("colour");
        assert_eq!(sentence, format!("is unknown: allowed are {allowed}"), "{path}");
    }
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        let answer = service.get_root(&format!("{path}?colour=red")).await;
        assert_eq!(answer.invalid("colour"), "is unknown: allowed are none", "{path}");
    }
}

#[tokio::test]
async fn no_query_of_a_read_is_a_failure_of_the_service() {
    let service = furnished().await;
    let mut failed = Vec::new();
    for path in gets() {
        for (name, values) in [
            ("limit", &["0", "-1", "1001", "1.5", "x", "NaN", "1e400", "9223372036854775808", "%00", "%ff", "%zz"][..]),
            ("cursor", &["0", "-1", "x", "1000000000000", "9223372036854775807", "1e400", "%00"]),
            ("engine", &["%00", "a%20b", "%ff", "'--", "%F0%9F%92%A3", "*"]),
            ("domain", &["%00", "a%20b", "%ff", "'--"]),
            ("metric", &["%00", "a%20b", "%ff", "'--"]),
            ("correlation_id", &["%00", "%0a", "%ff", "'%3B--", "%F0%9F%92%A3"]),
            ("status", &["x", "open", "%00"]),
            ("action", &["x", "deny", "%00"]),
            ("ok", &["maybe", "2", "%00"]),
            ("prod_eligible", &["maybe", "%00"]),
            ("format", &["pdf", "%00"]),
            (
                "from",
                &[
                    "x",
                    "%00",
                    "2026-02-30T00:00:00Z",
                    "0000-01-01T00:00:00Z",
                    "-4800-01-01T00:00:00Z",
                    "-200000-01-01T00:00:00Z",
                    "%2B262000-01-01T00:00:00Z",
                    "9999-12-31T23:59:60Z",
                    "infinity",
                ],
            ),
            ("to", &["x", "-200000-01-01T00:00:00Z", "%2B262000-01-01T00:00:00Z", "-infinity"]),
        ] {
            for value in values {
                let uri = format!("{path}?{name}={value}");
                let answer = service.get(&uri).await;
                if answer.status.is_server_error() {
                    failed.push(format!("{uri}: {}", answer.status));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
