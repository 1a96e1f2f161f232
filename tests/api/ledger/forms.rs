//! The two forms in which events store their outcome: they answer alike, and the compact one waits for the version
//! before to end.

use crate::support::{Answer, Service, broken_links};
use holdfast::risk::model::stored::Form;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

/// An instance of the version before, which writes its row without the newest migration that it knows.
const OLDER: &str = "INSERT INTO instance (id, name, version, configuration, standing, started_at, seen_at)
                     VALUES (gen_random_uuid(), 'older', '0', '{}', 'state', holdfast_now(), holdfast_now())";

async fn run(service: &Service, sql: &str) {
    service.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// The stored details of all risk events, oldest first.
async fn stored(service: &Service) -> Vec<String> {
    sqlx::query_scalar("SELECT detail FROM risk_event ORDER BY seq").fetch_all(&service.pool).await.unwrap()
}

fn is_compact(detail: &str) -> bool {
    detail.starts_with(r#"{"v":2,"#)
}

async fn seq(service: &Service) -> i64 {
    service.count("SELECT seq FROM audit_head WHERE stream = 'risk'").await
}

/// Sends a change under a key.
async fn keyed(service: &Service, key: usize, (path, body): &(String, Value)) -> Answer {
    service.post_with(path, ("idempotency-key", &format!("key-{key}")), body).await
}

/// Everything that the ledger does, with every kind of denial, and how each was sent.
async fn everything(service: &Service) -> Vec<(String, Value)> {
    let mut sent: Vec<(String, Value)> = Vec::new();
    let mut act = async |path: &str, body: Value| {
        let change = (path.to_owned(), body);
        let answer = keyed(service, sent.len(), &change).await.ok();
        sent.push(change);
        answer
    };
    let reserve = "/risk/check-and-reserve";
    let mut ids = Vec::new();
    for ttl in [json!(300), json!(1), Value::Null, Value::Null, Value::Null] {
        let answer = act(reserve, json!({"engine": "WHOLESALE", "amount": "10.25", "ttl_seconds": ttl})).await;
        ids.push(answer["reservation_id"].as_str().unwrap().to_owned());
    }
    let of = |place: usize, what: &str| format!("/risk/reservations/{}/{what}", ids[place]);
    for denied in [
        json!({"engine": "WHOLESALE", "amount": 990}),
        json!({"engine": "WHOLESALE", "amount": 5000}),
        json!({"engine": "NOTIFY", "amount": 1}),
        json!({"engine": "NOBODY", "amount": 1}),
    ] {
        assert_eq!(act(reserve, denied).await["ok"], false);
    }
    act(&of(0, "extend"), json!({"ttl_seconds": 900})).await;
    act(&of(2, "settle"), json!({"settled_amount": 9, "realized_loss": "0.5"})).await;
    let settled = seq(service).await;
    act(&of(3, "release"), json!({})).await;
    act(
        "/risk/settle",
        json!({"engine": "WHOLESALE", "reserved_amount": 12, "settled_amount": 20, "realized_loss": 200}),
    )
    .await;
    act("/risk/adjustments", json!({"corrects_seq": settled, "loss_delta": "0.25", "reason": "told wrong"})).await;
    assert_eq!(act(reserve, json!({"engine": "WHOLESALE", "amount": 1})).await["reason"], "daily_loss_reached");
    service.set_skew("2 seconds").await;
    service.app.risk.expire_due().await.unwrap();
    act(&of(1, "settle"), json!({})).await;
    service.post("/risk/policies/upsert", &json!({"engine": "WHOLESALE", "enabled": false})).await.ok();
    assert_eq!(act(reserve, json!({"engine": "WHOLESALE", "amount": 1})).await["reason"], "policy_disabled");
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    assert_eq!(act(reserve, json!({"engine": "CAPITAL", "amount": 1})).await["reason"], "kill_switch_engaged");
    sent
}

/// An answer without what differs from one call to the next: how long a hold still stands, and the request's own id.
fn timeless(answer: &str) -> String {
    let mut answer = answer.to_owned();
    for name in [r#""expires_in_seconds":"#, r#""request_id":"#] {
        if let Some(at) = answer.find(name).map(|at| at + name.len()) {
            let length = answer[at..].find([',', '}']).unwrap();
            answer.replace_range(at..at + length, "");
        }
    }
    answer
}

/// All that the service says of what was done, to the byte: each change sent again, ending again what has ended, and
/// the events.
async fn told(service: &Service, sent: &[(String, Value)]) -> Vec<String> {
    let mut told = Vec::new();
    for (key, change) in sent.iter().enumerate() {
        told.push(timeless(&keyed(service, key, change).await.text));
    }
    for id in
        sqlx::query_scalar::<_, String>("SELECT id::text FROM risk_reservation WHERE status <> 'OPEN' ORDER BY seq")
            .fetch_all(&service.pool)
            .await
            .unwrap()
    {
        let refused = service.post(&format!("/risk/reservations/{id}/release"), &json!({})).await;
        assert_eq!(refused.status, 409);
        told.push(timeless(&refused.text));
    }
    told.push(service.get("/risk/events?limit=1000").await.text);
    told
}

#[tokio::test]
async fn either_form_of_an_event_is_answered_with_the_same_bytes() {
    let service = Service::live().await;
    let sent = everything(&service).await;
    let compact = stored(&service).await;
    assert!(compact.len() >= sent.len() && compact.iter().all(|detail| is_compact(detail)), "{compact:#?}");
    let before = told(&service, &sent).await;
    // The same events, as the long form would have them.
    let set = async |details: &[String]| {
        let mut tx = service.pool.begin().await.unwrap();
        tx.execute("ALTER TABLE risk_event DISABLE TRIGGER guard").await.unwrap();
        let sql = "UPDATE risk_event SET detail = d.detail FROM unnest($1::text[]) WITH ORDINALITY AS d (detail, seq)
                   WHERE risk_event.seq = d.seq";
        sqlx::query(sql).bind(details).execute(&mut *tx).await.unwrap();
        tx.execute("ALTER TABLE risk_event ENABLE ALWAYS TRIGGER guard").await.unwrap();
        tx.commit().await.unwrap();
    };
    let raw = details_of(before.last().unwrap());
    assert_eq!(raw.len(), compact.len());
    assert!(raw.iter().all(|detail| !is_compact(detail)));
    set(&raw).await;
    assert_eq!(told(&service, &sent).await, before);
    set(&compact).await;
    assert_eq!(told(&service, &sent).await, before);
    let bytes = |details: &[String]| details.iter().map(String::len).sum::<usize>();
    assert!(bytes(&compact) * 3 < bytes(&raw), "{} of {} bytes", bytes(&compact), bytes(&raw));
}

/// The details of a page of events as their text, oldest first.
fn details_of(page: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        items: Vec<Item<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Item<'a> {
        #[serde(borrow)]
        detail: &'a serde_json::value::RawValue,
    }
    let page: Page<'_> = serde_json::from_str(page).unwrap();
    page.items.iter().rev().map(|item| item.detail.get().to_owned()).collect()
}

#[tokio::test]
async fn the_compact_form_waits_until_no_version_before_runs_or_can_start() {
    let service = Service::live().await;
    let form = || service.app.risk.choose_form();
    let minimum = || service.count("SELECT value::bigint FROM setting WHERE key = 'schema_minimum'");
    assert_eq!((form().await, minimum().await), (Form::Compact, 31));
    // As after an upgrade: the version before runs.
    run(&service, &format!("UPDATE setting SET value = '16' WHERE key = 'schema_minimum'; {OLDER}")).await;
    assert_eq!((form().await, minimum().await), (Form::Long, 16));
    let change = ("/risk/check-and-reserve".to_owned(), json!({"engine": "WHOLESALE", "amount": 5}));
    keyed(&service, 1, &change).await.ok();
    let replayed = keyed(&service, 1, &change).await.text;
    // It ends: from now on it cannot start, but it may have begun to.
    run(&service, "UPDATE instance SET seen_at = seen_at - interval '61 s' WHERE name = 'older'").await;
    assert_eq!((form().await, minimum().await), (Form::Long, 31));
    assert_eq!(form().await, Form::Long);
    keyed(&service, 2, &change).await.ok();
    run(&service, "UPDATE setting SET changed_at = changed_at - interval '1 minute' WHERE key = 'schema_minimum'")
        .await;
    assert_eq!(form().await, Form::Compact);
    keyed(&service, 3, &change).await.ok();
    // One that stood still cannot go on: its lease is not renewed. Nor can another one begin.
    for sql in ["UPDATE instance SET seen_at = holdfast_now() WHERE name = 'older'", OLDER] {
        let error = service.pool.execute(sql).await.unwrap_err();
        assert!(error.to_string().contains("needs an instance that knows migration 31"), "{sql}: {error}");
    }
    assert_eq!(form().await, Form::Compact);
    let forms: Vec<_> = stored(&service).await.iter().map(|detail| is_compact(detail)).collect();
    assert_eq!(forms, [false, false, true]);
    assert_eq!(keyed(&service, 1, &change).await.text, replayed);
    // A stream of both forms is one chain.
    assert_eq!(service.get("/audit/verify").await.ok()["ok"], true);
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
    let items = service.get("/risk/events").await.ok()["items"].as_array().unwrap().clone();
    for item in items {
        assert_eq!(item["detail"]["policy"]["max_daily_exposure"], 1000, "{item}");
    }
    // The trail shows what is hashed.
    let trail = service.get("/audit/events?stream=risk").await.text;
    assert!(trail.contains(r#""detail":{"v":2,"#) || trail.contains(r#""detail":"{\"v\":2,"#), "{trail}");
}

/// The caps and the version that each denial on an engine was made by, oldest first.
async fn denied_by(service: &Service, engine: &str) -> Vec<Value> {
    let page = service.get(&format!("/risk/events?engine={engine}")).await.ok();
    let policy =
        |item: &Value| json!([item["detail"]["policy"]["version"], item["detail"]["policy"]["max_daily_exposure"]]);
    page["items"].as_array().unwrap().iter().rev().map(policy).collect()
}

#[tokio::test]
async fn an_event_shows_the_caps_that_it_was_decided_by_whatever_became_of_the_policy() {
    let service = Service::live().await;
    let upsert = async |more: Value| {
        let mut body = json!({"engine": "LAB"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service.post("/risk/policies/upsert", &body).await.ok();
    };
    let denied = async || assert_eq!(service.reserve("LAB", "500").await.ok()["ok"], false);
    upsert(json!({"max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1})).await;
    denied().await;
    upsert(json!({"max_daily_exposure": 2})).await;
    upsert(json!({"max_daily_exposure": 3})).await;
    denied().await;
    upsert(json!({"enabled": false})).await;
    denied().await;
    service.post("/risk/policies/remove", &json!({"engine": "LAB", "actor": "ops", "reason": "misspelt"})).await.ok();
    denied().await;
    // Set up anew, its versions begin at 1 again.
    upsert(json!({"max_daily_loss": 1, "max_daily_exposure": 5, "max_open_risk": 1})).await;
    denied().await;
    // A hand, without a version.
    run(&service, "UPDATE risk_policy SET max_daily_exposure = 6 WHERE engine = 'LAB'").await;
    run(&service, "UPDATE risk_policy SET max_daily_exposure = 7 WHERE engine = 'LAB'").await;
    denied().await;
    assert!(stored(&service).await.iter().all(|detail| is_compact(detail)));
    let expected = [json!([1, 1]), json!([3, 3]), json!([4, 3]), json!([null, null]), json!([1, 5]), json!([1, 7])];
    assert_eq!(denied_by(&service, "LAB").await, expected);
}
