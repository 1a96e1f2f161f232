//! Waiting: a held stream holds up the requests that need it, and no others.

use super::{Server, failure, nearly_tripped, uncapped};
use crate::access::{call, token};
use crate::support::{Answer, BASE, Service, broken_links};
use axum::http::Method;
use serde_json::{Value, json};
use sqlx::Row;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long something that must wait for a held lock is watched for not waiting.
const WATCHED: Duration = Duration::from_millis(300);

/// Holds a stream's head in a transaction of its own, as a slow writer would, until dropped or let go.
async fn held(service: &Service, stream: &'static str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut tx = service.pool.begin().await.unwrap();
    let row = sqlx::query("SELECT seq FROM audit_head WHERE stream = $1 FOR UPDATE")
        .bind(stream)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let _: i64 = row.get(0);
    tx
}

/// Asserts that this has no answer yet.
async fn pending(waiting: &mut JoinHandle<Answer>) {
    let early = tokio::time::timeout(WATCHED, waiting).await;
    assert!(early.is_err(), "did not wait: {early:?}");
}

#[tokio::test]
async fn engage_is_answered_while_the_ledger_is_held_and_binds_the_reserve_that_waits() {
    let service = Service::live().await;
    let tx = held(&service, "risk").await;
    let mut waiting = tokio::spawn(service.reserve("WHOLESALE", "1"));
    pending(&mut waiting).await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    assert!(!waiting.is_finished());
    tx.commit().await.unwrap();
    let denied = waiting.await.unwrap().ok();
    assert_eq!(denied["reason"], "kill_switch_engaged");
}

#[tokio::test]
async fn engage_is_answered_though_waiting_reserves_have_taken_every_connection() {
    let service = Service::live().await;
    uncapped(&service, &["RACE"]).await;
    let tx = held(&service, "risk").await;
    let mut waiting: Vec<_> = (0..40).map(|_| tokio::spawn(service.reserve("RACE", "1"))).collect();
    pending(&mut waiting[0]).await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    service.post("/go-live/disable", &json!({"actor": "a"})).await.ok();
    assert!(waiting.iter().all(|one| !one.is_finished()));
    tx.commit().await.unwrap();
    for one in waiting {
        assert_eq!(one.await.unwrap().ok()["reason"], "kill_switch_engaged");
    }
}

#[tokio::test]
async fn trials_measurements_and_reads_do_not_wait_for_the_ledger() {
    let service = Service::live().await;
    let tx = held(&service, "risk").await;
    service.kpis("WHOLESALE", "contract_rate", 1, 0).await;
    let trial = json!({"domain": "BUYER_MATCH", "confidence": 1, "success": true});
    service.post("/heimdall/sandbox/trial", &trial).await.ok();
    for path in [
        "/risk/policies",
        "/risk/ledger/today",
        "/risk/reservations",
        "/risk/events",
        "/go-live/state",
        "/go-live/checklist",
        "/regression/state",
        "/heimdall/scorecard/today",
        "/review",
    ] {
        service.get(path).await.ok();
    }
    let dry = json!({"engine": "WHOLESALE", "amount": 1, "dry_run": true});
    service.post("/risk/check-and-reserve", &dry).await.ok();
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn the_ledger_does_not_wait_for_the_other_streams() {
    let service = Service::live().await;
    let mut held_heads = Vec::new();
    for stream in ["kpi", "heimdall", "control"] {
        held_heads.push(held(&service, stream).await);
    }
    let id = service.reserve("WHOLESALE", "1").await.ok()["reservation_id"].clone();
    service.post("/risk/settle", &json!({"reservation_id": id})).await.ok();
}

#[tokio::test]
async fn upserts_and_tripping_measurements_wait_for_the_ledger_and_then_act() {
    let service = Service::live().await;
    nearly_tripped(&service, "contract_rate", "THROTTLE").await;
    let tx = held(&service, "risk").await;
    let mut upsert =
        tokio::spawn(service.post("/risk/policies/upsert", &json!({"engine": "CAPITAL", "max_daily_loss": 1})));
    let mut trip = tokio::spawn(service.post("/regression/kpi", &failure("contract_rate", false)));
    pending(&mut upsert).await;
    pending(&mut trip).await;
    tx.commit().await.unwrap();
    assert_eq!(upsert.await.unwrap().ok()["version"], 2);
    assert_eq!(trip.await.unwrap().ok()["tripped"]["engine"], "WHOLESALE");
}

/// Takes as long as the ledger's own lock timeout.
#[tokio::test]
async fn a_ledger_that_stays_held_is_a_503_that_decided_nothing() {
    let service = Service::live().await;
    let events = service.events().await;
    let tx = held(&service, "risk").await;
    let answer = service.reserve("WHOLESALE", "1").await;
    assert!(answer.headers.contains_key("retry-after"));
    let refused = answer.refused(503, "DATABASE_UNAVAILABLE");
    assert_eq!(refused["retry_same_key"], true);
    tx.commit().await.unwrap();
    assert_eq!(service.events().await, events);
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

/// Returns when exactly so many of the service's connections are at work, in a state and waiting as given.
async fn settled_at(service: &Service, sql: &'static str, count: i64) {
    // Bounded by the service's own limits: no statement and no idle transaction of it lives longer than 5 s.
    while service.count(sql).await != count {
        tokio::task::yield_now().await;
    }
}

const BLOCKED: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'holdfast' AND wait_event_type = 'Lock'";
const AT_WORK: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'holdfast' AND state <> 'idle'";

#[tokio::test]
async fn a_reserve_that_is_dropped_while_it_waits_is_recorded_whole_or_not_at_all() {
    let service = Service::live().await;
    for _ in 0..10 {
        let tx = held(&service, "risk").await;
        let waiting = tokio::spawn(service.reserve("WHOLESALE", "1"));
        settled_at(&service, BLOCKED, 1).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        tx.commit().await.unwrap();
        settled_at(&service, AT_WORK, 0).await;
    }
    // The books are checked when the service is dropped; the ledger still works.
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test]
async fn however_often_one_principal_pulls_a_switch_another_one_finds_a_connection() {
    let service = Service::live().await;
    let (one, other) = (token(&service, "operate").await, token(&service, "operate,read").await);
    let stop = |token: &str| {
        tokio::spawn(call(&service, Method::POST, &format!("{BASE}/go-live/disable"), Some(token), &json!({})))
    };
    let tx = held(&service, "control").await;
    let mut sent: Vec<_> = (0..20).map(|_| stop(&one)).collect();
    settled_at(&service, BLOCKED, 2).await;
    sent.push(stop(&other));
    // It waits where the first ones do, at the head, and not behind the rest of them.
    settled_at(&service, BLOCKED, 3).await;
    tx.commit().await.unwrap();
    for stopped in sent {
        stopped.await.unwrap().ok();
    }
    let path = format!("{BASE}/go-live/events?limit=21");
    let events = call(&service, Method::GET, &path, Some(&other), &Value::Null).await.ok();
    let principals: Vec<_> =
        events["items"].as_array().unwrap().iter().rev().map(|event| &event["principal"]).collect();
    let place = principals.iter().position(|one| principals.iter().filter(|other| *other == one).count() == 1);
    assert!(place.is_some_and(|place| place < 10), "{principals:?}");
}

/// `curl -m 1` by somebody in a hurry: the switch is pulled, whether or not the answer is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engage_whose_client_hung_up_still_engages() {
    use tokio::io::AsyncWriteExt;
    let service = Service::live().await;
    let server = Server::of(&service).await;
    let address = server.url.strip_prefix("http://").unwrap();
    let (address, _) = address.split_once('/').unwrap();
    let tx = held(&service, "control").await;
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request =
        format!("POST {BASE}/go-live/kill-switch/engage HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    settled_at(&service, BLOCKED, 1).await;
    drop(client);
    // As long as it takes the server to notice; the head is held meanwhile.
    let noticed = tokio::time::timeout(WATCHED, std::future::pending::<()>()).await;
    assert!(noticed.is_err());
    tx.commit().await.unwrap();
    settled_at(&service, AT_WORK, 0).await;
    let state = service.get("/go-live/state").await.ok();
    assert_eq!(state["kill_switch_engaged"], true, "{state}");
}
