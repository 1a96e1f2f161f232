//! SQL of the charter.

mod records;

pub use records::{
    HeimdallEventRecord, RecommendationFilter, RecommendationRecord, events, read_recommendation, recommendations,
};

use super::model::{HeimdallEvent, HeimdallPolicy, Scorecard, Tally};
use crate::audit::{Origin, Stamp};
use crate::error::{Error, Result};
use crate::types::{Actor, Confidence, CorrelationId, Count, Domain, Fraction, JsonObject, Reason, RequestId};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

/// Decimals of a stored confidence sum.
const CONFIDENCE_SCALE: u32 = 18;

fn fraction(decimal: Decimal) -> Result<Fraction> {
    Fraction::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not a fraction")))
}

fn confidence(decimal: Decimal) -> Result<Confidence> {
    Confidence::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not a confidence")))
}

fn domain(name: &str) -> Result<Domain> {
    name.parse().map_err(|_| Error::Inconsistent(format!("{name} is not a domain")))
}

/// All policies, by domain.
pub async fn read_policies(conn: &mut PgConnection) -> Result<Vec<HeimdallPolicy>> {
    let rows = sqlx::query!(
        r#"SELECT domain,
                min_confidence_prod,
                min_sandbox_trials,
                min_sandbox_success_rate,
                prod_use_enabled,
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
            Ok(HeimdallPolicy {
                domain: domain(&row.domain)?,
                min_confidence_prod: fraction(row.min_confidence_prod)?,
                min_sandbox_trials: Count::from_decimal(row.min_sandbox_trials.into())
                    .ok_or_else(|| Error::Inconsistent(format!("{} is not a count", row.min_sandbox_trials)))?,
                min_sandbox_success_rate: fraction(row.min_sandbox_success_rate)?,
                prod_use_enabled: row.prod_use_enabled,
                changed_by: row.changed_by,
                reason: row.reason,
                updated_at: row.updated_at,
                version: row.version,
            })
        })
        .collect()
}

/// A domain's policy.
pub async fn read_policy(conn: &mut PgConnection, wanted: &Domain) -> Result<Option<HeimdallPolicy>> {
    Ok(read_policies(conn).await?.into_iter().find(|policy| policy.domain == *wanted))
}

/// Writes a policy.
pub async fn upsert_policy(conn: &mut PgConnection, policy: &HeimdallPolicy) -> Result<()> {
    sqlx::query!(
        "INSERT INTO heimdall_policy
             (domain, min_confidence_prod, min_sandbox_trials, min_sandbox_success_rate, prod_use_enabled, changed_by, reason,
              updated_at, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (domain) DO UPDATE
         SET min_confidence_prod = excluded.min_confidence_prod,
             min_sandbox_trials = excluded.min_sandbox_trials,
             min_sandbox_success_rate = excluded.min_sandbox_success_rate,
             prod_use_enabled = excluded.prod_use_enabled,
             changed_by = excluded.changed_by,
             reason = excluded.reason,
             updated_at = excluded.updated_at,
             version = excluded.version",
        policy.domain.as_str(),
        policy.min_confidence_prod.to_decimal(),
        policy.min_sandbox_trials.get(),
        policy.min_sandbox_success_rate.to_decimal(),
        policy.prod_use_enabled,
        policy.changed_by,
        policy.reason,
        policy.updated_at,
        policy.version
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn tally(trials: Option<i64>, successes: Option<i64>, sum: Option<Decimal>) -> Result<Tally> {
    let sum = sum.unwrap_or_default().normalize();
    let shift = CONFIDENCE_SCALE.checked_sub(sum.scale());
    let confidence_sum = shift
        .and_then(|shift| sum.mantissa().checked_mul(10_i128.pow(shift)))
        .ok_or_else(|| Error::Inconsistent(format!("{sum} is not a sum of confidences")))?;
    Ok(Tally { trials: trials.unwrap_or(0), successes: successes.unwrap_or(0), confidence_sum })
}

/// A domain's tally of a day.
pub async fn read_tally(conn: &mut PgConnection, day: NaiveDate, domain: &Domain) -> Result<Tally> {
    let row = sqlx::query!(
        "SELECT trials,
                successes,
                confidence_sum
         FROM heimdall_scorecard_day
         WHERE day = $1 AND domain = $2",
        day,
        domain.as_str()
    )
    .fetch_optional(conn)
    .await?;
    row.map_or_else(
        || Ok(Tally::default()),
        |row| tally(Some(row.trials), Some(row.successes), Some(row.confidence_sum)),
    )
}

/// Writes a domain's tally of a day. The caller holds the heimdall head, so nothing was counted in between.
pub async fn write_tally(
    conn: &mut PgConnection,
    day: NaiveDate,
    domain: &Domain,
    tally: Tally,
    at: DateTime<Utc>,
) -> Result<()> {
    let sum = Decimal::try_from_i128_with_scale(tally.confidence_sum, CONFIDENCE_SCALE)
        .map_err(|_| Error::Inconsistent(format!("too many trials of {domain} in one day")))?;
    sqlx::query!(
        "INSERT INTO heimdall_scorecard_day (day, domain, trials, successes, confidence_sum, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (day, domain) DO UPDATE
         SET trials = excluded.trials,
             successes = excluded.successes,
             confidence_sum = excluded.confidence_sum,
             updated_at = excluded.updated_at",
        day,
        domain.as_str(),
        tally.trials,
        tally.successes,
        sum,
        at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Today's scorecards: one for every policy, and for every other domain that has trials.
pub async fn scorecards_today(conn: &mut PgConnection) -> Result<Vec<Scorecard>> {
    let day = sqlx::query_scalar!(r#"SELECT (holdfast_now() AT TIME ZONE 'UTC')::date AS "day!""#)
        .fetch_one(&mut *conn)
        .await?;
    let rows = sqlx::query!(
        r#"SELECT COALESCE(policy.domain, card.domain) AS "domain!",
                  card.trials         AS "trials?",
                  card.successes      AS "successes?",
                  card.confidence_sum AS "confidence_sum?",
                  card.updated_at     AS "updated_at?"
           FROM heimdall_policy AS policy
           FULL JOIN (SELECT * FROM heimdall_scorecard_day WHERE day = $1) AS card ON card.domain = policy.domain
           ORDER BY 1"#,
        day
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let tally = tally(row.trials, row.successes, row.confidence_sum)?;
            Ok(Scorecard::new(day, domain(&row.domain)?, tally, row.updated_at))
        })
        .collect()
}

/// Trials and successes of all domains since a day, for the review.
pub async fn trials_since(conn: &mut PgConnection, day: NaiveDate) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"SELECT COALESCE(sum(trials), 0)::bigint    AS "trials!",
                  COALESCE(sum(successes), 0)::bigint AS "successes!"
           FROM heimdall_scorecard_day
           WHERE day >= $1"#,
        day
    )
    .fetch_one(conn)
    .await?;
    Ok((row.trials, row.successes))
}

/// Appends an event to the stream; the caller has sealed it.
pub async fn insert_event(
    conn: &mut PgConnection,
    stamp: Stamp,
    origin: &Origin,
    event: &HeimdallEvent,
    hash: &[u8],
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO heimdall_event
             (seq, at, principal, actor, request_id, correlation_id, domain, action, ok, confidence, success, recommendation_id,
              gate_reason, reason, recommendation, evidence, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        stamp.seq,
        stamp.at,
        origin.principal.as_str(),
        origin.actor.as_ref().map(Actor::as_str),
        origin.request_id.as_ref().map(RequestId::as_str),
        origin.correlation_id.as_ref().map(CorrelationId::as_str),
        event.domain.as_str(),
        event.action,
        event.ok,
        event.confidence.map(Confidence::to_decimal),
        event.success,
        event.recommendation_id,
        event.gate_reason.map(super::model::GateReason::as_str),
        event.reason.as_ref().map(Reason::as_str),
        event.recommendation.as_ref().map(JsonObject::as_str),
        event.evidence.as_ref().map(JsonObject::as_str),
        hash
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A verdict on its way into the database.
#[derive(Debug)]
pub struct NewRecommendation<'a> {
    /// The sequence of its event.
    pub id: i64,
    /// Its domain.
    pub domain: &'a Domain,
    /// Its confidence.
    pub confidence: Confidence,
    /// The verdict.
    pub gate_reason: super::model::GateReason,
    /// The policy it was judged by, as JSON.
    pub policy_snapshot: Option<String>,
    /// The scorecard it was judged by, as JSON.
    pub scorecard_snapshot: String,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// Inserts a verdict.
pub async fn insert_recommendation(conn: &mut PgConnection, new: &NewRecommendation<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO heimdall_recommendation
             (id, domain, confidence, prod_eligible, gate_reason, policy_snapshot, scorecard_snapshot, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        new.id,
        new.domain.as_str(),
        new.confidence.to_decimal(),
        new.gate_reason.passes(),
        new.gate_reason.as_str(),
        new.policy_snapshot,
        new.scorecard_snapshot,
        new.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}
