//! The SQL of series: their ends, their kinds, and their contents.

use super::{Pair, broken, columns, total};
use crate::error::Result;
use crate::regression::model::{Kind, Mark, Measurement};
use crate::types::{Domain, Measured, Metric, Total};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// The end of a series.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// The sequence number of its last event in the KPI stream; 0 before the first.
    pub seq: i64,
    /// The number of its events, and their sum.
    pub mark: Mark,
    /// The kind, as an operator set it, or of its first event.
    pub kind: Kind,
    /// The number of events that are older than that kind and may be of another one.
    pub since: i64,
    /// The time of its last event; none before the first.
    pub at: Option<DateTime<Utc>>,
}

/// The end of a series; none for a series without events, unless its kind was set.
pub async fn read_end(conn: &mut PgConnection, domain: &Domain, metric: &Metric) -> Result<Option<End>> {
    let pair = (domain.clone(), metric.clone());
    Ok(read_ends(conn, std::slice::from_ref(&pair)).await?.remove(&pair))
}

/// The ends of these series; those without events are left out, unless their kind was set.
pub async fn read_ends(conn: &mut PgConnection, pairs: &[Pair]) -> Result<BTreeMap<Pair, End>> {
    let (domains, metrics) = columns(Some(pairs));
    let rows = sqlx::query!(
        r#"SELECT asked.place AS "place!",
                  COALESCE(last.seq, 0)        AS "seq!",
                  COALESCE(last.series_seq, 0) AS "series_seq!",
                  COALESCE(last.series_sum, 0) AS "series_sum!",
                  COALESCE(declared.kind = 'BOOLEAN', last.success IS NOT NULL) AS "boolean!",
                  COALESCE(declared.after_event, 0) AS "since!",
                  last.at AS "at?"
           FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (domain, metric, place)
           LEFT JOIN LATERAL (
               SELECT seq, series_seq, series_sum, success, at
               FROM kpi_event
               WHERE domain = asked.domain AND metric = asked.metric
               ORDER BY series_seq DESC
               LIMIT 1) AS last ON true
           LEFT JOIN regression_kind AS declared ON declared.domain = asked.domain AND declared.metric = asked.metric
           WHERE last.seq IS NOT NULL OR declared.kind IS NOT NULL"#,
        domains.as_deref(),
        metrics.as_deref()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let mark = Mark { events: row.series_seq, sum: total(row.series_sum)? };
            let pair = usize::try_from(row.place - 1).ok().and_then(|place| pairs.get(place)).cloned();
            let pair = pair.ok_or_else(|| broken("place", row.place))?;
            let kind = if row.boolean { Kind::Boolean } else { Kind::Numeric };
            Ok((pair, End { seq: row.seq, mark, kind, since: row.since, at: row.at }))
        })
        .collect()
}

/// Sets the kind of a series after its first `after` events.
pub async fn set_kind(
    conn: &mut PgConnection,
    (domain, metric): (&Domain, &Metric),
    kind: Kind,
    since: i64,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO regression_kind (domain, metric, kind, after_event)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (domain, metric) DO UPDATE SET kind = excluded.kind, after_event = excluded.after_event",
        domain.as_str(),
        metric.as_str(),
        kind.as_str(),
        since
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The number of series with a declared kind.
pub async fn count_kinds(conn: &mut PgConnection) -> Result<usize> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM regression_kind"#).fetch_one(conn).await?;
    usize::try_from(count).map_err(|_| broken("count", count))
}

/// The running sums of series between two places each, both included. There are none before the first event.
pub async fn read_sums(
    conn: &mut PgConnection,
    asked: &[(Pair, i64, i64)],
) -> Result<BTreeMap<Pair, BTreeMap<i64, Total>>> {
    let pairs: Vec<Pair> = asked.iter().map(|(pair, ..)| pair.clone()).collect();
    let (domains, metrics) = columns(Some(&pairs));
    let rows = sqlx::query!(
        r#"SELECT asked.place AS "place!",
                  event.series_seq,
                  event.series_sum
           FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
                WITH ORDINALITY AS asked (domain, metric, low, high, place)
           JOIN kpi_event AS event ON event.domain = asked.domain AND event.metric = asked.metric
                                  AND event.series_seq BETWEEN asked.low AND asked.high"#,
        domains.as_deref(),
        metrics.as_deref(),
        &asked.iter().map(|(_, low, _)| *low).collect::<Vec<_>>(),
        &asked.iter().map(|(_, _, high)| *high).collect::<Vec<_>>()
    )
    .fetch_all(conn)
    .await?;
    let mut sums: BTreeMap<Pair, BTreeMap<i64, Total>> = BTreeMap::new();
    for row in rows {
        let pair = usize::try_from(row.place - 1).ok().and_then(|place| pairs.get(place));
        let pair = pair.ok_or_else(|| broken("place", row.place))?;
        sums.entry(pair.clone()).or_default().insert(row.series_seq, total(row.series_sum)?);
    }
    Ok(sums)
}

/// The values of a series behind `after`, up to `to`, in order.
pub async fn read_values(conn: &mut PgConnection, pair: &Pair, after: i64, to: i64) -> Result<Vec<Measured>> {
    let values = sqlx::query_scalar!(
        r#"SELECT value AS "value!"
           FROM kpi_event
           WHERE domain = $1 AND metric = $2 AND series_seq > $3 AND series_seq <= $4 AND value IS NOT NULL
           ORDER BY series_seq"#,
        pair.0.as_str(),
        pair.1.as_str(),
        after,
        to
    )
    .fetch_all(conn)
    .await?;
    values.into_iter().map(|value| Measured::from_decimal(value).ok_or_else(|| broken("value", value))).collect()
}

/// A measurement as a replay meets it: its place in the series, when it was recorded, and what it was.
pub type Past = (i64, DateTime<Utc>, Measurement);

/// The events of a series after `after`, in order, within a range of times if one is given; at most `limit`.
pub async fn read_history(
    conn: &mut PgConnection,
    pair: &Pair,
    after: i64,
    (from, to): (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    limit: i64,
) -> Result<Vec<Past>> {
    let rows = sqlx::query!(
        "SELECT series_seq, at, success, value
         FROM kpi_event
         WHERE domain = $1 AND metric = $2 AND series_seq > $3
           AND ($4::timestamptz IS NULL OR at >= $4)
           AND ($5::timestamptz IS NULL OR at < $5)
         ORDER BY series_seq
         LIMIT $6",
        pair.0.as_str(),
        pair.1.as_str(),
        after,
        from,
        to,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok((row.series_seq, row.at, measurement(row.success, row.value)?))).collect()
}

/// A measurement as it is stored.
pub(super) fn measurement(success: Option<bool>, value: Option<Decimal>) -> Result<Measurement> {
    if let Some(success) = success {
        return Ok(Measurement::Success(success));
    }
    let value = value.unwrap_or_default();
    Ok(Measurement::Value(Measured::from_decimal(value).ok_or_else(|| broken("value", value))?))
}

/// The number of series that were ever measured, counted up to `limit`.
pub async fn count_series(conn: &mut PgConnection, limit: usize) -> Result<usize> {
    let count = sqlx::query_scalar!(
        r#"WITH RECURSIVE pair AS (
               (SELECT domain, metric FROM kpi_event ORDER BY domain, metric LIMIT 1)
               UNION ALL
               SELECT next.domain, next.metric
               FROM pair
               CROSS JOIN LATERAL (
                   SELECT domain, metric
                   FROM kpi_event
                   WHERE (domain, metric) > (pair.domain, pair.metric)
                   ORDER BY domain, metric
                   LIMIT 1) AS next
           )
           SELECT count(*) AS "count!" FROM (SELECT FROM pair LIMIT $1) AS counted"#,
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_one(conn)
    .await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// The series that were ever measured, by name, up to `limit`. One index read each, for series of any length.
pub async fn read_series(conn: &mut PgConnection, limit: usize) -> Result<Vec<Pair>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = sqlx::query!(
        r#"WITH RECURSIVE pair AS (
               (SELECT domain, metric FROM kpi_event ORDER BY domain, metric LIMIT 1)
               UNION ALL
               SELECT next.domain, next.metric
               FROM pair
               CROSS JOIN LATERAL (
                   SELECT domain, metric
                   FROM kpi_event
                   WHERE (domain, metric) > (pair.domain, pair.metric)
                   ORDER BY domain, metric
                   LIMIT 1) AS next
           )
           SELECT domain AS "domain!", metric AS "metric!" FROM pair LIMIT $1"#,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let domain = row.domain.parse().map_err(|_| broken("domain", &row.domain))?;
            let metric = row.metric.parse().map_err(|_| broken("metric", &row.metric))?;
            Ok((domain, metric))
        })
        .collect()
}
