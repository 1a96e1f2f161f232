//! The reads of reports and lists.

use super::columns::{amount, status, total};
use crate::error::Result;
use crate::risk::model::ReservationStatus;
use crate::types::{Amount, RiskAction, Total};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
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
    /// Only reservations that were made at least this many seconds ago.
    pub older_than_seconds: Option<i64>,
    /// Only the reservation with this id.
    pub id: Option<Uuid>,
    /// Only reservations made before this event.
    pub before: Option<i64>,
    /// The most rows.
    pub limit: i64,
}

/// The matching reservations, newest first.
pub async fn reservations(conn: &mut PgConnection, filter: &ReservationFilter<'_>) -> Result<Vec<ReservationRecord>> {
    let rows = sqlx::query!(
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
           AND ($5::bigint IS NULL OR held.seq < $5)
           AND ($6::bigint IS NULL OR held.created_at <= $8::timestamptz - $6 * interval '1 second')
         ORDER BY held.seq DESC
         LIMIT $7"#,
        filter.engine,
        filter.status.map(ReservationStatus::as_str),
        filter.correlation_id,
        filter.id,
        filter.before,
        filter.older_than_seconds,
        filter.limit,
        filter.now
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
        })
        .collect()
}

/// The reservation with this id; none if there is none.
pub async fn read_reservation(
    conn: &mut PgConnection,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<Option<ReservationRecord>> {
    let filter = ReservationFilter {
        now,
        engine: None,
        status: None,
        correlation_id: None,
        older_than_seconds: None,
        id: Some(id),
        before: None,
        limit: 1,
    };
    Ok(reservations(conn, &filter).await?.pop())
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
    /// Only at or after this time.
    pub from: Option<DateTime<Utc>>,
    /// Only before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only before this event.
    pub before: Option<i64>,
    /// The most rows.
    pub limit: i64,
}

/// The matching decisions, newest first.
pub async fn events(conn: &mut PgConnection, filter: &EventFilter<'_>) -> Result<Vec<RiskEventRecord>> {
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
        filter.action.map(RiskAction::as_str),
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
