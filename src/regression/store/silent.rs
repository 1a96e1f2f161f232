//! Series that have gone silent.

use super::broken;
use crate::error::Result;
use crate::regression::model::OnStale;
use crate::types::{Domain, Metric};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A watched series that has been silent for longer than its wire allows.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Silent {
    /// Its domain.
    pub domain: Domain,
    /// Its metric.
    pub metric: Metric,
    /// For how long, seconds: since its last event, or since the wire was set up or re-armed, if that was later.
    pub silent_seconds: i64,
    /// How long it may be.
    pub stale_after_seconds: i64,
    /// What that means.
    pub on_stale: OnStale,
    /// Whether a trip stands already.
    pub is_latched: bool,
}

/// The silent series of enabled wires that do not ignore it.
pub async fn silent(conn: &mut PgConnection) -> Result<Vec<Silent>> {
    let rows = sqlx::query!(
        r#"SELECT policy.domain,
                  policy.metric,
                  policy.on_stale,
                  policy.stale_after_seconds AS "stale_after_seconds!",
                  floor(extract(epoch FROM holdfast_now() - since.at))::bigint AS "silent_seconds!",
                  standing.id IS NOT NULL AS "is_latched!"
           FROM regression_policy AS policy
           LEFT JOIN LATERAL (
               SELECT event.at
               FROM kpi_event AS event
               WHERE event.domain = policy.domain AND event.metric = policy.metric
               ORDER BY event.series_seq DESC
               LIMIT 1) AS last ON true
           LEFT JOIN LATERAL (
               SELECT trip.rearmed_at
               FROM regression_trip AS trip
               WHERE trip.domain = policy.domain AND trip.metric = policy.metric
               ORDER BY trip.id DESC
               LIMIT 1) AS ended ON true
           LEFT JOIN regression_trip AS standing
                  ON standing.domain = policy.domain AND standing.metric = policy.metric AND standing.rearmed_at IS NULL
           CROSS JOIN LATERAL (SELECT greatest(policy.updated_at, last.at, ended.rearmed_at) AS at) AS since
           WHERE policy.enabled
             AND policy.on_stale <> 'IGNORE'
             AND policy.stale_after_seconds IS NOT NULL
             AND since.at + make_interval(secs => policy.stale_after_seconds) <= holdfast_now()
           ORDER BY 1, 2"#
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Silent {
                domain: row.domain.parse().map_err(|_| broken("domain", &row.domain))?,
                metric: row.metric.parse().map_err(|_| broken("metric", &row.metric))?,
                silent_seconds: row.silent_seconds,
                stale_after_seconds: row.stale_after_seconds,
                on_stale: OnStale::of(&row.on_stale).ok_or_else(|| broken("meaning of silence", &row.on_stale))?,
                is_latched: row.is_latched,
            })
        })
        .collect()
}
