//! The SQL of the charter. Policies, scorecards and lists have files of their own.

mod policies;
mod records;
mod scorecards;

pub use policies::{count_policies, read_policies, read_policy, upsert_policy};
pub use records::{
    HeimdallEventRecord, RecommendationFilter, RecommendationRecord, events, read_recommendation, recommendations,
};
pub use scorecards::{
    Trial, count_trial, domains_of, domains_tried, is_known, read_tallies, read_tally, scorecards_of, scorecards_today,
    trials_of, trials_since,
};

use super::model::{GateReason, HeimdallEvent};
use crate::audit::{Origin, Stamp};
use crate::error::{Error, Result};
use crate::types::{
    Actor, Confidence, CorrelationId, Count, Domain, Engine, Fraction, JsonObject, ModelVersion, Reason, RequestId,
};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

fn fraction(decimal: Decimal) -> Result<Fraction> {
    Fraction::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not a fraction")))
}

fn confidence(decimal: Decimal) -> Result<Confidence> {
    Confidence::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not a confidence")))
}

fn count(number: i64) -> Result<Count> {
    Count::from_decimal(number.into()).ok_or_else(|| Error::Inconsistent(format!("{number} is not a count")))
}

fn domain(name: &str) -> Result<Domain> {
    name.parse().map_err(|_| Error::Inconsistent(format!("{name} is not a domain")))
}

fn engine(name: &str) -> Result<Engine> {
    name.parse().map_err(|_| Error::Inconsistent(format!("{name} is not an engine")))
}

fn model_version(text: &str) -> Result<ModelVersion> {
    text.parse().map_err(|_| Error::Inconsistent(format!("{text} is not a model version")))
}

/// Appends an event to the stream. The caller has sealed it.
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
              gate_reason, model_version, reason, recommendation, evidence, detail, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
        stamp.seq,
        stamp.at,
        origin.principal.as_str(),
        origin.actor.as_ref().map(Actor::as_str),
        origin.request_id.as_ref().map(RequestId::as_str),
        origin.correlation_id.as_ref().map(CorrelationId::as_str),
        event.domain.as_str(),
        event.action.as_str(),
        event.ok,
        event.confidence.map(Confidence::to_decimal),
        event.success,
        event.recommendation_id,
        event.gate_reason.map(GateReason::as_str),
        event.model_version.as_ref().map(ModelVersion::as_str),
        event.reason.as_ref().map(Reason::as_str),
        event.recommendation.as_ref().map(JsonObject::as_str),
        event.evidence.as_ref().map(JsonObject::as_str),
        event.detail,
        hash
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A verdict to insert.
#[derive(Debug)]
pub struct NewRecommendation<'a> {
    /// The sequence number of its event.
    pub id: i64,
    /// Its domain.
    pub domain: &'a Domain,
    /// The confidence that the model stated.
    pub confidence: Confidence,
    /// The version of the model that made it.
    pub model_version: Option<&'a ModelVersion>,
    /// The verdict of the gate.
    pub gate_reason: GateReason,
    /// The policy of the verdict, as JSON.
    pub policy_snapshot: Option<String>,
    /// The scorecard of the verdict, as JSON.
    pub scorecard_snapshot: String,
    /// The time at which it expires; none for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it may be used only once.
    pub single_use: bool,
    /// The time of the verdict.
    pub created_at: DateTime<Utc>,
}

/// Inserts a verdict.
pub async fn insert_recommendation(conn: &mut PgConnection, new: &NewRecommendation<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO heimdall_recommendation
             (id, domain, confidence, model_version, prod_eligible, gate_reason, policy_snapshot, scorecard_snapshot, expires_at,
              single_use, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        new.id,
        new.domain.as_str(),
        new.confidence.to_decimal(),
        new.model_version.map(ModelVersion::as_str),
        new.gate_reason.passes(),
        new.gate_reason.as_str(),
        new.policy_snapshot,
        new.scorecard_snapshot,
        new.expires_at,
        new.single_use,
        new.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records the first use of a recommendation. The caller holds the heimdall head and has seen that there was none.
pub async fn note_first_use(conn: &mut PgConnection, id: i64, seq: i64) -> Result<()> {
    let noted = sqlx::query!(
        "UPDATE heimdall_recommendation
         SET used_seq = $2
         WHERE id = $1 AND used_seq IS NULL",
        id,
        seq
    )
    .execute(conn)
    .await?;
    one_row(noted.rows_affected(), id)
}

/// Records the revocation of a recommendation. The caller holds the heimdall head and has seen that there was none.
pub async fn note_revocation(conn: &mut PgConnection, id: i64, seq: i64) -> Result<()> {
    let noted = sqlx::query!(
        "UPDATE heimdall_recommendation
         SET revoked_seq = $2
         WHERE id = $1 AND revoked_seq IS NULL",
        id,
        seq
    )
    .execute(conn)
    .await?;
    one_row(noted.rows_affected(), id)
}

fn one_row(affected: u64, id: i64) -> Result<()> {
    if affected == 1 { Ok(()) } else { Err(Error::Inconsistent(format!("recommendation {id} is not as it was read"))) }
}

/// Whether a domain has ever had a trial or a recommendation. Their rows stay when their events are archived.
pub async fn was_used(conn: &mut PgConnection, domain: &Domain) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM heimdall_scorecard_day WHERE domain = $1)
               OR EXISTS (SELECT FROM heimdall_recommendation WHERE domain = $1) AS "used!""#,
        domain.as_str()
    )
    .fetch_one(conn)
    .await?)
}

/// Removes a policy.
pub async fn remove_policy(conn: &mut PgConnection, domain: &Domain) -> Result<()> {
    let removed = sqlx::query!("DELETE FROM heimdall_policy WHERE domain = $1", domain.as_str()).execute(conn).await?;
    let missing = || Error::Inconsistent(format!("the policy of {domain} was removed meanwhile"));
    if removed.rows_affected() == 1 { Ok(()) } else { Err(missing()) }
}
