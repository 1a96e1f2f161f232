//! However many tokens there ever were.

use super::{call, refresh, token};
use crate::support::{Service, Setup};
use axum::http::Method;
use holdfast::config::LimitsConfig;
use serde_json::{Value, json};
use sqlx::Executor;
use std::collections::BTreeSet;

const TOKENS: &str = "/api/governance/access/tokens";
const STATE: &str = "/api/governance/go-live/state";

/// Tokens that have just expired, of nobody.
async fn expired(service: &Service, count: usize) {
    let sql = format!(
        "INSERT INTO access_token (id, digest, name, scopes, created_at, created_by, expires_at)
         SELECT lpad(to_hex(number), 16, '0'), sha256(number::text::bytea), 'old', '{{read}}',
                holdfast_now() - interval '1 day', 'SYSTEM', holdfast_now()
         FROM generate_series(1, {count}) AS number"
    );
    service.pool.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
}

async fn revoke(service: &Service, admin: &str, token: &str) {
    let path = format!("{TOKENS}/{}", token.split('_').nth(1).unwrap());
    call(service, Method::DELETE, &path, Some(admin), &Value::Null).await.ok();
}

#[tokio::test]
async fn a_token_that_ended_before_the_last_thousand_is_unknown_and_the_valid_ones_stay_known() {
    let service = Service::fresh().await;
    let (admin, valid) = (token(&service, "admin").await, token(&service, "read").await);
    let (first, last) = (token(&service, "read").await, token(&service, "read").await);
    let told = async |service: &Service, token: &str| {
        let answer = call(service, Method::GET, STATE, Some(token), &Value::Null).await;
        answer.refused(401, "INVALID_TOKEN")["detail"].as_str().unwrap().to_owned()
    };
    revoke(&service, &admin, &first).await;
    assert!(told(&service, &first).await.contains("was revoked"));
    expired(&service, 1_000).await;
    revoke(&service, &admin, &last).await;
    // An instance that begins reads it all anew.
    let other = Service::on(service.options.clone(), Setup::default()).await;
    refresh(&other).await;
    for service in [&service, &other] {
        assert!(told(service, &last).await.contains("was revoked"));
        assert!(told(service, &first).await.contains("is not known"), "it ended too long ago to be told how");
        call(service, Method::GET, STATE, Some(&valid), &Value::Null).await.ok();
    }
}

#[tokio::test]
async fn valid_tokens_have_a_limit_and_one_that_ended_makes_room() {
    let limits = LimitsConfig { tokens_max: 3, ..LimitsConfig::default() };
    let service = Service::with(Setup { limits, ..Setup::default() }).await;
    let admin = token(&service, "admin").await;
    expired(&service, 5).await;
    let make = || {
        let input = json!({"name": "one", "scopes": "read"});
        call(&service, Method::POST, TOKENS, Some(&admin), &input)
    };
    let one = make().await;
    assert_eq!(one.status, 201, "{}", one.text);
    assert_eq!(make().await.status, 201);
    let before = service.everything().await;
    let refused = make().await.refused(409, "LIMIT_REACHED");
    assert_eq!(json!([refused["limit"], refused["setting"]]), json!([3, "TOKENS_MAX"]));
    assert_eq!(service.everything().await, before, "a refusal writes nothing");
    revoke(&service, &admin, one.json["token"].as_str().unwrap()).await;
    assert_eq!(make().await.status, 201);
    make().await.refused(409, "LIMIT_REACHED");
    // The shell of whoever owns the database is the way back in.
    token(&service, "admin").await;
}

#[tokio::test]
async fn the_tokens_are_listed_a_page_at_a_time_and_each_is_shown_once() {
    let service = Service::fresh().await;
    let admin = token(&service, "admin").await;
    // All of one instant, so that only their ids tell them apart.
    expired(&service, 1_100).await;
    let mut seen = BTreeSet::new();
    let (mut path, mut pages) = (TOKENS.to_owned(), 0);
    loop {
        let answer = call(&service, Method::GET, &path, Some(&admin), &Value::Null).await;
        let link = answer.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        for token in answer.ok().as_array().unwrap() {
            assert!(seen.insert(token["id"].as_str().unwrap().to_owned()), "{token} is shown twice");
        }
        pages += 1;
        let Some(link) = link else { break };
        path = format!("{TOKENS}{}", link.strip_prefix('<').unwrap().split('>').next().unwrap());
    }
    assert_eq!((seen.len(), pages), (1_101, 2));
    let get = |query: &str| call(&service, Method::GET, &format!("{TOKENS}?{query}"), Some(&admin), &Value::Null);
    let texts = get("limit=1&numbers=string").await;
    let link = texts.headers["link"].to_str().unwrap().to_owned();
    assert!(link.starts_with("<?limit=1&after=") && link.contains("&numbers=string>"), "{link}");
    let newest = get("limit=1").await.ok();
    assert_eq!(newest[0]["name"], "test-token");
    let next = get(&format!("limit=2&after={}", newest[0]["id"].as_str().unwrap())).await.ok();
    assert_eq!(json!([next[0]["name"], next.as_array().unwrap().len()]), json!(["old", 2]));
    get("limit=0").await.invalid("limit");
    get("limit=1001").await.invalid("limit");
    get("after=1").await.invalid("after");
    get("after=0000000000000000").await.invalid("after");
}
