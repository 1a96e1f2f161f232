//! The guard in front of production: may it act on this recommendation, now? And taking one back.

use super::model::{self, GateReason, HeimdallEvent, Switches, Terms, Use};
use super::store::{self, RecommendationRecord};
use super::{Heimdall, append, charter};
use crate::audit::{Origin, Stream};
use crate::db;
use crate::error::{Error, Result};
use crate::idempotency::{self, Asked, Once};
use crate::types::{Confidence, Domain, ModelVersion, Reason};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// A use that is allowed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RequireAnswer {
    /// Always true; a refusal is a 403.
    pub ok: bool,
    /// The recommendation.
    pub id: i64,
    /// Its domain.
    pub domain: Domain,
    /// The model that it comes from.
    pub model_version: Option<ModelVersion>,
    /// Its confidence.
    pub confidence: Confidence,
    /// Always true.
    pub prod_eligible: bool,
    /// Always `gate_pass`.
    pub gate_reason: GateReason,
    /// When it ends by itself; null: never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A recommendation that nobody may use any more.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevokeAnswer {
    /// Always true.
    pub ok: bool,
    /// The recommendation.
    pub id: i64,
    /// Its domain.
    pub domain: Domain,
    /// When it was revoked first.
    pub revoked_at: DateTime<Utc>,
    /// The actor of the earlier one, as claimed.
    pub revoked_by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// A recommendation; another domain's is not confirmed to exist.
async fn find(conn: &mut PgConnection, id: i64, origin: &Origin) -> Result<RecommendationRecord> {
    let found = store::read_recommendation(conn, id).await?;
    let found = found.filter(|found| origin.authority.reaches_domain(&found.domain));
    found.ok_or_else(|| Error::NotFound { what: "recommendation", id: id.to_string() })
}

impl Heimdall {
    /// May production act on this recommendation, now? Records the answer, then gives it: that it may, or
    /// [`Error::NotProdEligible`], which is not kept. A key that was allowed before is told so again only while it still is: what
    /// was revoked or stopped since is refused, and a retry does not get around it.
    ///
    /// The switches and the engine are read without their heads: what is changed meanwhile binds the next use.
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
            // The switches that are read below may not be the last that were set.
            return Err(Error::StateRewound);
        }
        let found = find(&mut tx, id, origin).await?;
        let policy = store::read_policy(&mut tx, &found.domain).await?;
        charter::require_engine(origin, policy.as_ref())?;
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
            // The use that this key stands for does not stand in its own way.
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
            ..HeimdallEvent::new("REQUIRE", found.domain.clone())
        };
        append(&mut tx, &mut head, stamp, origin, &event).await?;
        if !gate_reason.passes() {
            db::commit(tx).await?;
            let domain = found.domain.to_string();
            return Err(Error::NotProdEligible { id, domain, gate_reason: gate_reason.as_str() });
        }
        if found.used_seq.is_none() {
            // Under the head, so that of two first uses the second sees this one.
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

    /// Takes a recommendation back: no later use is allowed. One that was revoked before stays as it is.
    pub async fn revoke(&self, id: i64, reason: Option<Reason>, asked: &Asked) -> Result<Once<RevokeAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let mut tx = self.db.begin().await?;
        let mut head = self.db.history().lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, stamp).await? {
            return answer.confirm(tx).await;
        }
        let found = find(&mut tx, id, origin).await?;
        charter::require_engine_of(&mut tx, origin, &found.domain).await?;
        let revoked = if let Some(revoked_at) = found.revoked_at {
            let (revoked_by, reason) = (found.revoked_by, found.revoke_reason);
            RevokeAnswer { ok: true, id, domain: found.domain, revoked_at, revoked_by, reason }
        } else {
            let why = reason.as_ref().map(ToString::to_string);
            let event = HeimdallEvent {
                recommendation_id: Some(id),
                reason,
                ..HeimdallEvent::new("REVOKE", found.domain.clone())
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
