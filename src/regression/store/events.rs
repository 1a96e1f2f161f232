//! The SQL of measurements as events of their stream: appended, listed, and found by the ids of their senders.

use super::series::measurement;
use super::{Pair, broken};
use crate::audit::{Origin, Stamp};
use crate::error::Result;
use crate::regression::model::{KpiEvent, Mark, Measurement};
use crate::types::{Actor, CorrelationId, Detail, EventId, Measured, Portion, Principal, RequestId};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;
/// A sealed measurement: its place, its origin, and its hash.
#[derive(Debug)]
pub struct Recorded<'a> {
    /// The place in the stream.
    pub stamp: Stamp,
    /// The caller who sent it.
    pub origin: &'a Origin,
    /// The measurement itself.
    pub event: &'a KpiEvent,
    /// The place in the series.
    pub mark: Mark,
    /// The event's hash.
    pub hash: Vec<u8>,
}

/// Appends measurements to the stream and their series, in order.
pub async fn insert_events(conn: &mut PgConnection, recorded: &[Recorded<'_>]) -> Result<()> {
    fn of<'a, T>(recorded: &'a [Recorded<'a>], column: impl Fn(&'a Recorded<'a>) -> T) -> Vec<T> {
        recorded.iter().map(column).collect()
    }
    let values = of(recorded, |one| match one.event.measurement {
        Measurement::Value(value) => Some(value.to_decimal()),
        Measurement::Success(_) => None,
    });
    let successes = of(recorded, |one| match one.event.measurement {
        Measurement::Success(success) => Some(success),
        Measurement::Value(_) => None,
    });
    sqlx::query!(
        "INSERT INTO kpi_event
             (seq, at, principal, actor, request_id, correlation_id, domain, metric, series_seq, success, value, series_sum,
              event_id, detail, hash)
         SELECT *
         FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::bigint[], $10::boolean[], $11::numeric[], $12::numeric[], $13::text[], $14::text[], $15::bytea[])",
        &of(recorded, |one| one.stamp.seq),
        &of(recorded, |one| one.stamp.at),
        &of(recorded, |one| one.origin.principal.as_str()) as &[&str],
        &of(recorded, |one| one.origin.actor.as_ref().map(Actor::as_str)) as &[Option<&str>],
        &of(recorded, |one| one.origin.request_id.as_ref().map(RequestId::as_str)) as &[Option<&str>],
        &of(recorded, |one| one.origin.correlation_id.as_ref().map(CorrelationId::as_str)) as &[Option<&str>],
        &of(recorded, |one| one.event.domain.as_str()) as &[&str],
        &of(recorded, |one| one.event.metric.as_str()) as &[&str],
        &of(recorded, |one| one.mark.events),
        &successes as &[Option<bool>],
        &values as &[Option<Decimal>],
        &of(recorded, |one| one.mark.sum.to_decimal()),
        &of(recorded, |one| one.event.event_id.as_ref().map(EventId::as_str)) as &[Option<&str>],
        &of(recorded, |one| one.event.detail.as_ref().map(Detail::as_str)) as &[Option<&str>],
        &of(recorded, |one| &one.hash[..]) as &[&[u8]]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A measurement as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct KpiRecord {
    /// The sequence number in the KPI stream.
    pub id: i64,
    /// The domain.
    pub domain: String,
    /// The metric.
    pub metric: String,
    /// The number in the series, from 1.
    pub series_seq: i64,
    /// Whether the measured action succeeded; null in a series of values.
    pub success: Option<bool>,
    /// The measured value; null in a series of successes.
    pub value: Option<Measured>,
    /// The caller's own id; null if none was sent.
    pub event_id: Option<String>,
    /// The actor of the measurement, as claimed.
    pub actor: Option<String>,
    /// The caller's id for everything that belongs to one undertaking.
    pub correlation_id: Option<String>,
    /// The caller's remarks; null if none were sent, or they were erased.
    pub detail: Option<String>,
    /// The time of the recording.
    pub created_at: DateTime<Utc>,
    /// The event's hash, lower-case hex.
    pub hash: String,
}

/// The measurements to list; a filter of none admits all.
#[derive(Debug, Clone, Copy, Default)]
pub struct KpiFilter<'a> {
    /// Of this domain.
    pub domain: Option<&'a str>,
    /// Of this metric.
    pub metric: Option<&'a str>,
}

struct KpiRow {
    seq: i64,
    domain: String,
    metric: String,
    series_seq: i64,
    success: Option<bool>,
    value: Option<Decimal>,
    event_id: Option<String>,
    actor: Option<String>,
    correlation_id: Option<String>,
    detail: Option<String>,
    at: DateTime<Utc>,
    hash: String,
}

/// Lists measurements, newest first.
pub async fn kpi_events(conn: &mut PgConnection, filter: KpiFilter<'_>, portion: Portion) -> Result<Vec<KpiRecord>> {
    let rows = match filter {
        KpiFilter { domain: Some(domain), metric: Some(metric) } => of_series(conn, domain, metric, portion).await?,
        KpiFilter { domain, metric } => {
            sqlx::query_as!(
                KpiRow,
                r#"SELECT seq,
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
                          encode(hash, 'hex') AS "hash!"
                   FROM kpi_event
                   WHERE ($1::text IS NULL OR domain = $1)
                     AND ($2::text IS NULL OR metric = $2)
                     AND seq < $3
                     AND seq >= $4
                   ORDER BY seq DESC
                   LIMIT $5"#,
                domain,
                metric,
                portion.before,
                portion.first,
                portion.limit
            )
            .fetch_all(conn)
            .await?
        }
    };
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

/// Lists the measurements of a series by their numbers in it, which rise with those of the stream.
async fn of_series(conn: &mut PgConnection, domain: &str, metric: &str, portion: Portion) -> Result<Vec<KpiRow>> {
    Ok(sqlx::query_as!(
        KpiRow,
        r#"SELECT seq,
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
                  encode(hash, 'hex') AS "hash!"
           FROM kpi_event
           WHERE domain = $1
             AND metric = $2
             AND seq < $3
             -- The last row of the page before.
             AND series_seq < COALESCE((SELECT last.series_seq FROM kpi_event AS last
                                        WHERE last.seq = $3 AND last.domain = $1 AND last.metric = $2), 9223372036854775807)
           ORDER BY series_seq DESC
           LIMIT $4"#,
        domain,
        metric,
        portion.before,
        portion.limit
    )
    .fetch_all(conn)
    .await?)
}

/// A measurement that already has an id.
#[derive(Debug, Clone)]
pub struct Known {
    /// The sequence number in the KPI stream.
    pub seq: i64,
    /// The measured value.
    pub measurement: Measurement,
    /// The caller's remarks.
    pub detail: Option<String>,
}

/// An id in the scope of its sender and series.
pub type Named = (Pair, Principal, String);

/// The measurements that already have these ids.
pub async fn find_event_ids(conn: &mut PgConnection, asked: &[Named]) -> Result<BTreeMap<Named, Known>> {
    let rows = sqlx::query!(
        r#"SELECT asked.place AS "place!",
                  event.seq,
                  event.success,
                  event.value,
                  event.detail
           FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
                WITH ORDINALITY AS asked (domain, metric, event_id, principal, place)
           JOIN kpi_event AS event ON event.domain = asked.domain AND event.metric = asked.metric
                                  AND event.event_id = asked.event_id AND event.principal = asked.principal"#,
        &asked.iter().map(|(pair, ..)| pair.0.as_str()).collect::<Vec<_>>() as &[&str],
        &asked.iter().map(|(pair, ..)| pair.1.as_str()).collect::<Vec<_>>() as &[&str],
        &asked.iter().map(|(.., id)| id.as_str()).collect::<Vec<_>>() as &[&str],
        &asked.iter().map(|(_, principal, _)| principal.as_str()).collect::<Vec<_>>() as &[&str]
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let measurement = measurement(row.success, row.value)?;
            let named = usize::try_from(row.place - 1).ok().and_then(|place| asked.get(place));
            let named = named.ok_or_else(|| broken("place", row.place))?;
            Ok((named.clone(), Known { seq: row.seq, measurement, detail: row.detail }))
        })
        .collect()
}
