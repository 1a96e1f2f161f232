//! Reservations and past events, as decisions read them.

use super::columns::{action, amount, engine, status, total};
use crate::audit::Stamp;
use crate::error::{Error, Result};
use crate::risk::model::stored::Columns;
use crate::risk::model::{DenialReason, Movement, Reservation};
use crate::types::{Amount, Engine, RiskAction, Total};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

struct ReservationRow {
    id: Uuid,
    seq: i64,
    engine: String,
    amount: Decimal,
    open_amount: Decimal,
    status: String,
    day: NaiveDate,
    correlation_id: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
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
            expires_at: row.expires_at,
            status: status(&row.status)?,
            closed: row.closed_at.zip(row.closed_seq).map(|(at, seq)| Stamp { seq, at }),
        })
    }
}

fn reservations(rows: Vec<ReservationRow>) -> Result<Vec<Reservation>> {
    rows.into_iter().map(Reservation::try_from).collect()
}

/// Selects reservations by a condition and all that may follow it.
macro_rules! select_held {
    ($condition:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            ReservationRow,
            "SELECT id,
                    seq,
                    engine,
                    amount,
                    open_amount,
                    status,
                    day,
                    correlation_id,
                    created_at,
                    expires_at,
                    closed_at,
                    closed_seq
             FROM risk_reservation
             WHERE " + $condition,
            $($argument),+
        )
    };
}

/// The reservations with these ids: the open ones, and the ended ones only if some are not open.
pub async fn read_reservations(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Reservation>> {
    let mut rows = select_held!("id = ANY($1) AND status = 'OPEN'", ids).fetch_all(&mut *conn).await?;
    let open: BTreeSet<Uuid> = rows.iter().map(|row| row.id).collect();
    let rest: Vec<Uuid> = ids.iter().copied().filter(|id| !open.contains(id)).collect();
    if !rest.is_empty() {
        rows.extend(select_held!("id = ANY($1) AND status <> 'OPEN'", &rest).fetch_all(conn).await?);
    }
    reservations(rows)
}

/// Due holds, the longest due first, at most `limit`.
pub async fn read_due(conn: &mut PgConnection, now: DateTime<Utc>, limit: i64) -> Result<Vec<Reservation>> {
    let due = select_held!("status = 'OPEN' AND expires_at <= $1 ORDER BY expires_at, seq LIMIT $2", now, limit);
    reservations(due.fetch_all(conn).await?)
}

/// The event of the hold that has been due longest.
pub async fn oldest_due(conn: &mut PgConnection) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar!(
        "SELECT seq
         FROM risk_reservation
         WHERE status = 'OPEN' AND expires_at <= holdfast_now()
         ORDER BY expires_at, seq
         LIMIT 1"
    )
    .fetch_optional(conn)
    .await?)
}

/// The amounts that original settles want from an engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// The amount in millionths.
    pub units: i128,
    /// The most reservations that they may check.
    pub rows: usize,
}

impl Wanted {
    /// Adds the amount and the rows of another settle.
    pub const fn add(&mut self, units: i128, rows: usize) {
        self.units += units;
        self.rows += rows;
    }
}

/// Live reservations of these engines, with the correlation id if one is given, oldest first: as many as the wanted
/// amounts need.
pub async fn candidates(
    conn: &mut PgConnection,
    wanted: &BTreeMap<(Engine, Option<String>), Wanted>,
    now: DateTime<Utc>,
) -> Result<Vec<Reservation>> {
    let engines: Vec<String> = wanted.keys().map(|(engine, _)| engine.to_string()).collect();
    let correlations: Vec<Option<String>> = wanted.keys().map(|(_, correlation_id)| correlation_id.clone()).collect();
    let amounts: Vec<Decimal> =
        wanted.values().map(|one| Total::from_units(one.units).unwrap_or_default().to_decimal()).collect();
    let rows: Vec<i64> = wanted.values().map(|one| i64::try_from(one.rows).unwrap_or(i64::MAX)).collect();
    let rows = sqlx::query_as!(
        ReservationRow,
        r#"SELECT held.id AS "id!",
                  held.seq AS "seq!",
                  held.engine AS "engine!",
                  held.amount AS "amount!",
                  held.open_amount AS "open_amount!",
                  held.status AS "status!",
                  held.day AS "day!",
                  held.correlation_id AS "correlation_id?",
                  held.created_at AS "created_at!",
                  held.expires_at AS "expires_at?",
                  held.closed_at AS "closed_at?",
                  held.closed_seq AS "closed_seq?"
           FROM unnest($1::text[], $2::text[], $3::numeric[], $4::bigint[]) AS asked (engine, correlation_id, wanted, rows)
           CROSS JOIN LATERAL (
               SELECT oldest.*,
                      sum(oldest.open_amount) OVER (ORDER BY oldest.seq) - oldest.open_amount AS before
               FROM (SELECT *
                     FROM risk_reservation
                     WHERE engine = asked.engine
                       AND status = 'OPEN'
                       AND (asked.correlation_id IS NULL OR correlation_id = asked.correlation_id)
                       AND (expires_at IS NULL OR expires_at > $5)
                     ORDER BY seq
                     LIMIT asked.rows) AS oldest) AS held
           WHERE held.before < asked.wanted"#,
        &engines,
        &correlations as &[Option<String>],
        &amounts,
        &rows,
        now
    )
    .fetch_all(conn)
    .await?;
    reservations(rows)
}

/// An event that an operation refers to, with its outcome.
#[derive(Debug)]
pub struct PastEvent {
    /// The engine of the event.
    pub engine: Engine,
    /// The action of the event.
    pub action: RiskAction,
    /// The amount that was requested, settled, released, expired or corrected.
    pub amount: Amount,
    /// The authenticated principal.
    pub principal: String,
    /// The actor, as the caller claimed.
    pub actor: Option<String>,
    /// The caller's correlation id.
    pub correlation_id: Option<String>,
    /// The caller's reason; none if none was given, or it was erased.
    pub reason: Option<String>,
    /// The caller's further data, as JSON.
    pub metadata: Option<String>,
    /// The reservation that it made or named.
    pub reservation_id: Option<Uuid>,
    /// The changes that it booked.
    pub movement: Movement,
    /// The time of the event.
    pub at: DateTime<Utc>,
    /// The first reason and level of a denial.
    pub denial: Option<(DenialReason, String)>,
    /// The outcome, as the event stores it.
    pub detail: String,
}

impl PastEvent {
    /// The columns that its outcome is read by.
    #[must_use]
    pub fn columns(&self) -> Columns<'_> {
        Columns {
            engine: &self.engine,
            action: self.action,
            denial: self.denial.as_ref().map(|(reason, scope)| (*reason, scope.as_str())),
            amount: self.amount,
            reservation_id: self.reservation_id,
            movement: self.movement,
            at: self.at,
        }
    }
}

/// These events, by number.
pub async fn past_events(conn: &mut PgConnection, seqs: &[i64]) -> Result<BTreeMap<i64, PastEvent>> {
    let rows = sqlx::query!(
        r#"SELECT seq,
                  engine,
                  action,
                  amount,
                  principal,
                  actor,
                  correlation_id,
                  reason,
                  metadata,
                  reservation_id,
                  exposure_delta,
                  open_delta,
                  loss_delta,
                  actions_delta,
                  at,
                  denial,
                  scope,
                  detail AS "detail!"
           FROM risk_event
           WHERE seq = ANY($1)"#,
        seqs
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let event = PastEvent {
                engine: engine(&row.engine)?,
                action: action(&row.action)?,
                amount: amount(row.amount)?,
                principal: row.principal,
                actor: row.actor,
                correlation_id: row.correlation_id,
                reason: row.reason,
                metadata: row.metadata,
                reservation_id: row.reservation_id,
                movement: Movement {
                    exposure: total(Some(row.exposure_delta))?,
                    open: total(Some(row.open_delta))?,
                    loss: total(Some(row.loss_delta))?,
                    actions: row.actions_delta,
                },
                at: row.at,
                denial: row.denial.as_deref().and_then(DenialReason::read).zip(row.scope),
                detail: row.detail,
            };
            Ok((row.seq, event))
        })
        .collect()
}
