//! JSON, form and query mean the same, together and apart.

use super::posts::POSTS;
use super::{Encoding, JSON};
use crate::support::{BASE, Service, request};
use axum::http::Method;
use serde_json::{Map, Value, json};

/// Takes out what differs from run to run: times, random ids, and the hashes over them.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let masked = members.iter().map(|(name, value)| {
                let hidden = ["hash", "request_id"].contains(&name.as_str());
                let value = if hidden { json!("…") } else { masked(value) };
                (name.clone(), value)
            });
            Value::Object(masked.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::String(text)
            if text.parse::<uuid::Uuid>().is_ok() || chrono::DateTime::parse_from_rfc3339(text).is_ok() =>
        {
            json!("…")
        }
        other => other.clone(),
    }
}

/// The service's visible state when all is done.
const READS: [&str; 13] = [
    "/go-live/state",
    "/go-live/events",
    "/go-live/packs",
    "/risk/policies",
    "/risk/ledger/today",
    "/risk/reservations",
    "/risk/events",
    "/heimdall/policies",
    "/heimdall/recommendations",
    "/heimdall/events",
    "/regression/kpi",
    "/regression/state",
    "/regression/trips",
];

/// Runs through every route in one encoding; the answers, and what is there to be read afterwards.
async fn run(encoding: Encoding) -> Vec<(String, Value)> {
    let service = Service::fresh().await;
    let mut seen = Vec::new();
    for post in POSTS {
        let answer = encoding.send(&service, &post.path(), post.fields).await;
        assert!(answer.status.is_success(), "{encoding:?} {}: {}", post.template, answer.text);
        seen.push((post.template.to_owned(), masked(&answer.json)));
    }
    for path in READS {
        seen.push((path.to_owned(), masked(&service.get(path).await.ok())));
    }
    seen
}

#[tokio::test]
async fn every_post_route_takes_json_form_query_and_mixtures_alike() {
    let json = run(Encoding::Json).await;
    let reserve = &json.iter().find(|(path, _)| path == "/risk/check-and-reserve").unwrap().1;
    assert_eq!(reserve["ok"], true, "the inputs do something: {reserve}");
    for encoding in [Encoding::Form, Encoding::Query, Encoding::JsonLabelledAsForm, Encoding::Both, Encoding::Twice] {
        for (seen, expected) in run(encoding).await.iter().zip(&json) {
            assert_eq!(seen, expected, "{encoding:?}");
        }
    }
}

#[tokio::test]
async fn booleans_have_four_spellings_each_in_any_case() {
    let service = Service::live().await;
    for (spelling, enabled) in [
        ("true", true),
        ("TRUE", true),
        ("1", true),
        ("yes", true),
        ("On", true),
        ("false", false),
        ("0", false),
        ("No", false),
        ("off", false),
    ] {
        let policy = service
            .post_form("/risk/policies/upsert", &format!("engine=WHOLESALE&enabled={spelling}&reason=r"))
            .await
            .ok();
        assert_eq!(policy["enabled"], enabled, "{spelling}");
    }
    for spelling in ["2", "y", "t", "enabled", "-1", "1.0", "truefalse"] {
        service
            .post_form("/risk/policies/upsert", &format!("engine=WHOLESALE&enabled={spelling}"))
            .await
            .invalid("enabled");
    }
}

#[tokio::test]
async fn body_and_query_must_not_contradict_each_other() {
    let service = Service::live().await;
    let before = service.everything().await;
    let uri = format!("{BASE}/risk/check-and-reserve?amount=401");
    let body = r#"{"engine":"WHOLESALE","amount":400}"#;
    let refused = service.send(request(Method::POST, &uri, Some(JSON), body)).await.refused(400, "CONTRADICTORY_INPUT");
    assert_eq!(refused["errors"][0]["field"], "amount");
    assert_eq!(service.everything().await, before);
}
