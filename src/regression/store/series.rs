//! Measurements, in the order they were taken in.

use super::{broken, total};
use crate::audit::{Origin, Stamp};
use crate::error::{Error, Result};
use crate::regression::model::{KpiEvent, Mark, Measurement};
use crate::types::{Actor, CorrelationId, Detail, Domain, EventId, Measured, Metric, RequestId, Total};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Where a series ends.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// Its last event, in the KPI stream.
    pub seq: i64,
    /// How many events it has, and their sum.
    pub mark: Mark,
    /// `BOOLEAN` or `NUMERIC`, by its first event.
    pub kind: &'static str,
}

/// Where a series ends; nothing for a series without events.
pub async fn read_end(conn: &mut PgConnection, domain: &Domain, metric: &Metric) -> Result<Option<End>> {
    let row = sqlx::query!(
        r#"SELECT seq,
                  series_seq,
                  series_sum,
                  success IS NOT NULL AS "boolean!"
           FROM kpi_event
           WHERE domain = $1 AND metric = $2
           ORDER BY series_seq DESC
           LIMIT 1"#,
        domain.as_str(),
        metric.as_str()
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let kind = if row.boolean { "BOOLEAN" } else { "NUMERIC" };
        let mark = Mark { events: row.series_seq, sum: total(row.series_sum)? };
        Ok(End { seq: row.seq, mark, kind })
    })
    .transpose()
}

/// The running sums of a series at these places; 0 is the place before its first event.
pub async fn read_marks<const N: usize>(
    conn: &mut PgConnection,
    domain: &Domain,
    metric: &Metric,
    places: [i64; N],
) -> Result<[Mark; N]> {
    let rows = sqlx::query!(
        "SELECT series_seq,
                series_sum
         FROM kpi_event
         WHERE domain = $1 AND metric = $2 AND series_seq = ANY($3)",
        domain.as_str(),
        metric.as_str(),
        &places[..]
    )
    .fetch_all(conn)
    .await?;
    let mut marks = places.map(|events| Mark { events, sum: Total::ZERO });
    for mark in marks.iter_mut().filter(|mark| mark.events > 0) {
        let row = rows.iter().find(|row| row.series_seq == mark.events);
        let row = row.ok_or_else(|| Error::Inconsistent(format!("{domain}.{metric} has no event {}", mark.events)))?;
        mark.sum = total(row.series_sum)?;
    }
    Ok(marks)
}

/// Appends a measurement to the stream and its series; the caller has sealed it.
pub async fn insert_event(
    conn: &mut PgConnection,
    stamp: Stamp,
    origin: &Origin,
    event: &KpiEvent,
    mark: Mark,
    hash: &[u8],
) -> Result<()> {
    let (success, value) = match event.measurement {
        Measurement::Success(success) => (Some(success), None),
        Measurement::Value(value) => (None, Some(value.to_decimal())),
    };
    sqlx::query!(
        "INSERT INTO kpi_event
             (seq, at, principal, actor, request_id, correlation_id, domain, metric, series_seq, success, value, series_sum,
              event_id, detail, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        stamp.seq,
        stamp.at,
        origin.principal.as_str(),
        origin.actor.as_ref().map(Actor::as_str),
        origin.request_id.as_ref().map(RequestId::as_str),
        origin.correlation_id.as_ref().map(CorrelationId::as_str),
        event.domain.as_str(),
        event.metric.as_str(),
        mark.events,
        success,
        value,
        mark.sum.to_decimal(),
        event.event_id.as_ref().map(EventId::as_str),
        event.detail.as_ref().map(Detail::as_str),
        hash
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A measurement as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct KpiRecord {
    /// Its sequence number in the KPI stream.
    pub id: i64,
    /// The domain.
    pub domain: String,
    /// The metric.
    pub metric: String,
    /// Its number in the series, from 1.
    pub series_seq: i64,
    /// Whether it succeeded; null in a series of values.
    pub success: Option<bool>,
    /// What it was worth; null in a series of successes.
    pub value: Option<Measured>,
    /// The caller's own id.
    pub event_id: Option<String>,
    /// Who measured, as claimed.
    pub actor: Option<String>,
    /// The caller's thread.
    pub correlation_id: Option<String>,
    /// Remarks.
    pub detail: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// The event's hash, lower-case hex.
    pub hash: String,
}

/// Which measurements to list; none of a kind means all.
#[derive(Debug, Default)]
pub struct KpiFilter<'a> {
    /// Of this domain.
    pub domain: Option<&'a str>,
    /// Of this metric.
    pub metric: Option<&'a str>,
    /// Before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// Measurements, newest first.
pub async fn kpi_events(conn: &mut PgConnection, filter: &KpiFilter<'_>) -> Result<Vec<KpiRecord>> {
    let rows = sqlx::query!(
        "SELECT seq,
                domain,
                metric,
                series_seq,
                success,
                value,
                event_id,
                actor,
                correlation_id,
                detail,
                at,
                encode(hash, 'hex') AS \"hash!\"
         FROM kpi_event
         WHERE ($1::text IS NULL OR domain = $1)
           AND ($2::text IS NULL OR metric = $2)
           AND ($3::bigint IS NULL OR seq < $3)
         ORDER BY seq DESC
         LIMIT $4",
        filter.domain,
        filter.metric,
        filter.before,
        filter.limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(KpiRecord {
                id: row.seq,
                domain: row.domain,
                metric: row.metric,
                series_seq: row.series_seq,
                success: row.success,
                value: row
                    .value
                    .map(|value| Measured::from_decimal(value).ok_or_else(|| broken("value", value)))
                    .transpose()?,
                event_id: row.event_id,
                actor: row.actor,
                correlation_id: row.correlation_id,
                detail: row.detail,
                created_at: row.at,
                hash: row.hash,
            })
        })
        .collect()
}

/// The measurement of a series that already carries this id, if there is one.
pub async fn find_event_id(
    conn: &mut PgConnection,
    domain: &Domain,
    metric: &Metric,
    event_id: &EventId,
) -> Result<Option<(i64, Measurement, Option<String>)>> {
    let row = sqlx::query!(
        "SELECT seq,
                success,
                value,
                detail
         FROM kpi_event
         WHERE domain = $1 AND metric = $2 AND event_id = $3",
        domain.as_str(),
        metric.as_str(),
        event_id.as_str()
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let measurement = match (row.success, row.value) {
            (Some(success), _) => Measurement::Success(success),
            (None, value) => {
                let value = value.unwrap_or_default();
                Measurement::Value(Measured::from_decimal(value).ok_or_else(|| broken("value", value))?)
            }
        };
        Ok((row.seq, measurement, row.detail))
    })
    .transpose()
}
