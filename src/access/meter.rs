//! The use of a token: its rate, the rate of its recorded refusals, and the time of its last use.

use super::rate::Bucket;
use chrono::{DateTime, Utc};
use std::sync::atomic::{AtomicI64, Ordering};

/// The refusals of one token that are recorded, per second and kind. Further ones are only counted.
const REFUSALS_PER_SECOND: u64 = 10;
/// The resolution of the last use, seconds.
const USE_SECONDS: i64 = 60;

/// The kinds of refusals with separate rates, so that no kind crowds another out of the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// The kill switch's engage.
    Engage,
    /// The kill switch's release.
    Release,
    /// Go-live's disable.
    Disable,
    /// Go-live's enable.
    Enable,
    /// Every other change.
    Others,
}

impl RefusalKind {
    const ALL: [Self; 5] = [Self::Engage, Self::Release, Self::Disable, Self::Enable, Self::Others];

    /// The kind of a refusal on the route with this template.
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

/// The use of a token since the process began.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) bucket: Bucket,
    /// The rates of recorded refusals, by kind.
    refusals: [Bucket; RefusalKind::ALL.len()],
    /// The minute of the last use, seconds since 1970; 0 for never.
    used_at: AtomicI64,
    /// The last use as the database has it, in the same form.
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

    /// The rate of recorded refusals of this kind.
    pub(super) const fn refusals(&self, kind: RefusalKind) -> &Bucket {
        &self.refusals[kind as usize]
    }

    /// Notes a use, to the minute.
    pub(super) fn note_use(&self, at: DateTime<Utc>) {
        let minute = at.timestamp().div_euclid(USE_SECONDS) * USE_SECONDS;
        // The word is read first, since it is shared and changes only once a minute.
        if self.used_at.load(Ordering::Relaxed) < minute {
            self.used_at.fetch_max(minute, Ordering::Relaxed);
        }
    }

    /// The last use, if the database does not have it yet.
    pub(super) fn unnoted_use(&self) -> Option<DateTime<Utc>> {
        let used = self.used_at.load(Ordering::Relaxed);
        (used > self.noted.load(Ordering::Relaxed)).then(|| DateTime::from_timestamp(used, 0)).flatten()
    }

    /// Notes that the database has this use.
    pub(super) fn noted(&self, at: DateTime<Utc>) {
        self.noted.fetch_max(at.timestamp(), Ordering::Relaxed);
    }
}
