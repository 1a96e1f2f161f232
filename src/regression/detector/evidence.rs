//! The evidence against a frozen baseline after each event.

use super::Frozen;
use crate::regression::model::{Mark, Measurement, Window};

/// The cap of the evidence, which could otherwise become infinite.
const EVIDENCE_MAX: f64 = 1e15;

/// The sums of the events since evidence began. Its size does not depend on their number. It is stored and restored bit
/// by bit, so that it continues without a difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// The evidence of each bet: above 0, at most 10^15. A bet without evidence restarts at 1 with the next event.
    pub e: [f64; 3],
    /// The last restart of each bet.
    pub began: [Mark; 3],
    /// The number of events since evidence began, and their measured sum; outliers among values count as their fence.
    pub now: Mark,
}

/// The effect of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The mean of the three bets.
    pub evidence: f64,
    /// The bet with the most, 0 to 2: its beginning is the estimated start of the change.
    pub leading: usize,
    /// The events since then; the `evidence.began[leading].events` before them are after the baseline.
    pub recent: Window,
    /// Whether there is enough evidence, and the series since then is worse by the tolerated drop.
    pub trips: bool,
}

impl Default for Evidence {
    /// The evidence before the first event after the baseline.
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
        // The sum cannot overflow before 10^10 events of the largest value. It then stays as it is.
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

    /// The step of the current evidence, without a further event.
    #[must_use]
    pub fn reading(&self, frozen: &Frozen) -> Step {
        let (evidence, leading) = (self.mean(), self.leading());
        let recent = Window::between(self.began[leading], self.now);
        let settings = frozen.settings();
        let trips = evidence >= settings.arl && settings.tolerance.reaches(frozen.baseline(), recent);
        Step { evidence, leading, recent, trips }
    }
}

/// The progress of the evidence towards a trip, in percent of the logarithm: 0 to 100. For display only.
#[must_use]
pub fn evidence_pct(evidence: f64, arl: f64) -> f64 {
    if arl > 1.0 { (100.0 * evidence.max(1.0).ln() / arl.ln()).clamp(0.0, 100.0) } else { 100.0 }
}
