//! The requirements on a domain: the policy, the changes of an upsert, and the decision whether they loosen.

use super::choices::{Evidence, GateRule, ScorecardWindow, Setting};
use super::scorecard::Span;
use crate::audit::Changes;
use crate::error::{Error, FieldError, Result};
use crate::types::{Actor, Count, Domain, Engine, Fraction, JsonObject, ModelVersion, Reason};
use chrono::{DateTime, Days, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The requirements that a domain of AI advice must meet before production may act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HeimdallPolicy {
    /// The domain.
    pub domain: Domain,
    /// The least confidence of a recommendation, 0 to 1.
    pub min_confidence_prod: Fraction,
    /// The least number of trials in the sandbox.
    pub min_sandbox_trials: Count,
    /// The least success rate of those trials, 0 to 1.
    pub min_sandbox_success_rate: Fraction,
    /// Whether production may act on the domain.
    pub prod_use_enabled: bool,
    /// The engine whose risk policy must be neither disabled nor throttled at a use; null if none matters.
    pub engine: Option<Engine>,
    /// The lifetime of a recommendation, seconds, up to a year; 0 for unlimited.
    pub recommendation_ttl_seconds: Count,
    /// Whether a recommendation may be used only once.
    pub single_use: bool,
    /// The window of the trials that count.
    pub scorecard_window: ScorecardWindow,
    /// The days of a rolling window, 1 to 365.
    pub window_days: Count,
    /// The rule by which the success rate is compared with its minimum.
    pub gate_rule: GateRule,
    /// The only model version whose trials count and whose recommendations may be used; null for all.
    pub approved_model_version: Option<ModelVersion>,
    /// Whether overconfidence keeps the gate shut.
    pub calibration_gate: bool,
    /// Whether the evidence passed when production use was switched on; null while it is off, and if it is unknown.
    pub evidence: Option<Evidence>,
    /// The evidence with which production use was switched on.
    #[schema(value_type = Option<super::Promotion>)]
    pub promotion: Option<JsonObject>,
    /// The actor of the last change, as claimed.
    pub changed_by: Option<String>,
    /// The reason of the last change, in the caller's words.
    pub reason: Option<String>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
    /// The number of changes, from 1.
    pub version: i64,
}

/// A point that an operator should know about a policy: a stable name and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PolicyWarning {
    /// The stable name of the warning.
    pub id: &'static str,
    /// The meaning, and the fix.
    pub detail: String,
}

impl HeimdallPolicy {
    /// The policy of a domain before its first upsert.
    fn starting(domain: Domain, at: DateTime<Utc>) -> Self {
        let fraction = |text: &str| text.parse().expect("a constant of this file");
        let count = |text: &str| text.parse().expect("a constant of this file");
        Self {
            domain,
            min_confidence_prod: fraction("0.90"),
            min_sandbox_trials: count("50"),
            min_sandbox_success_rate: fraction("0.80"),
            prod_use_enabled: false,
            engine: None,
            recommendation_ttl_seconds: count("259200"),
            single_use: false,
            scorecard_window: ScorecardWindow::Day,
            window_days: count("30"),
            gate_rule: GateRule::Point,
            approved_model_version: None,
            calibration_gate: false,
            evidence: None,
            promotion: None,
            changed_by: None,
            reason: None,
            updated_at: at,
            version: 0,
        }
    }

    /// The number of UTC days that count, today included.
    #[must_use]
    pub const fn days(&self) -> i64 {
        match self.scorecard_window {
            ScorecardWindow::Day => 1,
            ScorecardWindow::RollingDays => self.window_days.get(),
        }
    }

    /// The trials that count on a day.
    #[must_use]
    pub fn span(&self, day: NaiveDate) -> Span {
        let before = Days::new(self.days().unsigned_abs().saturating_sub(1));
        Span {
            domain: self.domain.clone(),
            from: day.checked_sub_days(before).unwrap_or(day),
            day,
            model_version: self.approved_model_version.clone(),
        }
    }

    /// The time at which a recommendation that is made now expires; none for never.
    #[must_use]
    pub fn expiry(&self, made_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let seconds = self.recommendation_ttl_seconds.get();
        (seconds > 0).then(|| made_at + chrono::TimeDelta::seconds(seconds))
    }

    /// The points that an operator should know about the policy; `engines` are those that have a risk policy.
    #[must_use]
    pub fn warnings(&self, engines: &[Engine]) -> Vec<PolicyWarning> {
        let mut warnings = Vec::new();
        let mut warn = |id, detail| warnings.push(PolicyWarning { id, detail });
        if let Some(engine) = self.engine.as_ref().filter(|engine| !engines.contains(engine)) {
            let detail = format!(
                "no risk policy is named {engine}, so every use of a recommendation is refused: send engine with the name of the one \
                 that acts, or remove_engine=true"
            );
            warn("unknown_engine", detail);
        }
        let trials = self.min_sandbox_trials;
        if self.scorecard_window == ScorecardWindow::Day && trials > Count::ZERO {
            let detail =
                format!("DAY counts today alone: the gate closes each midnight UTC until {trials} new trials arrive");
            warn("closes_each_midnight", detail);
        }
        if self.prod_use_enabled && self.evidence != Some(Evidence::Met) {
            let detail = "production use was switched on without evidence that passed: demote it, or promote it once it has earned it";
            warn("prod_use_without_evidence", detail.to_owned());
        }
        if trials == Count::ZERO || self.min_sandbox_success_rate == Fraction::ZERO {
            warn("nothing_to_earn", "a minimum of 0 asks for nothing: set both minima".to_owned());
        }
        if self.gate_rule != GateRule::Point && self.min_sandbox_success_rate.units() == 1_000_000 {
            let detail = "no number of trials can show a success rate of 1 by this rule: the gate never opens";
            warn("gate_never_opens", detail.to_owned());
        }
        if self.recommendation_ttl_seconds == Count::ZERO {
            let detail = "recommendations never expire: old advice may be used until it is revoked";
            warn("never_expires", detail.to_owned());
        }
        warnings
    }
}

/// A requested upsert. Fields that are left out keep their value; a new domain starts at 0.90 / 50 / 0.80 / off.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of HeimdallPolicy")]
pub struct PolicyUpsert {
    pub domain: Domain,
    pub min_confidence_prod: Option<Fraction>,
    pub min_sandbox_trials: Option<Count>,
    pub min_sandbox_success_rate: Option<Fraction>,
    pub prod_use_enabled: Option<bool>,
    pub engine: Setting<Engine>,
    pub recommendation_ttl_seconds: Option<Count>,
    pub single_use: Option<bool>,
    pub scorecard_window: Option<ScorecardWindow>,
    pub window_days: Option<Count>,
    pub gate_rule: Option<GateRule>,
    pub approved_model_version: Setting<ModelVersion>,
    pub calibration_gate: Option<bool>,
}

impl PolicyUpsert {
    /// An upsert that changes nothing.
    #[must_use]
    pub const fn of(domain: Domain) -> Self {
        Self {
            domain,
            min_confidence_prod: None,
            min_sandbox_trials: None,
            min_sandbox_success_rate: None,
            prod_use_enabled: None,
            engine: Setting::Keep,
            recommendation_ttl_seconds: None,
            single_use: None,
            scorecard_window: None,
            window_days: None,
            gate_rule: None,
            approved_model_version: Setting::Keep,
            calibration_gate: None,
        }
    }
}

/// The most trials that a policy may require: more than a day can hold.
const TRIALS_MAX: i64 = 1_000_000_000;
/// The longest lifetime of advice: a year.
const TTL_SECONDS_MAX: i64 = 31_536_000;
/// Most days of a rolling window.
const WINDOW_DAYS_MAX: i64 = 365;

fn validate(upsert: &PolicyUpsert) -> Result<()> {
    let mut errors = Vec::new();
    for (field, count, least, most) in [
        ("min_sandbox_trials", upsert.min_sandbox_trials, 0, TRIALS_MAX),
        ("recommendation_ttl_seconds", upsert.recommendation_ttl_seconds, 0, TTL_SECONDS_MAX),
        ("window_days", upsert.window_days, 1, WINDOW_DAYS_MAX),
    ] {
        if let Some(count) = count.filter(|count| !(least..=most).contains(&count.get())) {
            errors.push(FieldError::new(field, format!("is {count}: send a whole number from {least} to {most}")));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

/// The policy after an upsert, and the changes of the upsert.
pub fn upsert(
    existing: Option<&HeimdallPolicy>,
    upsert: &PolicyUpsert,
    by: Option<&Actor>,
    reason: Option<&Reason>,
    at: DateTime<Utc>,
) -> Result<(HeimdallPolicy, Changes)> {
    validate(upsert)?;
    let old = existing.cloned().unwrap_or_else(|| HeimdallPolicy::starting(upsert.domain.clone(), at));
    let prod_use_enabled = upsert.prod_use_enabled.unwrap_or(old.prod_use_enabled);
    let policy = HeimdallPolicy {
        domain: upsert.domain.clone(),
        min_confidence_prod: upsert.min_confidence_prod.unwrap_or(old.min_confidence_prod),
        min_sandbox_trials: upsert.min_sandbox_trials.unwrap_or(old.min_sandbox_trials),
        min_sandbox_success_rate: upsert.min_sandbox_success_rate.unwrap_or(old.min_sandbox_success_rate),
        prod_use_enabled,
        engine: upsert.engine.after(old.engine.clone()),
        recommendation_ttl_seconds: upsert.recommendation_ttl_seconds.unwrap_or(old.recommendation_ttl_seconds),
        single_use: upsert.single_use.unwrap_or(old.single_use),
        scorecard_window: upsert.scorecard_window.unwrap_or(old.scorecard_window),
        window_days: upsert.window_days.unwrap_or(old.window_days),
        gate_rule: upsert.gate_rule.unwrap_or(old.gate_rule),
        approved_model_version: upsert.approved_model_version.after(old.approved_model_version.clone()),
        calibration_gate: upsert.calibration_gate.unwrap_or(old.calibration_gate),
        // The evidence ends with production use; this function does not know newer evidence.
        evidence: old.evidence.filter(|_| prod_use_enabled && old.prod_use_enabled),
        promotion: old.promotion.clone().filter(|_| prod_use_enabled && old.prod_use_enabled),
        changed_by: by.map(ToString::to_string),
        reason: reason.map(ToString::to_string),
        updated_at: at,
        version: old.version + 1,
    };
    Ok((policy.clone(), changes(existing, &old, &policy)))
}

fn changes(existing: Option<&HeimdallPolicy>, old: &HeimdallPolicy, policy: &HeimdallPolicy) -> Changes {
    let mut changes = Changes::default();
    macro_rules! note {
        ($field:ident) => {
            changes.note(stringify!($field), existing.map(|old| &old.$field), &policy.$field)
        };
    }
    // A later setting that a new policy leaves at its default is not a change.
    macro_rules! note_moved {
        ($field:ident) => {
            if old.$field != policy.$field {
                note!($field);
            }
        };
    }
    note!(min_confidence_prod);
    note!(min_sandbox_trials);
    note!(min_sandbox_success_rate);
    note!(prod_use_enabled);
    note_moved!(engine);
    note_moved!(recommendation_ttl_seconds);
    note_moved!(single_use);
    note_moved!(scorecard_window);
    note_moved!(window_days);
    note_moved!(gate_rule);
    note_moved!(approved_model_version);
    note_moved!(calibration_gate);
    changes
}

/// Whether the policy admits a use that did not pass before: production use switched on, a lower minimum, a weaker
/// rule, advice that lives longer or may be reused, calibration or the engine no longer checked. Another window and
/// another approved model version count as well, since their effect cannot be predicted.
#[must_use]
pub fn loosens(existing: Option<&HeimdallPolicy>, policy: &HeimdallPolicy) -> bool {
    // 0 is the longest life.
    let life = |policy: &HeimdallPolicy| match policy.recommendation_ttl_seconds.get() {
        0 => i64::MAX,
        seconds => seconds,
    };
    existing.map_or(policy.prod_use_enabled, |old| {
        (policy.prod_use_enabled && !old.prod_use_enabled)
            || policy.min_confidence_prod < old.min_confidence_prod
            || policy.min_sandbox_trials < old.min_sandbox_trials
            || policy.min_sandbox_success_rate < old.min_sandbox_success_rate
            || policy.gate_rule < old.gate_rule
            || policy.days() != old.days()
            || life(policy) > life(old)
            || (old.single_use && !policy.single_use)
            || (old.calibration_gate && !policy.calibration_gate)
            || (old.engine.is_some() && policy.engine != old.engine)
            || policy.approved_model_version != old.approved_model_version
    })
}
