//! SQL that only the review needs.

use crate::error::{Error, Result};
use crate::types::{Domain, Metric};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The database's time.
pub async fn now(conn: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar!(r#"SELECT holdfast_now() AS "now!""#).fetch_one(conn).await?)
}

/// Reserves since a time: accepted and denied.
pub async fn decisions_since(conn: &mut PgConnection, since: DateTime<Utc>) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE action = 'RESERVE') AS "reserved!",
                  count(*) FILTER (WHERE action = 'DENY')    AS "denied!"
           FROM risk_event
           WHERE at >= $1"#,
        since
    )
    .fetch_one(conn)
    .await?;
    Ok((row.reserved, row.denied))
}

/// A series that was ever measured.
#[derive(Debug)]
pub struct Series {
    /// Its domain.
    pub domain: Domain,
    /// Its metric.
    pub metric: Metric,
    /// Its events.
    pub events: i64,
    /// The last of them.
    pub last_at: DateTime<Utc>,
}

/// The series that were ever measured, by name, at most 1,000: two index reads each, however long they are.
pub async fn series(conn: &mut PgConnection) -> Result<Vec<Series>> {
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
           SELECT pair.domain AS "domain!", pair.metric AS "metric!", last.series_seq, last.at
           FROM pair
           CROSS JOIN LATERAL (
               SELECT series_seq, at
               FROM kpi_event
               WHERE kpi_event.domain = pair.domain AND kpi_event.metric = pair.metric
               ORDER BY series_seq DESC
               LIMIT 1) AS last
           LIMIT 1000"#
    )
    .fetch_all(conn)
    .await?;
    let broken = |what, name: &str| Error::Inconsistent(format!("{name} is not a {what}"));
    rows.into_iter()
        .map(|row| {
            Ok(Series {
                domain: row.domain.parse().map_err(|_| broken("domain", &row.domain))?,
                metric: row.metric.parse().map_err(|_| broken("metric", &row.metric))?,
                events: row.series_seq,
                last_at: row.at,
            })
        })
        .collect()
}
