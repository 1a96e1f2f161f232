//! One batch, up to its commit.

use super::decide::Deciding;
use super::read;
use crate::audit::{self, Head, Stream};
use crate::enforcement::feed::Feed;
use crate::error::Result;
use crate::idempotency;
use crate::risk::operation::{Done, Item};
use crate::risk::store;
use crate::writer::Proof;
use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use sqlx::PgConnection;

/// More microseconds than a batch has events, each of which has one of its own.
const BATCH_SPAN: TimeDelta = TimeDelta::milliseconds(10);

/// What a batch goes by beside the database.
#[derive(Debug)]
pub(super) struct Conditions {
    /// Whether production has to be on for a reserve.
    pub(super) go_live_required: bool,
    /// Whether this instance is stopped by hand, whatever the database says.
    pub(super) killed_locally: bool,
    /// Whether the database's state went backwards, so that its switches may not be the last that were set.
    pub(super) rewound: bool,
    /// The time that the database should show about now, as far as this process can tell; none at its beginning.
    pub(super) expected: Option<DateTime<Utc>>,
}

impl Conditions {
    pub(super) fn of(feed: &Feed, go_live_required: bool, expected: Option<DateTime<Utc>>) -> Self {
        Self { go_live_required, killed_locally: feed.is_killed_locally(), rewound: feed.is_rewound(), expected }
    }
}

/// What came of a batch that only needs its commit.
#[derive(Debug)]
pub(super) struct Decided {
    /// An outcome for each operation, in order.
    pub(super) outcomes: Vec<Result<Done>>,
    /// Its first event; none if nothing was written.
    pub(super) proof: Option<Proof>,
    /// The database's time, unless it was not believed.
    pub(super) believed_at: Option<DateTime<Utc>>,
}

/// Decides and writes a batch, up to its commit.
pub(super) async fn prepare(conn: &mut PgConnection, items: &[&Item], conditions: &Conditions) -> Result<Decided> {
    let mut head = audit::begin(conn, Stream::Risk).await?;
    let (known, believed_at) = read::read(conn, items, &mut head, conditions).await?;
    let mut deciding = Deciding::new(known, head);
    deciding.expire_due();
    let outcomes: Vec<_> = items.iter().map(|item| deciding.decide(item)).collect();
    let Some(first) = deciding.recorded.first() else {
        return Ok(Decided { outcomes, proof: None, believed_at });
    };
    let proof = Proof { seq: first.stamp.seq, hash: first.hash.clone() };
    let day = first.stamp.day();
    if !deciding.new_keys.keys.is_empty() {
        idempotency::store::insert_all(conn, day, &deciding.new_keys).await?;
    }
    store::write_batch(conn, &deciding.changes(), &deciding.head).await?;
    Ok(Decided { outcomes, proof: Some(proof), believed_at })
}

/// Decides one operation as a batch of it alone would, on a snapshot, and writes nothing.
pub(super) async fn decide_dry(conn: &mut PgConnection, item: &Item, conditions: &Conditions) -> Result<Done> {
    let mut head = audit::peek(conn, Stream::Risk).await?;
    let (known, _) = read::read(conn, &[item], &mut head, conditions).await?;
    let mut deciding = Deciding::new(known, head);
    deciding.expire_due();
    deciding.decide(item)
}

/// A batch is of one day: one that could reach midnight begins there, a few milliseconds early.
pub(super) fn keep_to_one_day(head: &mut Head) {
    let first = head.next();
    let midnight = first.day().checked_add_days(Days::new(1)).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    if let Some(midnight) = midnight.filter(|midnight| *midnight - first.at < BATCH_SPAN) {
        head.set_now(midnight);
    }
}
