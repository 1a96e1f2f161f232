//! Stops are not refused for their words.

use crate::access::{call, new, refresh, token};
use crate::support::{Answer, BASE, Service};
use axum::http::Method;
use serde_json::{Value, json};

const DEMOTE: &str = "/heimdall/demote";
const FORM: Option<&str> = Some("application/x-www-form-urlencoded");

async fn promoted() -> Service {
    let service = Service::live().await;
    promote(&service).await;
    service
}

async fn promote(service: &Service) {
    let on = json!({"domain": "ND", "prod_use_enabled": true, "actor": "bob"});
    service.post("/heimdall/policies/upsert", &on).await.ok();
}

/// The parts of a request that an answer reports as ignored.
fn ignored(answer: &Value) -> String {
    let list = answer["ignored"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn of_what_stops_only_the_field_that_names_the_thing_can_refuse() {
    let service = promoted().await;
    let long = "a".repeat(300);
    for (query, content_type, body, said) in [
        ("?actor=x", FORM, "domain=ND&actor=y", "actor is given more than once with different values"),
        ("", FORM, "domain=ND&correlation_id=inc-7", "correlation_id is unknown"),
        ("", FORM, "domain=ND&correlation_id=%07", "correlation_id has the control character"),
        ("", FORM, "domain=ND&force=1&force=2", "force is unknown"),
        ("?colour=red", FORM, "domain=ND", "colour is unknown"),
        ("", FORM, &format!("domain=ND&idempotency_key={long}"), "idempotency_key has 300"),
        ("", FORM, "domain=ND&domain=ND", "domain is given more than once"),
        ("", FORM, "domain=ND&hurry", "without a value"),
        ("", Some("application/json"), r#"{"domain":"ND","reason":"cut of"#, "not a JSON object"),
        ("", Some("text/plain"), "domain=ND", "cannot read text/plain"),
        ("", None, r#"{"domain":"ND"}"#, "without a content type"),
    ] {
        promote(&service).await;
        let answer = service.post_bytes(&format!("{DEMOTE}{query}"), content_type, body.to_owned()).await.ok();
        assert_eq!(answer["prod_use_enabled"], false, "{query} {body}: {answer}");
        assert!(ignored(&answer).contains(said), "{query} {body}: {answer}");
    }
    let before = service.everything().await;
    for (query, body) in [("?domain=OTHER", "domain=ND"), ("", "domain=a b&force=1"), ("", "force=1")] {
        let answer = service.post_bytes(&format!("{DEMOTE}{query}"), FORM, body.to_owned()).await;
        assert!(answer.status.is_client_error(), "{query} {body}: {}", answer.text);
    }
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn nothing_beside_the_path_keeps_a_token_valid() {
    let service = Service::fresh().await;
    let admin = token(&service, "admin").await;
    for (words, said) in [
        ("correlation_id=x", "correlation_id is unknown"),
        ("actor=a&actor=b", "actor is given more than once with different values"),
        ("force", "without a value"),
        ("idempotency_key=1", "idempotency_key is unknown"),
    ] {
        let victim = crate::access::create(&service, new("read")).await;
        let path = format!("{BASE}/access/tokens/{}?{words}", victim.split('_').nth(1).expect("an id"));
        let revoked = call(&service, Method::DELETE, &path, Some(&admin), &Value::Null).await.ok();
        assert!(revoked["revoked_at"].is_string() && ignored(&revoked).contains(said), "{words}: {revoked}");
        refresh(&service).await;
        let state = format!("{BASE}/go-live/state");
        assert_eq!(call(&service, Method::GET, &state, Some(&victim), &Value::Null).await.status, 401);
    }
}

#[tokio::test]
async fn an_engine_is_disabled_whatever_unknown_field_stands_beside_the_flag() {
    let service = Service::live().await;
    let body = json!({"engine": "CAPITAL", "enabled": false, "correlation_id": "inc-7", "colour": "red"});
    let off = service.post("/risk/policies/upsert", &body).await.ok();
    assert_eq!(off["enabled"], false, "{off}");
    assert!(ignored(&off).contains("correlation_id") && ignored(&off).contains("colour"), "{off}");
    service.post("/risk/policies/upsert", &json!({"engine": "CAPITAL", "colour": "red"})).await.invalid("colour");
}

#[tokio::test]
async fn junk_sent_with_a_stop_is_not_sent_back() {
    let service = promoted().await;
    let size = |answer: &Answer| answer.text.len();
    for junk in ["\u{1}".repeat(65_000), "x".repeat(65_000), format!("{}=", "\u{1}".repeat(65_000))] {
        for content_type in [FORM, Some("application/json")] {
            let engaged = service.post_bytes("/go-live/kill-switch/engage", content_type, junk.clone()).await;
            assert!(size(&engaged) < 3_000, "{}", size(&engaged));
            assert_eq!(engaged.ok()["kill_switch_engaged"], true);
            let demoted = service.post_bytes(&format!("{DEMOTE}?domain=ND"), content_type, junk.clone()).await;
            assert!(size(&demoted) < 3_000, "{}", size(&demoted));
        }
    }
    let warned = service.post_bytes("/go-live/disable", FORM, "x".repeat(65_000)).await.ok();
    let warning = warned["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("…") && warning.contains("65000 bytes"), "{warning}");
    // The answer to a refused request does not repeat it either.
    let refused = service.post_bytes("/go-live/enable", FORM, "\u{1}".repeat(65_000)).await;
    assert!(size(&refused) < 3_000, "{}", size(&refused));
}

#[tokio::test]
async fn an_upsert_that_stops_sets_nothing_else_where_a_part_of_it_cannot_be_read() {
    let service = Service::live().await;
    let upsert = |query: &str, content_type, body: &str| {
        service.post_bytes(&format!("/risk/policies/upsert{query}"), content_type, body.to_owned())
    };
    let before = service.everything().await;
    let stop = "engine=CAPITAL&enabled=false&max_daily_loss=5";
    for (query, content_type, body) in [
        ("", FORM, format!("{stop}&max_open_risk")),
        ("", FORM, format!("{stop}&reason=50% off")),
        ("?max_open_risk", FORM, stop.to_owned()),
        ("", None, stop.to_owned()),
        ("", Some("application/json"), r#"{"engine":"CAPITAL","enabled":false,"max_daily_loss":5,"max_op"#.to_owned()),
    ] {
        let refused = upsert(query, content_type, &body).await;
        assert!(refused.status.is_client_error(), "{query} {body}: {}", refused.text);
        assert_eq!(service.everything().await, before, "{query} {body}");
    }
    // Without a setting it stops.
    for body in ["engine=CAPITAL&enabled=false&max_open_risk", "engine=CAPITAL&enabled=false&reason=50% off"] {
        service.post("/risk/policies/upsert", &json!({"engine": "CAPITAL", "enabled": true})).await.ok();
        let off = upsert("", FORM, body).await.ok();
        assert_eq!(off["enabled"], false, "{body}: {off}");
        assert!(!ignored(&off).is_empty(), "{body}: {off}");
    }
}

#[tokio::test]
async fn a_flag_that_is_off_twice_is_off_however_it_is_said() {
    let service = Service::live().await;
    for (query, body) in
        [("", "enabled=false&enabled=off"), ("?enabled=0", "enabled=no"), ("?enabled=off", "enabled=FALSE")]
    {
        service.post("/risk/policies/upsert", &json!({"engine": "CAPITAL", "enabled": true})).await.ok();
        let body = format!("engine=CAPITAL&{body}");
        let off = service.post_bytes(&format!("/risk/policies/upsert{query}"), FORM, body.clone()).await.ok();
        assert_eq!(off["enabled"], false, "{query} {body}: {off}");
    }
    let both = service.post_bytes("/risk/policies/upsert", FORM, "engine=CAPITAL&enabled=false&enabled=on").await;
    assert!(both.status.is_client_error(), "{}", both.text);
}
