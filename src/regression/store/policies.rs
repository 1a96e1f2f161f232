//! Wires as they are set up.

use super::broken;
use crate::error::{Error, Result};
use crate::regression::model::{Action, RegressionPolicy};
use crate::types::{Count, Domain, Engine, Fraction, Metric};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

fn count(number: i64) -> Result<Count> {
    Count::from_decimal(number.into()).ok_or_else(|| broken("count", number))
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
            domain: row.domain.parse().map_err(|_| broken("domain", &row.domain))?,
            metric: row.metric.parse().map_err(|_| broken("metric", &row.metric))?,
            window_events: count(row.window_events)?,
            baseline_events: count(row.baseline_events)?,
            min_events_to_enforce: count(row.min_events_to_enforce)?,
            max_drop_fraction: Fraction::from_decimal(row.max_drop_fraction)
                .ok_or_else(|| broken("fraction", row.max_drop_fraction))?,
            action: Action::of(&row.action).ok_or_else(|| broken("action", &row.action))?,
            engine: row.engine.map(|name| name.parse().map_err(|_| broken("engine", &name))).transpose()?,
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

async fn policies(conn: &mut PgConnection, pair: Option<(&Domain, &Metric)>) -> Result<Vec<RegressionPolicy>> {
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
                enabled,
                changed_by,
                reason,
                updated_at,
                version
         FROM regression_policy
         WHERE ($1::text IS NULL OR (domain = $1 AND metric = $2))
         ORDER BY domain COLLATE "C", metric COLLATE "C""#,
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
