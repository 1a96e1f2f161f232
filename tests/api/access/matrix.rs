//! Every route × every kind of caller.

use super::{call, create, new, refresh, token};
use crate::support::{Answer, Service};
use axum::http::Method;
use holdfast::enforcement::routes::{METRICS, Needs, ROUTES, Route};
use holdfast::types::Scope;
use serde_json::{Value, json};

/// A route as somebody would ask for it. What it is asked changes nothing: no input of it can be read.
fn asked(row: &Route) -> (Method, String, Value) {
    let path = row
        .template
        .replace("{id}", "7")
        .replace("{*rest}", "index.html")
        .replace("{*path}", "x")
        .replace("{key}", "go_live_enabled");
    let method = row.method.clone().unwrap_or(Method::PATCH);
    let body = if method == Method::POST { json!({"nonsense": 1}) } else { Value::Null };
    (method, path, body)
}

async fn ask(service: &Service, row: &Route, token: Option<&str>) -> Answer {
    let (method, path, body) = asked(row);
    call(service, method, &path, token, &body).await
}

fn code(answer: &Answer) -> &str {
    answer.json["error"].as_str().unwrap_or("none")
}

#[tokio::test]
async fn every_route_is_open_to_its_scope_and_to_nobody_else() {
    let service = Service::fresh().await;
    let mut tokens = Vec::new();
    for scope in Scope::ALL {
        tokens.push((scope, token(&service, scope.as_str()).await));
    }
    for row in ROUTES {
        for (scope, token) in &tokens {
            let answer = ask(&service, row, Some(token)).await;
            let may = row.needs == Needs::Nothing || row.needs.scopes().any(|needed| scope.covers(needed));
            let refused = code(&answer) == "INSUFFICIENT_SCOPE";
            let who = scope.as_str();
            assert_eq!(refused, !may, "{:?} {} with {who}: {}", row.method, row.template, answer.text);
            assert_ne!(answer.status, 401, "{:?} {} with {who}: {}", row.method, row.template, answer.text);
            if refused {
                assert_eq!(answer.status, 403);
                let challenge = answer.headers["www-authenticate"].to_str().unwrap();
                assert!(challenge.contains("insufficient_scope"), "{challenge}");
            }
        }
    }
}

#[tokio::test]
async fn without_a_valid_token_only_what_answers_everybody_answers() {
    let service = Service::fresh().await;
    let all = "read,reserve,evidence,operate,release,proxy,admin,kill";
    let good = token(&service, all).await;
    let revoked = token(&service, all).await;
    let mut brief = new(all);
    brief.expires_in = Some("1h".parse().unwrap());
    let expired = create(&service, brief).await;
    let id = revoked.split('_').nth(1).unwrap();
    call(&service, Method::DELETE, &format!("/api/governance/access/tokens/{id}"), Some(&good), &Value::Null)
        .await
        .ok();
    service.set_skew("2 hours").await;
    let forged = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    for row in ROUTES {
        // The counters answer a loopback address to whoever shows nothing; a proxy's check is 403 whatever went wrong.
        let waived = row.needs == Needs::Nothing || row.template == METRICS;
        let status = if row.template.contains("/authz/") { 403 } else { 401 };
        for (what, shown, expected) in [
            ("nothing", None, "UNAUTHENTICATED"),
            ("an expired one", Some(&expired), "INVALID_TOKEN"),
            ("a revoked one", Some(&revoked), "INVALID_TOKEN"),
            ("a forged one", Some(&forged), "INVALID_TOKEN"),
        ] {
            let answer = ask(&service, row, shown.map(String::as_str)).await;
            let name = format!("{:?} {} with {what}: {} {}", row.method, row.template, answer.status, answer.text);
            if waived && (shown.is_none() || row.needs == Needs::Nothing) {
                assert!(answer.status.as_u16() < 400, "{name}");
            } else {
                assert_eq!((answer.status.as_u16(), code(&answer)), (status, expected), "{name}");
                if status == 401 {
                    assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{name}");
                }
            }
        }
        let answer = ask(&service, row, Some(&good)).await;
        assert!(
            !matches!(code(&answer), "UNAUTHENTICATED" | "INVALID_TOKEN" | "INSUFFICIENT_SCOPE"),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_refusal_changes_nothing_but_the_trail() {
    let service = Service::fresh().await;
    let reader = token(&service, "read").await;
    let heads = "SELECT sum(seq)::bigint FROM audit_head WHERE stream <> 'control'";
    let (before, flows) = (service.everything().await, service.count(heads).await);
    for row in ROUTES {
        ask(&service, row, None).await.status.as_u16();
    }
    assert_eq!(service.everything().await, before, "nobody leaves a trace");
    for row in ROUTES {
        ask(&service, row, Some(&reader)).await.status.as_u16();
        // Ten a second are written down.
        service.clock.advance(200);
        refresh(&service).await;
    }
    let mut after = service.everything().await;
    let mut before = before;
    for table in ["control_event", "audit_head", "access_token"] {
        assert!(before.remove(table).is_some() && after.remove(table).is_some());
    }
    assert_eq!(after, before);
    assert_eq!(service.count(heads).await, flows);
    let control = ROUTES
        .iter()
        .filter(|row| row.method.as_ref().is_some_and(|method| *method == Method::POST || *method == Method::DELETE))
        .filter(|row| {
            let first = row.needs.scopes().next();
            matches!(first, Some(Scope::Operate | Scope::Release | Scope::Admin | Scope::Kill))
        })
        .count();
    let noted = "SELECT count(*) FROM control_event WHERE action = 'ACCESS_REFUSED' AND NOT ok
                 AND error = 'INSUFFICIENT_SCOPE' AND principal LIKE 'test-token:%' AND request_id IS NOT NULL";
    assert_eq!(service.count(noted).await, i64::try_from(control).unwrap());
}
