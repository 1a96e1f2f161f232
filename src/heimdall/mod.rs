//! Lever 3, the Heimdall charter: has this AI domain earned the right to act in production?
//!
//! Invariants:
//! - Trials are immutable events; the day's scorecard is their sum, in integers and an exact decimal.
//! - The verdict is made once, at creation, from policy and scorecard, both kept with it. Use is checked again, every time,
//!   and can only be stricter: a recommendation that was not eligible never becomes so.
//! - Every use that is asked for is an event, allowed or not.
//!
//! Every change is one transaction under the heimdall head. Statements: a trial 6, a recommendation 7, a use 7.

pub mod http;
pub mod model;
pub mod store;

use crate::access::scope::Scope;
use crate::audit::{self, Changes, ControlEvent, FieldChange, Head, Origin, Stamp, Stream};
use crate::db::{self, Database, to_json};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use crate::idempotency::{self, Asked, Once};
use crate::types::{Confidence, Domain, JsonObject, Reason};
use chrono::{DateTime, Utc};
use model::{GateReason, HeimdallEvent, HeimdallPolicy, PolicyUpsert, Scorecard, Use};
use serde::Serialize;
use sqlx::PgConnection;
use store::NewRecommendation;
use utoipa::ToSchema;

/// The lever's service.
#[derive(Debug, Clone)]
pub struct Heimdall {
    db: Database,
    feed: Feed,
    go_live_required: bool,
}

/// A recommendation as it was made.
#[derive(Debug)]
pub struct Recommendation {
    /// Its domain.
    pub domain: Domain,
    /// Its stated confidence.
    pub confidence: Confidence,
    /// What is recommended.
    pub recommendation: Option<JsonObject>,
    /// What it rests on.
    pub evidence: Option<JsonObject>,
}

/// The verdict on a recommendation.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecommendAnswer {
    /// Its id.
    pub id: i64,
    /// Its domain.
    pub domain: Domain,
    /// Its confidence.
    pub confidence: Confidence,
    /// Whether production may act on it, as of now.
    pub prod_eligible: bool,
    /// The first check that failed, or `gate_pass`.
    pub gate_reason: GateReason,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// A use that is allowed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RequireAnswer {
    /// Always true; a refusal is a 403.
    pub ok: bool,
    /// The recommendation.
    pub id: i64,
    /// Its domain.
    pub domain: Domain,
    /// Its confidence.
    pub confidence: Confidence,
    /// Always true.
    pub prod_eligible: bool,
    /// Always `gate_pass`.
    pub gate_reason: GateReason,
}

/// The policy as it is now, and what the upsert changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeimdallPolicyUpserted {
    /// The policy.
    #[serde(flatten)]
    pub policy: HeimdallPolicy,
    /// The fields that moved; empty when nothing did.
    pub changes: Vec<FieldChange>,
}

/// What an upsert did, for the audit trail.
#[derive(Serialize)]
struct PolicyDetail<'a> {
    changes: &'a Changes,
    policy: &'a HeimdallPolicy,
}

impl Heimdall {
    /// The lever on this database. In a development environment nobody has to go live before a use.
    #[must_use]
    pub const fn new(db: Database, feed: Feed, go_live_required: bool) -> Self {
        Self { db, feed, go_live_required }
    }

    /// Counts a sandbox trial.
    pub async fn trial(
        &self,
        domain: Domain,
        confidence: Confidence,
        success: bool,
        asked: &Asked,
    ) -> Result<Once<Scorecard>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(&domain)?;
        let mut tx = self.db.begin().await?;
        let mut head = audit::lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, stamp).await? {
            return Ok(Once::Replayed(answer));
        }
        let tally = store::read_tally(&mut tx, stamp.day(), &domain).await?.with(confidence, success);
        store::write_tally(&mut tx, stamp.day(), &domain, tally, stamp.at).await?;
        let event = HeimdallEvent {
            domain: domain.clone(),
            action: "TRIAL",
            ok: true,
            confidence: Some(confidence),
            success: Some(success),
            recommendation_id: None,
            gate_reason: None,
            reason: None,
            recommendation: None,
            evidence: None,
        };
        append(&mut tx, &mut head, stamp, origin, &event).await?;
        let scorecard = Scorecard::new(stamp.day(), domain, tally, Some(stamp.at));
        idempotency::keep(&mut tx, intent, stamp, &scorecard).await?;
        db::commit(tx).await?;
        Ok(Once::Done(scorecard))
    }

    /// Takes a recommendation and judges it.
    pub async fn recommend(&self, made: Recommendation, asked: &Asked) -> Result<Once<RecommendAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(&made.domain)?;
        let mut tx = self.db.begin().await?;
        let mut head = audit::lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, stamp).await? {
            return Ok(Once::Replayed(answer));
        }
        let policy = store::read_policy(&mut tx, &made.domain).await?;
        let tally = store::read_tally(&mut tx, stamp.day(), &made.domain).await?;
        let gate_reason = model::gate(policy.as_ref(), tally, made.confidence);
        let scorecard = Scorecard::new(stamp.day(), made.domain.clone(), tally, None);
        let new = NewRecommendation {
            id: stamp.seq,
            domain: &made.domain,
            confidence: made.confidence,
            gate_reason,
            policy_snapshot: policy.map(|policy| to_json(&policy).get().to_owned()),
            scorecard_snapshot: to_json(&scorecard).get().to_owned(),
            created_at: stamp.at,
        };
        store::insert_recommendation(&mut tx, &new).await?;
        let event = HeimdallEvent {
            domain: made.domain.clone(),
            action: "RECOMMEND",
            ok: true,
            confidence: Some(made.confidence),
            success: None,
            recommendation_id: Some(stamp.seq),
            gate_reason: Some(gate_reason),
            reason: None,
            recommendation: made.recommendation,
            evidence: made.evidence,
        };
        append(&mut tx, &mut head, stamp, origin, &event).await?;
        let verdict = RecommendAnswer {
            id: stamp.seq,
            domain: made.domain,
            confidence: made.confidence,
            prod_eligible: gate_reason.passes(),
            gate_reason,
            created_at: stamp.at,
        };
        idempotency::keep(&mut tx, intent, stamp, &verdict).await?;
        db::commit(tx).await?;
        Ok(Once::Done(verdict))
    }

    /// May production act on this recommendation, now? Records the answer, then gives it: that it may, or
    /// [`Error::NotProdEligible`], which is not kept.
    pub async fn require_prod_eligible(
        &self,
        id: i64,
        reason: Option<Reason>,
        asked: &Asked,
    ) -> Result<Once<RequireAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let mut tx = self.db.begin().await?;
        let mut head = audit::lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, stamp).await? {
            return Ok(Once::Replayed(answer));
        }
        if self.feed.is_rewound() {
            // The switches that are read below may not be the last that were set.
            return Err(Error::StateRewound);
        }
        let not_found = || Error::NotFound { what: "recommendation", id: id.to_string() };
        let found = store::read_recommendation(&mut tx, id).await?;
        // Another domain's is not confirmed to exist.
        let found = found.filter(|found| origin.authority.reaches_domain(&found.domain)).ok_or_else(not_found)?;
        let policy = store::read_policy(&mut tx, &found.domain).await?;
        let state = crate::go_live::store::read_state(&mut tx).await?;
        let gate_reason = model::may_use(&Use {
            eligible_at_creation: found.prod_eligible,
            gate_reason: &found.gate_reason,
            confidence: found.confidence,
            policy: policy.as_ref(),
            kill_switch_engaged: state.kill_switch_engaged || self.feed.is_killed_locally(),
            live: state.go_live_enabled || !self.go_live_required,
        });
        let event = HeimdallEvent {
            domain: found.domain.clone(),
            action: "REQUIRE",
            ok: gate_reason.passes(),
            confidence: None,
            success: None,
            recommendation_id: Some(id),
            gate_reason: Some(gate_reason),
            reason,
            recommendation: None,
            evidence: None,
        };
        append(&mut tx, &mut head, stamp, origin, &event).await?;
        if !gate_reason.passes() {
            db::commit(tx).await?;
            let domain = found.domain.to_string();
            return Err(Error::NotProdEligible { id, domain, gate_reason: gate_reason.as_str() });
        }
        let (domain, confidence) = (found.domain, found.confidence);
        let allowed = RequireAnswer { ok: true, id, domain, confidence, prod_eligible: true, gate_reason };
        idempotency::keep(&mut tx, intent, stamp, &allowed).await?;
        db::commit(tx).await?;
        Ok(Once::Done(allowed))
    }

    /// Sets what a domain must show. Nothing changed means nothing written.
    pub async fn upsert_policy(
        &self,
        request: &PolicyUpsert,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Once<HeimdallPolicyUpserted>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(&request.domain)?;
        let mut tx = self.db.begin().await?;
        // Lock order: heimdall, control. The heimdall head makes the upsert bind the very next verdict.
        let now = audit::lock(&mut tx, Stream::Heimdall).await?.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, now).await? {
            return Ok(Once::Replayed(answer));
        }
        let existing = store::read_policy(&mut tx, &request.domain).await?;
        let (policy, changes) = model::upsert(existing.as_ref(), request, origin.actor.as_ref(), reason, now.at)?;
        if model::loosens(existing.as_ref(), &policy) {
            origin.authority.require(Scope::Release, "production use, or a lower minimum,")?;
        }
        if let (true, Some(policy)) = (changes.is_empty(), existing) {
            let unchanged = HeimdallPolicyUpserted { policy, changes: Vec::new() };
            idempotency::keep(&mut tx, intent, now, &unchanged).await?;
            db::commit(tx).await?;
            return Ok(Once::Done(unchanged));
        }
        store::upsert_policy(&mut tx, &policy).await?;
        let detail = Some(to_json(&PolicyDetail { changes: &changes, policy: &policy }).get().to_owned());
        let subject = Some(policy.domain.as_str());
        let event = ControlEvent { action: "HEIMDALL_POLICY_UPSERT", subject, error: None, reason, detail };
        let mut control_head = audit::lock(&mut tx, Stream::Control).await?;
        event.append(&mut tx, &mut control_head, origin).await?;
        let upserted = HeimdallPolicyUpserted { policy, changes: changes.0 };
        idempotency::keep(&mut tx, intent, now, &upserted).await?;
        db::commit(tx).await?;
        Ok(Once::Done(upserted))
    }

    /// The database, for the lever's reads.
    #[must_use]
    pub const fn db(&self) -> &Database {
        &self.db
    }
}

async fn append(
    conn: &mut PgConnection,
    head: &mut Head,
    stamp: Stamp,
    origin: &Origin,
    event: &HeimdallEvent,
) -> Result<()> {
    let hash = head.seal(stamp, event.canonical(stamp, origin).bytes());
    store::insert_event(&mut *conn, stamp, origin, event, &hash).await?;
    head.store(conn).await
}
