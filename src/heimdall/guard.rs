//! The guard in front of production: it decides whether production may act on a recommendation now, and it revokes
//! recommendations.

use super::model::{self, GateReason, HeimdallEvent, Switches, Terms, Use};
use super::store::{self, RecommendationRecord};
use super::{Heimdall, append, reach};
use crate::audit::{Origin, Stream};
use crate::db::{self, archived};
use crate::error::{Error, Result};
use crate::idempotency::{self, Asked, Once};
use crate::types::{Confidence, Domain, HeimdallAction, ModelVersion, Reason};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// The answer to an allowed use.
#[derive(Debug, Serialize, ToSchema)]
pub struct RequireAnswer {
    /// Always true; a refusal is a 403.
    pub ok: bool,
    /// The id of the recommendation.
    pub id: i64,
    /// Its domain.
    pub domain: Domain,
    /// The version of the model that made it; null if unknown.
    pub model_version: Option<ModelVersion>,
    /// The confidence that the model stated.
    pub confidence: Confidence,
    /// Always true; a failure is an error instead.
    pub prod_eligible: bool,
    /// Always `gate_pass`.
    pub gate_reason: GateReason,
    /// The time at which it expires; null for never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// The answer to a revocation.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevokeAnswer {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The id of the recommendation.
    pub id: i64,
    /// Its domain.
    pub domain: Domain,
    /// The time of the first revocation.
    pub revoked_at: DateTime<Utc>,
    /// The actor of the first revocation, as claimed.
    pub revoked_by: Option<String>,
    /// The reason of the first revocation, in the caller's words.
    pub reason: Option<String>,
}

/// Reads a recommendation, though its events may be archived: its own row has what decides. One of a domain outside the
/// caller's bounds answers as if it did not exist.
async fn find(conn: &mut PgConnection, id: i64, origin: &Origin) -> Result<RecommendationRecord> {
    let found = store::read_recommendation(conn, id).await?.map(|(found, _)| found);
    let found = found.filter(|found| origin.authority.reaches_domain(&found.domain));
    found.ok_or_else(|| Error::NotFound { what: "recommendation", id: id.to_string() })
}

impl Heimdall {
    /// Decides whether production may act on this recommendation now. The decision is recorded before it is returned:
    /// allowed, or [`Error::NotProdEligible`], which is not kept under the key. A replay of an allowed use is decided
    /// again: after a revocation or a stop it is refused, so that a retry does not bypass them.
    ///
    /// The switches and the engine are read without their heads: a concurrent change applies to the next use.
    pub async fn require_prod_eligible(
        &self,
        id: i64,
        reason: Option<Reason>,
        asked: &Asked,
    ) -> Result<Once<RequireAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let mut tx = self.db.begin().await?;
        let mut head = self.db.history().lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
        let told = idempotency::recall(&mut tx, intent, stamp).await?;
        if self.feed.is_rewound() {
            // The switches that are read below may be outdated in a database that went back.
            return Err(Error::StateRewound);
        }
        let found = find(&mut tx, id, origin).await?;
        let policy = store::read_policy(&mut tx, &found.domain).await?;
        reach::require_engine(origin, policy.as_ref())?;
        let state = crate::go_live::store::read_state(&mut tx).await?;
        let engine_active = match policy.as_ref().and_then(|policy| policy.engine.as_ref()) {
            Some(engine) => Some(crate::risk::store::is_active(&mut tx, engine).await?),
            None => None,
        };
        let asked_for = Use {
            eligible_at_creation: found.prod_eligible,
            gate_reason_at_creation: &found.gate_reason,
            confidence: found.confidence,
            model_version: found.model_version.as_ref(),
            expires_at: found.expires_at,
            revoked_seq: found.revoked_seq,
            // The use that this key made does not count against its own replay.
            used_seq: found.used_seq.filter(|_| told.is_none()),
            single_use: found.single_use,
            policy: policy.as_ref().map(Terms::from),
            engine_active,
            switches: Switches {
                kill_switch_engaged: state.kill_switch_engaged || self.feed.is_killed_locally(),
                live: state.go_live_enabled || !self.go_live_required,
            },
            at: stamp.at,
        };
        let gate_reason = model::may_use(&asked_for);
        if let (Some(answer), true) = (told, gate_reason.passes()) {
            return answer.confirm(tx).await;
        }
        let event = HeimdallEvent {
            ok: gate_reason.passes(),
            recommendation_id: Some(id),
            gate_reason: Some(gate_reason),
            reason,
            detail: Some(db::json_text(&asked_for)),
            ..HeimdallEvent::new(HeimdallAction::Require, found.domain.clone())
        };
        append(&mut tx, &mut head, stamp, origin, &event).await?;
        if !gate_reason.passes() {
            db::commit(tx).await?;
            let domain = found.domain.to_string();
            return Err(Error::NotProdEligible { id, domain, gate_reason: gate_reason.as_str() });
        }
        if found.used_seq.is_none() {
            // The write happens under the head, so that the second of two first uses sees the first.
            store::note_first_use(&mut tx, id, stamp.seq).await?;
        }
        let allowed = RequireAnswer {
            ok: true,
            id,
            domain: found.domain,
            model_version: found.model_version,
            confidence: found.confidence,
            prod_eligible: true,
            gate_reason,
            expires_at: found.expires_at,
        };
        idempotency::keep(&mut tx, intent, stamp, &allowed).await?;
        db::commit(tx).await?;
        Ok(Once::Done(allowed))
    }

    /// Revokes a recommendation: no later use is allowed. One that was revoked before stays as it is.
    pub async fn revoke(&self, id: i64, reason: Option<Reason>, asked: &Asked) -> Result<Once<RevokeAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let mut tx = self.db.begin().await?;
        let mut head = self.db.history().lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, stamp).await? {
            return answer.confirm(tx).await;
        }
        let found = find(&mut tx, id, origin).await?;
        reach::require_engine_of(&mut tx, origin, &found.domain).await?;
        let revoked = if let Some(seq) = found.revoked_seq {
            let Some(revoked_at) = found.revoked_at else {
                let what = format!("the revocation of recommendation {id}");
                return Err(archived::refusal(&mut tx, Stream::Heimdall, seq, &what).await?);
            };
            let (revoked_by, reason) = (found.revoked_by, found.revoke_reason);
            RevokeAnswer { ok: true, id, domain: found.domain, revoked_at, revoked_by, reason }
        } else {
            let why = reason.as_ref().map(ToString::to_string);
            let event = HeimdallEvent {
                recommendation_id: Some(id),
                reason,
                ..HeimdallEvent::new(HeimdallAction::Revoke, found.domain.clone())
            };
            append(&mut tx, &mut head, stamp, origin, &event).await?;
            store::note_revocation(&mut tx, id, stamp.seq).await?;
            let revoked_by = origin.actor.as_ref().map(ToString::to_string);
            RevokeAnswer { ok: true, id, domain: found.domain, revoked_at: stamp.at, revoked_by, reason: why }
        };
        idempotency::keep(&mut tx, intent, stamp, &revoked).await?;
        db::commit(tx).await?;
        Ok(Once::Done(revoked))
    }
}
