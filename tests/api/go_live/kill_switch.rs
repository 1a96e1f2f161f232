//! The kill switch: engaged by anything that reaches it, released on purpose.

use super::{ENGAGE, RELEASE, events, garbage, require, state, switch, texts};
use crate::support::{BASE, Service, request};
use axum::body::Body;
use axum::http::Method;
use http_body_util::{BodyExt, Full, Limited};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor};

#[tokio::test]
async fn engage_works_where_nobody_can_connect_to_the_database_any_more() {
    let service = Service::live().await;
    // As where other clients have taken every place of the server. No switch was pulled before.
    let name = service.options.get_database().unwrap().to_owned();
    let mut elsewhere = sqlx::PgConnection::connect_with(&service.options.clone().database("postgres")).await.unwrap();
    let sql = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
    elsewhere.execute(AssertSqlSafe(sql)).await.unwrap();
    let answer = switch(&service, ENGAGE, "bryan").await;
    assert_eq!(answer["kill_switch_engaged"], true);
    let sql = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
    elsewhere.execute(AssertSqlSafe(sql)).await.unwrap();
}

#[tokio::test]
async fn engage_needs_nothing_and_answers_with_the_state() {
    let service = Service::fresh().await;
    let answer = service.send(request(Method::POST, &format!("{BASE}{ENGAGE}"), None, "")).await.ok();
    assert_eq!(
        (&answer["kill_switch_engaged"], &answer["version"], &answer["warnings"]),
        (&json!(true), &json!(2), &json!([]))
    );
    assert_eq!(answer["kill_switch"]["by"], json!(null));
    assert!(answer["kill_switch"]["at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn engage_takes_json_form_and_query() {
    let service = Service::fresh().await;
    let answers = [
        service.post(ENGAGE, &json!({"actor": "Bryan & co", "reason": "a+b"})).await,
        service.post_form(ENGAGE, "actor=Bryan+%26+co&reason=a%2Bb").await,
        service.post_form(ENGAGE, r#"{"actor":"Bryan & co","reason":"a+b"}"#).await,
        service.post_query(ENGAGE, "actor=Bryan%20%26%20co&reason=a%2Bb").await,
    ];
    for answer in answers {
        let state = answer.ok();
        assert_eq!(
            (&state["changed_by"], &state["reason"], &state["warnings"]),
            (&json!("Bryan & co"), &json!("a+b"), &json!([]))
        );
    }
}

#[tokio::test]
async fn engage_works_whatever_the_body_and_names_what_it_dropped() {
    let service = Service::live().await;
    for (content_type, body, word) in garbage() {
        let shown: String = String::from_utf8_lossy(&body).chars().take(60).collect();
        let answer = service.post_bytes(ENGAGE, content_type, body).await.ok();
        assert_eq!(answer["kill_switch_engaged"], true, "{shown}");
        let warnings = texts(&answer["warnings"]);
        assert!(warnings.iter().any(|warning| warning.contains(word)), "{shown}: no {word} in {warnings:?}");
        assert_eq!(state(&service).await["kill_switch_engaged"], true, "{shown}");
        switch(&service, RELEASE, "bryan").await;
    }
}

#[tokio::test]
async fn engage_drops_a_bad_field_and_keeps_the_good_ones() {
    let service = Service::fresh().await;
    let body = json!({"actor": "bryan", "reason": "a\u{7}b", "force": true});
    let answer = service.post(ENGAGE, &body).await.ok();
    assert_eq!((&answer["kill_switch"]["by"], &answer["kill_switch"]["reason"]), (&json!("bryan"), &json!(null)));
    let warnings = texts(&answer["warnings"]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("reason "), "{warnings:?}");
    assert!(warnings[1].contains("force") && warnings[1].contains("actor, reason"), "{warnings:?}");
}

#[tokio::test]
async fn engage_reads_a_good_query_beside_a_bad_body() {
    let service = Service::fresh().await;
    let answer = service.post_bytes(&format!("{ENGAGE}?actor=bryan"), Some("application/json"), "{").await.ok();
    assert_eq!(answer["kill_switch"]["by"], "bryan");
    let other =
        service.post_bytes(&format!("{ENGAGE}?reason=%zz"), Some("application/json"), r#"{"actor":"ann"}"#).await.ok();
    assert_eq!((&other["changed_by"], texts(&other["warnings"]).len()), (&json!("ann"), 1));
}

#[tokio::test]
async fn engage_takes_null_and_blank_as_left_out_without_a_warning() {
    let service = Service::fresh().await;
    let body = json!({"actor": null, "reason": "  "});
    let answer = service.post(ENGAGE, &body).await.ok();
    assert_eq!((&answer["kill_switch"]["by"], &answer["warnings"]), (&json!(null), &json!([])));
}

#[tokio::test]
async fn engage_keeps_the_reason_when_another_field_is_given_twice() {
    let service = Service::fresh().await;
    let body = r#"{"actor":"ann","actor":"bob","reason":"smoke"}"#;
    let answer = service.post_text(ENGAGE, "application/json", body).await.ok();
    assert_eq!(answer["kill_switch"]["reason"], "smoke");
    assert!(texts(&answer["warnings"]).iter().any(|warning| warning.contains("actor")));
}

#[tokio::test]
async fn engage_works_when_the_body_breaks_off() {
    let service = Service::fresh().await;
    // A body that fails while it is read, as when the peer goes away in the middle of it.
    let broken = Body::new(Limited::new(Full::from("{\"actor\":\"bryan\"}"), 5));
    let answer = service.post_bytes(ENGAGE, Some("application/json"), broken).await.ok();
    assert_eq!(answer["kill_switch_engaged"], true);
    assert_eq!(texts(&answer["warnings"]).len(), 1);
}

#[tokio::test]
async fn engage_works_when_the_body_never_ends() {
    let service = Service::fresh().await;
    let endless = Full::from("{\"actor\":\"bryan\"}").with_trailers(std::future::pending());
    let answer = service.post_bytes(ENGAGE, Some("application/json"), Body::new(endless)).await.ok();
    assert_eq!(answer["kill_switch_engaged"], true);
}

#[tokio::test]
async fn engage_ignores_if_match_and_the_checklist() {
    let service = require(&["crm"]).await;
    for header in ["\"999\"", "nonsense", ""] {
        let answer = service.post_with(ENGAGE, ("if-match", header), &json!({"actor": "bryan"})).await.ok();
        assert_eq!(answer["kill_switch_engaged"], true, "{header}");
    }
}

#[tokio::test]
async fn engage_does_not_wait_for_the_ledger() {
    let service = Service::live().await;
    // Every connection of the ledger is taken, and one of them holds its lock.
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(service.db.begin().await.unwrap());
    }
    held[0].execute("SELECT seq FROM audit_head WHERE stream = 'risk' FOR UPDATE").await.unwrap();
    assert_eq!(switch(&service, ENGAGE, "bryan").await["kill_switch_engaged"], true);
}

#[tokio::test]
async fn a_repeated_engage_keeps_the_first_engagement_and_is_an_event() {
    let service = Service::fresh().await;
    let first = service.post(ENGAGE, &json!({"actor": "ann", "reason": "smoke"})).await.ok();
    let second = service.post(ENGAGE, &json!({"actor": "bob", "reason": "fire"})).await.ok();
    assert_eq!(second["kill_switch"], first["kill_switch"]);
    assert_eq!(second["kill_switch"]["by"], "ann");
    assert_eq!((&first["version"], &second["version"]), (&json!(2), &json!(3)));
    assert_eq!((&second["changed_by"], &second["reason"]), (&json!("bob"), &json!("fire")));
    let events = events(&service).await;
    let engages: Vec<_> =
        events.iter().map(|event| (event["action"].as_str().unwrap(), event["actor"].as_str())).collect();
    assert_eq!(engages, [("KILL_SWITCH_ENGAGE", Some("bob")), ("KILL_SWITCH_ENGAGE", Some("ann"))]);
}

#[tokio::test]
async fn release_lifts_the_stop_and_a_second_engage_starts_anew() {
    let service = Service::live().await;
    let first = switch(&service, ENGAGE, "ann").await;
    let released = service.post(RELEASE, &json!({"reason": "checked"})).await.ok();
    assert_eq!((&released["kill_switch_engaged"], &released["go_live_enabled"]), (&json!(false), &json!(true)));
    assert_eq!(released["kill_switch"]["reason"], "checked");
    let second = switch(&service, ENGAGE, "bob").await;
    assert_eq!(second["kill_switch"]["by"], "bob");
    assert_ne!(second["kill_switch"]["at"], first["kill_switch"]["at"]);
}

#[tokio::test]
async fn releasing_twice_is_safe() {
    let service = Service::fresh().await;
    for version in [2, 3] {
        let state = switch(&service, RELEASE, "bryan").await;
        assert_eq!((&state["kill_switch_engaged"], &state["version"]), (&json!(false), &json!(version)));
    }
}

#[tokio::test]
async fn a_refused_release_leaves_no_trace() {
    let service = Service::fresh().await;
    switch(&service, ENGAGE, "bryan").await;
    let before = service.everything().await;
    let bad = [json!({"actor": "a\u{7}b"}), json!({"force": true}), json!({"reason": "r".repeat(1001)})];
    for body in bad {
        let answer = service.post(RELEASE, &body).await;
        answer.refused(422, "VALIDATION_FAILED");
    }
    assert_eq!(service.everything().await, before);
}
