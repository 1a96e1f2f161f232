//! A frozen baseline, and the payoff of each bet against it.

use super::ranks::{Ranks, real};
use crate::regression::model::{Direction, Effect, Measurement, Tolerance, Window};
use crate::statistics::{Z_95, wilson_lower};
use crate::types::{Measured, Total};

/// The drops that the three bets assume, as multiples of the tolerated one.
const DESIGNS: [f64; 3] = [1.0, 1.75, 3.0];
/// The largest drop that a bet assumes, as a fraction of the baseline.
const DESIGN_MAX: f64 = 0.9;
/// The least distance of a bet from the bound, as a share of the tolerated drop. Without it a bet could be on nothing.
const DESIGN_STEP: f64 = 0.1;
/// The stake of each bet on ranks.
const STAKES: [f64; 3] = [0.5, 1.0, 1.7];
/// The largest stake, as a share of the stake that could be lost whole: `1 / (1 - bound)`.
const STAKE_MAX: f64 = 0.95;

/// The settings of a SEQUENTIAL wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The drop that the series must reach for a trip.
    pub tolerance: Tolerance,
    /// The same as a fraction of the baseline, above 0 to 1, for the bets on a rate. A series of values does not use
    /// it.
    pub drop_fraction: f64,
    /// The drop below the baseline, as a fraction, that counts as no evidence: 0 to below 1.
    pub tolerance_fraction: f64,
    /// The evidence that trips, above 1; also the least mean number of events to a false trip.
    pub arl: f64,
}

impl Settings {
    /// The settings for a measured baseline. An ABSOLUTE drop becomes a fraction of the baseline rate; for a rate that
    /// should be low, of its complement.
    #[must_use]
    pub fn of(tolerance: Tolerance, baseline: Window, tolerance_fraction: f64, arl: f64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a fraction in millionths is below 2^53")]
        let limit = tolerance.limit as f64 / 1e6;
        let drop = match (tolerance.effect, Rate::of(tolerance, baseline)) {
            (Effect::Relative, _) => limit,
            (Effect::Absolute, Some(rate)) if tolerance.boolean && rate.good > 0 => limit / rate.point(),
            (Effect::Absolute, _) => 1.0,
        };
        // A rate cannot drop by more than all of it. Such a wire never trips, so its bets do not matter.
        Self { tolerance, drop_fraction: drop.min(1.0), tolerance_fraction, arl }
    }
}

/// A frozen baseline, ready to judge events.
#[derive(Debug, Clone, PartialEq)]
pub struct Frozen {
    settings: Settings,
    baseline: Window,
    bound: f64,
    bets: Bets,
}

/// The payoff of each bet.
#[derive(Debug, Clone, PartialEq)]
enum Bets {
    /// The payoffs of a good event and of a bad one.
    Rate { good: [f64; 3], bad: [f64; 3] },
    /// `1 + stake · (bound - rank)`.
    Ranks { ranks: Ranks, stakes: [f64; 3] },
}

impl Frozen {
    /// The baseline of a series of successes and failures, as measured. None if it has no events.
    #[must_use]
    pub fn rate(mut settings: Settings, baseline: Window) -> Option<Self> {
        settings.tolerance.boolean = true;
        let rate = Rate::of(settings.tolerance, baseline)?;
        let (point, drop) = (rate.point(), settings.drop_fraction);
        let bound = wilson_lower(rate.good, rate.events).min(point * (1.0 - settings.tolerance_fraction));
        let (mut good, mut bad) = ([1.0; 3], [1.0; 3]);
        // Nothing is worse than a bound of 0, so the bets then only return their stake.
        if bound > 0.0 {
            for (at, design) in DESIGNS.into_iter().enumerate() {
                let bet = (point * (1.0 - (design * drop).min(DESIGN_MAX))).min(bound * (1.0 - DESIGN_STEP * drop));
                (good[at], bad[at]) = (bet / bound, (1.0 - bet) / (1.0 - bound));
            }
        }
        Some(Self { settings, baseline, bound, bets: Bets::Rate { good, bad } })
    }

    /// The baseline of a series of values, in any order. None if there are no values.
    #[must_use]
    pub fn values(mut settings: Settings, values: &[Measured]) -> Option<Self> {
        settings.tolerance.boolean = false;
        let ranks = Ranks::of(settings.tolerance, values)?;
        let baseline = ranks.window()?;
        // A value as good as the baseline ranks in its middle on average. The certainty of that depends on the number
        // of values.
        let bound = 0.5 - Z_95 * (ranks.variance() / real(values.len())).sqrt();
        let bound = bound.min(0.5 * (1.0 - settings.tolerance_fraction)).max(0.0);
        let stakes = STAKES.map(|stake| stake.min(STAKE_MAX / (1.0 - bound)));
        Some(Self { settings, baseline, bound, bets: Bets::Ranks { ranks, stakes } })
    }

    /// The settings that the events are judged by.
    #[must_use]
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// The number of the baseline's events and their measured sum; outliers among values count as their fence.
    #[must_use]
    pub const fn baseline(&self) -> Window {
        self.baseline
    }

    /// The lower bound of the baseline by which events are judged, 0 to 1: of the success rate (for a rate that should
    /// be low, of its complement), or of the mean rank of values, which is 0.5 for the baseline itself.
    #[must_use]
    pub const fn bound(&self) -> f64 {
        self.bound
    }

    /// The payoff of each bet for a measurement, and the measurement's addition to the sum. A series has one kind; a
    /// measurement of the other kind counts as its addend.
    #[inline]
    pub(super) fn weigh(&self, measurement: Measurement) -> ([f64; 3], Total) {
        let addend = measurement.addend();
        match &self.bets {
            Bets::Rate { good, bad } => {
                let is_good =
                    (addend > Total::ZERO) == (self.settings.tolerance.direction == Direction::HigherIsBetter);
                (if is_good { *good } else { *bad }, addend)
            }
            Bets::Ranks { ranks, stakes } => {
                let lacking = self.bound - ranks.rank(addend.units());
                let fenced = Total::from_units(ranks.fenced(addend.units()));
                (stakes.map(|stake| 1.0 + stake * lacking), fenced.unwrap_or(addend))
            }
        }
    }
}

/// A success rate as it is judged; for a rate that should be low, its complement.
#[derive(Debug, Clone, Copy)]
struct Rate {
    good: i64,
    events: i64,
}

impl Rate {
    fn of(tolerance: Tolerance, window: Window) -> Option<Self> {
        let (events, successes) = (window.events, i64::try_from(window.sum.units() / 1_000_000).ok()?);
        let good = if tolerance.direction == Direction::HigherIsBetter { successes } else { events - successes };
        (events > 0).then_some(Self { good, events })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn point(self) -> f64 {
        self.good as f64 / self.events as f64
    }
}
