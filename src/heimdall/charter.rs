//! The policy of a domain: upsert, promotion and demotion.

use super::Heimdall;
use super::model::{
    self, CheckResult, Evidence, GateRule, HeimdallPolicy, PolicyUpsert, PolicyWarning, Scorecard, Standing,
};
use super::reach::require_engine;
use super::store;
use crate::approval::model::ApprovalAction;
use crate::approval::{self, Gated, Loosened, Wanted, WithChanges};
use crate::audit::{self, Changes, ControlEvent, FieldChange, Stream};
use crate::db::{self, to_json};
use crate::error::{Blocker, Error, Result, require_room};
use crate::idempotency::{self, Asked, Once};
use crate::types::{ControlAction, Domain, Engine, Ratio, Reason};
use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;

/// The policy after an upsert, and the changes of the upsert.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeimdallPolicyUpserted {
    /// The policy after the change.
    #[serde(flatten)]
    pub policy: HeimdallPolicy,
    /// The fields that changed; empty if none did.
    pub changes: Vec<FieldChange>,
    /// The points that an operator should know about the policy.
    pub warnings: Vec<PolicyWarning>,
}

/// A requested promotion, as a request for a second person stores it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PromoteRequest {
    pub(crate) domain: Domain,
}

impl HeimdallPolicyUpserted {
    async fn new(conn: &mut PgConnection, policy: HeimdallPolicy, changes: Vec<FieldChange>) -> Result<Self> {
        let known = match &policy.engine {
            Some(engine) => known_engine(conn, engine).await?,
            None => None,
        };
        let warnings = policy.warnings(known.as_slice());
        Ok(Self { policy, changes, warnings })
    }
}

/// The engine, unless it has no risk policy. A failed query counts as unknown and fails no change, since a warning must
/// not prevent a stop.
async fn known_engine(conn: &mut PgConnection, engine: &Engine) -> Result<Option<Engine>> {
    let mut inner = conn.begin().await?;
    let known = crate::risk::store::has_policy(&mut inner, engine).await;
    inner.rollback().await?;
    let is_known = known.unwrap_or_else(|error| {
        tracing::warn!(%error, %engine, "the engine of a charter cannot be looked up, so no warning about it is given");
        true
    });
    Ok(is_known.then(|| engine.clone()))
}

/// A change of a policy, for the audit trail.
#[derive(Serialize)]
struct PolicyDetail<'a> {
    changes: &'a Changes,
    /// Whether the evidence passed, if this change switched production use on.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
    policy: &'a HeimdallPolicy,
}

/// The changes of a domain that loosen.
const LOOSENED: [ApprovalAction; 2] = [ApprovalAction::Charter, ApprovalAction::Promote];

/// The failed checks of a refused promotion, for the audit trail.
#[derive(Serialize)]
struct RefusedDetail<'a> {
    standing: &'a Standing,
}

/// The standing of a policy's domain on a day.
async fn standing(conn: &mut PgConnection, policy: &HeimdallPolicy, day: NaiveDate) -> Result<Standing> {
    let span = policy.span(day);
    let (tally, last_trial) = store::read_tally(conn, &span).await?;
    Ok(Standing::new(policy, Scorecard::new(span, tally, last_trial), tally))
}

/// The standing of every domain that has a policy, on a day, by domain. Two statements.
pub async fn standings(conn: &mut PgConnection, day: NaiveDate) -> Result<Vec<Standing>> {
    let policies = store::read_policies(&mut *conn).await?;
    let spans: Vec<_> = policies.iter().map(|policy| policy.span(day)).collect();
    let tallies = store::read_tallies(conn, &spans).await?;
    let cards = spans.into_iter().zip(tallies);
    let standing = |(policy, (span, (tally, at))): (&HeimdallPolicy, _)| {
        Standing::new(policy, Scorecard::new(span, tally, at), tally)
    };
    Ok(policies.iter().zip(cards).map(standing).collect())
}

/// The failed checks of the evidence, each with its numbers.
fn blockers(standing: &Standing) -> Vec<Blocker> {
    let failed = standing.checks.iter().filter(|check| check.result != CheckResult::Pass);
    let shown = |value: Option<Ratio>| value.map_or_else(|| "not known".to_owned(), |value| value.to_string());
    let what = |check: &str| match (check, standing.gate_rule) {
        ("sandbox_trials", _) => "the number of trials",
        ("calibration", _) => "overconfidence in standard deviations",
        (_, GateRule::Point) => "the success rate",
        (_, GateRule::Lcb) => "the lower bound of the success rate",
        (_, GateRule::Anytime) => "the evidence for the success rate",
    };
    let side = |check: &str| if check == "calibration" { "at most" } else { "at least" };
    failed
        .map(|check| {
            let (name, value, threshold) = (check.check, shown(check.value), shown(check.threshold));
            let detail = format!("{} is {value}, {} {threshold} is needed", what(name), side(name));
            Blocker { id: name.to_owned(), detail }
        })
        .collect()
}

impl Heimdall {
    /// Sets the requirements of a domain. If nothing changed, nothing is written.
    pub async fn upsert_policy(
        &self,
        request: &PolicyUpsert,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Loosened<HeimdallPolicyUpserted>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(&request.domain)?;
        let mut tx = self.db.begin().await?;
        // Lock order: heimdall, control. The heimdall head makes the upsert apply to the very next verdict.
        let now = self.db.history().lock(&mut tx, Stream::Heimdall).await?.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, now).await? {
            return answer.confirm(tx).await.map(Loosened::Done);
        }
        let existing = store::read_policy(&mut tx, &request.domain).await?;
        require_engine(origin, existing.as_ref())?;
        if existing.is_none() {
            require_room("domains", store::count_policies(&mut tx).await?, self.domains_max, "DOMAINS_MAX")?;
        }
        let by = origin.actor.as_ref();
        let (mut policy, changes) = model::upsert(existing.as_ref(), request, by, reason, now.at)?;
        require_engine(origin, Some(&policy))?;
        let was_on = existing.as_ref().is_some_and(|old| old.prod_use_enabled);
        let cancels = request.prod_use_enabled == Some(false)
            && approval::waits_for(&mut tx, &LOOSENED, request.domain.as_str(), now.at).await?;
        if let (true, Some(existing)) = (changes.is_empty() && asked.approves.is_none() && !cancels, &existing) {
            let unchanged = HeimdallPolicyUpserted::new(&mut tx, existing.clone(), Vec::new()).await?;
            idempotency::keep(&mut tx, intent, now, &unchanged).await?;
            db::commit(tx).await?;
            return Ok(Loosened::Done(Once::Done(unchanged)));
        }
        let mut control_head = self.db.history().lock(&mut tx, Stream::Control).await?;
        // The requirements of a removed policy are no longer known.
        let renews = existing.is_none()
            && audit::was_done(&mut tx, ControlAction::HeimdallPolicyRemove, policy.domain.as_str()).await?;
        let loosening = (renews || model::loosens(existing.as_ref(), &policy)).then_some(ApprovalAction::Charter);
        let input = to_json(&WithChanges { request, changes: &changes });
        let wanted = Wanted { subject: Some(request.domain.as_str()), input: input.get(), reason };
        let verdict = approval::gate(&mut tx, &mut control_head, self.two_person, asked, loosening, wanted).await?;
        if let Gated::Wait(record) = verdict {
            db::commit(tx).await?;
            return Ok(Loosened::Waiting(record));
        }
        let mut switched_on_by = None;
        if policy.prod_use_enabled && !was_on {
            let (evidence, promotion) = standing(&mut tx, &policy, now.day()).await?.promotion(by, now.at);
            (policy.evidence, policy.promotion, switched_on_by) = (Some(evidence), Some(promotion), Some(evidence));
        }
        store::upsert_policy(&mut tx, &policy).await?;
        let detail = PolicyDetail { changes: &changes, evidence: switched_on_by, policy: &policy };
        let event = ControlEvent::new(ControlAction::HeimdallPolicyUpsert)
            .about(policy.domain.as_str())
            .because(reason)
            .detail(&detail);
        event.append(&mut tx, &mut control_head, origin).await?;
        let upserted = HeimdallPolicyUpserted::new(&mut tx, policy, changes.0).await?;
        idempotency::keep(&mut tx, intent, now, &upserted).await?;
        db::commit(tx).await?;
        Ok(Loosened::Done(Once::Done(upserted)))
    }

    /// Switches production use on if the evidence passes now, and keeps the evidence. A refusal is an event,
    /// [`Error::EvidenceInsufficient`], and is not kept under the key. For a domain that is already on, the evidence is
    /// renewed.
    pub async fn promote(
        &self,
        domain: &Domain,
        reason: &Reason,
        asked: &Asked,
    ) -> Result<Loosened<HeimdallPolicyUpserted>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(domain)?;
        let mut tx = self.db.begin().await?;
        // Lock order: heimdall, control. Under the heimdall head no trial is counted during this.
        let now = self.db.history().lock(&mut tx, Stream::Heimdall).await?.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, now).await? {
            return answer.confirm(tx).await.map(Loosened::Done);
        }
        let existing = store::read_policy(&mut tx, domain).await?.ok_or_else(|| no_policy(domain))?;
        require_engine(origin, Some(&existing))?;
        let request = PolicyUpsert { prod_use_enabled: Some(true), ..PolicyUpsert::of(domain.clone()) };
        let by = origin.actor.as_ref();
        let (mut policy, changes) = model::upsert(Some(&existing), &request, by, Some(reason), now.at)?;
        // The standing is read before the change, since a refusal is about a domain that stays off.
        let standing = standing(&mut tx, &existing, now.day()).await?;
        let event = ControlEvent::new(ControlAction::HeimdallPromote).about(domain.as_str()).because(reason);
        let mut control_head = self.db.history().lock(&mut tx, Stream::Control).await?;
        if !standing.passes {
            let (blockers, checks) = (blockers(&standing), to_json(&standing.checks));
            let refused = Error::EvidenceInsufficient { domain: domain.to_string(), blockers, checks };
            let event = event.refused(refused.row().code).detail(&RefusedDetail { standing: &standing });
            event.append(&mut tx, &mut control_head, origin).await?;
            db::commit(tx).await?;
            return Err(refused);
        }
        let input = to_json(&PromoteRequest { domain: domain.clone() });
        let wanted = Wanted { subject: Some(domain.as_str()), input: input.get(), reason: Some(reason) };
        let loosening = Some(ApprovalAction::Promote);
        let verdict = approval::gate(&mut tx, &mut control_head, self.two_person, asked, loosening, wanted).await?;
        if let Gated::Wait(record) = verdict {
            db::commit(tx).await?;
            return Ok(Loosened::Waiting(record));
        }
        let (evidence, promotion) = standing.promotion(by, now.at);
        (policy.evidence, policy.promotion) = (Some(evidence), Some(promotion));
        store::upsert_policy(&mut tx, &policy).await?;
        let detail = PolicyDetail { changes: &changes, evidence: Some(evidence), policy: &policy };
        event.detail(&detail).append(&mut tx, &mut control_head, origin).await?;
        let promoted = HeimdallPolicyUpserted::new(&mut tx, policy, changes.0).await?;
        idempotency::keep(&mut tx, intent, now, &promoted).await?;
        db::commit(tx).await?;
        Ok(Loosened::Done(Once::Done(promoted)))
    }

    /// Switches production use off, whatever the evidence. For a domain that is already off, nothing is written.
    pub async fn demote(
        &self,
        domain: &Domain,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Once<HeimdallPolicyUpserted>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(domain)?;
        let mut tx = self.db.begin().await?;
        // Lock order: heimdall, control. The heimdall head makes the demotion apply to the very next use.
        let now = self.db.history().lock(&mut tx, Stream::Heimdall).await?.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, now).await? {
            return answer.confirm(tx).await;
        }
        let existing = store::read_policy(&mut tx, domain).await?.ok_or_else(|| no_policy(domain))?;
        require_engine(origin, Some(&existing))?;
        let request = PolicyUpsert { prod_use_enabled: Some(false), ..PolicyUpsert::of(domain.clone()) };
        let (policy, changes) = model::upsert(Some(&existing), &request, origin.actor.as_ref(), reason, now.at)?;
        let demoted = if changes.is_empty() && !approval::waits_for(&mut tx, &LOOSENED, domain.as_str(), now.at).await?
        {
            HeimdallPolicyUpserted::new(&mut tx, existing, Vec::new()).await?
        } else {
            let mut control_head = self.db.history().lock(&mut tx, Stream::Control).await?;
            store::upsert_policy(&mut tx, &policy).await?;
            let detail = PolicyDetail { changes: &changes, evidence: None, policy: &policy };
            let event =
                ControlEvent::new(ControlAction::HeimdallDemote).about(domain.as_str()).because(reason).detail(&detail);
            event.append(&mut tx, &mut control_head, origin).await?;
            HeimdallPolicyUpserted::new(&mut tx, policy, changes.0).await?
        };
        idempotency::keep(&mut tx, intent, now, &demoted).await?;
        db::commit(tx).await?;
        Ok(Once::Done(demoted))
    }
}

pub(super) fn no_policy(domain: &Domain) -> Error {
    Error::NotFound { what: "charter policy of", id: domain.to_string() }
}
