//! What stands of each wire.

use super::{broken, ratio, total};
use crate::error::Result;
use crate::regression::model::{Window, WireState, WireStatus};
use crate::types::{Domain, Metric, Ratio};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The state of a wire; a wire that was never checked has a fresh one.
pub async fn read_state(conn: &mut PgConnection, domain: &Domain, metric: &Metric) -> Result<WireState> {
    let states = states(conn, Some((domain, metric))).await?;
    Ok(states.into_iter().next().unwrap_or_else(|| WireState::new(domain.clone(), metric.clone())))
}

/// The states of all wires: those of every policy, and those that outlived one.
pub async fn read_states(conn: &mut PgConnection) -> Result<Vec<WireState>> {
    states(conn, None).await
}

async fn states(conn: &mut PgConnection, pair: Option<(&Domain, &Metric)>) -> Result<Vec<WireState>> {
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
            let domain = row.domain.parse().map_err(|_| broken("domain", &row.domain))?;
            let metric = row.metric.parse().map_err(|_| broken("metric", &row.metric))?;
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
                (Some(events), Some(sum)) => Some(Window { events, sum: total(sum)? }),
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
pub async fn write_state(conn: &mut PgConnection, state: &WireState, checked_at: DateTime<Utc>) -> Result<()> {
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
    Ok(rows.into_iter().map(|row| (row.wire, row.triggered)).collect())
}
