//! Evidence against a frozen baseline, as it stands after each event.

use super::Frozen;
use crate::regression::model::{Mark, Measurement, Window};

/// Beyond this, evidence is not counted: it could become infinite.
const EVIDENCE_MAX: f64 = 1e15;

/// The sums of the events since evidence began. As large after a million events as after one; kept and restored bit by bit, it
/// goes on as if nothing had been.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// The evidence of each bet: above 0, at most 10^15. A bet without any begins anew, at 1, with the next event.
    pub e: [f64; 3],
    /// Where each bet last began.
    pub began: [Mark; 3],
    /// Events since evidence began, and their sum as measured, outliers among values as their fence.
    pub now: Mark,
}

/// The effect of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The mean of the three bets.
    pub evidence: f64,
    /// The bet with the most, 0 to 2: its beginning is the estimated start of the change.
    pub leading: usize,
    /// The events since then: `evidence.began[leading].events` lie between the baseline and them.
    pub recent: Window,
    /// Whether there is enough evidence, and the series has become so much worse since then.
    pub trips: bool,
}

impl Default for Evidence {
    /// Before the first event after the baseline.
    fn default() -> Self {
        Self { e: [1.0; 3], began: [Mark::default(); 3], now: Mark::default() }
    }
}

impl Evidence {
    /// Takes the next event into account.
    #[inline]
    pub fn step(&mut self, frozen: &Frozen, measurement: Measurement) -> Step {
        let (pays, addend) = frozen.weigh(measurement);
        for ((e, began), pays) in self.e.iter_mut().zip(&mut self.began).zip(pays) {
            if *e <= 1.0 {
                (*e, *began) = (1.0, self.now);
            }
            *e = (*e * pays).min(EVIDENCE_MAX);
        }
        self.now.events += 1;
        // A sum is full after 10^10 events of the largest value at the earliest; it then stays as it is.
        self.now.sum = self.now.sum.plus(addend).unwrap_or(self.now.sum);
        self.reading(frozen)
    }

    /// The mean of the three bets.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let [first, second, third] = self.e;
        (first + second + third) / 3.0
    }

    /// The bet with the most, 0 to 2.
    #[must_use]
    pub fn leading(&self) -> usize {
        let [first, second, third] = self.e;
        match (second > first, third > first.max(second)) {
            (_, true) => 2,
            (true, false) => 1,
            (false, false) => 0,
        }
    }

    /// The evidence as it is now.
    #[must_use]
    pub fn reading(&self, frozen: &Frozen) -> Step {
        let (evidence, leading) = (self.mean(), self.leading());
        let recent = Window::between(self.began[leading], self.now);
        let settings = frozen.settings();
        let trips = evidence >= settings.arl && settings.tolerance.reaches(frozen.baseline(), recent);
        Step { evidence, leading, recent, trips }
    }
}

/// How far evidence is on its way to a trip, in percent of the logarithm: 0 to 100. For display only.
#[must_use]
pub fn evidence_pct(evidence: f64, arl: f64) -> f64 {
    if arl > 1.0 { (100.0 * evidence.max(1.0).ln() / arl.ln()).clamp(0.0, 100.0) } else { 100.0 }
}
