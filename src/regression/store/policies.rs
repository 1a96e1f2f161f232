//! The SQL of the settings of wires.

use super::{Pair, broken, columns};
use crate::error::{Error, Result};
use crate::regression::model::{Action, Detector, Direction, Effect, Mode, OnStale, RegressionPolicy};
use crate::types::{Amount, Count, Domain, Engine, Fraction, Metric};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

fn count(number: i64) -> Result<Count> {
    Count::from_decimal(number.into()).ok_or_else(|| broken("count", number))
}

fn fraction(number: Decimal) -> Result<Fraction> {
    Fraction::from_decimal(number).ok_or_else(|| broken("fraction", number))
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
    detector: String,
    direction: String,
    effect: String,
    max_drop_value: Option<Decimal>,
    mode: String,
    on_stale: String,
    stale_after_seconds: Option<i64>,
    false_trip_arl: Option<i64>,
    tolerance_fraction: Option<Decimal>,
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
            domain: row.domain.parse().map_err(|_| broken("domain", &row.domain))?,
            metric: row.metric.parse().map_err(|_| broken("metric", &row.metric))?,
            window_events: count(row.window_events)?,
            baseline_events: count(row.baseline_events)?,
            min_events_to_enforce: count(row.min_events_to_enforce)?,
            max_drop_fraction: fraction(row.max_drop_fraction)?,
            action: Action::of(&row.action).ok_or_else(|| broken("action", &row.action))?,
            engine: row.engine.map(|name| name.parse().map_err(|_| broken("engine", &name))).transpose()?,
            detector: Detector::of(&row.detector).ok_or_else(|| broken("detector", &row.detector))?,
            direction: Direction::of(&row.direction).ok_or_else(|| broken("direction", &row.direction))?,
            effect: Effect::of(&row.effect).ok_or_else(|| broken("effect", &row.effect))?,
            max_drop_value: row
                .max_drop_value
                .map(|value| Amount::from_decimal(value).ok_or_else(|| broken("value", value)))
                .transpose()?,
            mode: Mode::of(&row.mode).ok_or_else(|| broken("mode", &row.mode))?,
            on_stale: OnStale::of(&row.on_stale).ok_or_else(|| broken("meaning of silence", &row.on_stale))?,
            stale_after_seconds: row.stale_after_seconds.map(count).transpose()?,
            false_trip_arl: row.false_trip_arl.map(count).transpose()?,
            tolerance_fraction: row.tolerance_fraction.map(fraction).transpose()?,
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
    Ok(read_policies_of(conn, &[(domain.clone(), metric.clone())]).await?.pop())
}

/// The wires of these pairs, by domain and metric.
pub async fn read_policies_of(conn: &mut PgConnection, pairs: &[Pair]) -> Result<Vec<RegressionPolicy>> {
    policies(conn, Some(pairs)).await
}

async fn policies(conn: &mut PgConnection, pairs: Option<&[Pair]>) -> Result<Vec<RegressionPolicy>> {
    let (domains, metrics) = columns(pairs);
    sqlx::query_as!(
        PolicyRow,
        r#"SELECT domain,
                metric,
                window_events,
                baseline_events,
                min_events_to_enforce,
                max_drop_fraction,
                action,
                engine,
                detector,
                direction,
                effect,
                max_drop_value,
                mode,
                on_stale,
                stale_after_seconds,
                false_trip_arl,
                tolerance_fraction,
                enabled,
                changed_by,
                reason,
                updated_at,
                version
         FROM regression_policy
         WHERE ($1::text[] IS NULL OR (domain, metric) IN (SELECT * FROM unnest($1::text[], $2::text[])))
         ORDER BY domain COLLATE "C", metric COLLATE "C""#,
        domains.as_deref(),
        metrics.as_deref()
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
              changed_by, reason, updated_at, version, detector, direction, effect, max_drop_value, mode, on_stale,
              stale_after_seconds, false_trip_arl, tolerance_fraction, enabled_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $12)
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
             version = excluded.version,
             detector = excluded.detector,
             direction = excluded.direction,
             effect = excluded.effect,
             max_drop_value = excluded.max_drop_value,
             mode = excluded.mode,
             on_stale = excluded.on_stale,
             stale_after_seconds = excluded.stale_after_seconds,
             false_trip_arl = excluded.false_trip_arl,
             tolerance_fraction = excluded.tolerance_fraction,
             -- Silence is counted from here: no other change moves it.
             enabled_at = CASE WHEN excluded.enabled AND NOT regression_policy.enabled THEN excluded.enabled_at
                               ELSE regression_policy.enabled_at END",
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
        policy.version,
        policy.detector.as_str(),
        policy.direction.as_str(),
        policy.effect.as_str(),
        policy.max_drop_value.map(Amount::to_decimal),
        policy.mode.as_str(),
        policy.on_stale.as_str(),
        policy.stale_after_seconds.map(Count::get),
        policy.false_trip_arl.map(Count::get),
        policy.tolerance_fraction.map(Fraction::to_decimal)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The number of wires.
pub async fn count_policies(conn: &mut PgConnection) -> Result<usize> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM regression_policy"#).fetch_one(conn).await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Removes a wire with its state, and the declared kind of its series. Returns whether there was a wire or a kind.
pub async fn remove_policy(conn: &mut PgConnection, domain: &Domain, metric: &Metric) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"WITH state AS (DELETE FROM regression_state WHERE domain = $1 AND metric = $2),
                kind AS (DELETE FROM regression_kind WHERE domain = $1 AND metric = $2 RETURNING true),
                wire AS (DELETE FROM regression_policy WHERE domain = $1 AND metric = $2 RETURNING true)
           SELECT EXISTS (SELECT FROM kind) OR EXISTS (SELECT FROM wire) AS "removed!""#,
        domain.as_str(),
        metric.as_str()
    )
    .fetch_one(conn)
    .await?)
}
