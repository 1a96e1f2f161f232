//! The ledger's writer: what waits together is one transaction, what fails fails alone, a full queue says so at once, and no
//! answer is ever given that the database does not bear out, wherever the connection breaks.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod batches;
mod breaks;
mod lone;
mod proxy;

use crate::support::{Answer, Service, all, broken_links};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use std::collections::BTreeSet;
use tokio::task::JoinHandle;

const TRANSACTIONS: &str = "SELECT count(DISTINCT xmin::text) FROM risk_event";

/// Go-live on, and no caps on RACE and GLOBAL.
async fn uncapped() -> Service {
    let service = Service::live().await;
    lift_caps(&service).await;
    connect(&service).await;
    service
}

/// Gives the writer its connection, and the connection its first commit. What finds nothing commits nothing else.
async fn connect(service: &Service) {
    let nothing = json!({"reservation_id": "00000000-0000-0000-0000-000000000001"});
    settle(service, &nothing).await.unwrap().refused(404, "NOT_FOUND");
}

async fn lift_caps(service: &Service) {
    for engine in ["GLOBAL", "RACE"] {
        let body = json!({"engine": engine, "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0,
            "allow_unlimited": true});
        service.post("/risk/policies/upsert", &body).await.ok();
    }
}

/// Holds the ledger's head, as another instance's writer would.
async fn hold(service: &Service) -> Transaction<'static, Postgres> {
    let mut tx = service.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM audit_head WHERE stream = 'risk' FOR UPDATE").execute(&mut *tx).await.unwrap();
    tx
}

/// The writer's backend, once it waits for the head: the service does nothing else that waits in these tests.
async fn waiting_backend(service: &Service) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'holdfast' AND wait_event_type = 'Lock'";
    loop {
        if let Some(pid) = sqlx::query_scalar(sql).fetch_optional(&service.pool).await.unwrap() {
            return pid;
        }
        tokio::task::yield_now().await;
    }
}

fn reserve(service: &Service, actor: &str) -> JoinHandle<Answer> {
    let body = json!({"engine": "RACE", "amount": 1, "actor": actor});
    tokio::spawn(service.post("/risk/check-and-reserve", &body))
}

fn settle(service: &Service, body: &Value) -> JoinHandle<Answer> {
    tokio::spawn(service.post("/risk/settle", body))
}

/// On a runtime of one thread, tasks run in the order in which they were spawned: when this one has had its turn this often,
/// all that were spawned before it have come as far as they can.
async fn arrived() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// The id of a reserve that was allowed.
fn allowed(answer: Answer) -> String {
    let body = answer.ok();
    assert_eq!(body["ok"], true, "{body}");
    body["reservation_id"].as_str().unwrap().to_owned()
}

/// Asserts that these reservations and no others exist, each with its event.
async fn assert_recorded(service: &Service, ids: impl IntoIterator<Item = String>) {
    let ids: Vec<_> = ids.into_iter().collect();
    let told: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(told.len(), ids.len(), "two answers name one reservation");
    for sql in [
        "SELECT id::text FROM risk_reservation",
        "SELECT reservation_id::text FROM risk_event WHERE action = 'RESERVE'",
    ] {
        let recorded: Vec<String> = sqlx::query_scalar(sql).fetch_all(&service.pool).await.unwrap();
        assert_eq!(recorded.len(), told.len(), "{sql}");
        assert_eq!(recorded.into_iter().collect::<BTreeSet<_>>(), told, "{sql}");
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}
