//! What a decision and a report read.

use crate::audit::Stamp;
use crate::error::{Error, Result};
use crate::risk::model::settle::MATCHES_MAX;
use crate::risk::model::{Level, Reservation, ReservationStatus, RiskPolicy, Usage};
use crate::types::{Amount, Count, Engine, Total};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

fn amount(decimal: Decimal) -> Result<Amount> {
    Amount::from_decimal(decimal)
        .ok_or_else(|| Error::Inconsistent(format!("{decimal} is not an amount")))
}

fn total(decimal: Option<Decimal>) -> Result<Total> {
    let decimal = decimal.unwrap_or_default();
    Total::from_decimal(decimal)
        .ok_or_else(|| Error::Inconsistent(format!("{decimal} is not a total")))
}

fn count(number: i64) -> Result<Count> {
    Count::from_decimal(number.into())
        .ok_or_else(|| Error::Inconsistent(format!("{number} is not a count")))
}

fn engine(name: &str) -> Result<Engine> {
    name.parse()
        .map_err(|_| Error::Inconsistent(format!("{name} is not an engine")))
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
           ORDER BY engine"#
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
        let policy = match (
            row.max_daily_loss,
            row.max_daily_exposure,
            row.max_open_risk,
            row.max_actions_per_day,
        ) {
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
    let engines: Vec<Engine> = read_policies(&mut *conn)
        .await?
        .into_iter()
        .map(|policy| policy.engine)
        .collect();
    let levels = read_levels(conn, &engines, day).await?;
    let rows = levels
        .into_values()
        .filter_map(|level| {
            level.policy.map(|policy| TodayRow {
                policy,
                usage: level.usage,
            })
        })
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
    Ok(rows
        .into_iter()
        .map(|row| (row.engine, row.reason, row.denied))
        .collect())
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
            closed: row
                .closed_at
                .zip(row.closed_seq)
                .map(|(at, seq)| Stamp { seq, at }),
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

/// What the original settle may match: if any reservation of the engine ever carried this correlation, the open ones among
/// those; else every open one of the engine. Oldest first, at most [`MATCHES_MAX`].
pub async fn candidates(
    conn: &mut PgConnection,
    engine: &Engine,
    correlation_id: Option<&str>,
) -> Result<Vec<Reservation>> {
    let correlated = match correlation_id {
        None => false,
        Some(correlation_id) => sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM risk_reservation WHERE correlation_id = $1 AND engine = $2) AS "exists!""#,
            correlation_id,
            engine.as_str()
        )
        .fetch_one(&mut *conn)
        .await?,
    };
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
        correlation_id.filter(|_| correlated),
        MATCHES_MAX
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Reservation::try_from)
    .collect()
}

/// What was recorded when a reservation was settled.
pub async fn settlement_of(conn: &mut PgConnection, closed_seq: i64) -> Result<Box<RawValue>> {
    let detail = sqlx::query_scalar!(
        r#"SELECT detail AS "detail!" FROM risk_event WHERE seq = $1"#,
        closed_seq
    )
    .fetch_one(conn)
    .await?;
    crate::db::stored_json(detail)
}

/// A reservation as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReservationRecord {
    /// Its id.
    pub reservation_id: Uuid,
    /// Its engine.
    pub engine: String,
    /// What was reserved.
    pub amount: Amount,
    /// What is still outstanding.
    pub open_amount: Amount,
    /// Where it stands.
    pub status: ReservationStatus,
    /// The business day it was reserved on.
    pub day: NaiveDate,
    /// Who reserved, as the caller claimed.
    pub actor: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// The caller's thread.
    pub correlation_id: Option<String>,
    /// Whatever else the caller said.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// When it was reserved.
    pub created_at: DateTime<Utc>,
    /// The event that made it, in the risk stream.
    pub seq: i64,
    /// When it was closed.
    pub closed_at: Option<DateTime<Utc>>,
    /// The event that closed it.
    pub closed_seq: Option<i64>,
}

/// Which reservations to list; none of a kind means all.
#[derive(Debug, Default)]
pub struct ReservationFilter<'a> {
    /// Of this engine.
    pub engine: Option<&'a str>,
    /// With this status.
    pub status: Option<ReservationStatus>,
    /// Of this thread.
    pub correlation_id: Option<&'a str>,
    /// With this id.
    pub id: Option<Uuid>,
    /// Made before this event.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// Reservations, newest first.
pub async fn reservations(
    conn: &mut PgConnection,
    filter: &ReservationFilter<'_>,
) -> Result<Vec<ReservationRecord>> {
    let rows = sqlx::query!(
        "SELECT held.id,
                held.engine,
                held.amount,
                held.open_amount,
                held.day,
                made.actor,
                made.reason,
                held.correlation_id,
                made.metadata,
                held.created_at,
                held.seq,
                held.closed_at,
                held.closed_seq
         FROM risk_reservation AS held
         JOIN risk_event AS made ON made.seq = held.seq
         WHERE ($1::text IS NULL OR held.engine = $1)
           AND ($2::text IS NULL OR held.status = $2)
           AND ($3::text IS NULL OR held.correlation_id = $3)
           AND ($4::uuid IS NULL OR held.id = $4)
           AND ($5::bigint IS NULL OR held.seq < $5)
         ORDER BY held.seq DESC
         LIMIT $6",
        filter.engine,
        filter.status.map(ReservationStatus::as_str),
        filter.correlation_id,
        filter.id,
        filter.before,
        filter.limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(ReservationRecord {
                reservation_id: row.id,
                engine: row.engine,
                amount: amount(row.amount)?,
                open_amount: amount(row.open_amount)?,
                status: if row.closed_at.is_some() {
                    ReservationStatus::Settled
                } else {
                    ReservationStatus::Open
                },
                day: row.day,
                actor: row.actor,
                reason: row.reason,
                correlation_id: row.correlation_id,
                metadata: row.metadata.map(crate::db::stored_json).transpose()?,
                created_at: row.created_at,
                seq: row.seq,
                closed_at: row.closed_at,
                closed_seq: row.closed_seq,
            })
        })
        .collect()
}

/// One reservation.
pub async fn read_reservation(
    conn: &mut PgConnection,
    id: Uuid,
) -> Result<Option<ReservationRecord>> {
    let filter = ReservationFilter {
        id: Some(id),
        limit: 1,
        ..ReservationFilter::default()
    };
    Ok(reservations(conn, &filter).await?.pop())
}

/// A decision as it is read back: the original's columns, and ours.
#[derive(Debug, Serialize, ToSchema)]
pub struct RiskEventRecord {
    /// Its sequence number in the risk stream.
    pub seq: i64,
    /// The engine asked for.
    pub engine: String,
    /// `RESERVE`, `DENY` or `SETTLE`.
    pub action: String,
    /// What was asked for.
    pub amount: Amount,
    /// Whether it was done.
    pub ok: bool,
    /// The first reason of a denial.
    pub denial: Option<String>,
    /// The level that denied.
    pub scope: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// Who was authenticated.
    pub principal: String,
    /// Who the caller said was acting.
    pub actor: Option<String>,
    /// The request it came with.
    pub request_id: Option<String>,
    /// The caller's thread.
    pub correlation_id: Option<String>,
    /// The reservation, where it named or made one.
    pub reservation_id: Option<Uuid>,
    /// Whatever else the caller said.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// What the decision was made by and what came of it.
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Box<RawValue>>,
    /// The business day it was booked on.
    pub day: NaiveDate,
    /// What it moved: the day's exposure …
    pub exposure_delta: Total,
    /// … the open risk …
    pub open_delta: Total,
    /// … the day's loss …
    pub loss_delta: Total,
    /// … and the day's count.
    pub actions_delta: i64,
    /// When.
    pub created_at: DateTime<Utc>,
    /// The event's hash, lower-case hex.
    pub hash: String,
}

/// Which events to list; none of a kind means all.
#[derive(Debug, Default)]
pub struct EventFilter<'a> {
    /// Of this engine.
    pub engine: Option<&'a str>,
    /// Of this action.
    pub action: Option<&'a str>,
    /// Done or refused.
    pub ok: Option<bool>,
    /// Of this thread.
    pub correlation_id: Option<&'a str>,
    /// At or after.
    pub from: Option<DateTime<Utc>>,
    /// Before.
    pub to: Option<DateTime<Utc>>,
    /// Before this event.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// Decisions, newest first.
pub async fn events(
    conn: &mut PgConnection,
    filter: &EventFilter<'_>,
) -> Result<Vec<RiskEventRecord>> {
    let rows = sqlx::query!(
        r#"SELECT seq,
                  engine,
                  action,
                  amount,
                  ok,
                  denial,
                  scope,
                  reason,
                  principal,
                  actor,
                  request_id,
                  correlation_id,
                  reservation_id,
                  metadata,
                  detail,
                  day,
                  exposure_delta,
                  open_delta,
                  loss_delta,
                  actions_delta,
                  at,
                  encode(hash, 'hex') AS "hash!"
           FROM risk_event
           WHERE ($1::text IS NULL OR engine = $1)
             AND ($2::text IS NULL OR action = $2)
             AND ($3::boolean IS NULL OR ok = $3)
             AND ($4::text IS NULL OR correlation_id = $4)
             AND ($5::timestamptz IS NULL OR at >= $5)
             AND ($6::timestamptz IS NULL OR at < $6)
             AND ($7::bigint IS NULL OR seq < $7)
           ORDER BY seq DESC
           LIMIT $8"#,
        filter.engine,
        filter.action,
        filter.ok,
        filter.correlation_id,
        filter.from,
        filter.to,
        filter.before,
        filter.limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(RiskEventRecord {
                seq: row.seq,
                engine: row.engine,
                action: row.action,
                amount: amount(row.amount)?,
                ok: row.ok,
                denial: row.denial,
                scope: row.scope,
                reason: row.reason,
                principal: row.principal,
                actor: row.actor,
                request_id: row.request_id,
                correlation_id: row.correlation_id,
                reservation_id: row.reservation_id,
                metadata: row.metadata.map(crate::db::stored_json).transpose()?,
                detail: row.detail.map(crate::db::stored_json).transpose()?,
                day: row.day,
                exposure_delta: total(Some(row.exposure_delta))?,
                open_delta: total(Some(row.open_delta))?,
                loss_delta: total(Some(row.loss_delta))?,
                actions_delta: row.actions_delta,
                created_at: row.at,
                hash: row.hash,
            })
        })
        .collect()
}
