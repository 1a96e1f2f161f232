//! The list of decisions, each with its outcome in the long form.

use super::columns::{action, amount, engine, total};
use crate::error::{Error, Result};
use crate::risk::model::stored::{self, Columns};
use crate::risk::model::{DenialReason, Movement};
use crate::types::{Amount, Portion, RiskAction, Total};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

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

/// Decisions, newest first, each with its outcome in the long form.
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
    .fetch_all(conn)
    .await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in rows {
        let mut record = RiskEventRecord {
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
            detail: None,
            day: row.day,
            exposure_delta: total(Some(row.exposure_delta))?,
            open_delta: total(Some(row.open_delta))?,
            loss_delta: total(Some(row.loss_delta))?,
            actions_delta: row.actions_delta,
            created_at: row.at,
            hash: row.hash,
        };
        record.detail = row.detail.map(|detail| outcome(&record, &detail)).transpose()?;
        records.push(record);
    }
    Ok(records)
}

/// The outcome of an event in the long form.
fn outcome(record: &RiskEventRecord, detail: &str) -> Result<Box<RawValue>> {
    let engine = engine(&record.engine)?;
    let columns = Columns {
        engine: &engine,
        action: action(&record.action)?,
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
    };
    let unreadable =
        |error| Error::Inconsistent(format!("the outcome of event {} cannot be read: {error}", record.seq));
    crate::db::stored_json(stored::long(detail, &columns).map_err(unreadable)?.into_owned())
}
