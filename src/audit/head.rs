//! The head of a stream: the place of the next event, and the chain to the last one.

use crate::types::{Point, Stream};
use chrono::{DateTime, Duration, NaiveDate, Utc};
use sha2::{Digest, Sha256};

/// How far the database clock may be behind the last event before reserves are refused.
const CLOCK_BACK_MAX: Duration = Duration::hours(1);

/// An event's number and time in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The sequence number, from 1, without gaps.
    pub seq: i64,
    /// The database's time, later than every earlier event of the stream.
    pub at: DateTime<Utc>,
}

impl Stamp {
    /// The business day: the UTC day of the event.
    #[must_use]
    pub fn day(&self) -> NaiveDate {
        self.at.date_naive()
    }
}

/// The locked head of a stream: the right to append to it until the transaction ends.
#[derive(Debug)]
pub struct Head {
    pub(super) stream: Stream,
    pub(super) seq: i64,
    pub(super) hash: [u8; 32],
    pub(super) at: DateTime<Utc>,
    /// The number of changes to facts that the stream's decisions use and that have no event in the stream.
    pub(super) revision: i64,
    pub(super) now: DateTime<Utc>,
}

impl Head {
    /// Sets the time, which was read after the lock was granted.
    pub fn set_now(&mut self, now: DateTime<Utc>) {
        self.now = now;
    }

    /// The database's time after the lock was granted.
    #[must_use]
    pub const fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// The time of the last event; 1970 before the first.
    #[must_use]
    pub const fn last_at(&self) -> DateTime<Utc> {
        self.at
    }

    /// The revision. Together with the last event's number it shows whether any fact of a decision has changed.
    #[must_use]
    pub const fn revision(&self) -> i64 {
        self.revision
    }

    /// True if the head is at this event and this revision.
    #[must_use]
    pub const fn is_at(&self, seq: i64, revision: i64) -> bool {
        self.seq == seq && self.revision == revision
    }

    /// The stream that the head belongs to.
    #[must_use]
    pub const fn stream(&self) -> Stream {
        self.stream
    }

    /// The number and the hash of the last event.
    #[must_use]
    pub const fn point(&self) -> Point {
        Point { seq: self.seq, hash: self.hash }
    }

    /// The number of the last event; 0 before the first.
    #[must_use]
    pub const fn seq(&self) -> i64 {
        self.seq
    }

    /// The number, the hash and the time of the last event, for the statement that stores the head.
    #[must_use]
    pub const fn stored(&self) -> (i64, &[u8; 32], DateTime<Utc>) {
        (self.seq, &self.hash, self.at)
    }

    /// The place of the next event. Each is at least a microsecond after the one before, whatever the clock shows.
    #[must_use]
    pub fn next(&self) -> Stamp {
        stamp_after(self.seq, self.at, self.now)
    }

    /// Seconds by which the clock is behind the last event, if that is more than an hour; else none. Holds would be
    /// booked on days that are already past, so nothing new is reserved until the clock is right.
    #[must_use]
    pub fn clock_went_back(&self) -> Option<i64> {
        clock_went_back(self.at, self.now)
    }

    /// Chains an event's bytes: moves the head to its stamp, and returns the event's hash.
    #[must_use]
    pub fn seal(&mut self, stamp: Stamp, canonical: &[u8]) -> Vec<u8> {
        debug_assert!(stamp.seq == self.seq + 1 && stamp.at > self.at, "an event is sealed at the place it was given");
        self.hash = chain(&self.hash, canonical);
        self.seq = stamp.seq;
        self.at = stamp.at;
        self.hash.to_vec()
    }
}

fn stamp_after(seq: i64, at: DateTime<Utc>, now: DateTime<Utc>) -> Stamp {
    Stamp { seq: seq + 1, at: now.max(at + Duration::microseconds(1)) }
}

fn clock_went_back(at: DateTime<Utc>, now: DateTime<Utc>) -> Option<i64> {
    let behind = at - now;
    (behind > CLOCK_BACK_MAX).then(|| behind.num_seconds())
}

/// The hash of an event: `SHA-256(previous ‖ canonical)`.
#[must_use]
pub fn chain(previous: &[u8; 32], canonical: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(canonical);
    hasher.finalize().into()
}
