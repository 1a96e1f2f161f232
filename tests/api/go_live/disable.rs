//! Stops: no content of a request makes one fail.

use super::{DISABLE, ENABLE, ENGAGE, delete_from, garbage, require, switch, texts};
use crate::support::Service;
use serde_json::json;

#[tokio::test]
async fn a_disable_without_an_actor_stops_and_says_that_nobody_is_recorded() {
    let service = Service::live().await;
    for body in [json!({}), json!({"actor": null}), json!({"actor": "  "}), json!({"actor": "a\u{7}b"})] {
        switch(&service, ENABLE, "bryan").await;
        let answer = service.post(DISABLE, &body).await.ok();
        assert_eq!((&answer["go_live_enabled"], &answer["changed_by"]), (&json!(false), &json!(null)), "{body}");
        let warnings = texts(&answer["warnings"]);
        assert!(warnings.iter().any(|warning| warning.contains("no actor")), "{warnings:?}");
    }
}

#[tokio::test]
async fn a_stop_keeps_every_field_that_can_be_read_beside_one_that_cannot() {
    let service = Service::live().await;
    let json = "application/json";
    for path in [DISABLE, ENGAGE] {
        for (answer, reason) in [
            (service.post_form(path, "actor=ann&reason=50% done").await, json!("50% done")),
            (service.post_form(path, "actor=ann&reason=50%+done").await, json!("50% done")),
            (service.post_query(path, "actor=ann&reason=50%25%zz").await, json!("50%%zz")),
            (service.post_form(path, "actor=ann&reason=A&B").await, json!("A")),
            (service.post_form(path, "reason=A&B=C&actor=ann").await, json!("A")),
            (service.post_form(path, "reason=%ff&actor=ann").await, json!(null)),
            (service.post_bytes(path, Some(FORM), b"reason=\xe9t\xe9&actor=ann".to_vec()).await, json!(null)),
            (service.post_bytes(path, None, "actor=ann&reason=x").await, json!("x")),
            (service.post_text(path, json, r#"{"actor":"ann","reason":50% done}"#).await, json!("50")),
            (service.post_text(path, json, r#"{"actor":"ann","reason":"a "quoted" word"}"#).await, json!("a ")),
            (service.post(path, &json!({"actor": "ann", "reason": "x".repeat(1001)})).await, json!(null)),
        ] {
            let answer = answer.ok();
            assert_eq!((&answer["changed_by"], &answer["reason"]), (&json!("ann"), &reason), "{path} {answer}");
            assert_ne!(answer["warnings"], json!([]), "{path} {answer}");
        }
    }
}

#[tokio::test]
async fn no_text_makes_a_disable_fail() {
    let service = Service::fresh().await;
    for (content_type, body, word) in garbage() {
        switch(&service, ENABLE, "bryan").await;
        let shown: String = String::from_utf8_lossy(&body).chars().take(60).collect();
        let answer = service.post_bytes(DISABLE, content_type, body).await.ok();
        assert_eq!(answer["go_live_enabled"], false, "{shown}");
        let warnings = texts(&answer["warnings"]);
        assert!(warnings.iter().any(|warning| warning.contains(word)), "{shown}: no {word} in {warnings:?}");
    }
}

#[tokio::test]
async fn a_stop_of_one_thing_is_never_refused_for_its_words() {
    const DEMOTE: &str = "/heimdall/demote";
    const CHARTER: &str = "/heimdall/policies/upsert";
    const RISK: &str = "/risk/policies/upsert";
    let service = Service::live().await;
    let on = |path: &'static str| {
        let service = &service;
        async move {
            let (path, body) = match path {
                RISK => (RISK, json!({"engine": "WHOLESALE", "enabled": true, "reason": "on", "actor": "bob"})),
                _ => (CHARTER, json!({"domain": "BUYER_MATCH", "prod_use_enabled": true, "actor": "bob"})),
            };
            service.post(path, &body).await.ok();
        }
    };
    for (path, fields, switch) in [
        (DEMOTE, "domain=BUYER_MATCH", "prod_use_enabled"),
        (CHARTER, "domain=BUYER_MATCH&prod_use_enabled=false", "prod_use_enabled"),
        (RISK, "engine=WHOLESALE&enabled=false", "enabled"),
    ] {
        for (words, kept, reason) in [
            ("reason=50% done", "ann", json!("50% done")),
            ("reason=A&B", "ann", json!("A")),
            ("reason=%ff", "ann", json!(null)),
            ("reason=a%07b", "ann", json!(null)),
        ] {
            on(path).await;
            let answer = service.post_form(path, &format!("{fields}&actor=ann&{words}")).await.ok();
            let flat = json!([answer[switch], answer["changed_by"], answer["reason"]]);
            assert_eq!(flat, json!([false, kept, reason]), "{path} {words}: {answer}");
            assert_ne!(texts(&answer["ignored"]).len(), 0, "{path} {words}");
        }
    }
    // A change that does more than stop is read strictly, and its target must be clear.
    let before = service.everything().await;
    service.post_form(RISK, "engine=WHOLESALE&enabled=true&reason=50% done").await.refused(400, "MALFORMED_REQUEST");
    service.post_form(RISK, "engine=WHOLESALE&max_open_risk=5&reason=50%").await.refused(400, "MALFORMED_REQUEST");
    service.post_form(RISK, "engine=WHOLESALE&enabled=false&max_open_risk=x&reason=50%").await.invalid("max_open_risk");
    service.post_form(RISK, "engine=WHOLESALE&enabled=false&enabled=true").await.refused(400, "CONTRADICTORY_INPUT");
    service.post_form(DEMOTE, "domain=CAPITAL_ROUTE&domain=BUYER_MATCH").await.refused(400, "CONTRADICTORY_INPUT");
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn disable_works_whatever_stands_in_the_way_of_an_enable() {
    let service = require(&["crm"]).await;
    delete_from(&service, "heimdall_policy").await;
    switch(&service, ENGAGE, "bryan").await;
    let answer = service.post_with(DISABLE, ("if-match", "\"1\""), &json!({"actor": "bryan"})).await;
    let state = answer.ok();
    assert_eq!((&state["go_live_enabled"], &state["kill_switch_engaged"]), (&json!(false), &json!(true)));
}

const FORM: &str = "application/x-www-form-urlencoded";
