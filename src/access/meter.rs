//! The use of a token: of its rate, of the refusals that are written down, and its last time.

use super::rate::Bucket;
use chrono::{DateTime, Utc};
use std::sync::atomic::{AtomicI64, Ordering};

/// Refusals of one token that are written down, a second and a kind; the others are counted.
const REFUSALS_PER_SECOND: u64 = 10;
/// How coarse the note of the last use is.
const USE_SECONDS: i64 = 60;

/// A kind of refusals that is written down apart from the others, so that none crowds another one out of the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// Of the kill switch's engage.
    Engage,
    /// Of its release.
    Release,
    /// Of disable.
    Disable,
    /// Of enable.
    Enable,
    /// Of everything else.
    Others,
}

impl RefusalKind {
    const ALL: [Self; 5] = [Self::Engage, Self::Release, Self::Disable, Self::Enable, Self::Others];

    /// The kind of a route's, by its template.
    pub(super) fn of(template: &str) -> Self {
        match template.strip_prefix("/api/governance/go-live/") {
            Some("kill-switch/engage") => Self::Engage,
            Some("kill-switch/release") => Self::Release,
            Some("disable") => Self::Disable,
            Some("enable") => Self::Enable,
            _ => Self::Others,
        }
    }
}

/// The use of a token, kept for as long as the process runs.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) bucket: Bucket,
    /// Refusals that are events, by kind.
    refusals: [Bucket; RefusalKind::ALL.len()],
    /// The minute of the last use, seconds since 1970; 0 for never.
    used_at: AtomicI64,
    /// The same as the database has it.
    noted: AtomicI64,
}

impl Meter {
    pub(super) fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            refusals: RefusalKind::ALL.map(|_| Bucket::new(REFUSALS_PER_SECOND)),
            used_at: AtomicI64::new(0),
            noted: AtomicI64::new(0),
        }
    }

    /// The refusals of this kind.
    pub(super) const fn refusals(&self, kind: RefusalKind) -> &Bucket {
        &self.refusals[kind as usize]
    }

    /// Notes a use, to the minute.
    pub(super) fn note_use(&self, at: DateTime<Utc>) {
        let minute = at.timestamp().div_euclid(USE_SECONDS) * USE_SECONDS;
        // Read first: the word is shared, and it changes once a minute.
        if self.used_at.load(Ordering::Relaxed) < minute {
            self.used_at.fetch_max(minute, Ordering::Relaxed);
        }
    }

    /// The last use, if it was not noted yet.
    pub(super) fn unnoted_use(&self) -> Option<DateTime<Utc>> {
        let used = self.used_at.load(Ordering::Relaxed);
        (used > self.noted.load(Ordering::Relaxed)).then(|| DateTime::from_timestamp(used, 0)).flatten()
    }

    /// Takes note that a use stands in the database.
    pub(super) fn noted(&self, at: DateTime<Utc>) {
        self.noted.fetch_max(at.timestamp(), Ordering::Relaxed);
    }
}
