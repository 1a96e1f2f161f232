//! The reads of reports and lists.

use super::{confidence, domain, model_version};
use crate::error::Result;
use crate::heimdall::model::GateCheck;
use crate::types::{Confidence, Domain, ModelVersion};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A recommendation as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecommendationRecord {
    /// Its id: the sequence of its event.
    pub id: i64,
    /// Its domain.
    pub domain: Domain,
    /// Its stated confidence.
    pub confidence: Confidence,
    /// The model that it comes from.
    pub model_version: Option<ModelVersion>,
    /// The verdict at creation. Use is checked again.
    pub prod_eligible: bool,
    /// The first check that failed at creation, or `gate_pass`.
    pub gate_reason: String,
    /// Every check of the verdict; null where it was erased, and of those from before it was kept.
    #[schema(value_type = Option<Vec<GateCheck>>)]
    pub gate_checks: Option<Box<RawValue>>,
    /// When it ends by itself; null: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it may be used once.
    pub single_use: bool,
    /// When it was first used.
    pub used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// The actor of the revocation, as claimed.
    pub revoked_by: Option<String>,
    /// Why it was revoked.
    pub revoke_reason: Option<String>,
    /// The event of the first use.
    #[serde(skip)]
    pub used_seq: Option<i64>,
    /// The event of the revocation.
    #[serde(skip)]
    pub revoked_seq: Option<i64>,
    /// The recommendation.
    #[schema(value_type = Option<Object>)]
    pub recommendation: Option<Box<RawValue>>,
    /// Its evidence.
    #[schema(value_type = Option<Object>)]
    pub evidence: Option<Box<RawValue>>,
    /// The policy it was judged by.
    #[schema(value_type = Option<Object>)]
    pub policy_snapshot: Option<Box<RawValue>>,
    /// The scorecard it was judged by.
    #[schema(value_type = Option<Object>)]
    pub scorecard_snapshot: Option<Box<RawValue>>,
    /// The actor of the recommendation, as the caller claimed.
    pub actor: Option<String>,
    /// The caller's thread.
    pub correlation_id: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// Which recommendations to list; none of a kind means all.
#[derive(Debug, Default)]
pub struct RecommendationFilter<'a> {
    /// Of this domain.
    pub domain: Option<&'a str>,
    /// Eligible at creation or not.
    pub prod_eligible: Option<bool>,
    /// With this id.
    pub id: Option<i64>,
    /// Made before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// Recommendations, newest first.
pub async fn recommendations(
    conn: &mut PgConnection,
    filter: &RecommendationFilter<'_>,
) -> Result<Vec<RecommendationRecord>> {
    let rows = sqlx::query!(
        r#"SELECT verdict.id,
                verdict.domain,
                verdict.confidence,
                verdict.model_version,
                verdict.prod_eligible,
                verdict.gate_reason,
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
         JOIN heimdall_event AS made ON made.seq = verdict.id
         LEFT JOIN heimdall_event AS used ON used.seq = verdict.used_seq
         LEFT JOIN heimdall_event AS revoked ON revoked.seq = verdict.revoked_seq
         WHERE ($1::text IS NULL OR verdict.domain = $1)
           AND ($2::boolean IS NULL OR verdict.prod_eligible = $2)
           AND ($3::bigint IS NULL OR verdict.id = $3)
           AND ($4::bigint IS NULL OR verdict.id < $4)
         ORDER BY verdict.id DESC
         LIMIT $5"#,
        filter.domain,
        filter.prod_eligible,
        filter.id,
        filter.before,
        filter.limit
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

/// One recommendation.
pub async fn read_recommendation(conn: &mut PgConnection, id: i64) -> Result<Option<RecommendationRecord>> {
    let filter = RecommendationFilter { id: Some(id), limit: 1, ..RecommendationFilter::default() };
    Ok(recommendations(conn, &filter).await?.pop())
}

/// An event of the charter as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeimdallEventRecord {
    /// Its sequence number in the heimdall stream.
    pub seq: i64,
    /// The domain.
    pub domain: String,
    /// `TRIAL`, `RECOMMEND`, `REQUIRE` or `REVOKE`.
    pub action: String,
    /// Whether it was done or allowed.
    pub ok: bool,
    /// The confidence, of a trial and of a recommendation.
    pub confidence: Option<Confidence>,
    /// The outcome of a trial.
    pub success: Option<bool>,
    /// The recommendation.
    pub recommendation_id: Option<i64>,
    /// The verdict.
    pub gate_reason: Option<String>,
    /// The model, of a trial and of a recommendation.
    pub model_version: Option<String>,
    /// Of a recommendation every check, of a use what it was decided by.
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Box<RawValue>>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// The authenticated principal.
    pub principal: String,
    /// The actor, as the caller claimed.
    pub actor: Option<String>,
    /// The request it came with.
    pub request_id: Option<String>,
    /// The caller's thread.
    pub correlation_id: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// The event's hash, lower-case hex.
    pub hash: String,
}

/// Events, newest first.
pub async fn events(
    conn: &mut PgConnection,
    domain: Option<&str>,
    action: Option<&str>,
    before: Option<i64>,
    limit: i64,
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
             AND ($3::bigint IS NULL OR seq < $3)
           ORDER BY seq DESC
           LIMIT $4"#,
        domain,
        action,
        before,
        limit
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
