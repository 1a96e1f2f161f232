//! The values of a frozen baseline: the rank of a value among them, and the fences that limit outliers.

use crate::regression::model::{Direction, Effect, Tolerance, Window};
use crate::types::{Measured, Total};

/// The distance of a fence from the middle half, as a multiple of that half's spread.
const FENCE_SPREADS: i128 = 3;

/// The values of a frozen baseline, at most 10,000. Never empty.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ranks {
    /// The values in millionths, ascending.
    sorted: Vec<i64>,
    /// The lower fence: a value below counts as this.
    low: i128,
    /// The upper fence: a value above counts as this.
    high: i128,
    /// Whether ranks count from the other end.
    mirrored: bool,
}

impl Ranks {
    /// The ranks of these values; none if there are none.
    pub(super) fn of(tolerance: Tolerance, values: &[Measured]) -> Option<Self> {
        let mut sorted: Vec<_> =
            values.iter().map(|value| i64::try_from(value.units())).collect::<Result<_, _>>().ok()?;
        sorted.sort_unstable();
        // The quartiles: of n values, the ⌈n/4⌉-th from either end, so that they mirror each other.
        let quarter = sorted.len().div_ceil(4);
        let (lower, upper) = (*sorted.get(quarter.checked_sub(1)?)?, *sorted.get(sorted.len() - quarter)?);
        let (lower, upper) = (i128::from(lower), i128::from(upper));
        let reach = reach(tolerance, lower, upper);
        let (low, high) = reach.map_or((i128::MIN, i128::MAX), |reach| (lower - reach, upper + reach));
        Some(Self { sorted, low, high, mirrored: tolerance.direction == Direction::LowerIsBetter })
    }

    /// The value as it counts in sums, in millionths: an outlier counts as the nearer fence. Otherwise one exceptional
    /// value in the baseline would make every later period look like a drop.
    pub(super) fn fenced(&self, units: i128) -> i128 {
        units.clamp(self.low, self.high)
    }

    /// The window of the baseline, with fenced outliers.
    pub(super) fn window(&self) -> Option<Window> {
        let sum = self.sorted.iter().map(|value| self.fenced(i128::from(*value))).sum();
        Some(Window { events: i64::try_from(self.sorted.len()).ok()?, sum: Total::from_units(sum)? })
    }

    /// The mid-rank of a value, 0 (worse than all) to 1 (better than all): the share that is worse, and half of its
    /// equals.
    pub(super) fn rank(&self, units: i128) -> f64 {
        let below = self.sorted.partition_point(|value| i128::from(*value) < units);
        let rest = &self.sorted[below..];
        // Most values have no equal, which this shows at once.
        let is_tied = rest.first().is_some_and(|value| i128::from(*value) == units);
        let equal = if is_tied { rest.partition_point(|value| i128::from(*value) == units) } else { 0 };
        // Twice the rank is a whole number, and so is its mirror image: both directions have the same bits.
        let (twice, most) = (2 * below + equal, 2 * self.sorted.len());
        real(if self.mirrored { most - twice } else { twice }) / real(most)
    }

    /// The variance of the mid-rank of one of the values, 0 (all are equal) to 1/12: `(1 - Σ t³/n³) / 12`, over ties of
    /// size t.
    pub(super) fn variance(&self) -> f64 {
        let cube = |count: usize| real(count * count * count);
        let ties: f64 = self.sorted.chunk_by(|a, b| a == b).map(|tie| cube(tie.len())).sum();
        (1.0 - ties / cube(self.sorted.len())) / 12.0
    }
}

/// The distance of the fences from the quartiles, in millionths: three times their spread, but at least three times the
/// tolerated drop, since a metric that hardly varies could otherwise collapse behind its fence. None if the distance is
/// 0: at least half of the values are 0, and nothing is known of the others.
fn reach(tolerance: Tolerance, lower: i128, upper: i128) -> Option<i128> {
    let tolerated = match tolerance.effect {
        // At most 10^6 times 10^18.
        Effect::Relative => tolerance.limit * lower.abs().max(upper.abs()) / 1_000_000,
        Effect::Absolute => tolerance.limit,
    };
    let reach = FENCE_SPREADS * (upper - lower).max(tolerated);
    (reach > 0).then_some(reach)
}

/// A count to calculate with.
#[expect(clippy::cast_precision_loss, reason = "the cube of the largest baseline, 10^12, is far below 2^53")]
pub(super) fn real(count: usize) -> f64 {
    count as f64
}
