//! Latencies in buckets that are at most 0.8 % wide, up to 20 s.

use std::time::Duration;

/// Buckets a doubling: 2^7.
const FINE: u32 = 7;
/// What takes longer is counted as this; the true maximum is kept beside it. Microseconds.
const CEILING_US: u64 = 20_000_000;

/// How often which latency was seen.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

/// Below 2^8 µs a bucket is one microsecond; above, each doubling has 2^7 of them.
fn bucket(us: u64) -> usize {
    let doubling = us.max(1).ilog2().saturating_sub(FINE);
    let at = (u64::from(doubling) << FINE) + (us >> doubling);
    usize::try_from(at).expect("a few thousand buckets")
}

/// The longest latency that the bucket holds, in microseconds.
fn top(bucket: usize) -> u64 {
    let fine = 1 << FINE;
    let doubling = (bucket / fine).saturating_sub(1);
    let within = bucket - doubling * fine;
    ((within as u64 + 1) << doubling) - 1
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; bucket(CEILING_US) + 1], count: 0, max_us: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us.min(CEILING_US))] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The latency that this share of the samples did not exceed, in milliseconds: the upper edge of its bucket, so never
    /// flattered. `per_10_000` is the share; 9,900 is the 99th percentile.
    pub(crate) fn percentile_ms(&self, per_10_000: u64) -> f64 {
        let rank = (self.count * per_10_000).div_ceil(10_000).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().position(|samples| {
            seen += samples;
            seen >= rank
        });
        found.map_or(0.0, |bucket| milliseconds(top(bucket).min(self.max_us)))
    }

    /// Takes another one's samples in.
    pub(crate) fn add(&mut self, other: &Self) {
        for (samples, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *samples += more;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The longest, in milliseconds, exactly.
    pub(crate) fn max_ms(&self) -> f64 {
        milliseconds(self.max_us)
    }
}

fn milliseconds(us: u64) -> f64 {
    crate::numbers::real(us) / 1_000.0
}
