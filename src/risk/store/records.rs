//! The reads of reports and lists.

use super::columns::{action, amount, engine, status, total};
use super::versions::caps_of;
use crate::error::{Error, Result};
use crate::risk::model::stored::{self, Columns};
use crate::risk::model::{DenialReason, Movement, ReservationStatus};
use crate::types::{Amount, Engine, Portion, RiskAction, Total};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// A reservation in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReservationRecord {
    /// The id, chosen by the caller or made by the service.
    pub reservation_id: Uuid,
    /// The engine that reserved.
    pub engine: String,
    /// The reserved amount.
    pub amount: Amount,
    /// The outstanding amount; 0 if it is closed.
    pub open_amount: Amount,
    /// The status: `OPEN`, `SETTLED`, `RELEASED` or `EXPIRED`.
    pub status: ReservationStatus,
    /// The business day of the reserve.
    pub day: NaiveDate,
    /// The actor of the reserve, as the caller claimed.
    pub actor: Option<String>,
    /// The caller's reason; null if none was given, or it was erased.
    pub reason: Option<String>,
    /// The caller's own id for requests that belong together.
    pub correlation_id: Option<String>,
    /// The caller's further data; null if none was given.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// The time of the reserve.
    pub created_at: DateTime<Utc>,
    /// The time at which it is due; null for no expiry.
    pub expires_at: Option<DateTime<Utc>>,
    /// The event in the risk stream that made it.
    pub seq: i64,
    /// The time at which it was closed; null while it is open.
    pub closed_at: Option<DateTime<Utc>>,
    /// The event that closed it; null while it is open.
    pub closed_seq: Option<i64>,
}

/// The conditions of a list of reservations; a condition that is none matches all.
#[derive(Debug)]
pub struct ReservationFilter<'a> {
    /// The time for the status: a hold that is due by then has expired, whether or not that is booked yet.
    pub now: DateTime<Utc>,
    /// Only of this engine.
    pub engine: Option<&'a str>,
    /// Only with this status.
    pub status: Option<ReservationStatus>,
    /// Only with this correlation id.
    pub correlation_id: Option<&'a str>,
    /// With this id.
    pub id: Option<Uuid>,
}

impl ReservationFilter<'_> {
    /// Whether an index leads to these.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.correlation_id.is_some()
            || matches!((self.engine, self.status), (None, None) | (_, Some(ReservationStatus::Open)))
    }
}

struct Listed {
    id: Uuid,
    engine: String,
    amount: Decimal,
    open_amount: Decimal,
    day: NaiveDate,
    actor: Option<String>,
    reason: Option<String>,
    correlation_id: Option<String>,
    metadata: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    status: String,
    seq: i64,
    closed_at: Option<DateTime<Utc>>,
    closed_seq: Option<i64>,
}

impl TryFrom<Listed> for ReservationRecord {
    type Error = Error;

    fn try_from(row: Listed) -> Result<Self> {
        Ok(Self {
            reservation_id: row.id,
            engine: row.engine,
            amount: amount(row.amount)?,
            open_amount: amount(row.open_amount)?,
            status: status(&row.status)?,
            day: row.day,
            actor: row.actor,
            reason: row.reason,
            correlation_id: row.correlation_id,
            metadata: row.metadata.map(crate::db::stored_json).transpose()?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            seq: row.seq,
            closed_at: row.closed_at,
            closed_seq: row.closed_seq,
        })
    }
}

/// Reservations, newest first, by the numbers of the events that made them.
pub async fn reservations(
    conn: &mut PgConnection,
    filter: &ReservationFilter<'_>,
    portion: Portion,
) -> Result<Vec<ReservationRecord>> {
    if let (Some(ReservationStatus::Open), None, None) = (filter.status, filter.correlation_id, filter.id) {
        return open_reservations(conn, filter, portion).await;
    }
    let rows = sqlx::query_as!(
        Listed,
        r#"SELECT held.id,
                  held.engine,
                  held.amount,
                  held.open_amount,
                  held.day,
                  made.actor,
                  made.reason,
                  held.correlation_id,
                  made.metadata,
                  held.created_at,
                  held.expires_at,
                  CASE WHEN held.status = 'OPEN' AND held.expires_at <= $8 THEN 'EXPIRED' ELSE held.status END
                      AS "status!",
                  held.seq,
                  held.closed_at,
                  held.closed_seq
           FROM risk_reservation AS held
           JOIN risk_event AS made ON made.seq = held.seq
           WHERE ($1::text IS NULL OR held.engine = $1)
             AND ($2::text IS NULL
                  OR CASE WHEN held.status = 'OPEN' AND held.expires_at <= $8 THEN 'EXPIRED' ELSE held.status END = $2)
             AND ($3::text IS NULL OR held.correlation_id = $3)
             AND ($4::uuid IS NULL OR held.id = $4)
             AND held.seq < $5
             AND held.seq >= $6
           ORDER BY held.seq DESC
           LIMIT $7"#,
        filter.engine,
        filter.status.map(ReservationStatus::as_str),
        filter.correlation_id,
        filter.id,
        portion.before,
        portion.first,
        portion.limit,
        filter.now
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(ReservationRecord::try_from).collect()
}

/// Those that are open. Each engine's are in the order of an index, so that however many have ended, they are not looked at.
async fn open_reservations(
    conn: &mut PgConnection,
    filter: &ReservationFilter<'_>,
    portion: Portion,
) -> Result<Vec<ReservationRecord>> {
    let rows = sqlx::query_as!(
        Listed,
        r#"WITH RECURSIVE engines (engine) AS (
               (SELECT engine FROM risk_reservation WHERE status = 'OPEN' ORDER BY engine LIMIT 1)
               UNION ALL
               SELECT (SELECT next.engine
                       FROM risk_reservation AS next
                       WHERE next.status = 'OPEN' AND next.engine > engines.engine
                       ORDER BY next.engine
                       LIMIT 1)
               FROM engines
               WHERE engines.engine IS NOT NULL)
           SELECT held.id,
                  held.engine,
                  held.amount,
                  held.open_amount,
                  held.day,
                  made.actor,
                  made.reason,
                  held.correlation_id,
                  made.metadata,
                  held.created_at,
                  held.expires_at,
                  held.status,
                  held.seq,
                  held.closed_at,
                  held.closed_seq
           FROM engines
           CROSS JOIN LATERAL (
               SELECT *
               FROM risk_reservation
               WHERE risk_reservation.engine = engines.engine
                 AND risk_reservation.status = 'OPEN'
                 AND (risk_reservation.expires_at IS NULL OR risk_reservation.expires_at > $5)
                 AND risk_reservation.seq < $2
                 AND risk_reservation.seq >= $3
               ORDER BY risk_reservation.seq DESC
               LIMIT $4) AS held
           JOIN risk_event AS made ON made.seq = held.seq
           WHERE $1::text IS NULL OR engines.engine = $1
           ORDER BY held.seq DESC
           LIMIT $4"#,
        filter.engine,
        portion.before,
        portion.first,
        portion.limit,
        filter.now
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(ReservationRecord::try_from).collect()
}

/// The reservation with this id; none if there is none.
pub async fn read_reservation(
    conn: &mut PgConnection,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<Option<ReservationRecord>> {
    let filter = ReservationFilter { now, engine: None, status: None, correlation_id: None, id: Some(id) };
    Ok(reservations(conn, &filter, Portion::last(1)).await?.pop())
}

/// A decision in a list: the original's columns, and ours.
#[derive(Debug, Serialize, ToSchema)]
pub struct RiskEventRecord {
    /// The sequence number in the risk stream.
    pub seq: i64,
    /// The requested engine.
    pub engine: String,
    /// The action: `RESERVE`, `DENY`, `SETTLE`, `RELEASE`, `EXTEND`, `EXPIRE` or `ADJUST`.
    pub action: String,
    /// The amount that was requested, settled, released, expired or corrected.
    pub amount: Amount,
    /// True if it was done; false for a denial.
    pub ok: bool,
    /// The first reason of a denial; null if it was not denied.
    pub denial: Option<String>,
    /// The level that denied; null if it was not denied.
    pub scope: Option<String>,
    /// The caller's reason; null if none was given, or it was erased.
    pub reason: Option<String>,
    /// The authenticated principal.
    pub principal: String,
    /// The actor, as the caller claimed.
    pub actor: Option<String>,
    /// The id of the request; null if no request made it.
    pub request_id: Option<String>,
    /// The caller's own id for requests that belong together.
    pub correlation_id: Option<String>,
    /// The reservation that it made or named; null if there is none.
    pub reservation_id: Option<Uuid>,
    /// The caller's further data; null if none was given.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// The facts and the outcome of the decision.
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Box<RawValue>>,
    /// The business day on which it was booked.
    pub day: NaiveDate,
    /// The change of the day's exposure.
    pub exposure_delta: Total,
    /// The change of the open risk.
    pub open_delta: Total,
    /// The change of the day's loss.
    pub loss_delta: Total,
    /// The change of the day's actions.
    pub actions_delta: i64,
    /// The time of the event.
    pub created_at: DateTime<Utc>,
    /// The event's hash, lower-case hex.
    pub hash: String,
}

/// The conditions of a list of events; a condition that is none matches all.
#[derive(Debug, Default)]
pub struct EventFilter<'a> {
    /// Only of this engine.
    pub engine: Option<&'a str>,
    /// Only with this action.
    pub action: Option<RiskAction>,
    /// Only accepted or only refused ones.
    pub ok: Option<bool>,
    /// Only with this correlation id.
    pub correlation_id: Option<&'a str>,
}

impl EventFilter<'_> {
    /// Whether an index leads to these.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.correlation_id.is_some() || (self.action.is_none() && self.ok.is_none())
    }
}

/// Decisions, newest first, each with its outcome in the long form. Caps are looked up in one statement.
pub async fn events(
    conn: &mut PgConnection,
    filter: &EventFilter<'_>,
    portion: Portion,
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
             AND seq < $5
             AND seq >= $6
           ORDER BY seq DESC
           LIMIT $7"#,
        filter.engine,
        filter.action.map(RiskAction::as_str),
        filter.ok,
        filter.correlation_id,
        portion.before,
        portion.first,
        portion.limit
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut records = rows
        .into_iter()
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
        .collect::<Result<Vec<_>>>()?;
    show_long(conn, &mut records).await?;
    Ok(records)
}

/// The columns of a record that its outcome is read by.
fn columns<'a>(record: &'a RiskEventRecord, engine: &'a Engine, action: RiskAction) -> Columns<'a> {
    Columns {
        engine,
        action,
        denial: record.denial.as_deref().and_then(DenialReason::read).zip(record.scope.as_deref()),
        amount: record.amount,
        reservation_id: record.reservation_id,
        movement: Movement {
            exposure: record.exposure_delta,
            open: record.open_delta,
            loss: record.loss_delta,
            actions: record.actions_delta,
        },
        at: record.created_at,
    }
}

/// Puts the long form of each outcome in the place of the compact one.
async fn show_long(conn: &mut PgConnection, records: &mut [RiskEventRecord]) -> Result<()> {
    let mut compact = Vec::new();
    let mut policies = BTreeMap::new();
    for (place, record) in records.iter().enumerate() {
        if let Some(detail) = record.detail.as_deref().filter(|detail| stored::is_compact(detail.get())) {
            let (engine, action) = (engine(&record.engine)?, action(&record.action)?);
            let policy = stored::policy_of(detail.get(), &columns(record, &engine, action));
            policies.extend(policy.map(|policy| (record.seq, policy)));
            compact.push((place, engine, action));
        }
    }
    let caps = caps_of(conn, &policies).await?;
    for (place, engine, action) in compact {
        let record = &mut records[place];
        if let Some(detail) = &record.detail {
            let event = columns(record, &engine, action);
            let unreadable =
                |error| Error::Inconsistent(format!("the outcome of event {} cannot be read: {error}", record.seq));
            let long = stored::long(detail.get(), &event, caps.get(&record.seq).copied()).map_err(unreadable)?;
            record.detail = Some(crate::db::stored_json(long.into_owned())?);
        }
    }
    Ok(())
}
