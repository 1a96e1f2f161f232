//! The gate: every check of a recommendation, and the first one that does not pass.

use super::anytime::{self, E_OPEN};
use super::choices::GateRule;
use super::policy::HeimdallPolicy;
use super::scorecard::{Tally, shown};
use crate::statistics::{Z_95, wilson_lower};
use crate::types::{Confidence, Fraction, ModelVersion, Ratio};
use serde::Serialize;
use utoipa::ToSchema;

/// The reasons why a recommendation may or may not be used, in the order of the checks: the original's five, with
/// `calibration_overconfident` before the pass, then our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateReason {
    /// Production may not act on the domain. A domain without a policy has this reason, too.
    ProdUseDisabled,
    /// The recommendation is not confident enough.
    ConfidenceBelowThreshold,
    /// The domain has too few trials.
    InsufficientSandboxTrials,
    /// The domain's trials did not succeed often enough, by the policy's rule.
    SandboxSuccessRateBelowThreshold,
    /// The domain's confidences are higher than its trials justify.
    CalibrationOverconfident,
    /// Every check passes.
    GatePass,
    /// The recommendation has expired.
    RecommendationExpired,
    /// The recommendation was revoked.
    RecommendationRevoked,
    /// The recommendation was for one use, and was used.
    RecommendationAlreadyUsed,
    /// The recommendation comes from another model version than the approved one.
    ModelVersionNotApproved,
    /// The domain's engine is disabled or throttled.
    EngineThrottled,
    /// The kill switch is engaged.
    KillSwitchEngaged,
    /// Go-live is off.
    GoLiveDisabled,
}

impl GateReason {
    /// Every reason, in order.
    pub const ALL: [Self; 13] = [
        Self::ProdUseDisabled,
        Self::ConfidenceBelowThreshold,
        Self::InsufficientSandboxTrials,
        Self::SandboxSuccessRateBelowThreshold,
        Self::CalibrationOverconfident,
        Self::GatePass,
        Self::RecommendationExpired,
        Self::RecommendationRevoked,
        Self::RecommendationAlreadyUsed,
        Self::ModelVersionNotApproved,
        Self::EngineThrottled,
        Self::KillSwitchEngaged,
        Self::GoLiveDisabled,
    ];

    /// The reason's stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProdUseDisabled => "prod_use_disabled",
            Self::ConfidenceBelowThreshold => "confidence_below_threshold",
            Self::InsufficientSandboxTrials => "insufficient_sandbox_trials",
            Self::SandboxSuccessRateBelowThreshold => "sandbox_success_rate_below_threshold",
            Self::CalibrationOverconfident => "calibration_overconfident",
            Self::GatePass => "gate_pass",
            Self::RecommendationExpired => "recommendation_expired",
            Self::RecommendationRevoked => "recommendation_revoked",
            Self::RecommendationAlreadyUsed => "recommendation_already_used",
            Self::ModelVersionNotApproved => "model_version_not_approved",
            Self::EngineThrottled => "engine_throttled",
            Self::KillSwitchEngaged => "kill_switch_engaged",
            Self::GoLiveDisabled => "go_live_disabled",
        }
    }

    /// Whether the reason lets the recommendation pass.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::GatePass)
    }
}

/// The result of a check. Every result but `PASS` keeps the gate shut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckResult {
    /// The check holds.
    Pass,
    /// The check does not hold.
    Fail,
    /// The check may hold after more trials.
    InsufficientEvidence,
}

/// One check of the gate with its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct GateCheck {
    /// The name of the check.
    pub check: &'static str,
    /// The result of the check.
    pub result: CheckResult,
    /// The reason that a failed check gives; null if it passes.
    pub reason: Option<GateReason>,
    /// The measured value: a confidence; a number of trials; by POINT the success rate, by LCB its lower bound, by
    /// ANYTIME the evidence; for calibration the overconfidence in standard deviations. Null if it is not a number.
    pub value: Option<Ratio>,
    /// The threshold; null if it is not a number.
    pub threshold: Option<Ratio>,
}

impl GateCheck {
    fn new(
        check: &'static str,
        result: CheckResult,
        reason: GateReason,
        value: Option<Ratio>,
        threshold: Option<Ratio>,
    ) -> Self {
        Self { check, result, reason: (result != CheckResult::Pass).then_some(reason), value, threshold }
    }
}

const fn unless(fails: bool) -> CheckResult {
    if fails { CheckResult::Fail } else { CheckResult::Pass }
}

fn ratio(fraction: Fraction) -> Option<Ratio> {
    Ratio::of(fraction.units(), 1_000_000)
}

/// Every check of a recommendation at its creation, in order. Without a policy, production use is off, which is the
/// only check.
#[must_use]
pub fn checks(
    policy: Option<&HeimdallPolicy>,
    tally: Tally,
    confidence: Confidence,
    model_version: Option<&ModelVersion>,
) -> Vec<GateCheck> {
    let off = !policy.is_some_and(|policy| policy.prod_use_enabled);
    let mut checks = vec![GateCheck::new("prod_use", unless(off), GateReason::ProdUseDisabled, None, None)];
    let Some(policy) = policy else {
        return checks;
    };
    checks.push(GateCheck::new(
        "confidence",
        unless(!confidence.reaches(policy.min_confidence_prod)),
        GateReason::ConfidenceBelowThreshold,
        Ratio::of(confidence.units(), 1_000_000_000_000_000_000),
        ratio(policy.min_confidence_prod),
    ));
    checks.extend(evidence_checks(policy, tally));
    if let Some(approved) = &policy.approved_model_version {
        let result = unless(model_version != Some(approved));
        checks.push(GateCheck::new("model_version", result, GateReason::ModelVersionNotApproved, None, None));
    }
    checks
}

/// The checks of a domain's evidence, in order: trials, success rate, and calibration if the policy requires it.
#[must_use]
pub fn evidence_checks(policy: &HeimdallPolicy, tally: Tally) -> Vec<GateCheck> {
    let enough = tally.trials >= policy.min_sandbox_trials.get();
    let trials = if enough { CheckResult::Pass } else { CheckResult::InsufficientEvidence };
    let mut checks = vec![
        GateCheck::new(
            "sandbox_trials",
            trials,
            GateReason::InsufficientSandboxTrials,
            Ratio::of(tally.trials.into(), 1),
            Ratio::of(policy.min_sandbox_trials.get().into(), 1),
        ),
        success_rate(policy, tally),
    ];
    if policy.calibration_gate {
        let unknown = tally.trials == 0;
        let result = if unknown { CheckResult::InsufficientEvidence } else { unless(tally.is_overconfident()) };
        let (z, most) = (tally.overconfidence_z().map(shown), Some(shown(Z_95)));
        checks.push(GateCheck::new("calibration", result, GateReason::CalibrationOverconfident, z, most));
    }
    checks
}

/// Checks that the trials show the least success rate, by the policy's rule. A rate that passes as a point but is not
/// certain enough yet is insufficient evidence; a lower one fails.
#[expect(clippy::cast_precision_loss, reason = "a fraction has at most a million units")]
fn success_rate(policy: &HeimdallPolicy, tally: Tally) -> GateCheck {
    let least = policy.min_sandbox_success_rate;
    let (opens, value, threshold) = match policy.gate_rule {
        GateRule::Point => {
            let rate = Ratio::of(tally.successes.into(), tally.trials.into()).unwrap_or_default();
            (tally.success_rate_reaches(least), rate, ratio(least))
        }
        GateRule::Lcb => {
            let bound = wilson_lower(tally.successes, tally.trials);
            (bound >= least.units() as f64 / 1_000_000.0, shown(bound), ratio(least))
        }
        GateRule::Anytime => {
            let evidence = anytime::e_value(tally.successes, tally.trials, least);
            (evidence >= E_OPEN, shown(evidence), Some(shown(E_OPEN)))
        }
    };
    let result = if opens {
        CheckResult::Pass
    } else if tally.trials == 0 || tally.success_rate_reaches(least) {
        CheckResult::InsufficientEvidence
    } else {
        CheckResult::Fail
    };
    let reason = GateReason::SandboxSuccessRateBelowThreshold;
    GateCheck::new("sandbox_success_rate", result, reason, Some(value), threshold)
}

/// The reason of the first check that does not pass, or the pass.
#[must_use]
pub fn verdict(checks: &[GateCheck]) -> GateReason {
    checks.iter().find_map(|check| check.reason).unwrap_or(GateReason::GatePass)
}
