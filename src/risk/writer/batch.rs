//! One batch from begin to commit.

use super::decide::Deciding;
use super::read;
use crate::audit::{self, Head, Stream};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use crate::idempotency;
use crate::risk::operation::{Done, Item};
use crate::risk::store;
use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use sqlx::{Executor, PgConnection};
use std::time::Duration;

/// How long a batch may take up to its commit: a little more than the 4 s that its head may be waited for.
const PREPARE_TIMEOUT: Duration = Duration::from_millis(4_500);
/// More microseconds than a batch has events, each of which has one of its own.
const BATCH_SPAN: TimeDelta = TimeDelta::milliseconds(10);

/// Ends a batch. Without a limit: a commit that was cut short while it waits for a standby would look like one that is safe.
const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

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

/// Why a batch was not answered with its outcomes.
#[derive(Debug)]
pub(super) enum Failure {
    /// Before the commit: nothing of it happened.
    Refused(Error),
    /// During the commit: it happened or it did not.
    CommitBroke { error: sqlx::Error, proof: Proof, outcomes: Vec<Result<Done>> },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// What tells whether a batch was committed: its first event and that event's hash.
#[derive(Debug)]
pub(super) struct Proof {
    seq: i64,
    hash: Vec<u8>,
}

/// What came of a batch.
#[derive(Debug)]
pub(super) struct Committed {
    /// An outcome for each operation, in order.
    pub(super) outcomes: Vec<Result<Done>>,
    /// The database's time, unless it was not believed.
    pub(super) believed_at: Option<DateTime<Utc>>,
}

/// Runs a batch from begin to commit.
pub(super) async fn run(
    conn: &mut PgConnection,
    items: &[&Item],
    conditions: &Conditions,
) -> Result<Committed, Failure> {
    // Until the commit nothing has happened: an answer that does not come (a frozen server, a cut cable) is waited for no
    // longer than the callers can be told the truth.
    let prepared = tokio::time::timeout(PREPARE_TIMEOUT, prepare(conn, items, conditions)).await;
    let (done, proof) = match prepared {
        Ok(prepared) => prepared?,
        Err(_) => return Err(Error::Unavailable(sqlx::Error::PoolTimedOut).into()),
    };
    let Some(proof) = proof else {
        conn.execute("ROLLBACK").await?;
        return Ok(done);
    };
    match conn.execute(COMMIT).await {
        Ok(_) => Ok(done),
        Err(error) => Err(Failure::CommitBroke { error, proof, outcomes: done.outcomes }),
    }
}

/// Decides and writes a batch, up to its commit. Without a proof nothing was written.
async fn prepare(
    conn: &mut PgConnection,
    items: &[&Item],
    conditions: &Conditions,
) -> Result<(Committed, Option<Proof>)> {
    let mut head = audit::begin(conn, Stream::Risk).await?;
    let (known, believed_at) = read::read(conn, items, &mut head, conditions).await?;
    let mut deciding = Deciding::new(known, head);
    deciding.expire_due();
    let outcomes: Vec<_> = items.iter().map(|item| deciding.decide(item)).collect();
    let done = Committed { outcomes, believed_at };
    let Some(first) = deciding.recorded.first() else {
        return Ok((done, None));
    };
    let proof = Proof { seq: first.stamp.seq, hash: first.hash.clone() };
    let day = first.stamp.day();
    if !deciding.new_keys.keys.is_empty() {
        idempotency::store::insert_all(conn, day, &deciding.new_keys).await?;
    }
    store::write_batch(conn, &deciding.changes(), &deciding.head).await?;
    Ok((done, Some(proof)))
}

/// Decides one operation as a batch of it alone would, on a snapshot, and writes nothing.
pub(super) async fn decide_dry(conn: &mut PgConnection, item: &Item, conditions: &Conditions) -> Result<Done> {
    let mut head = audit::peek(conn, Stream::Risk).await?;
    let (known, _) = read::read(conn, &[item], &mut head, conditions).await?;
    let mut deciding = Deciding::new(known, head);
    deciding.expire_due();
    deciding.decide(item)
}

/// Undoes a refused batch on a connection that still answers.
pub(super) async fn roll_back(conn: &mut PgConnection) -> Result<()> {
    conn.execute("ROLLBACK").await?;
    Ok(())
}

/// Whether a batch was committed; waits for its transaction to end.
pub(super) async fn is_committed(conn: &mut PgConnection, proof: &Proof) -> Result<bool> {
    audit::begin(conn, Stream::Risk).await?;
    let hash = store::event_hash(conn, proof.seq).await?;
    conn.execute("ROLLBACK").await?;
    Ok(hash.as_deref() == Some(&proof.hash[..]))
}

/// A batch is of one day: one that could reach midnight begins there, a few milliseconds early.
pub(super) fn keep_to_one_day(head: &mut Head) {
    let first = head.next();
    let midnight = first.day().checked_add_days(Days::new(1)).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    if let Some(midnight) = midnight.filter(|midnight| *midnight - first.at < BATCH_SPAN) {
        head.set_now(midnight);
    }
}
