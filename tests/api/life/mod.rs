//! The whole life of a reservation, and of a book that goes wrong: every row of the table of operations as claims.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod adjust;
mod batch;
mod batch_limits;
mod chosen;
mod clock;
mod ends;
mod expiry;
mod extend;
mod flood;
mod model;
mod plain;
mod races;
mod reconcile;
mod same;
mod told;

use crate::support::{Answer, Service, level, reservation, snapshot};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// Reserves, with whatever else belongs to it; gives the id.
async fn hold_with(service: &Service, engine: &str, amount: &str, more: Value) -> String {
    let mut body = json!({"engine": engine, "amount": amount, "actor": "bot"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = service.post("/risk/check-and-reserve", &body).await.ok();
    answer["reservation_id"].as_str().unwrap_or_else(|| panic!("denied: {answer}")).to_owned()
}

/// Reserves for as long as it takes.
async fn hold(service: &Service, engine: &str, amount: &str) -> String {
    hold_with(service, engine, amount, json!({})).await
}

/// Reserves for so many seconds.
async fn hold_for(service: &Service, engine: &str, amount: &str, seconds: u32) -> String {
    hold_with(service, engine, amount, json!({"ttl_seconds": seconds})).await
}

async fn status(service: &Service, id: &str) -> String {
    reservation(service, id).await["status"].as_str().unwrap().to_owned()
}

/// `settle`, `release` or `extend` of a reservation.
#[track_caller]
fn tell(service: &Service, id: &str, what: &str, body: &Value) -> impl Future<Output = Answer> + use<> {
    service.post(&format!("/risk/reservations/{id}/{what}"), body)
}

/// Sets something on a policy.
async fn policy(service: &Service, body: Value) -> Value {
    service.post("/risk/policies/upsert", &body).await.ok()
}

/// No caps on these engines and on GLOBAL.
async fn uncapped(service: &Service, engines: &[&str]) {
    for engine in engines.iter().chain(&["GLOBAL"]) {
        let caps = json!({"engine": engine, "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0,
            "max_actions_per_day": 0, "allow_unlimited": true});
        policy(service, caps).await;
    }
}

/// Runs SQL behind the service's back.
async fn by_hand(service: &Service, sql: &'static str) {
    sqlx::query(sql).execute(&service.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Expires what is due, which ends by itself.
async fn expire_due(service: &Service) {
    let done = tokio::time::timeout(std::time::Duration::from_secs(20), service.app.risk.expire_due());
    done.await.expect("it ends").unwrap();
}

/// The decisions of an action, newest first.
async fn events(service: &Service, action: &str) -> Vec<Value> {
    let page = service.get(&format!("/risk/events?action={action}&limit=1000")).await.ok();
    page["items"].as_array().unwrap().clone()
}

/// The database's clock in the test's hand: it stands until it is moved.
struct Standing<'a> {
    service: &'a Service,
    at: DateTime<Utc>,
}

impl<'a> Standing<'a> {
    /// Stops the clock at a time of day, tomorrow.
    async fn at(service: &'a Service, time: &str) -> Self {
        let sql = "SELECT ((test_now() AT TIME ZONE 'UTC')::date + 1 + $1::time) AT TIME ZONE 'UTC'";
        let at = sqlx::query_scalar(sql).bind(time).fetch_one(&service.pool).await.unwrap();
        for sql in [
            "CREATE TABLE IF NOT EXISTS test_standing (at timestamptz NOT NULL)",
            "INSERT INTO test_standing VALUES ('epoch')",
            "CREATE OR REPLACE FUNCTION holdfast_now() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS 'SELECT at FROM test_standing'",
        ] {
            by_hand(service, sql).await;
        }
        let mut standing = Self { service, at };
        // As far ahead as it goes: a day at most.
        service.clock.advance(172_800_000);
        standing.set(at).await;
        standing
    }

    /// Time passes, here and in the database.
    async fn pass(&mut self, time: TimeDelta) {
        self.service.clock.advance(time.num_milliseconds().unsigned_abs());
        self.set(self.at + time).await;
    }

    /// Sets the current time.
    async fn pass_to(&mut self, at: DateTime<Utc>) {
        self.pass(at - self.at).await;
    }

    async fn set(&mut self, at: DateTime<Utc>) {
        self.at = at;
        sqlx::query("UPDATE test_standing SET at = $1").bind(at).execute(&self.service.pool).await.unwrap();
        self.service.app.feed.refresh(&self.service.db).await.unwrap();
    }
}

/// A time in an answer.
fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap_or_else(|| panic!("{value} is no time")).parse().unwrap()
}

/// Everything but what a test has made itself, before and after, must be the same.
macro_rules! leaves_no_trace {
    ($service:expr, $what:expr) => {{
        let before = $service.everything().await;
        let done = $what;
        assert_eq!($service.everything().await, before);
        done
    }};
}
use leaves_no_trace;
