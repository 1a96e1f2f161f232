//! Computes exactly how much worse a series is, by cross-multiplied integers, in either direction.
//!
//! A rate that should be low is judged by its complement `1 - x`, in both windows: errors that rise from 1 % to 3 % are
//! successes that drop from 99 % to 97 %, a drop of 2 % and not a rise of 200 %. A value that should be low has no
//! complement and is judged by its rise.

use super::Window;
use crate::types::Ratio;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Millionths in one.
const MICRO: i128 = 1_000_000;

/// The direction in which a series is good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Direction {
    /// More is better: successes, profit. A drop is worse.
    #[default]
    HigherIsBetter,
    /// Less is better: errors, costs. A rise is worse.
    LowerIsBetter,
}

impl Direction {
    /// The direction's name in the database and in notes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HigherIsBetter => "HIGHER_IS_BETTER",
            Self::LowerIsBetter => "LOWER_IS_BETTER",
        }
    }

    /// The direction with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::HigherIsBetter, Self::LowerIsBetter].into_iter().find(|direction| direction.as_str() == name)
    }
}

/// The unit of a drop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Effect {
    /// A fraction of the baseline, which has to be positive.
    #[default]
    Relative,
    /// The metric's own units, or points of a rate; the baseline may have any value.
    Absolute,
}

impl Effect {
    /// The effect's name in the database and in notes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relative => "RELATIVE",
            Self::Absolute => "ABSOLUTE",
        }
    }

    /// The effect with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Relative, Self::Absolute].into_iter().find(|effect| effect.as_str() == name)
    }
}

/// The drop that a series may not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// The direction in which the series is good.
    pub direction: Direction,
    /// The unit of the limit.
    pub effect: Effect,
    /// Whether the series consists of successes and failures.
    pub boolean: bool,
    /// The drop that trips, in millionths: of the baseline for RELATIVE, 1 to 10^6; of the metric's unit for ABSOLUTE,
    /// at most 2 · 10^18.
    pub limit: i128,
}

/// The comparison of two windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// The drop of the recent window, rounded for display; negative if it is better.
    pub drop: Option<Ratio>,
    /// Whether the drop reaches the limit; equality does.
    pub reaches: bool,
    /// Whether a drop can be computed.
    pub computable: bool,
}

impl Tolerance {
    /// Compares the recent window with the baseline. The drop cannot be computed if either is empty or, for RELATIVE,
    /// if the baseline (for a rate that should be low, its complement) is not positive.
    ///
    /// It is exact for a baseline of up to 10^4 events, a recent window of up to 10^9, and values up to 10^12: no
    /// product exceeds 2 · 10^37, and an i128 holds 1.7 · 10^38. A number that does not fit makes the drop not
    /// computable, rather than wrong.
    #[must_use]
    pub fn compare(self, baseline: Window, recent: Window) -> Compared {
        let drop = self.drop(baseline, recent);
        Compared {
            drop: drop.and_then(|(lost, whole)| Ratio::of(lost, whole)),
            reaches: self.reaches(baseline, recent),
            computable: drop.is_some(),
        }
    }

    /// Whether the recent window is worse than the baseline by the limit or more, as [`Self::compare`] says.
    #[must_use]
    pub fn reaches(self, baseline: Window, recent: Window) -> bool {
        self.drop(baseline, recent)
            .and_then(|(lost, whole)| Some(lost.checked_mul(MICRO)? >= self.limit.checked_mul(whole)?))
            .unwrap_or(false)
    }

    /// The drop as a fraction with a positive denominator.
    fn drop(self, baseline: Window, recent: Window) -> Option<(i128, i128)> {
        if baseline.events <= 0 || recent.events <= 0 {
            return None;
        }
        let (then, now) = (self.judged(baseline), self.judged(recent));
        let (then_events, now_events) = (i128::from(baseline.events), i128::from(recent.events));
        // then/n - now/m = (then·m - now·n) / (n·m), and divided by then/n: (then·m - now·n) / (then·m).
        let expected = then.checked_mul(now_events)?;
        let fell = expected.checked_sub(now.checked_mul(then_events)?)?;
        let is_rise = self.direction == Direction::LowerIsBetter && !self.boolean;
        let lost = if is_rise { fell.checked_neg()? } else { fell };
        match self.effect {
            Effect::Relative if expected <= 0 => None,
            Effect::Relative => Some((lost, expected)),
            Effect::Absolute => Some((lost, then_events.checked_mul(now_events)?.checked_mul(MICRO)?)),
        }
    }

    /// The sum that is judged, in millionths; for a rate that should be low, of the complements.
    fn judged(self, window: Window) -> i128 {
        match self.direction {
            Direction::LowerIsBetter if self.boolean => i128::from(window.events) * MICRO - window.sum.units(),
            _ => window.sum.units(),
        }
    }
}

#[cfg(test)]
mod tests;
