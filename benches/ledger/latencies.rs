//! How often which latency was seen.

use crate::numbers::milliseconds;
use hdrhistogram::Histogram;
use std::time::Duration;

/// In microseconds, to three significant digits; the longest exactly.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    seen: Histogram<u64>,
    longest: Duration,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self {
            seen: Histogram::new(3).expect("three digits are among those that it can keep"),
            longest: Duration::ZERO,
        }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).expect("shorter than the age of the universe");
        self.seen.record(us).expect("it grows to what it is given");
        self.longest = self.longest.max(latency);
    }

    /// Takes another one's samples in.
    pub(crate) fn add(&mut self, other: &Self) {
        self.seen.add(&other.seen).expect("it grows to what it is given");
        self.longest = self.longest.max(other.longest);
    }

    /// The latency that this share of the samples did not exceed, in milliseconds: the upper edge of its bucket, so never
    /// flattered.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        milliseconds(Duration::from_micros(self.seen.value_at_quantile(share)).min(self.longest))
    }

    pub(crate) fn longest_ms(&self) -> f64 {
        milliseconds(self.longest)
    }
}
