//! Policies and throttles. The writes of decisions are in `batch`.

use crate::error::{Error, Result};
use crate::risk::model::RiskPolicy;
use crate::types::{Amount, Engine, Ttl};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Writes a policy: the operator's flag and the caps. Throttles are rows of their own.
pub async fn upsert_policy(conn: &mut PgConnection, policy: &RiskPolicy) -> Result<()> {
    let cap = |amount: Amount| amount.to_decimal();
    sqlx::query!(
        "INSERT INTO risk_policy
             (engine, max_daily_loss, max_daily_exposure, max_open_risk, max_actions_per_day, enabled, changed_by, reason,
              updated_at, version, default_ttl_seconds)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (engine) DO UPDATE
         SET max_daily_loss = excluded.max_daily_loss,
             max_daily_exposure = excluded.max_daily_exposure,
             max_open_risk = excluded.max_open_risk,
             max_actions_per_day = excluded.max_actions_per_day,
             enabled = excluded.enabled,
             changed_by = excluded.changed_by,
             reason = excluded.reason,
             updated_at = excluded.updated_at,
             version = excluded.version,
             default_ttl_seconds = excluded.default_ttl_seconds",
        policy.engine.as_str(),
        cap(policy.max_daily_loss),
        cap(policy.max_daily_exposure),
        cap(policy.max_open_risk),
        policy.max_actions_per_day.get(),
        policy.enabled_by_hand,
        policy.changed_by,
        policy.reason,
        policy.updated_at,
        policy.version,
        policy.default_ttl_seconds.map(Ttl::seconds)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records on a policy its last change and the reason, without touching caps or the operator's flag. An engine without
/// a policy gets a disabled one without caps, as in the original: a throttle needs a row.
pub async fn note_policy(
    conn: &mut PgConnection,
    engine: &Engine,
    by: Option<&str>,
    reason: &str,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO risk_policy (engine, max_daily_loss, max_daily_exposure, max_open_risk, enabled, changed_by, reason, updated_at)
         VALUES ($1, 0, 0, 0, false, $2, $3, $4)
         ON CONFLICT (engine) DO UPDATE
         SET changed_by = excluded.changed_by,
             reason = excluded.reason,
             updated_at = excluded.updated_at,
             version = risk_policy.version + 1",
        engine.as_str(),
        by,
        reason,
        at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets a trip's throttle on an engine.
pub async fn add_throttle(conn: &mut PgConnection, engine: &Engine, trip_id: i64, at: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO risk_throttle (engine, trip_id, created_at) VALUES ($1, $2, $3)",
        engine.as_str(),
        trip_id,
        at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lifts one trip's throttle and returns the throttled engine, if it was still active.
pub async fn lift_throttle(conn: &mut PgConnection, trip_id: i64) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!("DELETE FROM risk_throttle WHERE trip_id = $1 RETURNING engine", trip_id)
        .fetch_optional(conn)
        .await?)
}

/// Lifts every throttle of an engine: the operator's override.
pub async fn lift_throttles(conn: &mut PgConnection, engine: &Engine) -> Result<()> {
    sqlx::query!("DELETE FROM risk_throttle WHERE engine = $1", engine.as_str()).execute(conn).await?;
    Ok(())
}

/// Removes a policy, which must exist.
pub async fn remove_policy(conn: &mut PgConnection, engine: &Engine) -> Result<()> {
    let removed = sqlx::query!("DELETE FROM risk_policy WHERE engine = $1", engine.as_str()).execute(conn).await?;
    let missing = || Error::Inconsistent(format!("the policy of {engine} was removed meanwhile"));
    if removed.rows_affected() == 1 { Ok(()) } else { Err(missing()) }
}
