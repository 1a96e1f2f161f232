//! The SQL of the charter's policies.

use super::{count, domain, engine, fraction, model_version};
use crate::error::{Error, Result};
use crate::heimdall::model::{Evidence, GateRule, HeimdallPolicy, ScorecardWindow};
use crate::types::{Domain, Engine, JsonObject, ModelVersion};
use sqlx::PgConnection;

/// All policies, by domain.
pub async fn read_policies(conn: &mut PgConnection) -> Result<Vec<HeimdallPolicy>> {
    let rows = sqlx::query!(
        r#"SELECT domain,
                min_confidence_prod,
                min_sandbox_trials,
                min_sandbox_success_rate,
                prod_use_enabled,
                engine,
                recommendation_ttl_seconds,
                single_use,
                scorecard_window,
                window_days,
                gate_rule,
                approved_model_version,
                calibration_gate,
                evidence,
                promotion,
                changed_by,
                reason,
                updated_at,
                version
         FROM heimdall_policy
         ORDER BY domain COLLATE "C""#
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let of = &row.domain;
            Ok(HeimdallPolicy {
                domain: domain(of)?,
                min_confidence_prod: fraction(row.min_confidence_prod)?,
                min_sandbox_trials: count(row.min_sandbox_trials)?,
                min_sandbox_success_rate: fraction(row.min_sandbox_success_rate)?,
                prod_use_enabled: row.prod_use_enabled,
                engine: row.engine.as_deref().map(engine).transpose()?,
                recommendation_ttl_seconds: count(row.recommendation_ttl_seconds)?,
                single_use: row.single_use,
                scorecard_window: known(ScorecardWindow::of(&row.scorecard_window), of)?,
                window_days: count(row.window_days)?,
                gate_rule: known(GateRule::of(&row.gate_rule), of)?,
                approved_model_version: row.approved_model_version.as_deref().map(model_version).transpose()?,
                calibration_gate: row.calibration_gate,
                evidence: row.evidence.map(|evidence| known(Evidence::of(&evidence), of)).transpose()?,
                promotion: row.promotion.map(|text| known(text.parse::<JsonObject>().ok(), of)).transpose()?,
                changed_by: row.changed_by,
                reason: row.reason,
                updated_at: row.updated_at,
                version: row.version,
            })
        })
        .collect()
}

fn known<T>(value: Option<T>, domain: &str) -> Result<T> {
    value.ok_or_else(|| {
        Error::Inconsistent(format!("the policy of {domain} has a value that this server does not know"))
    })
}

/// A domain's policy.
pub async fn read_policy(conn: &mut PgConnection, wanted: &Domain) -> Result<Option<HeimdallPolicy>> {
    Ok(read_policies(conn).await?.into_iter().find(|policy| policy.domain == *wanted))
}

/// Writes a policy.
pub async fn upsert_policy(conn: &mut PgConnection, policy: &HeimdallPolicy) -> Result<()> {
    sqlx::query!(
        "INSERT INTO heimdall_policy
             (domain, min_confidence_prod, min_sandbox_trials, min_sandbox_success_rate, prod_use_enabled, engine,
              recommendation_ttl_seconds, single_use, scorecard_window, window_days, gate_rule, approved_model_version,
              calibration_gate, evidence, promotion, changed_by, reason, updated_at, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
         ON CONFLICT (domain) DO UPDATE
         SET min_confidence_prod = excluded.min_confidence_prod,
             min_sandbox_trials = excluded.min_sandbox_trials,
             min_sandbox_success_rate = excluded.min_sandbox_success_rate,
             prod_use_enabled = excluded.prod_use_enabled,
             engine = excluded.engine,
             recommendation_ttl_seconds = excluded.recommendation_ttl_seconds,
             single_use = excluded.single_use,
             scorecard_window = excluded.scorecard_window,
             window_days = excluded.window_days,
             gate_rule = excluded.gate_rule,
             approved_model_version = excluded.approved_model_version,
             calibration_gate = excluded.calibration_gate,
             evidence = excluded.evidence,
             promotion = excluded.promotion,
             changed_by = excluded.changed_by,
             reason = excluded.reason,
             updated_at = excluded.updated_at,
             version = excluded.version",
        policy.domain.as_str(),
        policy.min_confidence_prod.to_decimal(),
        policy.min_sandbox_trials.get(),
        policy.min_sandbox_success_rate.to_decimal(),
        policy.prod_use_enabled,
        policy.engine.as_ref().map(Engine::as_str),
        policy.recommendation_ttl_seconds.get(),
        policy.single_use,
        policy.scorecard_window.as_str(),
        policy.window_days.get(),
        policy.gate_rule.as_str(),
        policy.approved_model_version.as_ref().map(ModelVersion::as_str),
        policy.calibration_gate,
        policy.evidence.map(Evidence::as_str),
        policy.promotion.as_ref().map(JsonObject::as_str),
        policy.changed_by,
        policy.reason,
        policy.updated_at,
        policy.version
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The number of domains with a policy.
pub async fn count_policies(conn: &mut PgConnection) -> Result<usize> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM heimdall_policy"#).fetch_one(conn).await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}
