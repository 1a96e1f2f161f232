//! The state as flags: what a client reads in every state, and that no state keeps it from reading.

use crate::support::{Answer, Service, Setup, request};
use axum::http::{HeaderValue, Method};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const FLAGS: &str = "/ofrep/v1/evaluate/flags";

async fn post(service: &Service, path: &str, body: &str) -> Answer {
    service.send(request(Method::POST, path, Some("application/json"), body)).await
}

/// One flag's value.
async fn flag(service: &Service, key: &str) -> Value {
    let body = post(service, &format!("{FLAGS}/{key}"), "{}").await.ok();
    assert_eq!(body["key"], key);
    body["value"].clone()
}

/// All flags, and the tag of the answer.
async fn all(service: &Service) -> (BTreeMap<String, bool>, String) {
    let answer = post(service, FLAGS, "{}").await;
    let tag = answer.headers["etag"].to_str().unwrap().to_owned();
    let body = answer.ok();
    let flags = body["flags"].as_array().unwrap().iter();
    (flags.map(|flag| (flag["key"].as_str().unwrap().to_owned(), flag["value"].as_bool().unwrap())).collect(), tag)
}

async fn switch(service: &Service, path: &str) {
    service.post(path, &json!({"actor": "bryan"})).await.ok();
}

#[tokio::test]
async fn the_switches_are_flags_in_every_state() {
    let service = Service::fresh().await;
    for (path, allowed, killed, live) in [
        ("/go-live/disable", false, false, false),
        ("/go-live/enable", true, false, true),
        ("/go-live/kill-switch/engage", false, true, true),
        ("/go-live/kill-switch/release", true, false, true),
    ] {
        switch(&service, path).await;
        for (key, value) in [("prod_exec_allowed", allowed), ("kill_switch_engaged", killed), ("go_live_enabled", live)]
        {
            assert_eq!(flag(&service, key).await, value, "{path} {key}");
            assert_eq!(all(&service).await.0[key], value, "{path} {key}");
        }
    }
}

#[tokio::test]
async fn what_is_not_known_has_the_safe_value_and_says_so() {
    let service = Service::live().await;
    let (before, tag) = all(&service).await;
    assert!(before["prod_exec_allowed"] && before["engine.WHOLESALE.enabled"]);
    service.clock.advance(2_001);
    let (stale, other_tag) = all(&service).await;
    assert_ne!(tag, other_tag, "the values changed though the version did not");
    assert_eq!(stale.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (key, value) in &stale {
        assert_eq!(*value, key == "kill_switch_engaged", "{key}");
    }
    let body = post(&service, &format!("{FLAGS}/prod_exec_allowed"), "").await.ok();
    assert_eq!((&body["reason"], &body["metadata"]["stale"]), (&json!("UNKNOWN"), &json!(true)));
    assert!(body["metadata"].get("state_version").is_none());
    assert_eq!(flag(&service, "engine.NEVER_HEARD_OF.enabled").await, false, "it might be one");
    assert_eq!(post(&service, &format!("{FLAGS}/engine.%20a%20.enabled"), "").await.status, 404);
    assert_eq!(post(&service, &format!("{FLAGS}/nonsense"), "").await.status, 404);
}

#[tokio::test]
async fn an_instance_that_is_stopped_by_hand_says_no_to_everything() {
    let service = Service::live().await;
    let _ = service.app.feed.kill_locally("test").await;
    for age_ms in [0, 5_000] {
        service.clock.advance(age_ms);
        for (key, value) in all(&service).await.0 {
            assert_eq!(value, ["kill_switch_engaged"].contains(&key.as_str()), "{key}");
        }
    }
}

#[tokio::test]
async fn engines_and_domains_are_flags() {
    let service = Service::live().await;
    assert_eq!(flag(&service, "engine.WHOLESALE.enabled").await, true);
    assert_eq!(flag(&service, "domain.WHOLESALE_OFFER.prod_use_enabled").await, false);
    let off = json!({"engine": "WHOLESALE", "enabled": false, "actor": "bryan"});
    service.post("/risk/policies/upsert", &off).await.ok();
    service.app.feed.refresh(&service.db).await.unwrap();
    assert_eq!(flag(&service, "engine.WHOLESALE.enabled").await, false);
    for key in ["engine.NOBODY.enabled", "engine..enabled", "engine.WHOLESALE", "domain.X", "nope", "PROD_EXEC_ALLOWED"]
    {
        let answer = post(&service, &format!("{FLAGS}/{key}"), "{}").await;
        assert_eq!(answer.status, 404, "{key}");
        assert_eq!((&answer.json["key"], &answer.json["errorCode"]), (&json!(key), &json!("FLAG_NOT_FOUND")));
        assert!(answer.json["errorDetails"].is_string());
    }
}

#[tokio::test]
async fn an_answer_that_has_not_changed_is_304_and_one_that_has_is_not() {
    let service = Service::live().await;
    let (_, tag) = all(&service).await;
    let ask = |given: &str| {
        let mut asked = request(Method::POST, FLAGS, Some("application/json"), "{}");
        asked.headers_mut().insert("if-none-match", HeaderValue::from_str(given).unwrap());
        service.send(asked)
    };
    let bare = tag.trim_matches('"').to_owned();
    for given in [
        tag.clone(),
        format!("W/{tag}"),
        bare.clone(),
        format!("\"other\", {tag}"),
        format!("\"{bare}-gzip\""),
        "*".to_owned(),
    ] {
        let answer = ask(&given).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (304, ""), "{given}");
        assert_eq!(answer.headers["etag"], tag.as_str());
    }
    for given in ["\"other\"", "", "\"\"", &bare[1..]] {
        assert_eq!(ask(given).await.status, 200, "{given:?}");
    }
    switch(&service, "/go-live/kill-switch/engage").await;
    assert_eq!(ask(&tag).await.status, 200);
}

#[tokio::test]
async fn a_body_is_read_leniently_and_garbage_is_told() {
    let service = Service::fresh().await;
    for body in [
        "",
        " ",
        "{}",
        "null",
        r#"{"context":{}}"#,
        r#"{"context":null}"#,
        r#"{"context":{"targetingKey":"u","x":[1]},"y":2}"#,
    ] {
        for path in [FLAGS.to_owned(), format!("{FLAGS}/go_live_enabled")] {
            assert_eq!(post(&service, &path, body).await.status, 200, "{body:?}");
            let unlabelled = request(Method::POST, &path, None, body);
            assert_eq!(service.send(unlabelled).await.status, 200, "{body:?}");
        }
    }
    for (body, code) in
        [("{", "PARSE_ERROR"), ("[]", "PARSE_ERROR"), ("7", "PARSE_ERROR"), (r#"{"context":7}"#, "INVALID_CONTEXT")]
    {
        let one = post(&service, &format!("{FLAGS}/go_live_enabled"), body).await;
        assert_eq!((one.status.as_u16(), &one.json["errorCode"]), (400, &json!(code)), "{body}");
        assert_eq!(one.json["key"], "go_live_enabled");
        let bulk = post(&service, FLAGS, body).await;
        assert_eq!((bulk.status.as_u16(), &bulk.json["errorCode"], bulk.json.get("key")), (400, &json!(code), None));
    }
    assert_eq!(post(&service, FLAGS, &"x".repeat(70_000)).await.status, 413);
    for body in ["\u{feff}{}", r#"{"context":{"amount":1e999}}"#] {
        assert_eq!(post(&service, FLAGS, body).await.status, 200, "{body:?}");
    }
    let unnamed = post(&service, &format!("{FLAGS}/%e9"), "{}").await;
    assert_eq!((unnamed.status.as_u16(), &unnamed.json["errorCode"]), (400, &json!("GENERAL")));
}

#[tokio::test]
async fn flags_tell_the_truth_where_the_own_gate_is_off() {
    let service = Service::with(Setup { enforce: false, ..Setup::default() }).await;
    assert_eq!(flag(&service, "prod_exec_allowed").await, false);
}

#[tokio::test]
async fn policies_that_may_have_changed_and_cannot_be_read_have_the_safe_value_however_fresh_the_state_is() {
    let service = Service::live().await;
    let (before, _) = all(&service).await;
    assert!(before["engine.WHOLESALE.enabled"] && before["engine.GLOBAL.enabled"]);
    let mut tx = service.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE risk_policy IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
    // Another instance changes something: it may be a policy.
    service.post("/go-live/packs", &json!({"id": "x", "status": "installed"})).await.ok();
    let keeping = tokio::spawn(service.app.feed.clone().run(service.db.clone()));
    for _ in 0..2 {
        service.clock.advance(1_500);
        while service.app.feed.age().expect("it was read").as_millis() >= 1_500 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let (known, _) = all(&service).await;
    assert_eq!(known.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "no flag vanishes");
    for (key, value) in known {
        assert_eq!(value, ["prod_exec_allowed", "go_live_enabled"].contains(&key.as_str()), "{key}");
    }
    let body = post(&service, &format!("{FLAGS}/engine.WHOLESALE.enabled"), "").await.ok();
    assert_eq!((&body["reason"], &body["metadata"]["stale"]), (&json!("UNKNOWN"), &json!(true)));
    tx.rollback().await.unwrap();
    while !all(&service).await.0["engine.WHOLESALE.enabled"] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    keeping.abort();
}
