//! Series of measurements, drawn.

use holdfast::regression::detector::permutation::SplitMix64;
use holdfast::regression::model::Measurement;
use holdfast::types::Measured;
use rust_decimal::Decimal;

/// Events that share a rate, where it is noisy.
const DAY: u32 = 50;

/// The source of a series' values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Successes with one probability.
    Rate { p: f64 },
    /// Successes with a probability that is drawn anew for every day from a beta distribution.
    NoisyRate { mean: f64, sd: f64 },
    /// Values of which the logarithm is normal, with a median of 1,000.
    Lognormal { sigma: f64 },
}

impl Kind {
    /// Whether the series consists of successes and failures.
    pub(crate) fn is_rate(self) -> bool {
        matches!(self, Self::Rate { .. } | Self::NoisyRate { .. })
    }
}

/// A series that goes on for ever.
#[derive(Debug)]
pub(crate) struct Series {
    kind: Kind,
    random: SplitMix64,
    /// The part of the rate or of the values that is left after a drop.
    left: f64,
    /// Events so far.
    events: u32,
    /// Of the day.
    rate: f64,
}

impl Series {
    pub(crate) fn new(kind: Kind, seed: u64) -> Self {
        Self { kind, random: SplitMix64::new(seed), left: 1.0, events: 0, rate: 0.0 }
    }

    /// From now on, everything is worse by this fraction.
    pub(crate) fn drop_by(&mut self, fraction: f64) {
        self.left = 1.0 - fraction;
    }

    pub(crate) fn draw(&mut self) -> Measurement {
        self.events += 1;
        match self.kind {
            Kind::Rate { p } => Measurement::Success(self.uniform() < p * self.left),
            Kind::NoisyRate { mean, sd } => {
                if self.events % DAY == 1 {
                    self.rate = self.beta(mean, sd);
                }
                Measurement::Success(self.uniform() < self.rate * self.left)
            }
            Kind::Lognormal { sigma } => {
                let value = 1e9 * self.left * (sigma * self.normal()).exp();
                #[expect(clippy::cast_possible_truncation, reason = "1,000 in millionths, times e^6 at the very most")]
                let units = value.round() as i128;
                Measurement::Value(
                    Measured::from_decimal(Decimal::from_i128_with_scale(units, 6)).expect("within range"),
                )
            }
        }
    }

    /// From 0 to below 1.
    fn uniform(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are left")]
        let bits = (self.random.bits() >> 11) as f64;
        bits * (f64::EPSILON / 2.0)
    }

    /// Box and Muller's (1958).
    fn normal(&mut self) -> f64 {
        let (radius, angle) = ((-2.0 * (1.0 - self.uniform()).ln()).sqrt(), std::f64::consts::TAU * self.uniform());
        radius * angle.cos()
    }

    /// Marsaglia and Tsang's (2000), for shapes of at least 1.
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.uniform()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    fn beta(&mut self, mean: f64, sd: f64) -> f64 {
        let both = mean * (1.0 - mean) / (sd * sd) - 1.0;
        let (good, bad) = (self.gamma(mean * both), self.gamma((1.0 - mean) * both));
        good / (good + bad)
    }
}
