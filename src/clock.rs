//! Elapsed time as a parameter: the system's clock, or one that a test moves.
//!
//! This clock only measures ages and durations (the state lease, uptime, latencies). It counts the time for which a
//! machine was suspended, so that a resumed one does not take an old state for a fresh one. Only the database says the
//! time of day, and so the business day (`holdfast_now()` in the first migration). The machine's wall clock is only a
//! witness: [`belief`] asks it after the database's clock jumped.

pub mod belief;

use chrono::{DateTime, Utc};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A source of elapsed time. Cheap to clone; reading takes no lock.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    ns: AtomicU64,
    /// The wall clock when `ns` was 0, in microseconds since 1970.
    wall_us: AtomicI64,
}

/// The clock that counts suspended time: `CLOCK_BOOTTIME` on Linux; elsewhere `CLOCK_MONOTONIC`, which counts it on
/// macOS.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

const NANOS_PER_MS: u64 = 1_000_000;

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start_ms` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(start_ms: u64) -> Self {
        Self(Source::Manual(Arc::new(Manual {
            ns: AtomicU64::new(start_ms * NANOS_PER_MS),
            wall_us: AtomicI64::new(0),
        })))
    }

    /// Milliseconds since an arbitrary instant before the process began. Never decreases.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ns() / NANOS_PER_MS
    }

    /// Nanoseconds since the same instant.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        match &self.0 {
            Source::System => {
                let now = clock_gettime(CLOCK);
                // Both parts are non-negative for a clock that counts from boot.
                now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
            }
            Source::Manual(now) => now.ns.load(Ordering::SeqCst),
        }
    }

    /// The time of day by the machine's wall clock.
    #[must_use]
    pub fn wall(&self) -> DateTime<Utc> {
        let wall = match &self.0 {
            Source::System => {
                let wall = clock_gettime(ClockId::Realtime);
                DateTime::from_timestamp(wall.tv_sec, u32::try_from(wall.tv_nsec).unwrap_or(0))
            }
            Source::Manual(now) => {
                let passed = i64::try_from(now.ns.load(Ordering::SeqCst) / 1_000).unwrap_or(i64::MAX);
                DateTime::from_timestamp_micros(now.wall_us.load(Ordering::SeqCst).saturating_add(passed))
            }
        };
        wall.unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Sets a manual clock's wall clock, which goes on from there. A system clock's wall clock stays.
    pub fn set_wall(&self, at: DateTime<Utc>) {
        if let Source::Manual(now) = &self.0 {
            let passed = i64::try_from(now.ns.load(Ordering::SeqCst) / 1_000).unwrap_or(i64::MAX);
            now.wall_us.store(at.timestamp_micros().saturating_sub(passed), Ordering::SeqCst);
        }
    }

    /// Moves a manual clock forward. A system clock ignores this.
    pub fn advance(&self, ms: u64) {
        if let Source::Manual(now) = &self.0 {
            now.ns.fetch_add(ms * NANOS_PER_MS, Ordering::SeqCst);
        }
    }
}
