//! The charter's rules: types and pure decisions.
//!
//! Two decisions: the *gate*, made once when a recommendation is created, from the domain's policy and the day's scorecard;
//! and the *use*, made every time production wants to act on it, which can only be stricter.

use crate::audit::{Canonical, Changes, Origin, Stamp, Stream};
use crate::error::{Error, Result};
use crate::types::{Actor, Confidence, Count, Domain, Fraction, JsonObject, Ratio, Reason};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// What a domain of AI advice must show before production may act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HeimdallPolicy {
    /// The domain.
    pub domain: Domain,
    /// Least confidence of a recommendation.
    pub min_confidence_prod: Fraction,
    /// Least trials in today's sandbox.
    pub min_sandbox_trials: Count,
    /// Least share of them that succeeded.
    pub min_sandbox_success_rate: Fraction,
    /// Whether production may act on the domain at all.
    pub prod_use_enabled: bool,
    /// Who made the last change.
    pub changed_by: Option<String>,
    /// Why the last change was made.
    pub reason: Option<String>,
    /// When the last change was made.
    pub updated_at: DateTime<Utc>,
    /// Counts the changes, from 1.
    pub version: i64,
}

/// An upsert that is asked for. What is left out keeps its value; a new domain starts at 0.90 / 50 / 0.80 / off.
#[derive(Debug, Clone)]
pub struct PolicyUpsert {
    /// The domain.
    pub domain: Domain,
    /// Least confidence of a recommendation.
    pub min_confidence_prod: Option<Fraction>,
    /// Least trials in today's sandbox.
    pub min_sandbox_trials: Option<Count>,
    /// Least share of them that succeeded.
    pub min_sandbox_success_rate: Option<Fraction>,
    /// Whether production may act on the domain at all.
    pub prod_use_enabled: Option<bool>,
}

/// Most trials that a policy may ask for: more than a day can hold.
const TRIALS_MAX: i64 = 1_000_000_000;

/// The policy after an upsert, and what that changes.
pub fn upsert(
    existing: Option<&HeimdallPolicy>,
    upsert: &PolicyUpsert,
    by: Option<&Actor>,
    reason: Option<&Reason>,
    at: DateTime<Utc>,
) -> Result<(HeimdallPolicy, Changes)> {
    if let Some(trials) = upsert.min_sandbox_trials.filter(|trials| trials.get() > TRIALS_MAX) {
        let detail = format!("is {trials}: send a whole number from 0 to {TRIALS_MAX}");
        return Err(Error::invalid("min_sandbox_trials", detail));
    }
    let default = |text: &str| text.parse().expect("a constant of this file");
    let policy = HeimdallPolicy {
        domain: upsert.domain.clone(),
        min_confidence_prod: upsert
            .min_confidence_prod
            .or(existing.map(|old| old.min_confidence_prod))
            .unwrap_or_else(|| default("0.90")),
        min_sandbox_trials: upsert
            .min_sandbox_trials
            .or(existing.map(|old| old.min_sandbox_trials))
            .unwrap_or_else(|| "50".parse().expect("a constant of this file")),
        min_sandbox_success_rate: upsert
            .min_sandbox_success_rate
            .or(existing.map(|old| old.min_sandbox_success_rate))
            .unwrap_or_else(|| default("0.80")),
        prod_use_enabled: upsert.prod_use_enabled.or(existing.map(|old| old.prod_use_enabled)).unwrap_or(false),
        changed_by: by.map(ToString::to_string),
        reason: reason.map(ToString::to_string),
        updated_at: at,
        version: existing.map_or(1, |old| old.version + 1),
    };
    let mut changes = Changes::default();
    changes.note("min_confidence_prod", existing.map(|old| &old.min_confidence_prod), &policy.min_confidence_prod);
    changes.note("min_sandbox_trials", existing.map(|old| &old.min_sandbox_trials), &policy.min_sandbox_trials);
    changes.note(
        "min_sandbox_success_rate",
        existing.map(|old| &old.min_sandbox_success_rate),
        &policy.min_sandbox_success_rate,
    );
    changes.note("prod_use_enabled", existing.map(|old| &old.prod_use_enabled), &policy.prod_use_enabled);
    Ok((policy, changes))
}

/// The day's sandbox trials of a domain: integers and an exact sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Trials.
    pub trials: i64,
    /// How many succeeded.
    pub successes: i64,
    /// The sum of their confidences, in 10^-18.
    pub confidence_sum: i128,
}

impl Tally {
    /// The tally with one more trial.
    #[must_use]
    pub fn with(self, confidence: Confidence, success: bool) -> Self {
        Self {
            trials: self.trials + 1,
            successes: self.successes + i64::from(success),
            confidence_sum: self.confidence_sum + confidence.units(),
        }
    }

    /// Whether the share of successes reaches a threshold, compared exactly. No trials are no successes.
    #[must_use]
    pub fn success_rate_reaches(self, threshold: Fraction) -> bool {
        if self.trials == 0 {
            return threshold == Fraction::ZERO;
        }
        i128::from(self.successes) * 1_000_000 >= threshold.units() * i128::from(self.trials)
    }
}

/// A domain's scorecard of a day, as answers show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Scorecard {
    /// The UTC day of the database clock.
    pub day: NaiveDate,
    /// The domain.
    pub domain: Domain,
    /// Trials.
    pub trials: i64,
    /// How many succeeded.
    pub successes: i64,
    /// Their share; 0 without trials.
    pub success_rate: Ratio,
    /// Mean stated confidence; 0 without trials.
    pub avg_confidence: Ratio,
    /// When the last trial was recorded; null without trials.
    pub updated_at: Option<DateTime<Utc>>,
}

impl Scorecard {
    /// The scorecard of a tally.
    #[must_use]
    pub fn new(day: NaiveDate, domain: Domain, tally: Tally, updated_at: Option<DateTime<Utc>>) -> Self {
        let trials = i128::from(tally.trials);
        Self {
            day,
            domain,
            trials: tally.trials,
            successes: tally.successes,
            success_rate: Ratio::of(tally.successes.into(), trials).unwrap_or_default(),
            avg_confidence: Ratio::of(tally.confidence_sum, trials * 1_000_000_000_000_000_000).unwrap_or_default(),
            updated_at,
        }
    }
}

/// Why a recommendation may or may not be used, in the order of the checks: the original's five, then ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateReason {
    /// Production may not act on the domain; so it is for a domain without a policy.
    ProdUseDisabled,
    /// The recommendation is not confident enough.
    ConfidenceBelowThreshold,
    /// The domain has not tried enough today.
    InsufficientSandboxTrials,
    /// The domain's trials did not succeed often enough.
    SandboxSuccessRateBelowThreshold,
    /// Every check passes.
    GatePass,
    /// Everything is stopped.
    KillSwitchEngaged,
    /// Production is off.
    GoLiveDisabled,
}

impl GateReason {
    /// The reason's stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProdUseDisabled => "prod_use_disabled",
            Self::ConfidenceBelowThreshold => "confidence_below_threshold",
            Self::InsufficientSandboxTrials => "insufficient_sandbox_trials",
            Self::SandboxSuccessRateBelowThreshold => "sandbox_success_rate_below_threshold",
            Self::GatePass => "gate_pass",
            Self::KillSwitchEngaged => "kill_switch_engaged",
            Self::GoLiveDisabled => "go_live_disabled",
        }
    }

    /// Whether this lets the recommendation pass.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::GatePass)
    }
}

/// The gate at creation: the first check that fails.
#[must_use]
pub fn gate(policy: Option<&HeimdallPolicy>, tally: Tally, confidence: Confidence) -> GateReason {
    let Some(policy) = policy.filter(|policy| policy.prod_use_enabled) else {
        return GateReason::ProdUseDisabled;
    };
    if !confidence.reaches(policy.min_confidence_prod) {
        GateReason::ConfidenceBelowThreshold
    } else if tally.trials < policy.min_sandbox_trials.get() {
        GateReason::InsufficientSandboxTrials
    } else if !tally.success_rate_reaches(policy.min_sandbox_success_rate) {
        GateReason::SandboxSuccessRateBelowThreshold
    } else {
        GateReason::GatePass
    }
}

/// Whether the policy lets a use through that did not pass before: production use switched on, or a lower minimum.
#[must_use]
pub fn loosens(existing: Option<&HeimdallPolicy>, policy: &HeimdallPolicy) -> bool {
    existing.map_or(policy.prod_use_enabled, |old| {
        (policy.prod_use_enabled && !old.prod_use_enabled)
            || policy.min_confidence_prod < old.min_confidence_prod
            || policy.min_sandbox_trials < old.min_sandbox_trials
            || policy.min_sandbox_success_rate < old.min_sandbox_success_rate
    })
}

/// What the use of a recommendation is decided by.
#[derive(Debug)]
pub struct Use<'a> {
    /// Whether it passed the gate when it was created.
    pub eligible_at_creation: bool,
    /// The verdict at creation.
    pub gate_reason: &'a str,
    /// Its confidence.
    pub confidence: Confidence,
    /// The domain's policy now.
    pub policy: Option<&'a HeimdallPolicy>,
    /// Whether everything is stopped now.
    pub kill_switch_engaged: bool,
    /// Whether production is on now, or does not have to be.
    pub live: bool,
}

/// Whether production may act on a recommendation now. One that was never eligible never becomes so.
#[must_use]
pub fn may_use(asked: &Use<'_>) -> GateReason {
    if !asked.eligible_at_creation {
        return [
            GateReason::ConfidenceBelowThreshold,
            GateReason::InsufficientSandboxTrials,
            GateReason::SandboxSuccessRateBelowThreshold,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == asked.gate_reason)
        .unwrap_or(GateReason::ProdUseDisabled);
    }
    let Some(policy) = asked.policy.filter(|policy| policy.prod_use_enabled) else {
        return GateReason::ProdUseDisabled;
    };
    if !asked.confidence.reaches(policy.min_confidence_prod) {
        GateReason::ConfidenceBelowThreshold
    } else if asked.kill_switch_engaged {
        GateReason::KillSwitchEngaged
    } else if !asked.live {
        GateReason::GoLiveDisabled
    } else {
        GateReason::GatePass
    }
}

/// An event of the charter on its way into its stream.
#[derive(Debug)]
pub struct HeimdallEvent {
    /// The domain.
    pub domain: Domain,
    /// `TRIAL`, `RECOMMEND`, `REQUIRE`.
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
    /// Why, in the caller's words.
    pub reason: Option<Reason>,
    /// What is recommended.
    pub recommendation: Option<JsonObject>,
    /// What it rests on.
    pub evidence: Option<JsonObject>,
}

impl HeimdallEvent {
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
            // model_version: the column exists, nothing fills it yet.
            .text(None)
            .digest(self.reason.as_ref().map(Reason::as_str))
            .digest(self.recommendation.as_ref().map(JsonObject::as_str))
            .digest(self.evidence.as_ref().map(JsonObject::as_str))
            // detail: likewise.
            .digest(None)
    }
}

#[cfg(test)]
mod tests;
