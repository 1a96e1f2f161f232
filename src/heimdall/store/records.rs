//! The SQL of the reads for reports and lists.

use super::{confidence, domain, model_version};
use crate::db::archived::{self, Segment};
use crate::error::Result;
use crate::heimdall::model::GateCheck;
use crate::types::{Confidence, Domain, HeimdallAction, ModelVersion, Portion, Stream};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A recommendation as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecommendationRecord {
    /// The id: the sequence number of its event.
    pub id: i64,
    /// Its domain.
    pub domain: Domain,
    /// The confidence that the model stated.
    pub confidence: Confidence,
    /// The version of the model that made it; null if unknown.
    pub model_version: Option<ModelVersion>,
    /// Whether it was eligible at creation. A use is checked again.
    pub prod_eligible: bool,
    /// The first check that failed at creation, or `gate_pass`.
    pub gate_reason: String,
    /// Every check of the verdict; null if it was erased, or is older than the keeping of checks.
    #[schema(value_type = Option<Vec<GateCheck>>)]
    pub gate_checks: Option<Box<RawValue>>,
    /// The time at which it expires; null for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it may be used only once.
    pub single_use: bool,
    /// The time of its first use; null before it.
    pub used_at: Option<DateTime<Utc>>,
    /// The time of its revocation; null if it is not revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// The actor of the revocation, as claimed.
    pub revoked_by: Option<String>,
    /// The reason of the revocation, in the caller's words.
    pub revoke_reason: Option<String>,
    /// Whether the database has the event that made it.
    #[serde(skip)]
    is_made_here: bool,
    /// The event of its first use; null before it.
    #[serde(skip)]
    pub used_seq: Option<i64>,
    /// The event of its revocation; null if it is not revoked.
    #[serde(skip)]
    pub revoked_seq: Option<i64>,
    /// The recommendation itself; null if none was sent, or it was erased.
    #[schema(value_type = Option<Object>)]
    pub recommendation: Option<Box<RawValue>>,
    /// The evidence for it; null if none was sent, or it was erased.
    #[schema(value_type = Option<Object>)]
    pub evidence: Option<Box<RawValue>>,
    /// The policy of the verdict.
    #[schema(value_type = Option<Object>)]
    pub policy_snapshot: Option<Box<RawValue>>,
    /// The scorecard of the verdict.
    #[schema(value_type = Option<Object>)]
    pub scorecard_snapshot: Option<Box<RawValue>>,
    /// The actor of the recommendation, as the caller claimed.
    pub actor: Option<String>,
    /// The caller's id for everything that belongs to one undertaking.
    pub correlation_id: Option<String>,
    /// The time of the verdict.
    pub created_at: DateTime<Utc>,
}

/// The recommendations to list; a filter of none admits all.
#[derive(Debug, Default)]
pub struct RecommendationFilter<'a> {
    /// Only this domain.
    pub domain: Option<&'a str>,
    /// Only those that were eligible at creation, or only those that were not.
    pub prod_eligible: Option<bool>,
    /// Only this id.
    pub id: Option<i64>,
}

/// Recommendations, newest first.
pub async fn recommendations(
    conn: &mut PgConnection,
    filter: &RecommendationFilter<'_>,
    portion: Portion,
) -> Result<Vec<RecommendationRecord>> {
    let rows = sqlx::query!(
        r#"SELECT verdict.id,
                verdict.domain,
                verdict.confidence,
                verdict.model_version,
                verdict.prod_eligible,
                verdict.gate_reason,
                made.seq IS NOT NULL AS "is_made_here!",
                -- As it was written: json keeps the text, jsonb would not.
                (made.detail::json -> 'checks')::text AS gate_checks,
                verdict.expires_at,
                verdict.single_use,
                verdict.used_seq,
                used.at          AS "used_at?",
                verdict.revoked_seq,
                revoked.at       AS "revoked_at?",
                revoked.actor    AS "revoked_by?",
                revoked.reason   AS "revoke_reason?",
                made.recommendation,
                made.evidence,
                verdict.policy_snapshot,
                verdict.scorecard_snapshot,
                made.actor,
                made.correlation_id,
                verdict.created_at
         FROM heimdall_recommendation AS verdict
         -- The bounds leave out the partitions of other times: each event comes after the one before it.
         LEFT JOIN heimdall_event AS made ON made.seq = verdict.id AND made.seq >= $5 AND made.seq < $4
         LEFT JOIN heimdall_event AS used ON used.seq = verdict.used_seq AND used.seq >= $5
         LEFT JOIN heimdall_event AS revoked ON revoked.seq = verdict.revoked_seq AND revoked.seq >= $5
         WHERE ($1::text IS NULL OR verdict.domain = $1)
           AND ($2::boolean IS NULL OR verdict.prod_eligible = $2)
           AND ($3::bigint IS NULL AND made.seq IS NOT NULL OR verdict.id = $3)
           AND verdict.id < $4
           AND verdict.id >= $5
         ORDER BY verdict.id DESC
         LIMIT $6"#,
        filter.domain,
        filter.prod_eligible,
        filter.id,
        portion.before,
        portion.first,
        portion.limit
    )
    .fetch_all(conn)
    .await?;
    let json = |text: Option<String>| text.map(crate::db::stored_json).transpose();
    rows.into_iter()
        .map(|row| {
            Ok(RecommendationRecord {
                id: row.id,
                domain: domain(&row.domain)?,
                confidence: confidence(row.confidence)?,
                model_version: row.model_version.as_deref().map(model_version).transpose()?,
                prod_eligible: row.prod_eligible,
                gate_reason: row.gate_reason,
                gate_checks: json(row.gate_checks)?,
                expires_at: row.expires_at,
                single_use: row.single_use,
                used_at: row.used_at,
                revoked_at: row.revoked_at,
                revoked_by: row.revoked_by,
                revoke_reason: row.revoke_reason,
                is_made_here: row.is_made_here,
                used_seq: row.used_seq,
                revoked_seq: row.revoked_seq,
                recommendation: json(row.recommendation)?,
                evidence: json(row.evidence)?,
                policy_snapshot: json(row.policy_snapshot)?,
                scorecard_snapshot: json(row.scorecard_snapshot)?,
                actor: row.actor,
                correlation_id: row.correlation_id,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// One recommendation, and the segment that has an event of it, if the database does not: the record lacks what only that
/// event says, and has everything that a decision needs.
pub async fn read_recommendation(
    conn: &mut PgConnection,
    id: i64,
) -> Result<Option<(RecommendationRecord, Option<Segment>)>> {
    let filter = RecommendationFilter { id: Some(id), ..RecommendationFilter::default() };
    let Some(found) = recommendations(&mut *conn, &filter, Portion::last(1)).await?.pop() else { return Ok(None) };
    let Some(lacking) = found.lacking() else { return Ok(Some((found, None))) };
    let segment = archived::file_of(conn, Stream::Heimdall, lacking).await?;
    // One whose event is lost counts for nothing.
    Ok((segment.is_some() || lacking != id).then_some((found, segment)))
}

impl RecommendationRecord {
    /// The first of its events that the database does not have.
    fn lacking(&self) -> Option<i64> {
        let made = (!self.is_made_here).then_some(self.id);
        let used = self.used_seq.filter(|_| self.used_at.is_none());
        made.or(used).or(self.revoked_seq.filter(|_| self.revoked_at.is_none()))
    }
}

/// An event of the charter as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeimdallEventRecord {
    /// The event's sequence number in the heimdall stream.
    pub seq: i64,
    /// The domain.
    pub domain: String,
    /// `TRIAL`, `RECOMMEND`, `REQUIRE` or `REVOKE`.
    pub action: String,
    /// Whether the action was done or allowed.
    pub ok: bool,
    /// The stated confidence, for a trial and a recommendation.
    pub confidence: Option<Confidence>,
    /// Whether the model was right, for a trial.
    pub success: Option<bool>,
    /// The id of the recommendation, for a use and a revocation.
    pub recommendation_id: Option<i64>,
    /// The verdict, for a recommendation and a use.
    pub gate_reason: Option<String>,
    /// The model version, for a trial and a recommendation.
    pub model_version: Option<String>,
    /// Every check for a recommendation; the deciding facts for a use.
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Box<RawValue>>,
    /// The reason, in the caller's words.
    pub reason: Option<String>,
    /// The authenticated caller.
    pub principal: String,
    /// The actor, as the caller claimed.
    pub actor: Option<String>,
    /// The request that caused the event.
    pub request_id: Option<String>,
    /// The caller's id for everything that belongs to one undertaking.
    pub correlation_id: Option<String>,
    /// The time of the event.
    pub created_at: DateTime<Utc>,
    /// The event's hash, lower-case hex.
    pub hash: String,
}

/// Lists events, newest first.
pub async fn events(
    conn: &mut PgConnection,
    domain: Option<&str>,
    action: Option<HeimdallAction>,
    portion: Portion,
) -> Result<Vec<HeimdallEventRecord>> {
    let rows = sqlx::query!(
        r#"SELECT seq,
                  domain,
                  action,
                  ok,
                  confidence,
                  success,
                  recommendation_id,
                  gate_reason,
                  model_version,
                  detail,
                  reason,
                  principal,
                  actor,
                  request_id,
                  correlation_id,
                  at,
                  encode(hash, 'hex') AS "hash!"
           FROM heimdall_event
           WHERE ($1::text IS NULL OR domain = $1)
             AND ($2::text IS NULL OR action = $2)
             AND seq < $3
             AND seq >= $4
           ORDER BY seq DESC
           LIMIT $5"#,
        domain,
        action.map(HeimdallAction::as_str),
        portion.before,
        portion.first,
        portion.limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(HeimdallEventRecord {
                seq: row.seq,
                domain: row.domain,
                action: row.action,
                ok: row.ok,
                confidence: row.confidence.map(confidence).transpose()?,
                success: row.success,
                recommendation_id: row.recommendation_id,
                gate_reason: row.gate_reason,
                model_version: row.model_version,
                detail: row.detail.map(crate::db::stored_json).transpose()?,
                reason: row.reason,
                principal: row.principal,
                actor: row.actor,
                request_id: row.request_id,
                correlation_id: row.correlation_id,
                created_at: row.at,
                hash: row.hash,
            })
        })
        .collect()
}
