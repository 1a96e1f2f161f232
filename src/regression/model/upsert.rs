//! The changes of an upsert of a wire, and the refusal of wires that could never work.

use super::{Action, Detector, Direction, Effect, Mode, OnStale, RegressionPolicy, WINDOW_MAX, WINDOW_MIN};
use crate::approval::model::ApprovalAction;
use crate::audit::Changes;
use crate::error::{Error, FieldError, Result};
use crate::types::{Actor, Amount, Count, Domain, Engine, Fraction, Metric, Reason};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The least `false_trip_arl` that a request may set, in events.
const ARL_MIN: i64 = 100;
/// The longest silence that a request may allow, seconds: a year.
const STALE_MAX: i64 = 31_536_000;

/// A requested upsert. Fields that are left out keep their value; a new wire starts at 50/200/50/0.20/THROTTLE,
/// enabled.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of RegressionPolicy")]
pub struct PolicyUpsert {
    pub domain: Domain,
    pub metric: Metric,
    pub window_events: Option<Count>,
    pub baseline_events: Option<Count>,
    pub min_events_to_enforce: Option<Count>,
    pub max_drop_fraction: Option<Fraction>,
    pub action: Option<Action>,
    pub engine: Option<Engine>,
    pub detector: Option<Detector>,
    pub direction: Option<Direction>,
    pub effect: Option<Effect>,
    /// 0 takes it away.
    pub max_drop_value: Option<Amount>,
    pub mode: Option<Mode>,
    pub on_stale: Option<OnStale>,
    /// 0 takes it away.
    pub stale_after_seconds: Option<Count>,
    /// 0 means the default.
    pub false_trip_arl: Option<Count>,
    pub tolerance_fraction: Option<Fraction>,
    pub enabled: Option<bool>,
}

/// The policy after an upsert, and the changes of the upsert.
pub fn upsert(
    existing: Option<&RegressionPolicy>,
    upsert: &PolicyUpsert,
    by: Option<&Actor>,
    reason: Option<&Reason>,
    at: DateTime<Utc>,
) -> Result<(RegressionPolicy, Changes)> {
    let count = |new: Option<Count>, old: fn(&RegressionPolicy) -> Count, default: &str| {
        new.or(existing.map(old)).unwrap_or_else(|| default.parse().expect("a constant of this file"))
    };
    let given = |new: Option<Count>, old: Option<Count>| new.or(old).filter(|count| count.get() > 0);
    let policy = RegressionPolicy {
        domain: upsert.domain.clone(),
        metric: upsert.metric.clone(),
        window_events: count(upsert.window_events, |old| old.window_events, "50"),
        baseline_events: count(upsert.baseline_events, |old| old.baseline_events, "200"),
        min_events_to_enforce: count(upsert.min_events_to_enforce, |old| old.min_events_to_enforce, "50"),
        max_drop_fraction: upsert
            .max_drop_fraction
            .or(existing.map(|old| old.max_drop_fraction))
            .unwrap_or_else(|| "0.20".parse().expect("a constant of this file")),
        action: upsert.action.or(existing.map(|old| old.action)).unwrap_or(Action::Throttle),
        engine: upsert.engine.clone().or_else(|| existing.and_then(|old| old.engine.clone())),
        detector: upsert.detector.or(existing.map(|old| old.detector)).unwrap_or_default(),
        direction: upsert.direction.or(existing.map(|old| old.direction)).unwrap_or_default(),
        effect: upsert.effect.or(existing.map(|old| old.effect)).unwrap_or_default(),
        max_drop_value: upsert
            .max_drop_value
            .or(existing.and_then(|old| old.max_drop_value))
            .filter(|value| !value.is_zero()),
        mode: upsert.mode.or(existing.map(|old| old.mode)).unwrap_or_default(),
        on_stale: upsert.on_stale.or(existing.map(|old| old.on_stale)).unwrap_or_default(),
        stale_after_seconds: given(upsert.stale_after_seconds, existing.and_then(|old| old.stale_after_seconds)),
        false_trip_arl: given(upsert.false_trip_arl, existing.and_then(|old| old.false_trip_arl)),
        tolerance_fraction: upsert.tolerance_fraction.or(existing.and_then(|old| old.tolerance_fraction)),
        enabled: upsert.enabled.or(existing.map(|old| old.enabled)).unwrap_or(true),
        changed_by: by.map(ToString::to_string),
        reason: reason.map(ToString::to_string),
        updated_at: at,
        version: existing.map_or(1, |old| old.version + 1),
    };
    validate(&policy)?;
    let mut changes = Changes::default();
    changes.note("window_events", existing.map(|old| &old.window_events), &policy.window_events);
    changes.note("baseline_events", existing.map(|old| &old.baseline_events), &policy.baseline_events);
    changes.note(
        "min_events_to_enforce",
        existing.map(|old| &old.min_events_to_enforce),
        &policy.min_events_to_enforce,
    );
    changes.note("max_drop_fraction", existing.map(|old| &old.max_drop_fraction), &policy.max_drop_fraction);
    changes.note("action", existing.map(|old| &old.action), &policy.action);
    if existing.and_then(|old| old.engine.as_ref()) != policy.engine.as_ref() {
        changes.note("engine", existing.map(|old| &old.engine), &policy.engine);
    }
    note_detector(&mut changes, existing, &policy);
    changes.note("enabled", existing.map(|old| &old.enabled), &policy.enabled);
    Ok((policy, changes))
}

fn note_detector(changes: &mut Changes, existing: Option<&RegressionPolicy>, policy: &RegressionPolicy) {
    macro_rules! note {
        ($($field:ident),*) => {
            $(changes.note(stringify!($field), existing.map(|old| &old.$field), &policy.$field);)*
        };
    }
    // A default value in a new wire is not reported as a change.
    macro_rules! note_said {
        ($($field:ident),*) => {
            $(if existing.and_then(|old| old.$field) != policy.$field {
                note!($field);
            })*
        };
    }
    note!(detector, direction, effect, mode, on_stale);
    note_said!(max_drop_value, stale_after_seconds, false_trip_arl, tolerance_fraction);
}

/// The action that a change of a wire loosens; `ends` is the trip that it ends. None for a change that does not loosen.
#[must_use]
pub fn loosening(
    existing: Option<&RegressionPolicy>,
    policy: &RegressionPolicy,
    ends: Option<i64>,
) -> Option<ApprovalAction> {
    (ends.is_some() || loosens(existing, policy) || rebases(existing, policy)).then_some(ApprovalAction::Wire)
}

/// Whether the wire would admit a series that tripped it before: off, in SHADOW, a weaker action, a larger drop, more
/// events before it acts, more evidence. Another detector, effect or direction, other windows and another engine count
/// as well, since their effect cannot be predicted. For a SEQUENTIAL wire the values of its detector count: a stronger
/// action also moves those that have their defaults.
#[must_use]
pub fn loosens(existing: Option<&RegressionPolicy>, policy: &RegressionPolicy) -> bool {
    existing.is_some_and(|old| {
        (old.enabled && !policy.enabled)
            || policy.action < old.action
            || policy.max_drop_fraction > old.max_drop_fraction
            || policy.min_events_to_enforce > old.min_events_to_enforce
            || policy.window_events != old.window_events
            || policy.baseline_events != old.baseline_events
            || policy.throttled_engine() != old.throttled_engine()
            || policy.mode < old.mode
            || policy.on_stale < old.on_stale
            || later(policy.stale_after_seconds, old.stale_after_seconds)
            || policy.detector != old.detector
            || policy.direction != old.direction
            || policy.effect != old.effect
            || policy.max_drop_value != old.max_drop_value
            || (policy.arl() > old.arl() && goes_by(policy, policy.false_trip_arl != old.false_trip_arl))
            || (policy.tolerated() != old.tolerated()
                && goes_by(policy, policy.tolerance_fraction != old.tolerance_fraction))
    })
}

/// Whether a changed setting of SEQUENTIAL counts: its detector uses it, or it was set for later.
fn goes_by(policy: &RegressionPolicy, is_set: bool) -> bool {
    is_set || policy.detector == Detector::Sequential
}

/// Whether silence is noticed later than before, or never.
fn later(new: Option<Count>, old: Option<Count>) -> bool {
    old.is_some_and(|old| new.is_none_or(|new| new > old))
}

/// Whether a SEQUENTIAL wire must freeze its baseline again, because its settings differ from those of the evidence.
#[must_use]
pub fn refreezes(existing: Option<&RegressionPolicy>, policy: &RegressionPolicy) -> bool {
    policy.detector == Detector::Sequential
        && existing.is_none_or(|old| {
            policy.detector != old.detector
                || policy.baseline_events != old.baseline_events
                || policy.max_drop_fraction != old.max_drop_fraction
                || policy.tolerated() != old.tolerated()
                || policy.max_drop_value != old.max_drop_value
                || policy.direction != old.direction
                || policy.effect != old.effect
        })
}

/// Whether a wire that judges by a frozen baseline gets another one. That is a reset, whatever its cause.
#[must_use]
pub fn rebases(existing: Option<&RegressionPolicy>, policy: &RegressionPolicy) -> bool {
    refreezes(existing, policy) && existing.is_some_and(|old| old.detector == Detector::Sequential)
}

/// Refuses a policy that no wire could follow. It also checks the fields that were kept, so a stricter rule must still
/// let an older wire be switched off.
fn validate(policy: &RegressionPolicy) -> Result<()> {
    let mut errors = Vec::new();
    for (field, count) in [
        ("window_events", policy.window_events),
        ("baseline_events", policy.baseline_events),
        ("min_events_to_enforce", policy.min_events_to_enforce),
    ] {
        if !(WINDOW_MIN..=WINDOW_MAX).contains(&count.get()) {
            errors.push(FieldError::new(
                field,
                format!("is {count}: send a whole number from {WINDOW_MIN} to {WINDOW_MAX}"),
            ));
        }
    }
    let (min, shorter) = (policy.min_events_to_enforce, policy.window_events.min(policy.baseline_events));
    if min > shorter {
        let detail = format!(
            "is {min}, but a window holds {shorter} events: the wire could never trip; lower it to {shorter} or less"
        );
        errors.push(FieldError::new("min_events_to_enforce", detail));
    }
    if policy.max_drop_fraction == Fraction::ZERO {
        errors.push(FieldError::new("max_drop_fraction", "must be more than 0: every event would trip the wire"));
    }
    if policy.max_drop_value.is_some() && policy.effect != Effect::Absolute {
        errors.push(FieldError::new("max_drop_value", "is for effect=ABSOLUTE: send 0, or that effect with it"));
    }
    if policy.on_stale == OnStale::Trip && policy.stale_after_seconds.is_none() {
        errors.push(FieldError::new("stale_after_seconds", "is required with on_stale=TRIP"));
    }
    if let Some(seconds) = policy.stale_after_seconds.filter(|seconds| seconds.get() > STALE_MAX) {
        let detail = format!("is {seconds}: send a whole number from 1 to {STALE_MAX}, or 0 for none");
        errors.push(FieldError::new("stale_after_seconds", detail));
    }
    if let Some(arl) = policy.false_trip_arl.filter(|arl| arl.get() < ARL_MIN) {
        let detail = format!("is {arl}: send a whole number of at least {ARL_MIN}, or 0 for the default");
        errors.push(FieldError::new("false_trip_arl", detail));
    }
    if policy.tolerance_fraction.is_some_and(|tolerance| tolerance.units() >= 1_000_000) {
        errors.push(FieldError::new("tolerance_fraction", "must be below 1"));
    }
    if policy.action == Action::Throttle && policy.throttled_engine().is_none() {
        let detail = format!("is required: {} is too long to be an engine's name", policy.domain);
        errors.push(FieldError::new("engine", detail));
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}
