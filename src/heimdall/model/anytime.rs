//! Evidence that stays valid however often it is read: a betting e-process against "the success rate is at most q0".
//!
//! `E_n = mean over f in (1/4, 1/2, 3/4) of (q1/q0)^s ((1-q1)/(1-q0))^(n-s)` with `q1 = q0 + (1-q0) f`. While the true
//! rate is at most q0, E is a non-negative supermartingale that begins at 1. So by Ville's inequality it ever reaches
//! 20 with probability 5 % at most, under any stopping rule (Ville 1939; the bets of Shin, Ramdas and Rinaldo 2022).
//! This holds for trials that are added up from one beginning: a window that forgets its first trials uses the same
//! threshold, without the guarantee. The code uses only `+ - * /`, which IEEE 754 rounds alike everywhere: the same
//! counts give the same bits on every machine.

use crate::types::Fraction;

/// The evidence at which the gate opens: 1 / 5 %.
pub(super) const E_OPEN: f64 = 20.0;
/// The bets, as parts of the way from q0 to 1. Each is also the part by which 1 - q1 is less than 1 - q0.
const BETS: [f64; 3] = [0.25, 0.5, 0.75];
/// The range of a mantissa in either direction before it is scaled back.
const SCALE: f64 = 4_294_967_296.0;
/// The most steps of [`SCALE`] that a double holds with room to spare.
const STEPS_MAX: i64 = 28;
/// The largest evidence that is shown: a sum of three is still finite.
const MOST: f64 = 1e300;

/// A positive number of any size: `mantissa * SCALE^steps`.
#[derive(Debug, Clone, Copy)]
struct Wide {
    mantissa: f64,
    steps: i64,
}

impl Wide {
    const ONE: Self = Self { mantissa: 1.0, steps: 0 };

    fn times(self, other: Self) -> Self {
        let mut product = Self { mantissa: self.mantissa * other.mantissa, steps: self.steps + other.steps };
        if product.mantissa >= SCALE {
            product = Self { mantissa: product.mantissa / SCALE, steps: product.steps + 1 };
        } else if product.mantissa > 0.0 && product.mantissa * SCALE < 1.0 {
            product = Self { mantissa: product.mantissa * SCALE, steps: product.steps - 1 };
        }
        product
    }

    /// `base^count` by squaring; `base` within a few powers of ten of 1.
    fn power(base: f64, count: i64) -> Self {
        let (mut power, mut square, mut left) = (Self::ONE, Self { mantissa: base, steps: 0 }, count.max(0));
        while left > 0 {
            if left % 2 == 1 {
                power = power.times(square);
            }
            square = square.times(square);
            left /= 2;
        }
        power
    }

    /// The number as a double: [`MOST`] if it is far larger, 0 if it is close to 0.
    fn value(self) -> f64 {
        if self.steps > STEPS_MAX {
            return MOST;
        }
        if self.steps < -STEPS_MAX {
            return 0.0;
        }
        let factor = if self.steps < 0 { 1.0 / SCALE } else { SCALE };
        (0..self.steps.abs()).fold(self.mantissa, |value, _| value * factor)
    }
}

/// The evidence that the success rate is above `least`: 1 without trials, at least [`E_OPEN`] if it suffices. Every
/// rate reaches a minimum of 0, and none exceeds 1.
#[expect(clippy::cast_precision_loss, reason = "a fraction has at most a million units")]
pub(super) fn e_value(successes: i64, trials: i64, least: Fraction) -> f64 {
    if least == Fraction::ZERO {
        return MOST;
    }
    let least = least.units() as f64 / 1_000_000.0;
    let bet = |part: f64| {
        let rises = (least + (1.0 - least) * part) / least;
        Wide::power(rises, successes).times(Wide::power(1.0 - part, trials - successes)).value()
    };
    BETS.into_iter().map(|part| bet(part) / 3.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_what_the_formula_says() {
        let direct = |successes: i32, trials: i32, least: f64| {
            let bet = |part: f64| {
                let other = least + (1.0 - least) * part;
                (other / least).powi(successes) * ((1.0 - other) / (1.0 - least)).powi(trials - successes)
            };
            BETS.into_iter().map(bet).sum::<f64>() / 3.0
        };
        for (successes, trials) in [(0, 0), (1, 1), (0, 1), (40, 50), (45, 50), (50, 50), (430, 500), (0, 500)] {
            for (least, fraction) in [(0.8, "0.8"), (0.5, "0.5"), (0.95, "0.95"), (0.000_001, "0.000001")] {
                let (found, wanted) = (
                    e_value(successes.into(), trials.into(), fraction.parse().unwrap()),
                    direct(successes, trials, least),
                );
                let same = (found - wanted).abs() <= wanted * 1e-9 || (found > 1e200 && wanted > 1e200);
                assert!(
                    same || (found < 1e-200 && wanted < 1e-200),
                    "{successes}/{trials} of {least}: {found} {wanted}"
                );
            }
        }
    }

    #[test]
    fn no_count_overflows_and_none_is_not_a_number() {
        let billion = 1_000_000_000;
        for (successes, trials, least, opens) in [
            (billion, billion, "0.000001", true),
            (0, billion, "0.999999", false),
            (billion / 2, billion, "0.8", false),
            (billion / 10 * 9, billion, "0.8", true),
            (billion, billion, "1", false),
            (0, 0, "0", true),
        ] {
            let found = e_value(successes, trials, least.parse().unwrap());
            assert!(found.is_finite() && (found >= E_OPEN) == opens, "{successes}/{trials} of {least}: {found}");
        }
    }
}
