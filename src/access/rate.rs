//! A rate limit: a token bucket in one word.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The requests per second and instance of a token without its own rate. It is far above the capacity of one machine,
/// so it only stops runaway clients.
pub const RATE_DEFAULT: u64 = 20_000;
/// The burst: the requests of this time may come at once.
const BURST: Duration = Duration::from_secs(1);
const NANOS: u64 = 1_000_000_000;

/// A bucket that holds a second's worth of requests and fills evenly. It is the generic cell rate algorithm (ITU-T
/// I.371): one word says when the bucket would be full again.
#[derive(Debug)]
pub struct Bucket {
    /// Nanoseconds per request.
    interval: u64,
    full_at: AtomicU64,
}

impl Bucket {
    /// A full bucket for this number of requests per second, from 1 to 1,000,000.
    #[must_use]
    pub fn new(per_second: u64) -> Self {
        Self { interval: NANOS / per_second.clamp(1, 1_000_000), full_at: AtomicU64::new(0) }
    }

    /// Takes one request, at this instant of a clock that never runs back, or returns the time to wait.
    pub fn take(&self, now_ns: u64) -> Result<(), Duration> {
        let burst = u64::try_from(BURST.as_nanos()).unwrap_or(NANOS).max(self.interval);
        let take = |full_at: u64| {
            let after = full_at.max(now_ns) + self.interval;
            (after <= now_ns + burst).then_some(after)
        };
        match self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            Ok(_) => Ok(()),
            Err(full_at) => Err(Duration::from_nanos((full_at + self.interval).saturating_sub(now_ns + burst))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_what_comes_at_once_and_then_the_rate_and_no_more() {
        for rate in [1, 2, 10, 1_000] {
            let bucket = Bucket::new(rate);
            let start = 77 * NANOS;
            let taken = |at: u64| (0..2 * rate).take_while(|_| bucket.take(at).is_ok()).count() as u64;
            assert_eq!(taken(start), rate);
            let wait = bucket.take(start).unwrap_err();
            assert_eq!(wait, Duration::from_nanos(NANOS / rate));
            assert!(bucket.take(start + NANOS / rate - 1).is_err());
            assert_eq!(taken(start + NANOS / rate), 1);
            assert_eq!(taken(start + 100 * NANOS), rate);
        }
    }

    #[test]
    fn two_at_once_take_two() {
        let bucket = std::sync::Arc::new(Bucket::new(1_000));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let bucket = std::sync::Arc::clone(&bucket);
                std::thread::spawn(move || (0..1_000).filter(|_| bucket.take(NANOS).is_ok()).count())
            })
            .collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 1_000);
    }
}
