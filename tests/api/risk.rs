//! The risk guard: policies, decisions with every reason and its text, exact amounts, and the lists.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod denials;
mod exact;
mod lists;
mod policies;
mod reserve;
mod throttles;

use crate::support::{Answer, Service};
use serde_json::{Value, json};

/// The policy of an engine, as the list shows it.
async fn policy(service: &Service, engine: &str) -> Value {
    let policies = service.get("/risk/policies").await.ok();
    let found = policies.as_array().unwrap().iter();
    found.clone().find(|policy| policy["engine"] == engine).unwrap_or(&Value::Null).clone()
}

/// Today's ledger of an engine; null where there is no policy.
async fn today(service: &Service, engine: &str) -> Value {
    let rows = service.get("/risk/ledger/today").await.ok();
    let found = rows.as_array().unwrap().iter();
    found.clone().find(|row| row["engine"] == engine).unwrap_or(&Value::Null).clone()
}

/// Upserts a policy and gives the answer.
async fn upsert(service: &Service, body: Value) -> Value {
    service.post("/risk/policies/upsert", &body).await.ok()
}

/// GLOBAL without caps, and an engine without caps.
async fn uncapped(service: &Service, engine: &str) {
    for engine in ["GLOBAL", engine] {
        upsert(
            service,
            json!({"engine": engine, "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0,
            "allow_unlimited": true}),
        )
        .await;
    }
}

/// The counters that a denial must leave alone.
async fn counters(service: &Service) -> Vec<String> {
    let sql = "SELECT (day, engine, exposure_used, realized_loss, actions_count, updated_at)::text FROM risk_ledger_day
               UNION ALL SELECT (engine, open_amount, updated_at)::text FROM risk_open
               UNION ALL SELECT (r.*)::text FROM risk_reservation AS r ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&service.pool).await.unwrap()
}

fn decision(answer: &Answer) -> &str {
    answer.headers["holdfast-decision"].to_str().unwrap()
}

/// The step before a reserve that is denied.
enum Step {
    Post(&'static str, &'static str),
    /// Reserves and settles, losing this.
    Lose(&'static str, &'static str),
    Reserve(&'static str, &'static str),
    Sql(&'static str),
}

async fn run(service: &Service, step: &Step) {
    match step {
        Step::Post(path, body) => {
            service.post_text(path, "application/json", body).await.ok();
        }
        Step::Reserve(engine, amount) => {
            assert_eq!(service.reserve(engine, amount).await.ok()["ok"], true);
        }
        Step::Lose(engine, loss) => {
            let id = service.reserve(engine, "1").await.ok()["reservation_id"].clone();
            let body = json!({"reservation_id": id, "realized_loss": loss});
            service.post("/risk/settle", &body).await.ok();
        }
        Step::Sql(sql) => {
            sqlx::query(*sql).execute(&service.pool).await.unwrap();
        }
    }
}
