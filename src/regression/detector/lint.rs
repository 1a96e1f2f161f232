//! Predicts the behaviour of PLAIN on a series that does not change, before a wire is enabled. It is advice and decides
//! nothing.
//!
//! A rate `p` is that of good events; for a rate that should be low, its complement.

use super::ranks::real;
use crate::regression::model::{Effect, Tolerance, WINDOW_MAX};

/// The difference of two windows, in standard deviations, that chance seldom exceeds in thousands of comparisons.
const RESOLVED_SIGMAS: f64 = 3.5;

/// The smallest relative drop that two windows can tell from chance: `3.5 · CV · sqrt(1/window + 1/baseline)`. The
/// coefficient of variation is the standard deviation over the mean; for a rate see [`rate_cv`].
#[must_use]
pub fn min_resolvable_drop(cv: f64, window_events: usize, baseline_events: usize) -> f64 {
    RESOLVED_SIGMAS * cv * (1.0 / real(window_events) + 1.0 / real(baseline_events)).sqrt()
}

/// The coefficient of variation of successes with rate `p`, 0 to 1: `sqrt((1 - p) / p)`; infinite for 0.
#[must_use]
pub fn rate_cv(p: f64) -> f64 {
    ((1.0 - p) / p).sqrt()
}

/// The probability that one comparison of two full windows, with a constant rate `p`, finds a drop that trips. The
/// exact binomial sum, to 9 digits. Windows have 1 to 10,000 events.
#[must_use]
pub fn plain_per_look(p: f64, tolerance: Tolerance, window_events: usize, baseline_events: usize) -> f64 {
    let look = Look::of(tolerance, window_events, baseline_events);
    let recent = cumulated(&binomial(look.window, p));
    let baseline = binomial(look.baseline, p);
    baseline.iter().enumerate().map(|(good, chance)| chance * at_most(&recent, look.trips_at(good))).sum()
}

/// The expected number of false trips over this number of events with a constant rate `p`: exactly, the comparisons
/// that trip after one that did not. Trips come in clusters, since comparisons share nearly all of their events. A wire
/// that is re-armed only after a cluster trips less often: the chance of any trip at all is at most this plus that of
/// the first comparison. Windows are full from the start; those of a new wire are shorter, and trip more often.
#[must_use]
pub fn plain_expected_trips(
    p: f64,
    tolerance: Tolerance,
    window_events: usize,
    baseline_events: usize,
    events: u32,
) -> f64 {
    let look = Look::of(tolerance, window_events, baseline_events);
    // From one comparison to the next, one event leaves the baseline, one moves from the window into it, and one is
    // new. The others stay.
    let recent = cumulated(&binomial(look.window - 1, p));
    let baseline = binomial(look.baseline - 1, p);
    let mut rate = 0.0;
    for (stays, chance) in baseline.iter().enumerate() {
        for moving in 0..8 {
            let [left, over, new] = [0, 1, 2].map(|bit| moving >> bit & 1);
            let is = |good: usize| if good == 1 { p } else { 1.0 - p };
            // The previous comparison holds with more than `holds` of the others good; this one trips with at most
            // `trips` of them.
            let holds = look.trips_at(stays + left) - signed(over);
            let trips = look.trips_at(stays + over) - signed(new);
            let entered = (at_most(&recent, trips) - at_most(&recent, holds)).max(0.0);
            rate += chance * is(left) * is(over) * is(new) * entered;
        }
    }
    rate * f64::from(events)
}

/// Two windows to compare.
#[derive(Debug, Clone, Copy)]
struct Look {
    tolerance: Tolerance,
    window: usize,
    baseline: usize,
}

impl Look {
    fn of(tolerance: Tolerance, window_events: usize, baseline_events: usize) -> Self {
        let most = usize::try_from(WINDOW_MAX).unwrap_or(usize::MAX);
        Self { tolerance, window: window_events.clamp(1, most), baseline: baseline_events.clamp(1, most) }
    }

    /// The most good events in the window with which it trips; below 0 if it does not trip even with none.
    fn trips_at(self, good: usize) -> i128 {
        let (good, window, baseline) = (signed(good), signed(self.window), signed(self.baseline));
        let limit = self.tolerance.limit;
        // recent/window <= good/baseline · (1 - limit), or good/baseline - limit, times window, baseline and 10^6.
        match self.tolerance.effect {
            Effect::Relative if good == 0 => -1,
            Effect::Relative => (good * window * (1_000_000 - limit)).div_euclid(baseline * 1_000_000),
            Effect::Absolute => ((good * 1_000_000 - limit * baseline) * window).div_euclid(baseline * 1_000_000),
        }
    }
}

fn signed(count: usize) -> i128 {
    i128::try_from(count).unwrap_or(i128::MAX)
}

/// The probabilities of 0 to `n` successes of `n`.
fn binomial(n: usize, p: f64) -> Vec<f64> {
    // The logarithm of 0, times 0 successes, would not be a number.
    if p <= 0.0 || p >= 1.0 {
        let certain = if p >= 1.0 { n } else { 0 };
        return (0..=n).map(|k| if k == certain { 1.0 } else { 0.0 }).collect();
    }
    let mut factorials = vec![0.0];
    factorials.extend((1..=n).scan(0.0, |ln, k| {
        *ln += real(k).ln();
        Some(*ln)
    }));
    let (success, failure) = (p.ln(), (-p).ln_1p());
    let ln = |k: usize| factorials[n] - factorials[k] - factorials[n - k] + real(k) * success + real(n - k) * failure;
    (0..=n).map(|k| ln(k).exp()).collect()
}

/// The probabilities of at most 0 to `n` successes, the smallest summed first.
fn cumulated(chances: &[f64]) -> Vec<f64> {
    let sums = chances.iter().scan(0.0, |sum, chance| {
        *sum += chance;
        Some(*sum)
    });
    sums.collect()
}

fn at_most(cumulated: &[f64], successes: i128) -> f64 {
    match usize::try_from(successes) {
        Ok(successes) => cumulated.get(successes).or(cumulated.last()).copied().unwrap_or(1.0),
        Err(_) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regression::model::Direction;

    fn drop_of(limit: i128, effect: Effect) -> Tolerance {
        Tolerance { direction: Direction::HigherIsBetter, effect, boolean: true, limit }
    }

    fn relative(limit: i128) -> Tolerance {
        drop_of(limit, Effect::Relative)
    }

    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= expected * 1e-9, "{value:e} is not {expected:e}");
    }

    /// tripwire.md, table A, with d = 0.15, 0.20, 0.25, 0.30; computed with rational numbers.
    #[test]
    fn the_chance_of_a_false_trip_is_the_exact_sum() {
        let table = [
            (
                0.5,
                [
                    1.654_304_757_397_778e-1,
                    9.943_590_364_440_413e-2,
                    4.979_108_706_437_226e-2,
                    2.262_953_499_338_067e-2,
                ],
            ),
            (
                0.8,
                [
                    3.026_672_778_480_805e-2,
                    6.838_692_675_579_809e-3,
                    9.975_710_407_632_782e-4,
                    1.134_143_905_743_583e-4,
                ],
            ),
            (
                0.9,
                [
                    3.910_512_171_903_116e-3,
                    3.072_511_623_758_637e-4,
                    1.193_178_333_186_503e-5,
                    3.359_573_632_342_791e-7,
                ],
            ),
            (
                0.95,
                [
                    2.523_828_828_800_539e-4,
                    4.727_065_589_765_576e-6,
                    4.243_733_139_181_541e-8,
                    1.934_962_744_024_653e-10,
                ],
            ),
            (
                0.99,
                [
                    2.554_868_028_934_35e-8,
                    1.177_593_307_718_017e-11,
                    1.722_468_297_073_389e-15,
                    2.472_804_538_421_545e-19,
                ],
            ),
        ];
        for (p, row) in table {
            for (limit, expected) in [150_000, 200_000, 250_000, 300_000].into_iter().zip(row) {
                assert_near(plain_per_look(p, relative(limit), 50, 200), expected);
            }
        }
        assert_near(plain_per_look(0.7, relative(200_000), 20, 30), 1.276_489_578_852_07e-1);
    }

    #[test]
    fn expected_trips_are_the_exact_rate_of_entries() {
        for (p, per_event) in [
            (0.5, 1.376_114_597_686e-2),
            (0.8, 1.267_949_358_383e-3),
            (0.9, 6.063_779_579_869e-5),
            (0.95, 9.541_755_501_754e-7),
        ] {
            assert_near(plain_expected_trips(p, relative(200_000), 50, 200, 5_000), per_event * 5_000.0);
        }
        assert_near(plain_expected_trips(0.7, relative(200_000), 20, 30, 1), 2.769_835_157_519_067e-2);
    }

    #[test]
    fn points_of_a_rate_trip_as_their_fraction_does_where_the_baseline_is_certain() {
        // Of a baseline of 10,000 with p = 1, both mean at most 40 of 50.
        for effect in [Effect::Relative, Effect::Absolute] {
            let look = Look::of(drop_of(200_000, effect), 50, 10_000);
            assert_eq!(
                (look.trips_at(10_000), look.trips_at(0)),
                (40, if effect == Effect::Relative { -1 } else { -10 })
            );
        }
        let (points, share) = (drop_of(200_000, Effect::Absolute), relative(200_000));
        assert!(plain_per_look(0.5, points, 50, 200) < plain_per_look(0.5, share, 50, 200));
    }

    #[test]
    fn certain_rates_and_the_largest_windows_have_chances() {
        for (p, tolerance) in [(0.0, relative(1)), (1.0, relative(1)), (1.0, drop_of(1, Effect::Absolute))] {
            assert_eq!(plain_per_look(p, tolerance, 50, 200).to_bits(), 0.0_f64.to_bits());
            assert_eq!(plain_expected_trips(p, tolerance, 1, 1, 5_000).to_bits(), 0.0_f64.to_bits());
        }
        let total: f64 = binomial(10_000, 0.3).iter().sum();
        assert!((total - 1.0).abs() < 1e-9, "{total}");
        // Larger windows tell the same drop better.
        let chances = [50, 500, 10_000].map(|events| plain_per_look(0.5, relative(50_000), events, events));
        assert!(chances[0] > chances[1] && chances[1] > chances[2] && chances[2] > 0.0, "{chances:?}");
    }

    /// tripwire.md, table A, the last column: 55, 28, 18, 13, 6 %.
    #[test]
    fn the_smallest_drop_that_windows_resolve_is_the_tables() {
        for (p, percent) in [(0.5, 55.3), (0.8, 27.7), (0.9, 18.4), (0.95, 12.7), (0.99, 5.6)] {
            let drop = 100.0 * min_resolvable_drop(rate_cv(p), 50, 200);
            assert!((drop - percent).abs() < 0.05, "{p}: {drop}");
        }
        assert!(min_resolvable_drop(rate_cv(0.0), 50, 200).is_infinite());
    }
}
