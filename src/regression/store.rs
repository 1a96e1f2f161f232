//! SQL of the tripwire.

use super::model::{
    Action, KpiEvent, Mark, Measurement, RegressionPolicy, Window, WireState, WireStatus,
};
use crate::audit::{Origin, Stamp};
use crate::error::{Error, Result};
use crate::types::{
    Actor, CorrelationId, Count, Detail, Domain, Engine, EventId, Fraction, Metric, Ratio, Reason,
    RequestId, Total, Value,
};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

fn broken(what: &str, value: impl std::fmt::Display) -> Error {
    Error::Inconsistent(format!("{value} is not a {what}"))
}

fn count(number: i64) -> Result<Count> {
    Count::from_decimal(number.into()).ok_or_else(|| broken("count", number))
}

fn total(decimal: Decimal) -> Result<Total> {
    Total::from_decimal(decimal).ok_or_else(|| broken("total", decimal))
}

fn ratio(decimal: Option<Decimal>) -> Result<Option<Ratio>> {
    decimal
        .map(|decimal| Ratio::from_decimal(decimal).ok_or_else(|| broken("ratio", decimal)))
        .transpose()
}

struct PolicyRow {
    domain: String,
    metric: String,
    window_events: i64,
    baseline_events: i64,
    min_events_to_enforce: i64,
    max_drop_fraction: Decimal,
    action: String,
    engine: Option<String>,
    enabled: bool,
    changed_by: Option<String>,
    reason: Option<String>,
    updated_at: DateTime<Utc>,
    version: i64,
}

impl TryFrom<PolicyRow> for RegressionPolicy {
    type Error = Error;

    fn try_from(row: PolicyRow) -> Result<Self> {
        Ok(Self {
            domain: row
                .domain
                .parse()
                .map_err(|_| broken("domain", &row.domain))?,
            metric: row
                .metric
                .parse()
                .map_err(|_| broken("metric", &row.metric))?,
            window_events: count(row.window_events)?,
            baseline_events: count(row.baseline_events)?,
            min_events_to_enforce: count(row.min_events_to_enforce)?,
            max_drop_fraction: Fraction::from_decimal(row.max_drop_fraction)
                .ok_or_else(|| broken("fraction", row.max_drop_fraction))?,
            action: Action::of(&row.action).ok_or_else(|| broken("action", &row.action))?,
            engine: row
                .engine
                .map(|name| name.parse().map_err(|_| broken("engine", &name)))
                .transpose()?,
            enabled: row.enabled,
            changed_by: row.changed_by,
            reason: row.reason,
            updated_at: row.updated_at,
            version: row.version,
        })
    }
}

/// All wires, by domain and metric.
pub async fn read_policies(conn: &mut PgConnection) -> Result<Vec<RegressionPolicy>> {
    policies(conn, None).await
}

/// One wire.
pub async fn read_policy(
    conn: &mut PgConnection,
    domain: &Domain,
    metric: &Metric,
) -> Result<Option<RegressionPolicy>> {
    Ok(policies(conn, Some((domain, metric))).await?.pop())
}

async fn policies(
    conn: &mut PgConnection,
    pair: Option<(&Domain, &Metric)>,
) -> Result<Vec<RegressionPolicy>> {
    sqlx::query_as!(
        PolicyRow,
        "SELECT domain,
                metric,
                window_events,
                baseline_events,
                min_events_to_enforce,
                max_drop_fraction,
                action,
                engine,
                enabled,
                changed_by,
                reason,
                updated_at,
                version
         FROM regression_policy
         WHERE ($1::text IS NULL OR (domain = $1 AND metric = $2))
         ORDER BY domain, metric",
        pair.map(|(domain, _)| domain.as_str()),
        pair.map(|(_, metric)| metric.as_str())
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(RegressionPolicy::try_from)
    .collect()
}

/// Writes a wire.
pub async fn upsert_policy(conn: &mut PgConnection, policy: &RegressionPolicy) -> Result<()> {
    sqlx::query!(
        "INSERT INTO regression_policy
             (domain, metric, window_events, baseline_events, min_events_to_enforce, max_drop_fraction, action, engine, enabled,
              changed_by, reason, updated_at, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (domain, metric) DO UPDATE
         SET window_events = excluded.window_events,
             baseline_events = excluded.baseline_events,
             min_events_to_enforce = excluded.min_events_to_enforce,
             max_drop_fraction = excluded.max_drop_fraction,
             action = excluded.action,
             engine = excluded.engine,
             enabled = excluded.enabled,
             changed_by = excluded.changed_by,
             reason = excluded.reason,
             updated_at = excluded.updated_at,
             version = excluded.version",
        policy.domain.as_str(),
        policy.metric.as_str(),
        policy.window_events.get(),
        policy.baseline_events.get(),
        policy.min_events_to_enforce.get(),
        policy.max_drop_fraction.to_decimal(),
        policy.action.as_str(),
        policy.engine.as_ref().map(Engine::as_str),
        policy.enabled,
        policy.changed_by,
        policy.reason,
        policy.updated_at,
        policy.version
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Where a series ends, and the kind of its events; nothing for a series without events.
pub async fn read_end(
    conn: &mut PgConnection,
    domain: &Domain,
    metric: &Metric,
) -> Result<Option<(Mark, &'static str)>> {
    let row = sqlx::query!(
        r#"SELECT series_seq,
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
        Ok((
            Mark {
                events: row.series_seq,
                sum: total(row.series_sum)?,
            },
            kind,
        ))
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
    let mut marks = places.map(|events| Mark {
        events,
        sum: Total::ZERO,
    });
    for mark in marks.iter_mut().filter(|mark| mark.events > 0) {
        let row = rows.iter().find(|row| row.series_seq == mark.events);
        let row = row.ok_or_else(|| {
            Error::Inconsistent(format!("{domain}.{metric} has no event {}", mark.events))
        })?;
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

/// The state of a wire; a wire that was never checked has a fresh one.
pub async fn read_state(
    conn: &mut PgConnection,
    domain: &Domain,
    metric: &Metric,
) -> Result<WireState> {
    let states = states(conn, Some((domain, metric))).await?;
    Ok(states
        .into_iter()
        .next()
        .unwrap_or_else(|| WireState::new(domain.clone(), metric.clone())))
}

/// The states of all wires: those of every policy, and those that outlived one.
pub async fn read_states(conn: &mut PgConnection) -> Result<Vec<WireState>> {
    states(conn, None).await
}

async fn states(
    conn: &mut PgConnection,
    pair: Option<(&Domain, &Metric)>,
) -> Result<Vec<WireState>> {
    let rows = sqlx::query!(
        r#"SELECT COALESCE(policy.domain, state.domain) AS "domain!",
                  COALESCE(policy.metric, state.metric) AS "metric!",
                  policy.enabled          AS "enabled?",
                  state.triggered         AS "triggered?",
                  state.trip_id           AS "trip_id?",
                  state.baseline          AS "baseline?",
                  state.current           AS "current?",
                  state.drop_fraction     AS "drop_fraction?",
                  state.note              AS "note?",
                  state.last_checked_at   AS "last_checked_at?",
                  state.last_triggered_at AS "last_triggered_at?",
                  state.watermark         AS "watermark?",
                  state.pinned_events     AS "pinned_events?",
                  state.pinned_sum        AS "pinned_sum?"
           FROM regression_policy AS policy
           FULL JOIN regression_state AS state ON state.domain = policy.domain AND state.metric = policy.metric
           WHERE ($1::text IS NULL OR (COALESCE(policy.domain, state.domain) = $1 AND COALESCE(policy.metric, state.metric) = $2))
           ORDER BY 1, 2"#,
        pair.map(|(domain, _)| domain.as_str()),
        pair.map(|(_, metric)| metric.as_str())
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let domain = row
                .domain
                .parse()
                .map_err(|_| broken("domain", &row.domain))?;
            let metric = row
                .metric
                .parse()
                .map_err(|_| broken("metric", &row.metric))?;
            let mut state = WireState::new(domain, metric);
            let enabled = row.enabled.unwrap_or(false);
            state.triggered = row.triggered.unwrap_or(false);
            state.trip_id = row.trip_id;
            state.baseline = ratio(row.baseline)?;
            state.current = ratio(row.current)?;
            state.drop_fraction = ratio(row.drop_fraction)?;
            state.last_checked_at = row.last_checked_at;
            state.last_triggered_at = row.last_triggered_at;
            state.watermark = row.watermark.unwrap_or(0);
            state.pinned = match (row.pinned_events, row.pinned_sum) {
                (Some(events), Some(sum)) => Some(Window {
                    events,
                    sum: total(sum)?,
                }),
                _ => None,
            };
            // A wire that is off says so, whatever its last check found; a latch outlives even that.
            state.note = match row.note {
                Some(note) if state.triggered || enabled => note,
                None if enabled => "insufficient_events(recent=0, baseline=0)".into(),
                _ => state.note,
            };
            state.status = match (state.triggered, enabled) {
                (true, _) => WireStatus::Tripped,
                (false, false) => WireStatus::Disabled,
                (false, true) if state.note.starts_with("insufficient") => WireStatus::Warmup,
                (false, true) => WireStatus::Armed,
            };
            Ok(state)
        })
        .collect()
}

/// Writes the state of a wire.
pub async fn write_state(
    conn: &mut PgConnection,
    state: &WireState,
    checked_at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO regression_state
             (domain, metric, triggered, trip_id, baseline, current, drop_fraction, note, last_checked_at, last_triggered_at,
              watermark, pinned_events, pinned_sum)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (domain, metric) DO UPDATE
         SET triggered = excluded.triggered,
             trip_id = excluded.trip_id,
             baseline = excluded.baseline,
             current = excluded.current,
             drop_fraction = excluded.drop_fraction,
             note = excluded.note,
             last_checked_at = excluded.last_checked_at,
             last_triggered_at = excluded.last_triggered_at,
             watermark = excluded.watermark,
             pinned_events = excluded.pinned_events,
             pinned_sum = excluded.pinned_sum",
        state.domain.as_str(),
        state.metric.as_str(),
        state.triggered,
        state.trip_id,
        state.baseline.map(Ratio::to_decimal),
        state.current.map(Ratio::to_decimal),
        state.drop_fraction.map(Ratio::to_decimal),
        state.note,
        checked_at,
        state.last_triggered_at,
        state.watermark,
        state.pinned.map(|pinned| pinned.events),
        state.pinned.map(|pinned| pinned.sum.to_decimal())
    )
    .execute(conn)
    .await?;
    Ok(())
}

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
}

/// Records a trip.
pub async fn insert_trip(conn: &mut PgConnection, trip: &NewTrip<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO regression_trip
             (id, domain, metric, kpi_seq, series_seq, baseline_events, baseline_sum, current_events, current_sum, drop_fraction,
              action, engine, actor, tripped_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
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
        trip.at
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
    Ok(Window {
        events: row.baseline_events,
        sum: total(row.baseline_sum)?,
    })
}

/// Standing trips, as `DOMAIN.metric`.
pub async fn standing_trips(conn: &mut PgConnection) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT domain || '.' || metric AS "wire!" FROM regression_trip WHERE rearmed_at IS NULL ORDER BY 1"#
    )
    .fetch_all(conn)
    .await?)
}

/// Every watched wire and whether it stands tripped, for the metrics.
pub async fn read_wires(conn: &mut PgConnection) -> Result<Vec<(String, bool)>> {
    let rows = sqlx::query!(
        r#"SELECT policy.domain || '.' || policy.metric AS "wire!",
                  COALESCE(state.triggered, false)      AS "triggered!"
           FROM regression_policy AS policy
           LEFT JOIN regression_state AS state USING (domain, metric)
           ORDER BY 1"#
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.wire, row.triggered))
        .collect())
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
           AND ($3::timestamptz IS NULL OR tripped_at >= $3 OR rearmed_at >= $3)
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
    pub value: Option<Value>,
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
                at
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
                    .map(|value| Value::from_decimal(value).ok_or_else(|| broken("value", value)))
                    .transpose()?,
                event_id: row.event_id,
                actor: row.actor,
                correlation_id: row.correlation_id,
                detail: row.detail,
                created_at: row.at,
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
                Measurement::Value(
                    Value::from_decimal(value).ok_or_else(|| broken("value", value))?,
                )
            }
        };
        Ok((row.seq, measurement, row.detail))
    })
    .transpose()
}
