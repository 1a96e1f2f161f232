//! Policies and levels, as decisions and reports read them.

use crate::audit::{self, Head, Stream};
use crate::error::{Error, Result};
use crate::risk::model::{Level, RiskPolicy, Usage};
use crate::types::{Amount, Count, Engine, Total, Ttl};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use std::collections::BTreeMap;

pub(super) fn amount(decimal: Decimal) -> Result<Amount> {
    Amount::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not an amount")))
}

pub(super) fn total(decimal: Option<Decimal>) -> Result<Total> {
    let decimal = decimal.unwrap_or_default();
    Total::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not a total")))
}

fn count(number: i64) -> Result<Count> {
    Count::from_decimal(number.into()).ok_or_else(|| Error::Inconsistent(format!("{number} is not a count")))
}

fn ttl(seconds: Option<i64>) -> Result<Option<Ttl>> {
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

/// What a decision goes by: the time, the switches, and the levels it is about.
#[derive(Debug)]
pub struct Instant {
    /// The database's time.
    pub now: DateTime<Utc>,
    /// The day whose flows the levels show.
    pub day: NaiveDate,
    /// Whether the kill switch is out.
    pub kill_switch_engaged: bool,
    /// Whether production is on.
    pub go_live_enabled: bool,
    /// Since when new reserves are refused because the book does not balance.
    pub halted_at: Option<DateTime<Utc>>,
    /// Whether a hold is due.
    pub anything_due: bool,
    /// The levels that were asked for: policy, the day's flows, the stock.
    pub levels: BTreeMap<Engine, Level>,
    /// Where the ledger's head stood.
    pub head: Head,
    /// The version of the switches.
    pub switches_version: i64,
}

/// The levels of these engines on a day.
pub async fn read_levels(
    conn: &mut PgConnection,
    engines: &[Engine],
    day: NaiveDate,
) -> Result<BTreeMap<Engine, Level>> {
    Ok(read(conn, engines, Some(day)).await?.map(|instant| instant.levels).unwrap_or_default())
}

/// Time, switches, levels and the head, in one statement. The day is the database's. At least one engine.
pub async fn read_instant(conn: &mut PgConnection, engines: &[Engine]) -> Result<Instant> {
    read(conn, engines, None).await?.ok_or_else(|| Error::Inconsistent("no level was asked for".into()))
}

#[expect(clippy::too_many_lines, reason = "one statement, one line a column")]
async fn read(conn: &mut PgConnection, engines: &[Engine], day: Option<NaiveDate>) -> Result<Option<Instant>> {
    let names: Vec<String> = engines.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"WITH clock AS MATERIALIZED (SELECT holdfast_now() AS now),
           instant AS MATERIALIZED (
               SELECT clock.now,
                      COALESCE($2, (clock.now AT TIME ZONE 'UTC')::date) AS day,
                      head.seq,
                      head.hash,
                      head.at,
                      head.turn,
                      state.version,
                      state.kill_switch_engaged,
                      state.go_live_enabled,
                      (SELECT at FROM risk_halt) AS halted_at,
                      EXISTS (SELECT FROM risk_reservation WHERE status = 'OPEN' AND expires_at <= clock.now) AS anything_due
               FROM clock, go_live_state AS state, audit_head AS head
               WHERE head.stream = 'risk')
           SELECT instant.now                AS "now!",
                  instant.day                AS "day!",
                  instant.version            AS "switches_version!",
                  instant.kill_switch_engaged AS "kill_switch_engaged!",
                  instant.go_live_enabled    AS "go_live_enabled!",
                  instant.halted_at          AS "halted_at?",
                  instant.anything_due       AS "anything_due!",
                  instant.seq                AS "seq!",
                  instant.hash               AS "hash!",
                  instant.at                 AS "at!",
                  instant.turn               AS "turn!",
                  asked.engine               AS "engine!",
                  policy.max_daily_loss      AS "max_daily_loss?",
                  policy.max_daily_exposure  AS "max_daily_exposure?",
                  policy.max_open_risk       AS "max_open_risk?",
                  policy.max_actions_per_day AS "max_actions_per_day?",
                  policy.default_ttl_seconds AS "default_ttl_seconds?",
                  policy.enabled             AS "enabled?",
                  policy.changed_by          AS "changed_by?",
                  policy.reason              AS "reason?",
                  policy.updated_at          AS "policy_updated_at?",
                  policy.version             AS "version?",
                  ARRAY(SELECT trip_id FROM risk_throttle WHERE risk_throttle.engine = asked.engine ORDER BY trip_id)
                      AS "throttled_by!",
                  stock.open_amount          AS "open_amount?",
                  flow.exposure_used         AS "exposure_used?",
                  flow.realized_loss         AS "realized_loss?",
                  flow.actions_count         AS "actions_count?",
                  GREATEST(stock.updated_at, flow.updated_at) AS "usage_updated_at?"
           FROM instant
           CROSS JOIN unnest($1::text[]) AS asked (engine)
           LEFT JOIN risk_policy AS policy ON policy.engine = asked.engine
           LEFT JOIN risk_open AS stock ON stock.engine = asked.engine
           LEFT JOIN risk_ledger_day AS flow ON flow.engine = asked.engine AND flow.day = instant.day"#,
        &names,
        day
    )
    .fetch_all(conn)
    .await?;
    let mut read: Option<Instant> = None;
    for row in rows {
        let engine = engine(&row.engine)?;
        let policy = match (row.max_daily_loss, row.max_daily_exposure, row.max_open_risk, row.max_actions_per_day) {
            (Some(loss), Some(exposure), Some(open), Some(actions)) => Some(RiskPolicy {
                engine: engine.clone(),
                max_daily_loss: amount(loss)?,
                max_daily_exposure: amount(exposure)?,
                max_open_risk: amount(open)?,
                max_actions_per_day: count(actions)?,
                default_ttl_seconds: ttl(row.default_ttl_seconds)?,
                enabled: row.enabled.unwrap_or(false) && row.throttled_by.is_empty(),
                changed_by: row.changed_by,
                reason: row.reason,
                updated_at: row.policy_updated_at.unwrap_or_default(),
                version: row.version.unwrap_or_default(),
                throttled_by: row.throttled_by,
                enabled_by_hand: row.enabled.unwrap_or(false),
            }),
            _ => None,
        };
        let usage = Usage {
            exposure_used: total(row.exposure_used)?,
            open_risk_reserved: total(row.open_amount)?,
            realized_loss: total(row.realized_loss)?,
            actions_count: row.actions_count.unwrap_or(0),
            updated_at: row.usage_updated_at,
        };
        let level = Level { policy, usage };
        if let Some(instant) = &mut read {
            instant.levels.insert(engine, level);
            continue;
        }
        read = Some(Instant {
            now: row.now,
            day: row.day,
            kill_switch_engaged: row.kill_switch_engaged,
            go_live_enabled: row.go_live_enabled,
            halted_at: row.halted_at,
            anything_due: row.anything_due,
            levels: BTreeMap::from([(engine, level)]),
            switches_version: row.switches_version,
            head: audit::seen(Stream::Risk, row.seq, row.hash, row.at, row.turn)?,
        });
    }
    Ok(read)
}

/// A level of the day as a report needs it.
#[derive(Debug)]
pub struct TodayRow {
    /// Its policy.
    pub policy: RiskPolicy,
    /// What it has used.
    pub usage: Usage,
}

/// Every policy's level, and the day it is.
pub async fn today(conn: &mut PgConnection) -> Result<(NaiveDate, Vec<TodayRow>)> {
    let day = sqlx::query_scalar!(r#"SELECT (holdfast_now() AT TIME ZONE 'UTC')::date AS "day!""#)
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
