//! The audit trail: four append-only streams of events, each hash-chained behind a head.
//!
//! This module is the only way to append, so every writer keeps these invariants:
//! - A writer locks its stream's head first, alone in its statement, and reads everything else afterwards. In READ
//!   COMMITTED a statement that waits for a lock keeps the snapshot from before the wait; a later statement sees fresh
//!   data.
//! - Sequence numbers have no gaps (they come from the head, not from a PostgreSQL sequence), times strictly increase,
//!   and `hash = SHA-256(previous hash ‖ canonical bytes)`. [`canonical`] defines the bytes.
//! - Change, event and head commit together.
//!
//! **Lock order**, everywhere: kpi, heimdall, risk, control, then rows; forward only.
//!
//! Statements per appended event: one to lock, one for the time, one insert, one to store the head.
//!
//! The database guards the trail itself: events are never changed or deleted, and heads only move forward. [`verify`]
//! recomputes the chain, [`complete`] finds missing parts of a book, [`crate::db::history`] detects lost events,
//! [`checkpoint`] signs the heads for a place outside the database, [`events`] lists, [`export`] writes JSON lines,
//! [`as_of`] shows the settings of an instant, and [`erase`] removes a text.

pub mod actions;
pub mod as_of;
pub mod binary;
pub mod canonical;
mod changes;
pub mod checkpoint;
pub mod complete;
mod control;
pub mod erase;
pub mod events;
pub mod export;
mod heads;
pub mod layout;
pub mod note;
pub mod partitions;
pub(crate) mod store;
pub mod told;
pub mod verify;

pub use crate::identity::Origin;
pub use crate::types::Stream;
pub use canonical::Canonical;
pub use changes::{Changes, FieldChange};
pub use control::{ControlEvent, ControlRecord};
pub(crate) use store::events::between;
pub use store::{
    HeadRecord, begin, begin_and, clock_is_accepted, control_events, head_seq, heads, lock, prepare_to_begin, revise,
    seen, was_done,
};

use crate::types::Point;
use chrono::{DateTime, Duration, NaiveDate, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

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
    stream: Stream,
    seq: i64,
    hash: [u8; 32],
    at: DateTime<Utc>,
    /// The number of changes to facts that the stream's decisions use and that have no event in the stream.
    revision: i64,
    now: DateTime<Utc>,
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

    /// Writes the head. This is the last write on a stream before the commit.
    pub async fn store(&self, conn: &mut PgConnection) -> crate::error::Result<()> {
        store::store_head(conn, self).await
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
