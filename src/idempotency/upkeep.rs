//! The expiry of keys: one partition per day, created ahead and dropped when its keys have expired.
//!
//! Correctness does not depend on it: days without a partition go to the default one, and every look-up checks the day.

use super::key::oldest;
use crate::db::Database;
use crate::error::Result;
use chrono::{Days, NaiveDate};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use std::time::Duration;

/// How often partitions are created and dropped.
const EVERY: Duration = Duration::from_mins(10);
const DAYS_AHEAD: u64 = 2;
/// Creating or dropping a partition takes locks that delay every request with a key: try briefly, and again later.
const PATIENCE: &str = "SET LOCAL lock_timeout = '250ms'";

/// Creates and drops partitions repeatedly until the task is cancelled.
pub async fn run(db: Database) {
    let mut turns = tokio::time::interval(EVERY);
    loop {
        turns.tick().await;
        if let Err(error) = forget(&db).await {
            tracing::warn!(%error, "the partitions of keys could not be maintained: trying again in {} s", EVERY.as_secs());
        }
    }
}

/// Creates the partitions of the next days and drops the expired ones. Returns how many were dropped.
pub async fn forget(db: &Database) -> Result<usize> {
    let mut conn = db.work().await?;
    // A clock that jumped ahead would drop valid keys, so the believed time is used.
    let today = db.history().now(&mut conn).await?.date_naive();
    drop(conn);
    for ahead in 0..=DAYS_AHEAD {
        if let Some(day) = today.checked_add_days(Days::new(ahead)) {
            make(db, day).await?;
        }
    }
    let oldest = oldest(today);
    let mut dropped = 0;
    for (name, day) in partitions(&mut *db.work().await?).await? {
        if day < oldest {
            // `partition` made the name, so it needs no quoting. Another instance may have dropped it first.
            alter(db, format!("DROP TABLE IF EXISTS {name}")).await?;
            dropped += 1;
        }
    }
    sqlx::query!("DELETE FROM idempotency_key_other WHERE day < $1", oldest).execute(&mut *db.work().await?).await?;
    Ok(dropped)
}

fn partition(day: NaiveDate) -> String {
    format!("idempotency_key_{}", day.format("%Y%m%d"))
}

async fn make(db: &Database, day: NaiveDate) -> Result<()> {
    let Some(next) = day.succ_opt() else {
        return Ok(());
    };
    let name = partition(day);
    let exists = sqlx::query_scalar!(r#"SELECT to_regclass($1) IS NOT NULL AS "exists!""#, name)
        .fetch_one(&mut *db.work().await?)
        .await?;
    // Keys of this day that arrived before their partition stay in the default one, and so does the whole day.
    let late =
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM idempotency_key_other WHERE day = $1) AS "exists!""#, day)
            .fetch_one(&mut *db.work().await?)
            .await?;
    if exists || late {
        return Ok(());
    }
    alter(
        db,
        format!(
            "CREATE TABLE IF NOT EXISTS {name} PARTITION OF idempotency_key FOR VALUES FROM ('{day}') TO ('{next}')"
        ),
    )
    .await
}

async fn alter(db: &Database, statement: String) -> Result<()> {
    let mut tx = db.begin().await?;
    tx.execute(PATIENCE).await?;
    tx.execute(AssertSqlSafe(statement)).await?;
    crate::db::commit(tx).await
}

async fn partitions(conn: &mut PgConnection) -> Result<Vec<(String, NaiveDate)>> {
    let names = sqlx::query_scalar!(
        r#"SELECT child.relname::text AS "name!"
           FROM pg_inherits
           JOIN pg_class AS child ON child.oid = inhrelid
           WHERE inhparent = 'idempotency_key'::regclass"#
    )
    .fetch_all(conn)
    .await?;
    let day_of = |name: &str| NaiveDate::parse_from_str(name.strip_prefix("idempotency_key_")?, "%Y%m%d").ok();
    Ok(names.into_iter().filter_map(|name| day_of(&name).map(|day| (name, day))).collect())
}
