//! The charter's rules: types and pure decisions.
//!
//! Three decisions: the *gate*, made once when a recommendation is created, from the domain's policy and its trials; the *use*, made
//! every time production wants to act on it, which can only be stricter; and whether a domain's *evidence* passes now, which a
//! promotion asks.

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
use crate::types::{Actor, Confidence, Domain, JsonObject, ModelVersion, Reason};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// How a domain stands before its gate now: what a promotion is decided by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CharterStanding)]
pub struct Standing {
    /// The domain.
    pub domain: Domain,
    /// Whether production may act on it.
    pub prod_use_enabled: bool,
    /// Whether the evidence passed when that was switched on; null while it is off, and where it is not known.
    pub evidence: Option<Evidence>,
    /// How the success rate is judged.
    pub gate_rule: GateRule,
    /// Whether every check passes.
    pub passes: bool,
    /// The checks of the evidence, in order.
    pub checks: Vec<GateCheck>,
    /// The trials that count: of the policy's window, and of its approved model version.
    pub scorecard: Scorecard,
}

impl Standing {
    /// How a policy's domain stands with these trials.
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

    /// The record of the evidence that the policy keeps when production use is switched on.
    #[must_use]
    pub fn promotion(&self, by: Option<&Actor>, at: DateTime<Utc>) -> (Evidence, JsonObject) {
        let evidence = if self.passes { Evidence::Met } else { Evidence::NotMet };
        let by = by.map(ToString::to_string);
        let promotion = Promotion { at, by, checks: self.checks.clone(), scorecard: self.scorecard.clone() };
        let kept = to_json(&promotion).get().parse().expect("a few checks are a JSON object of a few hundred bytes");
        (evidence, kept)
    }
}

/// The evidence that production use was switched on by.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Promotion {
    /// When.
    pub at: DateTime<Utc>,
    /// Who, as claimed.
    pub by: Option<String>,
    /// The checks of the evidence then.
    pub checks: Vec<GateCheck>,
    /// The trials that counted then.
    pub scorecard: Scorecard,
}

/// An event of the charter on its way into its stream.
#[derive(Debug)]
pub struct HeimdallEvent {
    /// The domain.
    pub domain: Domain,
    /// `TRIAL`, `RECOMMEND`, `REQUIRE`, `REVOKE`.
    pub action: &'static str,
    /// Whether it was done or allowed.
    pub ok: bool,
    /// The confidence, of a trial and of a recommendation.
    pub confidence: Option<Confidence>,
    /// The outcome of a trial.
    pub success: Option<bool>,
    /// The recommendation.
    pub recommendation_id: Option<i64>,
    /// The verdict.
    pub gate_reason: Option<GateReason>,
    /// The model, of a trial and of a recommendation.
    pub model_version: Option<ModelVersion>,
    /// Why, in the caller's words.
    pub reason: Option<Reason>,
    /// The recommendation.
    pub recommendation: Option<JsonObject>,
    /// Its evidence.
    pub evidence: Option<JsonObject>,
    /// The facts that decided the verdict or the use, as JSON.
    pub detail: Option<String>,
}

impl HeimdallEvent {
    /// An event that was done, about this domain and nothing else yet.
    #[must_use]
    pub const fn new(action: &'static str, domain: Domain) -> Self {
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
            .text(Some(self.action))
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
