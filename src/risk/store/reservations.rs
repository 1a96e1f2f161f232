//! The list of reservations.

use super::columns::{amount, status};
use crate::error::{Error, Result};
use crate::risk::model::ReservationStatus;
use crate::types::{Amount, Portion};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
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
    /// Only if it was made by then.
    pub made_by: Option<DateTime<Utc>>,
}

impl ReservationFilter<'_> {
    /// Whether these are all open, so that the list goes by the open ones instead of the events.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.correlation_id.is_none() && matches!(self.status, Some(ReservationStatus::Open))
    }

    /// Whether an index leads to these.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.correlation_id.is_some() || self.is_open()
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

/// Selects reservations (`held`) with the events that made them (`made`) from the rest of a statement. `$1` is the time
/// for the status.
macro_rules! select_listed {
    ($from:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            Listed,
            r#"SELECT held.id AS "id!",
                      held.engine AS "engine!",
                      held.amount AS "amount!",
                      held.open_amount AS "open_amount!",
                      held.day AS "day!",
                      made.actor AS "actor?",
                      made.reason AS "reason?",
                      held.correlation_id,
                      made.metadata AS "metadata?",
                      held.created_at AS "created_at!",
                      held.expires_at,
                      CASE WHEN held.status = 'OPEN' AND held.expires_at <= $1 THEN 'EXPIRED' ELSE held.status END
                          AS "status!",
                      held.seq AS "seq!",
                      held.closed_at,
                      held.closed_seq
               "# + $from,
            $($argument),+
        )
    };
}

/// Reservations, newest first, by the numbers of the events that made them.
pub async fn reservations(
    conn: &mut PgConnection,
    filter: &ReservationFilter<'_>,
    portion: Portion,
) -> Result<Vec<ReservationRecord>> {
    if filter.is_open() {
        return open_reservations(conn, filter, portion).await;
    }
    let rows = select_listed!(
        "FROM risk_event AS made
         CROSS JOIN LATERAL (
             SELECT * FROM risk_reservation WHERE id = made.reservation_id AND status = 'OPEN'
             UNION ALL
             SELECT *
             FROM risk_reservation
             WHERE id = made.reservation_id AND status <> 'OPEN' AND closed_seq > made.seq) AS held
         WHERE made.action = 'RESERVE'
           AND ($2::text IS NULL OR made.engine = $2)
           AND ($3::text IS NULL
                OR CASE WHEN held.status = 'OPEN' AND held.expires_at <= $1 THEN 'EXPIRED' ELSE held.status END = $3)
           AND ($4::text IS NULL OR made.correlation_id = $4)
           AND made.seq < $5
           AND made.seq >= $6
         ORDER BY made.seq DESC
         LIMIT $7",
        filter.now,
        filter.engine,
        filter.status.map(ReservationStatus::as_str),
        filter.correlation_id,
        portion.before,
        portion.first,
        portion.limit
    );
    rows.fetch_all(conn).await?.into_iter().map(ReservationRecord::try_from).collect()
}

/// Open reservations, newest first, merged from each engine's part of an index. An engine that ever reserved keeps its
/// policy. The event of one may be archived.
async fn open_reservations(
    conn: &mut PgConnection,
    filter: &ReservationFilter<'_>,
    portion: Portion,
) -> Result<Vec<ReservationRecord>> {
    let rows = select_listed!(
        "FROM risk_policy AS policy
         CROSS JOIN LATERAL (
             SELECT *
             FROM risk_reservation
             WHERE risk_reservation.engine = policy.engine
               AND risk_reservation.status = 'OPEN'
               AND (risk_reservation.expires_at IS NULL OR risk_reservation.expires_at > $1)
               AND risk_reservation.seq < $3
               AND risk_reservation.seq >= $4
               AND ($6::timestamptz IS NULL OR risk_reservation.created_at <= $6)
             ORDER BY risk_reservation.seq DESC
             LIMIT $5) AS held
         LEFT JOIN risk_event AS made ON made.seq = held.seq
         WHERE $2::text IS NULL OR policy.engine = $2
         ORDER BY held.seq DESC
         LIMIT $5",
        filter.now,
        filter.engine,
        portion.before,
        portion.first,
        portion.limit,
        filter.made_by
    );
    rows.fetch_all(conn).await?.into_iter().map(ReservationRecord::try_from).collect()
}

/// The reservation with this id; none if there is none.
pub async fn read_reservation(
    conn: &mut PgConnection,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<Option<ReservationRecord>> {
    let row = select_listed!(
        "FROM risk_reservation AS held
         LEFT JOIN risk_event AS made ON made.seq = held.seq
         WHERE held.id = $2",
        now,
        id
    );
    row.fetch_optional(conn).await?.map(ReservationRecord::try_from).transpose()
}
