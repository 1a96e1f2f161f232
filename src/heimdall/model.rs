//! The rules of the charter: types and pure decisions.
//!
//! It has three decisions. The *gate* is decided once, when a recommendation is created, from the domain's policy and
//! its trials. The *use* is decided every time that production wants to act on it, and can only be stricter. The
//! *evidence* decides whether a domain may be promoted now.

mod anytime;
mod choices;
mod gate;
mod policy;
mod scorecard;
mod usage;

pub use choices::{Evidence, GateRule, ScorecardWindow, Setting};
pub use gate::{CheckResult, GateCheck, GateReason, checks, evidence_checks, verdict};
pub use policy::{HeimdallPolicy, PolicyUpsert, PolicyWarning, loosens, upsert};
pub use scorecard::{Calibration, Scorecard, Span, Tally};
pub use usage::{Switches, Terms, Use, may_use};

use crate::audit::{Canonical, Origin, Stamp, Stream};
use crate::db::to_json;
use crate::types::{Actor, Confidence, Domain, HeimdallAction, JsonObject, ModelVersion, Reason};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// The standing of a domain before its gate now, which decides a promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CharterStanding)]
pub struct Standing {
    /// The domain.
    pub domain: Domain,
    /// Whether production may act on the domain.
    pub prod_use_enabled: bool,
    /// Whether the evidence passed when production use was switched on; null while it is off, and if it is unknown.
    pub evidence: Option<Evidence>,
    /// The rule by which the success rate is judged.
    pub gate_rule: GateRule,
    /// Whether every check passes.
    pub passes: bool,
    /// The checks of the evidence, in order.
    pub checks: Vec<GateCheck>,
    /// The trials that count: those in the policy's window, and of its approved model version.
    pub scorecard: Scorecard,
}

impl Standing {
    /// The standing of a policy's domain with these trials.
    #[must_use]
    pub fn new(policy: &HeimdallPolicy, scorecard: Scorecard, tally: Tally) -> Self {
        let checks = evidence_checks(policy, tally);
        Self {
            domain: policy.domain.clone(),
            prod_use_enabled: policy.prod_use_enabled,
            evidence: policy.evidence,
            gate_rule: policy.gate_rule,
            passes: verdict(&checks).passes(),
            checks,
            scorecard,
        }
    }

    /// The evidence that the policy keeps when production use is switched on.
    #[must_use]
    pub fn promotion(&self, by: Option<&Actor>, at: DateTime<Utc>) -> (Evidence, JsonObject) {
        let evidence = if self.passes { Evidence::Met } else { Evidence::NotMet };
        let by = by.map(ToString::to_string);
        let promotion = Promotion { at, by, checks: self.checks.clone(), scorecard: self.scorecard.clone() };
        let kept = to_json(&promotion).get().parse().expect("a few checks are a JSON object of a few hundred bytes");
        (evidence, kept)
    }
}

/// The evidence with which production use was switched on.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Promotion {
    /// The time of the promotion.
    pub at: DateTime<Utc>,
    /// The actor of the promotion, as claimed.
    pub by: Option<String>,
    /// The checks of the evidence at that time.
    pub checks: Vec<GateCheck>,
    /// The trials that counted at that time.
    pub scorecard: Scorecard,
}

/// An event of the charter before it is appended to its stream.
#[derive(Debug)]
pub struct HeimdallEvent {
    /// The domain.
    pub domain: Domain,
    /// The action.
    pub action: HeimdallAction,
    /// Whether the action was done or allowed.
    pub ok: bool,
    /// The stated confidence, for a trial and a recommendation.
    pub confidence: Option<Confidence>,
    /// Whether the model was right, for a trial.
    pub success: Option<bool>,
    /// The id of the recommendation, for a use and a revocation.
    pub recommendation_id: Option<i64>,
    /// The verdict, for a recommendation and a use.
    pub gate_reason: Option<GateReason>,
    /// The model version, for a trial and a recommendation.
    pub model_version: Option<ModelVersion>,
    /// The reason, in the caller's words.
    pub reason: Option<Reason>,
    /// The recommendation itself, as the caller sent it.
    pub recommendation: Option<JsonObject>,
    /// The evidence for the recommendation, as the caller sent it.
    pub evidence: Option<JsonObject>,
    /// The facts that decided the verdict or the use, as JSON.
    pub detail: Option<String>,
}

impl HeimdallEvent {
    /// An event of an action that was done, with only the domain set.
    #[must_use]
    pub const fn new(action: HeimdallAction, domain: Domain) -> Self {
        Self {
            domain,
            action,
            ok: true,
            confidence: None,
            success: None,
            recommendation_id: None,
            gate_reason: None,
            model_version: None,
            reason: None,
            recommendation: None,
            evidence: None,
            detail: None,
        }
    }

    /// The bytes that the chain covers, in column order.
    #[must_use]
    pub fn canonical(&self, stamp: Stamp, origin: &Origin) -> Canonical {
        Canonical::begin(Stream::Heimdall, stamp, origin)
            .text(Some(self.domain.as_str()))
            .text(Some(self.action.as_str()))
            .shown(Some(self.ok))
            .shown(self.confidence)
            .shown(self.success)
            .shown(self.recommendation_id)
            .text(self.gate_reason.map(GateReason::as_str))
            .text(self.model_version.as_ref().map(ModelVersion::as_str))
            .digest(self.reason.as_ref().map(Reason::as_str))
            .digest(self.recommendation.as_ref().map(JsonObject::as_str))
            .digest(self.evidence.as_ref().map(JsonObject::as_str))
            .digest(self.detail.as_deref())
    }
}

#[cfg(test)]
mod tests;
