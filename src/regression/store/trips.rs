//! Trips, and what became of them.

use super::{broken, ratio, total};
use crate::error::{Error, Result};
use crate::regression::model::{Action, RegressionPolicy, Window};
use crate::types::{Actor, Engine, Ratio, Reason, Total};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A trip on its way into the database.
#[derive(Debug)]
pub struct NewTrip<'a> {
    /// The sequence of its control event.
    pub id: i64,
    /// The wire.
    pub policy: &'a RegressionPolicy,
    /// The last measurement of the stream and of the series.
    pub kpi_seq: i64,
    /// How many events the series had.
    pub series_seq: i64,
    /// The baseline it was judged against.
    pub baseline: Window,
    /// The recent window.
    pub recent: Window,
    /// The drop, rounded.
    pub drop_fraction: Ratio,
    /// The engine it throttles, for a THROTTLE.
    pub engine: Option<&'a Engine>,
    /// Who sent the event that tripped it.
    pub actor: Option<&'a Actor>,
    /// When.
    pub at: DateTime<Utc>,
    /// Whether that measurement caused it by arriving, rather than an evaluation later.
    pub by_event: bool,
}

/// Records a trip.
pub async fn insert_trip(conn: &mut PgConnection, trip: &NewTrip<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO regression_trip
             (id, domain, metric, kpi_seq, series_seq, baseline_events, baseline_sum, current_events, current_sum, drop_fraction,
              action, engine, actor, tripped_at, by_event)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        trip.id,
        trip.policy.domain.as_str(),
        trip.policy.metric.as_str(),
        trip.kpi_seq,
        trip.series_seq,
        trip.baseline.events,
        trip.baseline.sum.to_decimal(),
        trip.recent.events,
        trip.recent.sum.to_decimal(),
        trip.drop_fraction.to_decimal(),
        trip.policy.action.as_str(),
        trip.engine.map(Engine::as_str),
        trip.actor.map(Actor::as_str),
        trip.at,
        trip.by_event
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends a trip; gives back the baseline it was judged against.
pub async fn rearm_trip(
    conn: &mut PgConnection,
    trip_id: i64,
    by: Option<&Actor>,
    reason: Option<&Reason>,
    at: DateTime<Utc>,
) -> Result<Window> {
    let row = sqlx::query!(
        "UPDATE regression_trip
         SET rearmed_at = $2, rearmed_by = $3, rearm_reason = $4
         WHERE id = $1 AND rearmed_at IS NULL
         RETURNING baseline_events, baseline_sum",
        trip_id,
        at,
        by.map(Actor::as_str),
        reason.map(Reason::as_str)
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| Error::Inconsistent(format!("trip {trip_id} does not stand")))?;
    Ok(Window { events: row.baseline_events, sum: total(row.baseline_sum)? })
}

/// Standing trips, as `DOMAIN.metric`.
pub async fn standing_trips(conn: &mut PgConnection) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT domain || '.' || metric AS "wire!" FROM regression_trip WHERE rearmed_at IS NULL ORDER BY 1"#
    )
    .fetch_all(conn)
    .await?)
}

/// The trip that a measurement caused: its id, action, engine and drop.
pub async fn find_trip(conn: &mut PgConnection, kpi_seq: i64) -> Result<Option<(i64, Action, Option<Engine>, Ratio)>> {
    let row = sqlx::query!(
        "SELECT id,
                action,
                engine,
                drop_fraction
         FROM regression_trip
         WHERE kpi_seq = $1 AND by_event",
        kpi_seq
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let action = Action::of(&row.action).ok_or_else(|| broken("action", &row.action))?;
        let engine = row.engine.map(|name| name.parse().map_err(|_| broken("engine", &name))).transpose()?;
        Ok((row.id, action, engine, ratio(Some(row.drop_fraction))?.unwrap_or_default()))
    })
    .transpose()
}

/// A trip as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct TripRecord {
    /// Its id: the sequence of its control event.
    pub id: i64,
    /// The wire's domain.
    pub domain: String,
    /// The wire's metric.
    pub metric: String,
    /// The measurement that tripped it, in the KPI stream.
    pub kpi_seq: i64,
    /// How many events its series had.
    pub series_seq: i64,
    /// Events in the baseline.
    pub baseline_events: i64,
    /// Their sum.
    pub baseline_sum: Total,
    /// Events in the recent window.
    pub current_events: i64,
    /// Their sum.
    pub current_sum: Total,
    /// The drop.
    pub drop_fraction: Option<Ratio>,
    /// What it did.
    pub action: String,
    /// The engine it throttled.
    pub engine: Option<String>,
    /// Who sent the measurement, as claimed.
    pub actor: Option<String>,
    /// When.
    pub tripped_at: DateTime<Utc>,
    /// When it was re-armed; null while it stands.
    pub rearmed_at: Option<DateTime<Utc>>,
    /// By whom.
    pub rearmed_by: Option<String>,
    /// Why.
    pub rearm_reason: Option<String>,
}

/// Trips before `before`, newest first; since a time, of a pair, where given.
pub async fn trips(
    conn: &mut PgConnection,
    domain: Option<&str>,
    metric: Option<&str>,
    since: Option<DateTime<Utc>>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<TripRecord>> {
    let rows = sqlx::query!(
        "SELECT id,
                domain,
                metric,
                kpi_seq,
                series_seq,
                baseline_events,
                baseline_sum,
                current_events,
                current_sum,
                drop_fraction,
                action,
                engine,
                actor,
                tripped_at,
                rearmed_at,
                rearmed_by,
                rearm_reason
         FROM regression_trip
         WHERE ($1::text IS NULL OR domain = $1)
           AND ($2::text IS NULL OR metric = $2)
           AND ($3::timestamptz IS NULL OR tripped_at >= $3 OR rearmed_at >= $3 OR rearmed_at IS NULL)
           AND ($4::bigint IS NULL OR id < $4)
         ORDER BY id DESC
         LIMIT $5",
        domain,
        metric,
        since,
        before,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(TripRecord {
                id: row.id,
                domain: row.domain,
                metric: row.metric,
                kpi_seq: row.kpi_seq,
                series_seq: row.series_seq,
                baseline_events: row.baseline_events,
                baseline_sum: total(row.baseline_sum)?,
                current_events: row.current_events,
                current_sum: total(row.current_sum)?,
                drop_fraction: ratio(Some(row.drop_fraction))?,
                action: row.action,
                engine: row.engine,
                actor: row.actor,
                tripped_at: row.tripped_at,
                rearmed_at: row.rearmed_at,
                rearmed_by: row.rearmed_by,
                rearm_reason: row.rearm_reason,
            })
        })
        .collect()
}
