//! The key itself: how it may be given, and whose it is.

use super::{RESERVE, TRIAL, done, is_replay, kept_keys, keyed, replayed, reserve_of, reused, trial_of};
use crate::support::{BASE, Service, request};
use axum::http::{HeaderValue, Method};
use serde_json::json;

#[tokio::test]
async fn quotes_around_the_header_are_not_part_of_the_key() {
    let service = Service::live().await;
    let first = done(keyed(&service, RESERVE, "\"deal 7\"", &reserve_of(1)).await);
    replayed(keyed(&service, RESERVE, "deal 7", &reserve_of(1)).await, &first);
    replayed(keyed(&service, RESERVE, "  \"deal 7\"  ", &reserve_of(1)).await, &first);
    let field = json!({"engine": "WHOLESALE", "amount": 1, "actor": "sender", "idempotency_key": "deal 7"});
    replayed(service.post(RESERVE, &field).await, &first);
    // One quote alone is a character like any other.
    done(keyed(&service, RESERVE, "\"deal 7", &reserve_of(1)).await);
}

#[tokio::test]
async fn a_key_means_the_same_in_body_form_and_query() {
    let service = Service::live().await;
    let first = done(service.post_form(TRIAL, "domain=A&confidence=0.9&success=yes&idempotency_key=k").await);
    replayed(service.post_query(TRIAL, "domain=A&confidence=0.9&success=1&idempotency_key=k").await, &first);
    replayed(keyed(&service, TRIAL, "k", &trial_of("a")).await, &first);
    let path = format!("{TRIAL}?idempotency_key=k");
    replayed(service.post(&path, &trial_of("A")).await, &first);
    let other =
        service.post(&path, &json!({"domain": "A", "confidence": 0.9, "success": true, "idempotency_key": "j"}));
    other.await.refused(400, "CONTRADICTORY_INPUT");
}

#[tokio::test]
async fn the_same_input_in_another_spelling_is_the_same_input() {
    let service = Service::live().await;
    let body = r#"{"engine":"WHOLESALE","amount":400,"actor":"sender","reason":null}"#;
    let mut first = request(Method::POST, &format!("{BASE}{RESERVE}"), Some("application/json"), body);
    first.headers_mut().insert("idempotency-key", HeaderValue::from_static("k"));
    let first = done(service.send(first).await);
    for form in [
        "engine=wholesale&amount=4e2&actor=sender&idempotency_key=k",
        "amount=400.000&changed_by=sender&engine=+WHOLESALE&reason=&dry_run=false&idempotency_key=k",
    ] {
        replayed(service.post_form(RESERVE, form).await, &first);
    }
}

#[tokio::test]
async fn a_default_that_is_spelt_out_is_another_input() {
    let service = Service::live().await;
    let settle = json!({"engine": "WHOLESALE", "reserved_amount": 1});
    done(keyed(&service, "/risk/settle", "k", &settle).await);
    let zero = json!({"engine": "WHOLESALE", "reserved_amount": 1, "realized_loss": 0});
    reused(keyed(&service, "/risk/settle", "k", &zero).await, &["realized_loss"]);
}

#[tokio::test]
async fn a_blank_field_is_a_key_that_was_left_out() {
    let service = Service::live().await;
    for blank in [json!(null), json!(""), json!("  ")] {
        let mut body = reserve_of(1);
        body["idempotency_key"] = blank;
        done(service.post(RESERVE, &body).await);
    }
    assert_eq!(kept_keys(&service).await, 0);
    let mut body = reserve_of(1);
    body["idempotency_key"] = json!("");
    let first = done(keyed(&service, RESERVE, "k", &body).await);
    replayed(keyed(&service, RESERVE, "k", &body).await, &first);
}

#[tokio::test]
async fn two_headers_are_refused_even_when_they_agree() {
    let service = Service::live().await;
    let before = service.everything().await;
    for second in ["one", "another"] {
        let body = reserve_of(1).to_string();
        let mut twice = request(Method::POST, &format!("{BASE}{RESERVE}"), Some("application/json"), &body);
        twice.headers_mut().append("idempotency-key", HeaderValue::from_static("one"));
        twice.headers_mut().append("idempotency-key", HeaderValue::from_static(second));
        service.send(twice).await.refused(400, "CONTRADICTORY_INPUT");
    }
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn a_header_that_is_not_ascii_is_refused_and_a_field_may_be_anything() {
    let service = Service::live().await;
    let body = reserve_of(1).to_string();
    let mut accented = request(Method::POST, &format!("{BASE}{RESERVE}"), Some("application/json"), &body);
    accented.headers_mut().insert("idempotency-key", HeaderValue::from_bytes("clé".as_bytes()).unwrap());
    service.send(accented).await.invalid("idempotency_key");
    let mut field = reserve_of(1);
    field["idempotency_key"] = json!("clé 🔑");
    let first = done(service.post(RESERVE, &field).await);
    replayed(service.post(RESERVE, &field).await, &first);
}

#[tokio::test]
async fn the_longest_key_is_200_characters_also_for_the_last_operation_of_the_largest_batch() {
    let service = Service::live().await;
    let key = "é".repeat(200);
    let operations: Vec<_> =
        (0..1000).map(|_| json!({"op": "reserve", "engine": "WHOLESALE", "amount": 0.001})).collect();
    let body = json!({"operations": operations, "idempotency_key": key});
    let results = done(service.post("/risk/batch", &body).await);
    assert_eq!(results["results"][999]["status"], 200);
    assert_eq!(kept_keys(&service).await, 1000);
    assert!(is_replay(&service.post("/risk/batch", &body).await));
}

#[tokio::test]
async fn the_key_of_another_principal_is_another_key() {
    let service = Service::live().await;
    sqlx::query(
        "INSERT INTO idempotency_key (day, principal, key, route, fields, answer, at)
         SELECT (holdfast_now() AT TIME ZONE 'UTC')::date, 'SOMEBODY', 'k', '/elsewhere', '{}', '{}', holdfast_now()",
    )
    .execute(&service.pool)
    .await
    .unwrap();
    let first = done(keyed(&service, TRIAL, "k", &trial_of("A")).await);
    replayed(keyed(&service, TRIAL, "k", &trial_of("A")).await, &first);
}

#[tokio::test]
async fn keys_differ_in_case_and_inner_blanks() {
    let service = Service::live().await;
    for key in ["key", "KEY", "k ey", "k  ey", "'; DROP TABLE idempotency_key; --", "../..", "%00"] {
        done(keyed(&service, TRIAL, key, &trial_of("A")).await);
    }
    assert_eq!(kept_keys(&service).await, 7);
}
