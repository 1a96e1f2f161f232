//! A token that is graded makes no grades.

use super::{call, create, new, token};
use crate::support::{BASE, Service};
use axum::http::Method;
use serde_json::{Value, json};

async fn post(service: &Service, token: &str, path: &str, body: Value) -> (u16, Value) {
    let answer = call(service, Method::POST, &format!("{BASE}{path}"), Some(token), &body).await;
    (answer.status.as_u16(), answer.json)
}

fn trial() -> (&'static str, Value) {
    ("/heimdall/sandbox/trial", json!({"domain": "D", "confidence": 0.9, "success": true}))
}

fn measurement() -> (&'static str, Value) {
    ("/regression/kpi", json!({"domain": "D", "metric": "m", "success": true}))
}

fn recommendation() -> (&'static str, Value) {
    ("/heimdall/recommend", json!({"domain": "D", "confidence": 0.9}))
}

#[tokio::test]
async fn whoever_recommends_measures_nothing_and_whoever_measures_recommends_nothing() {
    let service = Service::live().await;
    let (ai, judge) = (token(&service, "recommend").await, token(&service, "measure").await);
    let both = token(&service, "evidence").await;
    for (path, body) in [trial(), measurement()] {
        let (status, refused) = post(&service, &ai, path, body.clone()).await;
        assert_eq!((status, &refused["error"]), (403, &json!("INSUFFICIENT_SCOPE")), "{path}");
        assert_eq!(refused["scope"], "measure");
        for able in [&judge, &both] {
            assert_eq!(post(&service, able, path, body.clone()).await.0, 200, "{path}");
        }
    }
    let (path, body) = recommendation();
    let (status, refused) = post(&service, &judge, path, body.clone()).await;
    assert_eq!((status, &refused["scope"]), (403, &json!("recommend")));
    for able in [&ai, &both] {
        assert_eq!(post(&service, able, path, body.clone()).await.0, 200);
    }
}

#[tokio::test]
async fn a_token_that_grades_itself_is_warned_of_when_it_is_made_and_in_the_review() {
    let service = Service::live().await;
    let admin = token(&service, "admin,read").await;
    let make = async |name: &str, scopes: &str| {
        let (status, made) =
            post(&service, &admin, "/access/tokens", json!({"name": name, "scopes": scopes, "actor": "bryan"})).await;
        assert_eq!(status, 201, "{made}");
        let warned =
            made["warnings"].as_array().unwrap().iter().any(|one| one.as_str().unwrap().contains("grades itself"));
        (format!("{name}:{}", made["id"].as_str().unwrap()), warned)
    };
    assert!(!make("ai", "recommend,reserve").await.1);
    assert!(!make("judge", "measure,read").await.1);
    let (old, warned) = make("old", "evidence").await;
    assert!(warned);
    let (split, warned) = make("split", "measure,recommend").await;
    assert!(warned);
    let (gone, _) = make("gone", "evidence").await;
    let path = format!("{BASE}/access/tokens/{}", gone.split(':').nth(1).unwrap());
    call(&service, Method::DELETE, &path, Some(&admin), &Value::Null).await.ok();
    let review = call(&service, Method::GET, &format!("{BASE}/review"), Some(&admin), &Value::Null).await.ok();
    let mut named: Vec<_> =
        review["grade_themselves"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect();
    named.sort();
    assert_eq!(named, [old.clone(), split]);
    let said = review["look_first"].as_array().unwrap().iter();
    let said: Vec<_> = said.filter_map(Value::as_str).filter(|line| line.contains("grades itself")).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().any(|line| line.starts_with(&old)), "{said:?}");
}

#[tokio::test]
async fn an_event_id_belongs_to_its_sender_and_a_conflict_is_counted_and_told() {
    let service = Service::live().await;
    let named = |name: &str, scopes: &str| {
        let mut new = new(scopes);
        new.name = name.parse().unwrap();
        new
    };
    let (one, other) =
        (create(&service, named("one", "measure")).await, create(&service, named("other", "measure")).await);
    let reader = token(&service, "read").await;
    let event = |success: bool| json!({"domain": "D", "metric": "m", "success": success, "event_id": "order-1"});
    // Somebody sends a success under an id that another one is going to use.
    assert_eq!(post(&service, &other, "/regression/kpi", event(true)).await.0, 200);
    let (status, taken) = post(&service, &one, "/regression/kpi", event(false)).await;
    assert_eq!((status, &taken["duplicate"]), (200, &json!(false)), "{taken}");
    let (_, again) = post(&service, &one, "/regression/kpi", event(false)).await;
    assert_eq!((&again["duplicate"], &again["id"]), (&json!(true), &taken["id"]));
    let review =
        async || call(&service, Method::GET, &format!("{BASE}/review"), Some(&reader), &Value::Null).await.ok();
    assert_eq!(review().await["answering"]["event_ids_reused"], 0);
    let (status, refused) = post(&service, &one, "/regression/kpi", event(true)).await;
    assert_eq!((status, &refused["error"]), (409, &json!("EVENT_ID_REUSED")));
    let review = review().await;
    assert_eq!(review["answering"]["event_ids_reused"], 1);
    let last = review["answering"]["event_id_reused_last"].as_str().unwrap();
    assert!(last.starts_with("D.m order-1 by one:"), "{last}");
    assert!(
        review["look_first"].to_string().contains("refused 1 measurements whose event_id"),
        "{}",
        review["look_first"]
    );
}
