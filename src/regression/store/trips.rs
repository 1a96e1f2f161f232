//! The SQL of trips, their verdicts and their ends.

use super::{broken, ratio, total};
use crate::error::{Error, Result};
use crate::regression::model::{Action, Mode, Rebase, RegressionPolicy, TripVerdict, Window};
use crate::types::{Actor, Domain, Engine, Metric, Portion, Ratio, Reason, Total};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A trip to insert.
#[derive(Debug)]
pub struct NewTrip<'a> {
    /// The sequence number of its control event.
    pub id: i64,
    /// The settings of the wire.
    pub policy: &'a RegressionPolicy,
    /// The last measurement of the series, in the KPI stream.
    pub kpi_seq: i64,
    /// The number of events of the series at the trip.
    pub series_seq: i64,
    /// The baseline of the judgement.
    pub baseline: Window,
    /// The recent window of the judgement.
    pub recent: Window,
    /// The drop, rounded; none if the series went silent.
    pub drop: Option<Ratio>,
    /// SEQUENTIAL: the evidence, and the event of the series at which the change is estimated to have begun.
    pub evidence: Option<(f64, i64)>,
    /// `DROP` or `STALE`.
    pub cause: &'static str,
    /// The throttled engine; none for a kill switch.
    pub engine: Option<&'a Engine>,
    /// The actor of the tripping event.
    pub actor: Option<&'a Actor>,
    /// The time of the trip.
    pub at: DateTime<Utc>,
    /// Whether the arrival of that measurement caused it, rather than a later evaluation.
    pub by_event: bool,
}

/// Records a trip.
pub async fn insert_trip(conn: &mut PgConnection, trip: &NewTrip<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO regression_trip
             (id, domain, metric, kpi_seq, series_seq, baseline_events, baseline_sum, current_events, current_sum, drop_fraction,
              action, engine, actor, tripped_at, by_event, detector, cause, shadow, evidence, began_at_event)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
        trip.id,
        trip.policy.domain.as_str(),
        trip.policy.metric.as_str(),
        trip.kpi_seq,
        trip.series_seq,
        trip.baseline.events,
        trip.baseline.sum.to_decimal(),
        trip.recent.events,
        trip.recent.sum.to_decimal(),
        trip.drop.map(Ratio::to_decimal),
        trip.policy.action.as_str(),
        trip.engine.map(Engine::as_str),
        trip.actor.map(Actor::as_str),
        trip.at,
        trip.by_event,
        trip.policy.detector.as_str(),
        trip.cause,
        trip.policy.mode == Mode::Shadow,
        trip.evidence.map(|(evidence, _)| evidence),
        trip.evidence.map(|(_, began)| began)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The verdict on a trip.
#[derive(Debug)]
pub struct Acknowledgement<'a> {
    /// The verdict.
    pub verdict: TripVerdict,
    /// The person or program that acts, as the caller claims.
    pub by: Option<&'a Actor>,
    /// The time of the verdict.
    pub at: DateTime<Utc>,
}

/// Gives a verdict on a trip of a wire, the standing one or the given one. Returns its id, whether it stands, and the
/// earlier verdict.
pub async fn acknowledge_trip(
    conn: &mut PgConnection,
    domain: &Domain,
    metric: &Metric,
    trip_id: Option<i64>,
    said: &Acknowledgement<'_>,
) -> Result<Option<(i64, bool)>> {
    let row = sqlx::query!(
        r#"UPDATE regression_trip
           SET acknowledged_at = $4, acknowledged_by = $5, verdict = $6
           WHERE domain = $1 AND metric = $2 AND CASE WHEN $3::bigint IS NULL THEN rearmed_at IS NULL ELSE id = $3 END
           RETURNING id, rearmed_at IS NULL AS "stands!""#,
        domain.as_str(),
        metric.as_str(),
        trip_id,
        said.at,
        said.by.map(Actor::as_str),
        said.verdict.as_str()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.id, row.stands)))
}

/// The end of a trip.
#[derive(Debug)]
pub struct Rearmed<'a> {
    /// The effect on the baseline.
    pub baseline: Rebase,
    /// The person or program that acts, as the caller claims.
    pub by: Option<&'a Actor>,
    /// The reason, in the caller's words.
    pub reason: Option<&'a Reason>,
    /// The time of the re-arm.
    pub at: DateTime<Utc>,
}

/// Ends a trip. Returns the baseline of its judgement.
pub async fn rearm_trip(conn: &mut PgConnection, trip_id: i64, rearmed: &Rearmed<'_>) -> Result<Window> {
    let row = sqlx::query!(
        "UPDATE regression_trip
         SET rearmed_at = $2, rearmed_by = $3, rearm_reason = $4, rearm_baseline = $5
         WHERE id = $1 AND rearmed_at IS NULL
         RETURNING baseline_events, baseline_sum",
        trip_id,
        rearmed.at,
        rearmed.by.map(Actor::as_str),
        rearmed.reason.map(Reason::as_str),
        rearmed.baseline.as_str()
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| Error::Inconsistent(format!("trip {trip_id} does not stand")))?;
    Ok(Window { events: row.baseline_events, sum: total(row.baseline_sum)? })
}

/// A trip that a measurement caused.
#[derive(Debug, Clone)]
pub struct Caused {
    /// The id of the trip.
    pub id: i64,
    /// The effect of the trip.
    pub action: Action,
    /// The throttled engine; none for a kill switch.
    pub engine: Option<Engine>,
    /// The drop that tripped.
    pub drop: Option<Ratio>,
    /// Whether the trip was in SHADOW mode.
    pub shadow: bool,
}

/// The trips that these measurements caused, by measurement.
pub async fn find_trips(conn: &mut PgConnection, kpi_seqs: &[i64]) -> Result<BTreeMap<i64, Caused>> {
    let rows = sqlx::query!(
        "SELECT kpi_seq,
                id,
                action,
                engine,
                drop_fraction,
                shadow
         FROM regression_trip
         WHERE kpi_seq = ANY($1) AND by_event",
        kpi_seqs
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let action = Action::of(&row.action).ok_or_else(|| broken("action", &row.action))?;
            let engine = row.engine.map(|name| name.parse().map_err(|_| broken("engine", &name))).transpose()?;
            let caused = Caused { id: row.id, action, engine, drop: ratio(row.drop_fraction)?, shadow: row.shadow };
            Ok((row.kpi_seq, caused))
        })
        .collect()
}

/// A trip as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct TripRecord {
    /// The trip's id: the sequence number of its control event.
    pub id: i64,
    /// The wire's domain.
    pub domain: String,
    /// The wire's metric.
    pub metric: String,
    /// The measurement that tripped it, in the KPI stream.
    pub kpi_seq: i64,
    /// The number of events of the series at the trip.
    pub series_seq: i64,
    /// The number of events in the baseline.
    pub baseline_events: i64,
    /// The sum of the baseline's events.
    pub baseline_sum: Total,
    /// The number of events in the recent window.
    pub current_events: i64,
    /// The sum of the recent window's events.
    pub current_sum: Total,
    /// The drop that tripped; null if the series went silent.
    pub drop_fraction: Option<Ratio>,
    /// The detector that found it.
    pub detector: String,
    /// DROP, or STALE if the series had gone silent.
    pub cause: String,
    /// Whether the trip was in SHADOW mode, so that nothing was done.
    pub shadow: bool,
    /// SEQUENTIAL: the evidence at the trip.
    pub evidence: Option<f64>,
    /// SEQUENTIAL: the event of the series at which the change is estimated to have begun.
    pub began_at_event: Option<i64>,
    /// The effect of the trip, or the one that it would have had.
    pub action: String,
    /// The throttled engine, or the one that it would have throttled.
    pub engine: Option<String>,
    /// The actor of the measurement, as claimed.
    pub actor: Option<String>,
    /// The time of the trip.
    pub tripped_at: DateTime<Utc>,
    /// The time of the verdict; null before it.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// The actor of the verdict, as claimed.
    pub acknowledged_by: Option<String>,
    /// The verdict: `TRUE_REGRESSION`, `FALSE_ALARM` or `EXPECTED_CHANGE`.
    pub verdict: Option<String>,
    /// The time of the re-arm; null while the trip stands.
    pub rearmed_at: Option<DateTime<Utc>>,
    /// The actor of the re-arm, as claimed.
    pub rearmed_by: Option<String>,
    /// The reason of the re-arm, in the caller's words.
    pub rearm_reason: Option<String>,
    /// The effect on the baseline: KEEP, `RESET_LAST_N` or `RESET_NEXT_N`.
    pub rearm_baseline: Option<String>,
}

/// Lists trips before `before`, newest first; since a time and of a pair, if they are given.
pub async fn trips(
    conn: &mut PgConnection,
    domain: Option<&str>,
    metric: Option<&str>,
    since: Option<DateTime<Utc>>,
    portion: Portion,
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
                detector,
                cause,
                shadow,
                evidence,
                began_at_event,
                action,
                engine,
                actor,
                tripped_at,
                acknowledged_at,
                acknowledged_by,
                verdict,
                rearmed_at,
                rearmed_by,
                rearm_reason,
                rearm_baseline
         FROM regression_trip
         WHERE ($1::text IS NULL OR domain = $1)
           AND ($2::text IS NULL OR metric = $2)
           AND ($3::timestamptz IS NULL OR tripped_at >= $3 OR rearmed_at >= $3 OR rearmed_at IS NULL)
           AND id < $4
         ORDER BY id DESC
         LIMIT $5",
        domain,
        metric,
        since,
        portion.before,
        portion.limit
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
                drop_fraction: ratio(row.drop_fraction)?,
                detector: row.detector,
                cause: row.cause,
                shadow: row.shadow,
                evidence: row.evidence,
                began_at_event: row.began_at_event,
                action: row.action,
                engine: row.engine,
                actor: row.actor,
                tripped_at: row.tripped_at,
                acknowledged_at: row.acknowledged_at,
                acknowledged_by: row.acknowledged_by,
                verdict: row.verdict,
                rearmed_at: row.rearmed_at,
                rearmed_by: row.rearmed_by,
                rearm_reason: row.rearm_reason,
                rearm_baseline: row.rearm_baseline,
            })
        })
        .collect()
}
