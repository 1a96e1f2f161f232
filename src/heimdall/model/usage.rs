//! The decision on a use of a recommendation, made anew each time: the verdict at creation, and everything that may
//! have ended it since.

use super::gate::GateReason;
use super::policy::HeimdallPolicy;
use crate::types::{Confidence, Engine, Fraction, ModelVersion};
use chrono::{DateTime, Utc};
use serde::Serialize;

/// The settings of a policy that decide a use.
#[derive(Debug, Clone, Serialize)]
pub struct Terms<'a> {
    /// The version of the policy.
    pub version: i64,
    /// Whether production may act on the domain.
    pub prod_use_enabled: bool,
    /// The least confidence of a recommendation.
    pub min_confidence_prod: Fraction,
    /// Whether a recommendation may be used only once.
    pub single_use: bool,
    /// The only model version that may be used; none for any.
    pub approved_model_version: Option<&'a ModelVersion>,
    /// The engine that must not be off; none if no engine matters.
    pub engine: Option<&'a Engine>,
}

impl<'a> From<&'a HeimdallPolicy> for Terms<'a> {
    fn from(policy: &'a HeimdallPolicy) -> Self {
        Self {
            version: policy.version,
            prod_use_enabled: policy.prod_use_enabled,
            min_confidence_prod: policy.min_confidence_prod,
            single_use: policy.single_use,
            approved_model_version: policy.approved_model_version.as_ref(),
            engine: policy.engine.as_ref(),
        }
    }
}

/// The switches over the whole system.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Switches {
    /// Whether the kill switch is engaged now.
    pub kill_switch_engaged: bool,
    /// Whether go-live is on now, or is not required.
    pub live: bool,
}

/// The facts that decide the use of a recommendation. Its JSON is the detail of the use's event.
#[derive(Debug, Serialize)]
pub struct Use<'a> {
    /// Whether the recommendation passed the gate at its creation.
    pub eligible_at_creation: bool,
    /// The verdict at creation.
    pub gate_reason_at_creation: &'a str,
    /// The confidence that the model stated.
    pub confidence: Confidence,
    /// The version of the model that made it; none if unknown.
    pub model_version: Option<&'a ModelVersion>,
    /// The time at which it expires; none for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The event that revoked it; none if it is not revoked.
    pub revoked_seq: Option<i64>,
    /// The event of its first use; none before it.
    pub used_seq: Option<i64>,
    /// Whether it was created for one use; the current policy may require that, too.
    pub single_use: bool,
    /// The domain's current policy; none if it has none.
    pub policy: Option<Terms<'a>>,
    /// Whether the policy's engine is enabled and not throttled now; none if the policy names no engine.
    pub engine_active: Option<bool>,
    /// The switches now.
    #[serde(flatten)]
    pub switches: Switches,
    /// The time of the decision.
    pub at: DateTime<Utc>,
}

/// Whether production may act on a recommendation now. One that was not eligible at creation never becomes eligible.
#[must_use]
pub fn may_use(asked: &Use<'_>) -> GateReason {
    if !asked.eligible_at_creation {
        return GateReason::ALL
            .into_iter()
            .find(|reason| !reason.passes() && reason.as_str() == asked.gate_reason_at_creation)
            .unwrap_or(GateReason::ProdUseDisabled);
    }
    let Some(policy) = asked.policy.as_ref().filter(|policy| policy.prod_use_enabled) else {
        return GateReason::ProdUseDisabled;
    };
    if !asked.confidence.reaches(policy.min_confidence_prod) {
        GateReason::ConfidenceBelowThreshold
    } else if asked.expires_at.is_some_and(|end| end <= asked.at) {
        GateReason::RecommendationExpired
    } else if asked.revoked_seq.is_some() {
        GateReason::RecommendationRevoked
    } else if asked.used_seq.is_some() && (asked.single_use || policy.single_use) {
        GateReason::RecommendationAlreadyUsed
    } else if policy.approved_model_version.is_some() && policy.approved_model_version != asked.model_version {
        GateReason::ModelVersionNotApproved
    } else if policy.engine.is_some() && asked.engine_active != Some(true) {
        GateReason::EngineThrottled
    } else if asked.switches.kill_switch_engaged {
        GateReason::KillSwitchEngaged
    } else if !asked.switches.live {
        GateReason::GoLiveDisabled
    } else {
        GateReason::GatePass
    }
}
