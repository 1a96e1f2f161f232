//! Setting up a wire: what an upsert changes, and which wires could never work.

use super::{Action, RegressionPolicy, WINDOW_MAX};
use crate::audit::Changes;
use crate::error::{Error, FieldError, Result};
use crate::types::{Actor, Count, Domain, Engine, Fraction, Metric, Reason};
use chrono::{DateTime, Utc};

/// An upsert that is asked for. What is left out keeps its value; a new wire starts at 50/200/50/0.20/THROTTLE, enabled.
#[derive(Debug, Clone)]
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
    pub enabled: Option<bool>,
}

/// The policy after an upsert, and what that changes.
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
    changes.note("enabled", existing.map(|old| &old.enabled), &policy.enabled);
    Ok((policy, changes))
}

/// Whether the wire would let through what tripped it before: off, a weaker action, a larger drop, more events before it acts. Other
/// windows and another engine count as well: nobody can tell beforehand which way they lead.
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
    })
}

fn validate(policy: &RegressionPolicy) -> Result<()> {
    let mut errors = Vec::new();
    for (field, count) in [
        ("window_events", policy.window_events),
        ("baseline_events", policy.baseline_events),
        ("min_events_to_enforce", policy.min_events_to_enforce),
    ] {
        if !(1..=WINDOW_MAX).contains(&count.get()) {
            errors.push(FieldError::new(field, format!("is {count}: send a whole number from 1 to {WINDOW_MAX}")));
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
    if policy.action == Action::Throttle && policy.throttled_engine().is_none() {
        let detail = format!("is required: {} is too long to be an engine's name", policy.domain);
        errors.push(FieldError::new("engine", detail));
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}
