//! The SQL of the states of wires.

use super::{Pair, broken, columns, ratio, read_policies, read_policies_of, total};
use crate::error::{Error, Result};
use crate::regression::detector::Evidence;
use crate::regression::model::{Action, FrozenSpan, Mark, RegressionPolicy, Verdict, Window, WireState};
use crate::types::{Domain, Metric, Ratio, Total};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// The state of a wire; a fresh one if it was never checked.
pub async fn read_state(conn: &mut PgConnection, domain: &Domain, metric: &Metric) -> Result<WireState> {
    let states = read_states_of(conn, &[(domain.clone(), metric.clone())]).await?;
    Ok(states.into_iter().next().unwrap_or_else(|| WireState::new(domain.clone(), metric.clone())))
}

/// The states of all wires: of every policy, and those that outlived their policy.
pub async fn read_states(conn: &mut PgConnection) -> Result<Vec<WireState>> {
    let policies = read_policies(&mut *conn).await?;
    states(conn, None, &policies).await
}

/// The states of those of these wires that have a policy or were ever checked.
pub async fn read_states_of(conn: &mut PgConnection, pairs: &[Pair]) -> Result<Vec<WireState>> {
    let policies = read_policies_of(&mut *conn, pairs).await?;
    states(conn, Some(pairs), &policies).await
}

#[expect(clippy::too_many_lines, reason = "one statement, one line a column")]
async fn states(
    conn: &mut PgConnection,
    pairs: Option<&[Pair]>,
    policies: &[RegressionPolicy],
) -> Result<Vec<WireState>> {
    let (domains, metrics) = columns(pairs);
    let rows = sqlx::query!(
        "SELECT domain,
                metric,
                triggered,
                acknowledged,
                trip_id,
                baseline,
                current,
                drop_fraction,
                baseline_events,
                current_events,
                note,
                last_checked_at,
                last_triggered_at,
                watermark,
                pinned_events,
                pinned_sum,
                baseline_version,
                frozen_after,
                frozen_events,
                frozen_sum,
                evidence_after,
                bet_1, bet_2, bet_3,
                began_events_1, began_events_2, began_events_3,
                began_sum_1, began_sum_2, began_sum_3,
                tally_events,
                tally_sum
         FROM regression_state
         WHERE ($1::text[] IS NULL OR (domain, metric) IN (SELECT * FROM unnest($1::text[], $2::text[])))",
        domains.as_deref(),
        metrics.as_deref()
    )
    .fetch_all(conn)
    .await?;
    let fresh = policies.iter().map(|policy| (policy.domain.clone(), policy.metric.clone()));
    let mut states: BTreeMap<Pair, WireState> =
        fresh.map(|pair| (pair.clone(), WireState::new(pair.0, pair.1))).collect();
    for row in rows {
        let domain: Domain = row.domain.parse().map_err(|_| broken("domain", &row.domain))?;
        let metric: Metric = row.metric.parse().map_err(|_| broken("metric", &row.metric))?;
        let mark = |events, sum| Ok::<_, Error>(Mark { events, sum: total(sum)? });
        let state = WireState {
            triggered: row.triggered,
            acknowledged: row.acknowledged,
            trip_id: row.trip_id,
            baseline: ratio(row.baseline)?,
            current: ratio(row.current)?,
            drop_fraction: ratio(row.drop_fraction)?,
            baseline_events: row.baseline_events,
            current_events: row.current_events,
            note: row.note,
            last_checked_at: Some(row.last_checked_at),
            last_triggered_at: row.last_triggered_at,
            watermark: row.watermark,
            baseline_version: row.baseline_version,
            pinned: match (row.pinned_events, row.pinned_sum) {
                (Some(events), Some(sum)) => Some(Window { events, sum: total(sum)? }),
                _ => None,
            },
            frozen: match (row.frozen_after, row.frozen_events) {
                (Some(after), Some(events)) => {
                    Some(FrozenSpan { after, events, sum: row.frozen_sum.map(total).transpose()? })
                }
                _ => None,
            },
            evidence_after: row.evidence_after,
            bets: Evidence {
                e: [row.bet_1, row.bet_2, row.bet_3],
                began: [
                    mark(row.began_events_1, row.began_sum_1)?,
                    mark(row.began_events_2, row.began_sum_2)?,
                    mark(row.began_events_3, row.began_sum_3)?,
                ],
                now: mark(row.tally_events, row.tally_sum)?,
            },
            ..WireState::new(domain.clone(), metric.clone())
        };
        states.insert((domain, metric), state);
    }
    for (pair, state) in &mut states {
        let policy = policies.iter().find(|policy| (&policy.domain, &policy.metric) == (&pair.0, &pair.1));
        // A disabled wire has the status of that, whatever its last check found; only a latch outlives it.
        if policy.is_none_or(|policy| !policy.enabled) && state.trip_id.is_none() {
            state.note = WireState::new(pair.0.clone(), pair.1.clone()).note;
        } else if state.last_checked_at.is_none() {
            state.note = Verdict::InsufficientEvents { recent: 0, baseline: 0 }.note(None, None, Action::Throttle);
        }
        let is_early = state.note.starts_with("insufficient") || state.note.starts_with("baseline_collecting");
        state.show(policy, is_early);
    }
    Ok(states.into_values().collect())
}

/// Writes the states of wires.
#[expect(clippy::too_many_lines, reason = "one statement, one line a column")]
pub async fn write_states(conn: &mut PgConnection, states: &[&WireState], checked_at: DateTime<Utc>) -> Result<()> {
    fn of<T>(states: &[&WireState], column: impl Fn(&WireState) -> T) -> Vec<T> {
        states.iter().map(|state| column(state)).collect()
    }
    let began = |at: usize| of(states, |state| state.bets.began[at].events);
    let began_sum = |at: usize| of(states, |state| state.bets.began[at].sum.to_decimal());
    let bet = |at: usize| of(states, |state| state.bets.e[at]);
    sqlx::query!(
        "INSERT INTO regression_state
             (domain, metric, triggered, acknowledged, trip_id, baseline, current, drop_fraction, baseline_events,
              current_events, note, last_checked_at, last_triggered_at, watermark, pinned_events, pinned_sum, baseline_version,
              frozen_after, frozen_events, frozen_sum, evidence_after, bet_1, bet_2, bet_3, began_events_1, began_events_2,
              began_events_3, began_sum_1, began_sum_2, began_sum_3, tally_events, tally_sum)
         SELECT s.domain, s.metric, s.triggered, s.acknowledged, s.trip_id, s.baseline, s.current, s.drop_fraction,
                s.baseline_events, s.current_events, s.note, $1, s.last_triggered_at, s.watermark, s.pinned_events, s.pinned_sum,
                s.baseline_version, s.frozen_after, s.frozen_events, s.frozen_sum, s.evidence_after, s.bet_1, s.bet_2, s.bet_3,
                s.began_events_1, s.began_events_2, s.began_events_3, s.began_sum_1, s.began_sum_2, s.began_sum_3,
                s.tally_events, s.tally_sum
         FROM unnest($2::text[], $3::text[], $4::boolean[], $5::boolean[], $6::bigint[], $7::numeric[], $8::numeric[],
                     $9::numeric[], $10::bigint[], $11::bigint[], $12::text[], $13::timestamptz[], $14::bigint[],
                     $15::bigint[], $16::numeric[], $17::bigint[], $18::bigint[], $19::bigint[], $20::numeric[],
                     $21::bigint[], $22::float8[], $23::float8[], $24::float8[], $25::bigint[], $26::bigint[], $27::bigint[],
                     $28::numeric[], $29::numeric[], $30::numeric[], $31::bigint[], $32::numeric[])
              AS s (domain, metric, triggered, acknowledged, trip_id, baseline, current, drop_fraction, baseline_events,
                    current_events, note, last_triggered_at, watermark, pinned_events, pinned_sum, baseline_version,
                    frozen_after, frozen_events, frozen_sum, evidence_after, bet_1, bet_2, bet_3, began_events_1,
                    began_events_2, began_events_3, began_sum_1, began_sum_2, began_sum_3, tally_events, tally_sum)
         ON CONFLICT (domain, metric) DO UPDATE
         SET triggered = excluded.triggered,
             acknowledged = excluded.acknowledged,
             trip_id = excluded.trip_id,
             baseline = excluded.baseline,
             current = excluded.current,
             drop_fraction = excluded.drop_fraction,
             baseline_events = excluded.baseline_events,
             current_events = excluded.current_events,
             note = excluded.note,
             last_checked_at = excluded.last_checked_at,
             last_triggered_at = excluded.last_triggered_at,
             watermark = excluded.watermark,
             pinned_events = excluded.pinned_events,
             pinned_sum = excluded.pinned_sum,
             baseline_version = excluded.baseline_version,
             frozen_after = excluded.frozen_after,
             frozen_events = excluded.frozen_events,
             frozen_sum = excluded.frozen_sum,
             evidence_after = excluded.evidence_after,
             bet_1 = excluded.bet_1,
             bet_2 = excluded.bet_2,
             bet_3 = excluded.bet_3,
             began_events_1 = excluded.began_events_1,
             began_events_2 = excluded.began_events_2,
             began_events_3 = excluded.began_events_3,
             began_sum_1 = excluded.began_sum_1,
             began_sum_2 = excluded.began_sum_2,
             began_sum_3 = excluded.began_sum_3,
             tally_events = excluded.tally_events,
             tally_sum = excluded.tally_sum",
        checked_at,
        &of(states, |state| state.domain.to_string()),
        &of(states, |state| state.metric.to_string()),
        &of(states, |state| state.triggered),
        &of(states, |state| state.acknowledged),
        &of(states, |state| state.trip_id) as &[Option<i64>],
        &of(states, |state| state.baseline.map(Ratio::to_decimal)) as &[Option<Decimal>],
        &of(states, |state| state.current.map(Ratio::to_decimal)) as &[Option<Decimal>],
        &of(states, |state| state.drop_fraction.map(Ratio::to_decimal)) as &[Option<Decimal>],
        &of(states, |state| state.baseline_events),
        &of(states, |state| state.current_events),
        &of(states, |state| state.note.clone()),
        &of(states, |state| state.last_triggered_at) as &[Option<DateTime<Utc>>],
        &of(states, |state| state.watermark),
        &of(states, |state| state.pinned.map(|pinned| pinned.events)) as &[Option<i64>],
        &of(states, |state| state.pinned.map(|pinned| pinned.sum.to_decimal())) as &[Option<Decimal>],
        &of(states, |state| state.baseline_version),
        &of(states, |state| state.frozen.map(|frozen| frozen.after)) as &[Option<i64>],
        &of(states, |state| state.frozen.map(|frozen| frozen.events)) as &[Option<i64>],
        &of(states, |state| state.frozen.and_then(|frozen| frozen.sum).map(Total::to_decimal)) as &[Option<Decimal>],
        &of(states, |state| state.evidence_after),
        &bet(0),
        &bet(1),
        &bet(2),
        &began(0),
        &began(1),
        &began(2),
        &began_sum(0),
        &began_sum(1),
        &began_sum(2),
        &of(states, |state| state.bets.now.events),
        &of(states, |state| state.bets.now.sum.to_decimal())
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Every watched wire, and whether it is tripped, for the metrics.
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
