//! Policies, and the reads of reports.

use super::columns::{amount, count, engine, ttl};
use super::history::business_day;
use super::view::read_levels;
use crate::error::Result;
use crate::risk::model::{RiskPolicy, Usage};
use crate::types::Engine;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// All policies, by engine.
pub async fn read_policies(conn: &mut PgConnection) -> Result<Vec<RiskPolicy>> {
    let rows = sqlx::query!(
        r#"SELECT engine,
                  max_daily_loss,
                  max_daily_exposure,
                  max_open_risk,
                  max_actions_per_day,
                  default_ttl_seconds,
                  enabled,
                  changed_by,
                  reason,
                  updated_at,
                  version,
                  ARRAY(SELECT trip_id FROM risk_throttle WHERE risk_throttle.engine = risk_policy.engine ORDER BY trip_id)
                      AS "throttled_by!"
           FROM risk_policy
           ORDER BY engine COLLATE "C""#
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(RiskPolicy {
                engine: engine(&row.engine)?,
                max_daily_loss: amount(row.max_daily_loss)?,
                max_daily_exposure: amount(row.max_daily_exposure)?,
                max_open_risk: amount(row.max_open_risk)?,
                max_actions_per_day: count(row.max_actions_per_day)?,
                default_ttl_seconds: ttl(row.default_ttl_seconds)?,
                enabled: row.enabled && row.throttled_by.is_empty(),
                changed_by: row.changed_by,
                reason: row.reason,
                updated_at: row.updated_at,
                version: row.version,
                throttled_by: row.throttled_by,
                enabled_by_hand: row.enabled,
            })
        })
        .collect()
}

/// True if an engine's policy is enabled and not throttled. Read without a lock, so it may already have changed.
pub async fn is_active(conn: &mut PgConnection, engine: &Engine) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM risk_policy AS policy
                          WHERE policy.engine = $1
                            AND policy.enabled
                            AND NOT EXISTS (SELECT FROM risk_throttle WHERE risk_throttle.engine = policy.engine)) AS "active!""#,
        engine.as_str()
    )
    .fetch_one(conn)
    .await?)
}

/// True if an engine has a policy. Read without a lock.
pub async fn has_policy(conn: &mut PgConnection, engine: &Engine) -> Result<bool> {
    Ok(sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM risk_policy WHERE engine = $1) AS "known!""#, engine.as_str())
        .fetch_one(conn)
        .await?)
}

/// The names of all engines with a policy. An unreadable name is skipped.
pub async fn engines(conn: &mut PgConnection) -> Result<Vec<Engine>> {
    let names = sqlx::query_scalar!("SELECT engine FROM risk_policy").fetch_all(conn).await?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// A level of the day, for a report.
#[derive(Debug)]
pub struct TodayRow {
    /// The policy of the level.
    pub policy: RiskPolicy,
    /// The counters of the level.
    pub usage: Usage,
}

/// The levels of all policies, and the current business day.
pub async fn today(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<(NaiveDate, Vec<TodayRow>)> {
    let day = business_day(&mut *conn, now).await?;
    let engines: Vec<Engine> = read_policies(&mut *conn).await?.into_iter().map(|policy| policy.engine).collect();
    let levels = read_levels(conn, &engines, day).await?;
    let rows = levels
        .into_values()
        .filter_map(|level| level.policy.map(|policy| TodayRow { policy, usage: level.usage }))
        .collect();
    Ok((day, rows))
}

/// A day's denials on these engines, by requested engine and reason; those of GLOBAL are the sum over all engines. A
/// reserve for an engine that never existed is denied and has a row as well, so GLOBAL's sum is computed from the rows.
pub async fn read_denials(
    conn: &mut PgConnection,
    day: NaiveDate,
    engines: &[String],
) -> Result<Vec<(String, String, i64)>> {
    let rows = sqlx::query!(
        r#"SELECT engine              AS "engine!",
                  reason              AS "reason!",
                  sum(denied)::bigint AS "denied!"
           FROM risk_denial_day
           WHERE day = $1 AND engine <> 'GLOBAL' AND engine = ANY($2)
           GROUP BY engine, reason
           UNION ALL
           SELECT 'GLOBAL', reason, sum(denied)::bigint
           FROM risk_denial_day
           WHERE day = $1
           GROUP BY reason"#,
        day,
        engines
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.engine, row.reason, row.denied)).collect())
}

/// Reserves of an engine that were denied for one reason.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Denied {
    /// The engine of the reserves.
    pub engine: String,
    /// The first reason of the denials.
    pub reason: String,
    /// The number of denials.
    pub denied: i64,
    /// The number of denials in the week before.
    pub denied_week_before: i64,
}

/// The most frequent denials on these days, by requested engine and reason, at most `limit` of them, with their number
/// on the days before; and the number of all pairs.
pub async fn worst_denials(
    conn: &mut PgConnection,
    (from, to): (NaiveDate, NaiveDate),
    (before_from, before_to): (NaiveDate, NaiveDate),
    limit: i64,
) -> Result<(Vec<Denied>, i64)> {
    let rows = sqlx::query!(
        r#"SELECT worst.engine AS "engine!",
                  worst.reason AS "reason!",
                  worst.denied AS "denied!",
                  COALESCE((SELECT sum(earlier.denied)
                            FROM generate_series(0, $4::date - $3::date) AS days (after)
                            JOIN risk_denial_day AS earlier
                                 ON earlier.day = $3 + days.after AND earlier.engine = worst.engine
                                    AND earlier.reason = worst.reason), 0)::bigint AS "denied_before!",
                  worst.pairs AS "pairs!"
           FROM (SELECT engine, reason, sum(denied)::bigint AS denied, count(*) OVER () AS pairs
                 FROM risk_denial_day
                 WHERE day BETWEEN $1 AND $2
                 GROUP BY engine, reason
                 ORDER BY sum(denied) DESC, engine, reason
                 LIMIT $5) AS worst
           ORDER BY worst.engine, worst.reason"#,
        from,
        to,
        before_from,
        before_to,
        limit
    )
    .fetch_all(conn)
    .await?;
    let pairs = rows.first().map_or(0, |row| row.pairs);
    let denied = rows.into_iter().map(|row| Denied {
        engine: row.engine,
        reason: row.reason,
        denied: row.denied,
        denied_week_before: row.denied_before,
    });
    Ok((denied.collect(), pairs))
}

/// The reserves since a day, accepted and denied, plus the denied extensions: from the tallies of the days. The
/// accepted ones are GLOBAL's.
pub async fn decisions_since(conn: &mut PgConnection, day: NaiveDate) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"SELECT (SELECT COALESCE(sum(actions_count), 0)::bigint FROM risk_ledger_day
                   WHERE engine = 'GLOBAL' AND day >= $1) AS "reserved!",
                  (SELECT COALESCE(sum(denied), 0)::bigint FROM risk_denial_day WHERE day >= $1) AS "denied!""#,
        day
    )
    .fetch_one(conn)
    .await?;
    Ok((row.reserved, row.denied))
}

/// True if anything was ever reserved on an engine: its first reserve creates its row of open risk.
pub async fn was_used(conn: &mut PgConnection, engine: &Engine) -> Result<bool> {
    Ok(sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM risk_open WHERE engine = $1) AS "used!""#, engine.as_str())
        .fetch_one(conn)
        .await?)
}
