//! What a decision reads.

use crate::audit::Stamp;
use crate::error::{Error, Result};
use crate::risk::model::{Level, Reservation, RiskPolicy, Usage};
use crate::types::{Amount, Count, Engine, Total};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

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

fn engine(name: &str) -> Result<Engine> {
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

/// The levels of these engines: policy, the day's flows, the stock.
pub async fn read_levels(
    conn: &mut PgConnection,
    engines: &[Engine],
    day: NaiveDate,
) -> Result<BTreeMap<Engine, Level>> {
    let names: Vec<String> = engines.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"SELECT asked.engine            AS "engine!",
                  policy.max_daily_loss      AS "max_daily_loss?",
                  policy.max_daily_exposure  AS "max_daily_exposure?",
                  policy.max_open_risk       AS "max_open_risk?",
                  policy.max_actions_per_day AS "max_actions_per_day?",
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
           FROM unnest($1::text[]) AS asked (engine)
           LEFT JOIN risk_policy AS policy ON policy.engine = asked.engine
           LEFT JOIN risk_open AS stock ON stock.engine = asked.engine
           LEFT JOIN risk_ledger_day AS flow ON flow.engine = asked.engine AND flow.day = $2"#,
        &names,
        day
    )
    .fetch_all(conn)
    .await?;
    let mut levels = BTreeMap::new();
    for row in rows {
        let engine = engine(&row.engine)?;
        let policy = match (row.max_daily_loss, row.max_daily_exposure, row.max_open_risk, row.max_actions_per_day) {
            (Some(loss), Some(exposure), Some(open), Some(actions)) => Some(RiskPolicy {
                engine: engine.clone(),
                max_daily_loss: amount(loss)?,
                max_daily_exposure: amount(exposure)?,
                max_open_risk: amount(open)?,
                max_actions_per_day: count(actions)?,
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
        levels.insert(engine, Level { policy, usage });
    }
    Ok(levels)
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

struct ReservationRow {
    id: Uuid,
    seq: i64,
    engine: String,
    amount: Decimal,
    open_amount: Decimal,
    day: NaiveDate,
    correlation_id: Option<String>,
    created_at: DateTime<Utc>,
    closed_at: Option<DateTime<Utc>>,
    closed_seq: Option<i64>,
}

impl TryFrom<ReservationRow> for Reservation {
    type Error = Error;

    fn try_from(row: ReservationRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            seq: row.seq,
            engine: engine(&row.engine)?,
            amount: amount(row.amount)?,
            open_amount: amount(row.open_amount)?,
            day: row.day,
            correlation_id: row.correlation_id,
            created_at: row.created_at,
            closed: row.closed_at.zip(row.closed_seq).map(|(at, seq)| Stamp { seq, at }),
        })
    }
}

/// The reservations with these ids, as the ledger decides on them.
pub async fn read_reservations(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Reservation>> {
    sqlx::query_as!(
        ReservationRow,
        "SELECT id,
                seq,
                engine,
                amount,
                open_amount,
                day,
                correlation_id,
                created_at,
                closed_at,
                closed_seq
         FROM risk_reservation
         WHERE id = ANY($1)",
        ids
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Reservation::try_from)
    .collect()
}

/// Whether any reservation, of whatever engine, ever carried this thread.
pub async fn is_correlated(conn: &mut PgConnection, correlation_id: &str) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM risk_reservation WHERE correlation_id = $1) AS "exists!""#,
        correlation_id
    )
    .fetch_one(conn)
    .await?)
}

/// Open reservations of an engine, of a thread where one is given, oldest first.
pub async fn candidates(
    conn: &mut PgConnection,
    engine: &Engine,
    correlation_id: Option<&str>,
    limit: i64,
) -> Result<Vec<Reservation>> {
    sqlx::query_as!(
        ReservationRow,
        "SELECT id,
                seq,
                engine,
                amount,
                open_amount,
                day,
                correlation_id,
                created_at,
                closed_at,
                closed_seq
         FROM risk_reservation
         WHERE engine = $1
           AND status = 'OPEN'
           AND ($2::text IS NULL OR correlation_id = $2)
         ORDER BY seq
         LIMIT $3",
        engine.as_str(),
        correlation_id,
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Reservation::try_from)
    .collect()
}

/// What was recorded by these settles, by event.
pub async fn settlements_of(conn: &mut PgConnection, seqs: &[i64]) -> Result<BTreeMap<i64, String>> {
    let rows = sqlx::query!(r#"SELECT seq, detail AS "detail!" FROM risk_event WHERE seq = ANY($1)"#, seqs)
        .fetch_all(conn)
        .await?;
    Ok(rows.into_iter().map(|row| (row.seq, row.detail)).collect())
}

/// What a batch needs to know beyond its operations.
#[derive(Debug)]
pub struct Instant {
    /// The database's time.
    pub now: DateTime<Utc>,
    /// Whether the kill switch is out.
    pub kill_switch_engaged: bool,
    /// Whether production is on.
    pub go_live_enabled: bool,
}

/// The time and the switches, in one statement. Begins after the head was locked.
pub async fn read_instant(conn: &mut PgConnection) -> Result<Instant> {
    Ok(sqlx::query_as!(
        Instant,
        r#"SELECT holdfast_now() AS "now!",
                  kill_switch_engaged,
                  go_live_enabled
           FROM go_live_state"#
    )
    .fetch_one(conn)
    .await?)
}
