//! The SQL of the baselines that were frozen or reset, by version.

use crate::audit::Stamp;
use crate::error::Result;
use crate::types::{Actor, Domain, Metric};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A baseline to insert.
#[derive(Debug)]
pub struct NewBaseline<'a> {
    /// The wire's domain.
    pub domain: &'a Domain,
    /// The wire's metric.
    pub metric: &'a Metric,
    /// `FROZEN`, `LAST_N` or `NEXT_N`.
    pub source: &'static str,
    /// The place of the series after which it begins.
    pub after_event: i64,
    /// The number of its events once all have arrived.
    pub events: i64,
    /// The person or program that acts, as the caller claims.
    pub actor: Option<&'a Actor>,
}

/// Records a baseline and returns its version. Versions continue even if the wire was removed in between.
pub async fn insert_baseline(conn: &mut PgConnection, new: &NewBaseline<'_>, stamp: Stamp) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO regression_baseline (domain, metric, version, source, after_event, events, actor, created_at)
         SELECT $1, $2, COALESCE(max(version), 0) + 1, $3, $4, $5, $6, $7
         FROM regression_baseline
         WHERE domain = $1 AND metric = $2
         RETURNING version",
        new.domain.as_str(),
        new.metric.as_str(),
        new.source,
        new.after_event,
        new.events,
        new.actor.map(Actor::as_str),
        stamp.at
    )
    .fetch_one(conn)
    .await?)
}

/// A baseline as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct BaselineRecord {
    /// The wire's domain.
    pub domain: String,
    /// The wire's metric.
    pub metric: String,
    /// The number of the baseline among those of its wire, from 1.
    pub version: i64,
    /// FROZEN if the detector was chosen or its settings changed; `LAST_N` or `NEXT_N` for a reset.
    pub source: String,
    /// The place of the series after which it begins.
    pub after_event: i64,
    /// The number of its events once all have arrived.
    pub events: i64,
    /// The person or program that acts, as the caller claims.
    pub actor: Option<String>,
    /// The time at which it was set.
    pub created_at: DateTime<Utc>,
}

/// Lists the baselines of wires, newest first, at most 1000.
pub async fn baselines(
    conn: &mut PgConnection,
    domain: Option<&Domain>,
    metric: Option<&Metric>,
) -> Result<Vec<BaselineRecord>> {
    Ok(sqlx::query_as!(
        BaselineRecord,
        "SELECT domain,
                metric,
                version,
                source,
                after_event,
                events,
                actor,
                created_at
         FROM regression_baseline
         WHERE ($1::text IS NULL OR domain = $1) AND ($2::text IS NULL OR metric = $2)
         ORDER BY created_at DESC, domain, metric, version DESC
         LIMIT 1000",
        domain.map(Domain::as_str),
        metric.map(Metric::as_str)
    )
    .fetch_all(conn)
    .await?)
}
