//! Lever 3, the Heimdall charter: the trials of each AI domain, and the decision whether production may act on its
//! advice.
//!
//! Invariants:
//! - Trials are immutable events. A scorecard is their sum, in integers and exact decimals, added up in the database.
//! - The verdict is made once, at creation, from policy and scorecard, which are kept with it. Each use is checked
//!   again, and that check can only be stricter: a recommendation that was not eligible never becomes eligible.
//! - Every requested use is an event, allowed or not, with the facts of its decision. A single-use recommendation has
//!   exactly one allowed use: the first event under the head.
//! - Production use begins with passing evidence, or the policy records permanently that it did not.
//!
//! Every change is one transaction under the heimdall head. Statements: a trial 5 (6 with a model version), a
//! recommendation 7, a use 7 (one more each for an engine, a first use and archived events). [`guard`] has uses and
//! revocations, [`charter`] the policies.
//!
//! Deliberately absent: a use does not check the scorecard again (with a daily one, midnight would void yesterday's
//! pass), and no domain is demoted automatically: the review names the candidates.

pub mod charter;
pub mod guard;
pub mod http;
pub mod model;
mod reach;
mod remove;
pub mod store;

pub use remove::HeimdallPolicyRemoved;

pub(crate) use charter::PromoteRequest;

use crate::approval;
use crate::audit::{Head, Origin, Stamp, Stream};
use crate::db::{self, Database};
use crate::enforcement::feed::Feed;
use crate::error::{Result, require_room};
use crate::idempotency::{self, Asked, Once};
use crate::types::{Confidence, Domain, HeimdallAction, JsonObject, ModelVersion};
use chrono::{DateTime, Utc};
use model::{GateCheck, GateReason, HeimdallEvent, HeimdallPolicy, Scorecard, Span};
use serde::Serialize;
use sqlx::PgConnection;
use store::{NewRecommendation, Trial};
use utoipa::ToSchema;

/// The service of the charter.
#[derive(Debug, Clone)]
pub struct Heimdall {
    db: Database,
    feed: Feed,
    go_live_required: bool,
    two_person: approval::Policy,
    domains_max: usize,
}

/// The report of a sandbox trial.
#[derive(Debug)]
pub struct TrialReport {
    /// Its domain.
    pub domain: Domain,
    /// The version of the model that was tried; none if the report names none.
    pub model_version: Option<ModelVersion>,
    /// The confidence that the model stated.
    pub confidence: Confidence,
    /// Whether the model was right.
    pub success: bool,
}

/// A recommendation that was just made.
#[derive(Debug)]
pub struct Recommendation {
    /// Its domain.
    pub domain: Domain,
    /// The version of the model that made it; none if the caller names none.
    pub model_version: Option<ModelVersion>,
    /// The confidence that the model stated.
    pub confidence: Confidence,
    /// The recommendation itself, as the caller sent it.
    pub recommendation: Option<JsonObject>,
    /// The evidence for it, as the caller sent it.
    pub evidence: Option<JsonObject>,
}

/// The verdict on a recommendation.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecommendAnswer {
    /// The id: the sequence number of the recommendation's event.
    pub id: i64,
    /// Its domain.
    pub domain: Domain,
    /// The version of the model that made it; null if unknown.
    pub model_version: Option<ModelVersion>,
    /// The confidence that the model stated.
    pub confidence: Confidence,
    /// Whether production may act on it, as of now.
    pub prod_eligible: bool,
    /// The first check that failed, or `gate_pass`.
    pub gate_reason: GateReason,
    /// Every check, in order.
    pub gate_checks: Vec<GateCheck>,
    /// The time at which it expires; null for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it may be used only once.
    pub single_use: bool,
    /// The time of the verdict.
    pub created_at: DateTime<Utc>,
}

/// The checks of a verdict, for the audit trail.
#[derive(Serialize)]
struct VerdictDetail<'a> {
    checks: &'a [GateCheck],
}

impl Heimdall {
    /// The lever on this database. A development environment needs no go-live for a use.
    #[must_use]
    pub const fn new(
        db: Database,
        feed: Feed,
        go_live_required: bool,
        two_person: approval::Policy,
        domains_max: usize,
    ) -> Self {
        Self { db, feed, go_live_required, two_person, domains_max }
    }

    /// Counts a sandbox trial. Returns the scorecard of all trials of the domain's day.
    pub async fn trial(&self, report: TrialReport, asked: &Asked) -> Result<Once<Scorecard>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(&report.domain)?;
        let mut tx = self.db.begin().await?;
        let mut head = self.db.history().lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, stamp).await? {
            return answer.confirm(tx).await;
        }
        reach::require_engine_of(&mut tx, origin, &report.domain).await?;
        let trial = Trial {
            domain: &report.domain,
            model_version: report.model_version.as_ref(),
            confidence: report.confidence,
            success: report.success,
        };
        let tally = store::count_trial(&mut tx, trial, stamp).await?;
        // This is the domain's first trial of the day. A domain with a policy always has room.
        if tally.trials == 1 && store::read_policy(&mut tx, &report.domain).await?.is_none() {
            let tried = store::domains_tried(&mut tx, stamp.day()).await?;
            require_room("domains with trials today", tried - 1, self.domains_max, "DOMAINS_MAX")?;
        }
        let event = HeimdallEvent {
            confidence: Some(report.confidence),
            success: Some(report.success),
            model_version: report.model_version,
            ..HeimdallEvent::new(HeimdallAction::Trial, report.domain.clone())
        };
        append(&mut tx, &mut head, stamp, origin, &event).await?;
        let scorecard = Scorecard::new(Span::of_day(report.domain, stamp.day()), tally, Some(stamp.at));
        idempotency::keep(&mut tx, intent, stamp, &scorecard).await?;
        db::commit(tx).await?;
        Ok(Once::Done(scorecard))
    }

    /// Records a recommendation and judges it.
    pub async fn recommend(&self, made: Recommendation, asked: &Asked) -> Result<Once<RecommendAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(&made.domain)?;
        let mut tx = self.db.begin().await?;
        let mut head = self.db.history().lock(&mut tx, Stream::Heimdall).await?;
        let stamp = head.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, stamp).await? {
            return answer.confirm(tx).await;
        }
        let policy = store::read_policy(&mut tx, &made.domain).await?;
        reach::require_engine(origin, policy.as_ref())?;
        let of_day = || Span::of_day(made.domain.clone(), stamp.day());
        let span = policy.as_ref().map_or_else(of_day, |policy| policy.span(stamp.day()));
        let (tally, last_trial) = store::read_tally(&mut tx, &span).await?;
        let gate_checks = model::checks(policy.as_ref(), tally, made.confidence, made.model_version.as_ref());
        let gate_reason = model::verdict(&gate_checks);
        let expires_at = policy.as_ref().and_then(|policy| policy.expiry(stamp.at));
        let single_use = policy.as_ref().is_some_and(|policy| policy.single_use);
        let new = NewRecommendation {
            id: stamp.seq,
            domain: &made.domain,
            confidence: made.confidence,
            model_version: made.model_version.as_ref(),
            gate_reason,
            policy_snapshot: policy.map(snapshot),
            scorecard_snapshot: db::json_text(&Scorecard::new(span, tally, last_trial)),
            expires_at,
            single_use,
            created_at: stamp.at,
        };
        store::insert_recommendation(&mut tx, &new).await?;
        let event = HeimdallEvent {
            confidence: Some(made.confidence),
            recommendation_id: Some(stamp.seq),
            gate_reason: Some(gate_reason),
            model_version: made.model_version.clone(),
            recommendation: made.recommendation,
            evidence: made.evidence,
            detail: Some(db::json_text(&VerdictDetail { checks: &gate_checks })),
            ..HeimdallEvent::new(HeimdallAction::Recommend, made.domain.clone())
        };
        append(&mut tx, &mut head, stamp, origin, &event).await?;
        let verdict = RecommendAnswer {
            id: stamp.seq,
            domain: made.domain,
            model_version: made.model_version,
            confidence: made.confidence,
            prod_eligible: gate_reason.passes(),
            gate_reason,
            gate_checks,
            expires_at,
            single_use,
            created_at: stamp.at,
        };
        idempotency::keep(&mut tx, intent, stamp, &verdict).await?;
        db::commit(tx).await?;
        Ok(Once::Done(verdict))
    }

    /// The database, for reads of the lever.
    #[must_use]
    pub const fn db(&self) -> &Database {
        &self.db
    }
}

/// The policy as it is kept with a verdict. The evidence of production use is left out, since the control stream has
/// it.
fn snapshot(policy: HeimdallPolicy) -> String {
    db::json_text(&HeimdallPolicy { promotion: None, ..policy })
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
