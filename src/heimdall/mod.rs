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

use crate::audit::{self, Changes, ControlEvent, Head, Origin, Stamp, Stream};
use crate::config::EnforcementConfig;
use crate::db::{self, Database, to_json};
use crate::error::{Error, Result};
use crate::types::{Confidence, Domain, JsonObject, Reason};
use model::{GateReason, HeimdallEvent, HeimdallPolicy, PolicyUpsert, Scorecard, Use};
use serde::Serialize;
use sqlx::PgConnection;
use store::{NewRecommendation, RecommendationRecord};

/// The lever's service.
#[derive(Debug, Clone)]
pub struct Heimdall {
    db: Database,
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
#[derive(Debug)]
pub struct Verdict {
    /// The recommendation and its event.
    pub stamp: Stamp,
    /// The first check that failed, or a pass.
    pub gate_reason: GateReason,
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
    pub fn new(db: Database, config: &EnforcementConfig) -> Self {
        Self { db, go_live_required: !config.is_development() }
    }

    /// Counts a sandbox trial.
    pub async fn trial(
        &self,
        domain: Domain,
        confidence: Confidence,
        success: bool,
        origin: &Origin,
    ) -> Result<Scorecard> {
        let mut tx = self.db.begin().await?;
        let mut head = audit::lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
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
        db::commit(tx).await?;
        Ok(Scorecard::new(stamp.day(), domain, tally, Some(stamp.at)))
    }

    /// Takes a recommendation and judges it.
    pub async fn recommend(&self, made: Recommendation, origin: &Origin) -> Result<Verdict> {
        let mut tx = self.db.begin().await?;
        let mut head = audit::lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
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
        db::commit(tx).await?;
        Ok(Verdict { stamp, gate_reason })
    }

    /// May production act on this recommendation, now? Records the answer, then gives it: the recommendation, or
    /// [`Error::NotProdEligible`].
    pub async fn require_prod_eligible(
        &self,
        id: i64,
        reason: Option<Reason>,
        origin: &Origin,
    ) -> Result<RecommendationRecord> {
        let mut tx = self.db.begin().await?;
        let mut head = audit::lock(&mut tx, Stream::Heimdall).await?;
        let not_found = || Error::NotFound { what: "recommendation", id: id.to_string() };
        let found = store::read_recommendation(&mut tx, id).await?.ok_or_else(not_found)?;
        let policy = store::read_policy(&mut tx, &found.domain).await?;
        let state = crate::go_live::store::read_state(&mut tx).await?;
        let gate_reason = model::may_use(&Use {
            eligible_at_creation: found.prod_eligible,
            gate_reason: &found.gate_reason,
            confidence: found.confidence,
            policy: policy.as_ref(),
            kill_switch_engaged: state.kill_switch_engaged,
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
        let stamp = head.next();
        append(&mut tx, &mut head, stamp, origin, &event).await?;
        db::commit(tx).await?;
        if gate_reason.passes() {
            Ok(found)
        } else {
            Err(Error::NotProdEligible { id, domain: found.domain.to_string(), gate_reason: gate_reason.as_str() })
        }
    }

    /// Sets what a domain must show. Nothing changed means nothing written.
    pub async fn upsert_policy(
        &self,
        request: &PolicyUpsert,
        reason: Option<&Reason>,
        origin: &Origin,
    ) -> Result<(HeimdallPolicy, Changes)> {
        let mut tx = self.db.begin().await?;
        // Lock order: heimdall, control. The heimdall head makes the upsert bind the very next verdict.
        let head = audit::lock(&mut tx, Stream::Heimdall).await?;
        let existing = store::read_policy(&mut tx, &request.domain).await?;
        let (policy, changes) =
            model::upsert(existing.as_ref(), request, origin.actor.as_ref(), reason, head.next().at)?;
        if let (true, Some(existing)) = (changes.is_empty(), existing) {
            return Ok((existing, changes));
        }
        store::upsert_policy(&mut tx, &policy).await?;
        let detail = Some(to_json(&PolicyDetail { changes: &changes, policy: &policy }).get().to_owned());
        let subject = Some(policy.domain.as_str());
        let event = ControlEvent { action: "HEIMDALL_POLICY_UPSERT", subject, error: None, reason, detail };
        let mut control_head = audit::lock(&mut tx, Stream::Control).await?;
        event.append(&mut tx, &mut control_head, origin).await?;
        db::commit(tx).await?;
        Ok((policy, changes))
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
