//! Estimates how often a detector trips on a history without a change: on the same events in other orders.
//!
//! A shuffled series has the values of the history and no change over time, so every trip on it is false. The shuffle
//! is seeded, so that the same history gives the same estimate everywhere. It cannot show the effect of the order
//! itself: the shuffle breaks up days that are good or bad as a whole, so a series with such days trips more often than
//! this estimate.

use crate::regression::model::Measurement;

/// The result of the shuffles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// The number of shuffles.
    pub shuffles: u32,
    /// The number of shuffles with at least one trip.
    pub tripped: u32,
    /// The number of trips in all shuffles.
    pub trips: u64,
}

/// Shuffles a history this many times and counts the trips of `detector`, which replays a whole series and returns its
/// trips. It ends early when the estimate is no longer wanted.
pub fn estimate(
    history: &[Measurement],
    shuffles: u32,
    seed: u64,
    is_wanted: impl Fn() -> bool,
    mut detector: impl FnMut(&[Measurement]) -> u64,
) -> Estimate {
    let (mut series, mut random) = (history.to_vec(), SplitMix64::new(seed));
    let mut estimate = Estimate { shuffles, ..Estimate::default() };
    for _ in 0..shuffles {
        if !is_wanted() {
            break;
        }
        shuffle(&mut series, &mut random);
        let trips = detector(&series);
        estimate.tripped += u32::from(trips > 0);
        estimate.trips = estimate.trips.saturating_add(trips);
    }
    estimate
}

/// The shuffle of Fisher and Yates: every order is equally likely.
fn shuffle(series: &mut [Measurement], random: &mut SplitMix64) {
    for last in (1..series.len()).rev() {
        series.swap(last, random.below(last + 1));
    }
}

/// Steele, Lea and Flood's `SplitMix64` (2014): 64 bits of state, every value once in 2^64. Not for secrets.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The numbers that follow from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    #[inline]
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a positive bound. All are equally likely, but for one part in 2^64 / bound.
    #[inline]
    fn below(&mut self, bound: usize) -> usize {
        let scaled = (u128::from(self.bits()) * bound as u128) >> 64;
        usize::try_from(scaled).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regression::detector::{Evidence, Frozen, Rolling, Settings};
    use crate::regression::model::{Direction, Effect, Tolerance, Window};
    use crate::types::Total;
    use std::cell::Cell;

    fn history() -> Vec<Measurement> {
        (1..=400).map(|at| Measurement::Success(at <= 200)).collect()
    }

    /// As the reference implementation has it, for the seed 1234567.
    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let mut random = SplitMix64::new(1_234_567);
        let first = [random.bits(), random.bits(), random.bits()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn shuffles_keep_every_event_and_repeat_with_their_seed() {
        let run = |seed| {
            let mut seen = Vec::new();
            let counted = estimate(
                &history(),
                20,
                seed,
                || true,
                |series| {
                    assert_eq!(series.iter().filter(|one| **one == Measurement::Success(true)).count(), 200);
                    seen.push(series.to_vec());
                    u64::from(series[0] == Measurement::Success(true)) * 3
                },
            );
            (seen, counted)
        };
        let (seen, counted) = run(7);
        assert_eq!((seen.clone(), counted), run(7));
        assert_ne!(seen, run(8).0);
        assert!(seen.iter().all(|series| *series != history()));
        assert_eq!((counted.shuffles, counted.trips), (20, 3 * u64::from(counted.tripped)));
        assert!((2..=18).contains(&counted.tripped), "{counted:?}");
    }

    #[test]
    fn an_estimate_that_nobody_wants_any_more_ends() {
        let replays = Cell::new(0);
        let counting = |_: &[Measurement]| {
            replays.set(replays.get() + 1);
            0
        };
        estimate(&history(), 1_000, 1, || replays.get() < 3, counting);
        assert_eq!(replays.get(), 3);
    }

    #[test]
    fn what_trips_on_shuffles_is_what_trips_by_chance() {
        // 1,000 events of which a fifth fails, all of them at the end: PLAIN would trip there, and by chance it trips
        // in half of the orders (tripwire.md, table A: 53 %).
        let tolerance =
            Tolerance { direction: Direction::HigherIsBetter, effect: Effect::Relative, boolean: true, limit: 200_000 };
        let history: Vec<_> = (0..1_000).map(|at| Measurement::Success(at < 800)).collect();
        let plain = estimate(
            &history,
            200,
            1,
            || true,
            |series| {
                let mut wire = Rolling::new(tolerance, 50, 200, 50);
                u64::from(series.iter().any(|event| wire.step(*event)))
            },
        );
        let sequential = estimate(
            &history,
            200,
            1,
            || true,
            |series| {
                let (before, after) = series.split_at(200);
                let sum = before.iter().fold(Total::ZERO, |sum, event| sum.plus(event.addend()).unwrap());
                let baseline = Window { events: 200, sum };
                let frozen = Frozen::rate(Settings::of(tolerance, baseline, 0.0, 50_000.0), baseline).unwrap();
                let mut evidence = Evidence::default();
                u64::from(after.iter().any(|event| evidence.step(&frozen, *event).trips))
            },
        );
        assert!((80..=120).contains(&plain.tripped), "{plain:?}");
        assert!(sequential.tripped <= 2, "{sequential:?}");
    }

    #[test]
    fn every_place_is_as_likely() {
        let (mut random, mut counts) = (SplitMix64::new(1), [0_u32; 7]);
        for _ in 0..70_000 {
            counts[random.below(7)] += 1;
        }
        // Each has 10,000; five standard deviations are 463.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 463), "{counts:?}");
    }
}
