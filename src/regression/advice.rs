//! The advice on a series before a wire watches it: its variation, and the consequences for PLAIN. It decides nothing.

use super::detector::lint::{min_resolvable_drop, plain_expected_trips, rate_cv};
use super::model::{Action, Detector, Direction, Effect, Measurement, RegressionPolicy};
use crate::types::Count;
use serde::Serialize;
use utoipa::ToSchema;

/// The number of last events in a profile.
pub const PROFILED: i64 = 1_000;
/// The least number of events in a profile.
const PROFILED_MIN: usize = 20;

/// The profile of a history before a wire watches it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Profile {
    /// The number of events in the profile, the last ones.
    pub events: usize,
    /// Whether the series consists of successes and failures.
    pub boolean: bool,
    /// The mean; for successes, their rate.
    pub mean: f64,
    /// The standard deviation over the mean; for a rate that should be low, over that of its complement. Null if the
    /// mean is not positive.
    pub coefficient_of_variation: Option<f64>,
}

impl Profile {
    /// The profile of these events; none if there are none.
    #[must_use]
    pub fn of(history: &[Measurement], direction: Direction) -> Option<Self> {
        let boolean = matches!(history.first()?, Measurement::Success(_));
        let values = history.iter().map(|one| to_float(one.addend().units()));
        let count = to_real(history.len());
        let mean = values.clone().sum::<f64>() / count;
        let judged = if boolean && direction == Direction::LowerIsBetter { 1.0 - mean } else { mean };
        let variance = values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
        let cv = if boolean { rate_cv(judged) } else { variance.sqrt() / judged };
        let cv = (judged > 0.0 && cv.is_finite()).then_some(cv);
        Some(Self { events: history.len(), boolean, mean, coefficient_of_variation: cv })
    }

    /// The smallest relative drop that PLAIN's windows can tell from chance.
    #[must_use]
    pub fn min_resolvable_drop(&self, policy: &RegressionPolicy) -> Option<f64> {
        let size = |count: Count| usize::try_from(count.get()).unwrap_or(usize::MAX);
        let cv = self.coefficient_of_variation.filter(|_| policy.effect == Effect::Relative)?;
        Some(min_resolvable_drop(cv, size(policy.window_events), size(policy.baseline_events)))
    }
}

fn size(count: Count) -> usize {
    usize::try_from(count.get()).unwrap_or(usize::MAX)
}

/// The warnings about a wire with this policy on a series with this profile.
#[must_use]
pub fn warnings(policy: &RegressionPolicy, profile: Option<&Profile>) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(profile) = profile.filter(|profile| profile.events >= PROFILED_MIN) else {
        if profile.is_none() && policy.action == Action::KillSwitch && policy.detector == Detector::Plain {
            let warning = "the series has no events yet: if they will be values, chance pulls the kill switch; detector=SEQUENTIAL \
                           does not let it";
            warnings.push(warning.to_owned());
        }
        return warnings;
    };
    let relative = policy.effect == Effect::Relative;
    if relative && profile.coefficient_of_variation.is_none() {
        warnings.push(format!(
            "the mean of the last {} events is {:.3}: a relative drop needs a positive baseline; effect=ABSOLUTE does not",
            profile.events, profile.mean
        ));
    }
    if policy.detector != Detector::Plain {
        return warnings;
    }
    #[expect(clippy::cast_precision_loss, reason = "millionths of one")]
    let drop = policy.max_drop_fraction.units() as f64 / 1e6;
    let (window, baseline) = (size(policy.window_events), size(policy.baseline_events));
    if let Some(resolvable) = profile.min_resolvable_drop(policy).filter(|resolvable| *resolvable > drop) {
        warnings.push(format!(
            "PLAIN with windows of {window} and {baseline} cannot tell a drop below {resolvable:.2} from chance on this series, and \
             max_drop_fraction is {drop}: choose detector=SEQUENTIAL, larger windows or a larger drop"
        ));
    }
    if profile.boolean && (!relative || profile.coefficient_of_variation.is_some()) {
        let judged = if policy.direction == Direction::LowerIsBetter { 1.0 - profile.mean } else { profile.mean };
        let expected = plain_expected_trips(judged, policy.tolerance(true), window, baseline, 5_000);
        if expected >= 0.1 {
            warnings.push(format!("expect about {expected:.1} false trips in 5,000 events"));
        }
    }
    if !profile.boolean && policy.action == Action::KillSwitch {
        warnings.push("PLAIN pulls the kill switch by the mean of values: a few large ones are enough".to_owned());
    }
    warnings
}

/// Whether a wire is so likely to stop everything by chance that it needs `force`: PLAIN on values, with a
/// `KILL_SWITCH`.
#[must_use]
pub fn needs_force(policy: &RegressionPolicy, profile: Option<&Profile>) -> bool {
    policy.enabled
        && policy.action == Action::KillSwitch
        && policy.detector == Detector::Plain
        && profile.is_some_and(|profile| !profile.boolean)
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn to_float(units: i128) -> f64 {
    units as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "a history of at most 10^7 events")]
pub(super) fn to_real(count: usize) -> f64 {
    count as f64
}
