//! Policies, and what reports read.

use super::instant::read_levels;
use crate::error::{Error, Result};
use crate::risk::model::{RiskPolicy, Usage};
use crate::types::{Amount, Count, Engine, Total, Ttl};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

pub(super) fn amount(decimal: Decimal) -> Result<Amount> {
    Amount::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not an amount")))
}

pub(super) fn total(decimal: Option<Decimal>) -> Result<Total> {
    let decimal = decimal.unwrap_or_default();
    Total::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not a total")))
}

pub(super) fn count(number: i64) -> Result<Count> {
    Count::from_decimal(number.into()).ok_or_else(|| Error::Inconsistent(format!("{number} is not a count")))
}

pub(super) fn ttl(seconds: Option<i64>) -> Result<Option<Ttl>> {
    let read = |seconds: i64| {
        Ttl::from_decimal(seconds.into()).ok_or_else(|| Error::Inconsistent(format!("{seconds} s is no time to stand")))
    };
    seconds.map(read).transpose()
}

pub(super) fn engine(name: &str) -> Result<Engine> {
    name.parse().map_err(|_| Error::Inconsistent(format!("{name} is not an engine")))
}

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

/// Whether an engine has a policy that is enabled and that no trip holds off. Unlocked: what it says was so at one instant.
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

/// Whether an engine has a policy. Unlocked.
pub async fn has_policy(conn: &mut PgConnection, engine: &Engine) -> Result<bool> {
    Ok(sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM risk_policy WHERE engine = $1) AS "known!""#, engine.as_str())
        .fetch_one(conn)
        .await?)
}

/// A level of the day as a report needs it.
#[derive(Debug)]
pub struct TodayRow {
    /// Its policy.
    pub policy: RiskPolicy,
    /// What it has used.
    pub usage: Usage,
}

/// Every policy's level, and the day that is booked on: that of the time that is believed, or of the last event where that is later, as
/// a microsecond behind midnight, or under a clock that went back.
pub async fn today(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<(NaiveDate, Vec<TodayRow>)> {
    let day = sqlx::query_scalar!(
        r#"SELECT (GREATEST($1::timestamptz, at) AT TIME ZONE 'UTC')::date AS "day!" FROM audit_head WHERE stream = 'risk'"#,
        now
    )
    .fetch_one(&mut *conn)
    .await?;
    let engines: Vec<Engine> = read_policies(&mut *conn).await?.into_iter().map(|policy| policy.engine).collect();
    let levels = read_levels(conn, &engines, day).await?;
    let rows = levels
        .into_values()
        .filter_map(|level| level.policy.map(|policy| TodayRow { policy, usage: level.usage }))
        .collect();
    Ok((day, rows))
}

/// The denials of the days from `from` to `to`: engine asked for, reason, how many.
pub async fn read_denials(
    conn: &mut PgConnection,
    from: NaiveDate,
    to: NaiveDate,
) -> Result<Vec<(String, String, i64)>> {
    let rows = sqlx::query!(
        r#"SELECT engine,
                  reason,
                  sum(denied)::bigint AS "denied!"
           FROM risk_denial_day
           WHERE day BETWEEN $1 AND $2
           GROUP BY engine, reason
           ORDER BY engine, reason"#,
        from,
        to
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.engine, row.reason, row.denied)).collect())
}

/// Whether anything was ever reserved on an engine: its first reserve makes its row of outstanding risk.
pub async fn was_used(conn: &mut PgConnection, engine: &Engine) -> Result<bool> {
    Ok(sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM risk_open WHERE engine = $1) AS "used!""#, engine.as_str())
        .fetch_one(conn)
        .await?)
}
