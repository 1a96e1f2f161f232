//! Group commit: one thread, one connection, and one transaction for every waiting request.
//!
//! An append to a stream holds the stream's head until its commit is flushed: with a transaction per request, the
//! service would do one commit at a time. So requests do not write. They put their items into a bounded queue and wait.
//! The thread takes everything that is queued (natural batching: no timer, and a single request is a batch of one) and
//! everything that arrives until the head is locked. It has all of it decided in order and written, commits, and only
//! then answers.
//!
//! A [`Batcher`] makes the decisions: the ledger's (`risk::ledger`) and the measurements' (`regression::measure`).
//!
//! Guarantees:
//! - An answer is sent after its durable commit.
//! - A refusal by the database is confined: the batch is rolled back and retried in halves, down to the request that
//!   caused it, and only that fails. A request of many items is never split.
//! - A standby's confirmation is always awaited: a new connection commits before anything is answered from it, and so
//!   does a batch that only repeats what others did. A cancelled wait for a standby counts as a broken commit.
//! - A connection that breaks during the commit leaves the outcome unknown only until the next connection: locking the
//!   head waits for the old transaction to end, and then the batch's first event either exists or never will.
//! - A panic fails the request that caused it, after halving as for a refusal, and leaves the thread running. If the
//!   thread ends all the same, so does the process: see [`Writer::ended`].
//! - Any number of processes may write: they alternate at the head.
//! - A caller that goes away changes nothing: its request completes.

mod thread;

use crate::audit::{self, Stream};
use crate::clock::Clock;
use crate::db::{self, Database};
use crate::error::{Error, Result};
use crate::panics;
use sqlx::{Executor, PgConnection};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use thread::Task;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// How long an item may wait and still be decided, in milliseconds. With the 4 s for the head, that is within the
/// caller's deadline of 10 s. An approval without a caller would only hold capacity.
const WAIT_MAX_MS: u64 = 5_000;

/// How long a batch may take until its commit: a little more than the 4 s for its head.
const PREPARE_TIMEOUT: Duration = Duration::from_millis(4_500);

/// How long the answer to a commit is awaited; after that the batch is looked up. With the 4 s that the look-up may
/// wait for the head, that is before the callers' deadline of 10 s, and a half-open connection does not block everybody
/// for ever.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a rollback is awaited: only the reuse of the connection depends on it.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// The end of a batch. The server's time limits do not apply: a commit that was cut short while it waits for a standby
/// would look safe.
const COMMIT: &str = "COMMIT";

/// The decisions of a batch.
pub trait Batcher: Sized + Send + 'static {
    /// One thing to decide.
    type Item: Send + Sync + 'static;
    /// The outcome of an item.
    type Done: Send + 'static;
    /// The note that a batch leaves for [`Batcher::ended`].
    type Note: Send + 'static;
    /// The state between the start of a batch and its decisions.
    type Start;

    /// The stream whose head a batch holds.
    const STREAM: Stream;
    /// The name of the thread.
    const THREAD: &'static str;
    /// The statement that is prepared on the connection for [`begin`](Batcher::begin), if there is one.
    const PREPARE: Option<&'static str> = None;
    /// Most items that may wait or be in a batch.
    const QUEUE_MAX: u32;
    /// Most items of one transaction, unless a single request has more.
    const BATCH_MAX: usize;

    /// The number of places that an item takes.
    #[must_use]
    fn weight(_: &Self::Item) -> usize {
        1
    }

    /// Begins a batch of these items and maybe more; waits for the head if it has to be held. Items that are queued
    /// meanwhile join the batch.
    fn begin(&mut self, conn: &mut PgConnection, items: &[&Self::Item]) -> impl Future<Output = Result<Self::Start>>;

    /// Decides the items in order and writes the outcomes, but does not commit, so nothing has happened yet. The
    /// database's answer is awaited until the deadline ([`by`]).
    fn prepare(
        &mut self,
        conn: &mut PgConnection,
        start: Self::Start,
        items: &[&Self::Item],
        deadline: Instant,
    ) -> impl Future<Output = Attempt<Self>>;

    /// Takes the note of a batch that was committed or had nothing to commit.
    fn ended(&mut self, note: Self::Note);
}

/// A decided batch, or the reason why it failed.
pub type Attempt<D> =
    Result<Prepared<<D as Batcher>::Done, <D as Batcher>::Note>, Failure<<D as Batcher>::Done, <D as Batcher>::Note>>;

/// The remaining step of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Roll back: nothing was written. If the outcomes depend on an event that a standby may lack, confirm it.
    Discard,
    /// The same, but always confirm.
    Confirm,
    /// Commit. Anything without an event as proof may be lost with the connection.
    Commit,
    /// Nothing: no transaction was begun, or its single statement committed.
    Done,
}

/// A decided batch.
#[derive(Debug)]
pub struct Prepared<Done, Note> {
    /// An outcome for each item, in order.
    pub outcomes: Vec<Result<Done>>,
    /// The first event; none if the batch has none.
    pub proof: Option<Proof>,
    /// The last event of the stream, including the batch's own.
    pub last: i64,
    /// The remaining step.
    pub end: End,
    /// The note for [`Batcher::ended`].
    pub note: Note,
}

/// The proof that a batch was committed: its first event and that event's hash.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The sequence number of the event.
    pub seq: i64,
    /// The hash of the event, 32 bytes.
    pub hash: Vec<u8>,
}

type Answers<Done> = Result<Vec<Result<Done>>>;

/// A waiting request, and the channel for its answer.
#[derive(Debug)]
struct Job<Item, Done> {
    /// Items that are committed together; empty to only do the work that is due.
    items: Vec<Item>,
    weight: usize,
    queued_ms: u64,
    /// The places of the items, released with the answer.
    _places: OwnedSemaphorePermit,
    answer: oneshot::Sender<Answers<Done>>,
}

/// A handle to the thread. Cheap to clone; the thread ends with the last handle.
#[derive(Debug)]
pub struct Writer<D: Batcher> {
    queue: mpsc::UnboundedSender<Job<D::Item, D::Done>>,
    places: Arc<Semaphore>,
    clock: Clock,
}

impl<D: Batcher> Clone for Writer<D> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), places: Arc::clone(&self.places), clock: self.clock.clone() }
    }
}

impl<D: Batcher> Writer<D> {
    /// Starts the thread.
    #[must_use]
    pub fn start(db: Database, clock: Clock, batcher: D) -> Self {
        // The places bound the queue; they count items, not requests.
        let (queue, waiting) = mpsc::unbounded_channel();
        let requests = Handle::current();
        thread::start(Task { db, clock: clock.clone(), batcher, conn: None, requests, waiting, carried: None });
        Self { queue, places: Arc::new(Semaphore::new(D::QUEUE_MAX as usize)), clock }
    }

    /// Has items decided in one commit. Returns an answer for each, in order, or fails at once if the queue is full.
    pub async fn submit(&self, items: Vec<D::Item>) -> Answers<D::Done> {
        let weight = items.iter().map(D::weight).sum();
        let size = u32::try_from(weight).unwrap_or(u32::MAX);
        // The semaphore is never closed, so the only error is a lack of places.
        let places = Arc::clone(&self.places).try_acquire_many_owned(size).map_err(|_| Error::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let job = Job { items, weight, queued_ms: self.clock.now_ms(), _places: places, answer };
        self.queue.send(job).map_err(|_| Error::Inconsistent("the writer has ended".into()))?;
        answered.await.map_err(|_| Error::Inconsistent("the writer dropped a request without an answer".into()))?
    }

    /// True while the thread accepts items.
    #[must_use]
    pub fn runs(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Resolves when the thread has ended, which only an uncaught panic causes.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// The number of waiting items.
    #[must_use]
    pub fn waiting(&self) -> usize {
        (D::QUEUE_MAX as usize).saturating_sub(self.places.available_permits())
    }
}

/// The reason why a batch has no outcomes.
#[derive(Debug)]
pub enum Failure<Done, Note> {
    /// It failed before the commit: nothing of it happened.
    Refused(Error),
    /// It failed during the commit: the outcome is unknown.
    CommitBroke {
        /// The error of the connection.
        error: sqlx::Error,
        /// The proof that decides the outcome.
        proof: Proof,
        /// The outcomes if it was committed.
        outcomes: Vec<Result<Done>>,
        /// The note if it was committed.
        note: Note,
    },
}

impl<Done, Note> From<Error> for Failure<Done, Note> {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Awaits something without effect before the commit. A missing answer (a frozen server, a cut cable) is awaited only
/// as long as the callers can still be told the truth.
pub async fn by<T>(deadline: Instant, prepared: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout_at(deadline, prepared).await {
        Ok(prepared) => prepared,
        Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
    }
}

struct Ended<D: Batcher> {
    /// An outcome for each item, in order.
    outcomes: Vec<Result<D::Done>>,
    note: D::Note,
    /// The last event that the outcomes depend on.
    last: i64,
    /// True if the connection may be used again.
    is_usable: bool,
}

/// Awaits the answer to a commit. If it is missing or unreadable, or if the wait for a standby was cancelled, the
/// outcome is unknown.
pub async fn committed<T, E: From<sqlx::Error>>(commit: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(COMMIT_TIMEOUT, panics::caught(db::confirmed(commit))).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panics::Panicked)) => {
            Err(sqlx::Error::Protocol("the answer to a commit could not be read".into()).into())
        }
        Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
    }
}

/// Runs a begun batch including its commit. Events up to `confirmed` are known to be durable.
async fn run<D: Batcher>(
    batcher: &mut D,
    conn: &mut PgConnection,
    start: D::Start,
    items: &[&D::Item],
    deadline: Instant,
    confirmed: i64,
) -> Result<Ended<D>, Failure<D::Done, D::Note>> {
    let Prepared { outcomes, proof, last, end, note } =
        panics::caught(batcher.prepare(conn, start, items, deadline)).await.unwrap_or(Err(Error::Panicked.into()))?;
    let ended = match end {
        End::Commit => committed(conn.execute(COMMIT)).await,
        // The decisions do not depend on the rollback; the reuse of the connection does.
        End::Discard if last <= confirmed || items.is_empty() => {
            return Ok(Ended { outcomes, note, last: confirmed, is_usable: roll_back(conn).await.is_ok() });
        }
        // The batch repeats what others did, and a standby may not have confirmed that.
        End::Discard | End::Confirm => {
            by(deadline, db::mark(conn)).await?;
            committed(conn.execute(COMMIT)).await
        }
        End::Done => {
            return Ok(Ended { outcomes, note, last: if proof.is_some() { last } else { confirmed }, is_usable: true });
        }
    };
    match (ended, proof) {
        (Ok(_), _) => Ok(Ended { outcomes, note, last, is_usable: true }),
        (Err(error), Some(proof)) => Err(Failure::CommitBroke { error, proof, outcomes, note }),
        // Nothing was decided that a repetition would decide differently.
        (Err(error), None) => Err(Failure::Refused(Error::Unavailable(error))),
    }
}

/// Rolls back a refused batch on a connection that still answers.
async fn roll_back(conn: &mut PgConnection) -> Result<()> {
    by(Instant::now() + ROLLBACK_TIMEOUT, async { Ok(conn.execute("ROLLBACK").await.map(drop)?) }).await
}

/// Confirms all earlier commits and returns the last event: everything that is read from here on is durable. The head
/// is locked, so that of many waiting processes only one waits for a standby, and the others for a lock, which has a
/// time limit.
async fn confirm(conn: &mut PgConnection, stream: Stream) -> Result<i64> {
    let head = audit::begin(conn, stream).await?;
    db::mark(conn).await?;
    db::confirmed(conn.execute(COMMIT)).await?;
    Ok(head.seq())
}

/// Returns whether a batch was committed, and the last event. Waits for the batch's transaction to end. A transaction that has
/// not begun, still in a buffer on the way, never will: the head's revision moves, so its place is gone. A caller is
/// told of the commit only once a later commit is confirmed.
async fn is_committed(conn: &mut PgConnection, stream: Stream, proof: &Proof) -> Result<(bool, i64)> {
    let head = audit::begin(conn, stream).await?;
    let is_there = match audit::verify::point(conn, stream, proof.seq).await {
        Ok(point) => point.hash[..] == proof.hash[..],
        Err(Error::NotFound { .. }) => false,
        Err(error) => return Err(error),
    };
    audit::revise(conn, stream).await?;
    db::confirmed(conn.execute(COMMIT)).await?;
    Ok((is_there, head.seq()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regression::measure::Measure;

    #[tokio::test]
    async fn a_writer_whose_thread_has_ended_says_so_and_answers_at_once() {
        let (queue, waiting) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(1));
        let writer: Writer<Measure> = Writer { queue, places, clock: Clock::manual(0) };
        assert!(writer.runs());
        drop(waiting);
        writer.ended().await;
        assert!(!writer.runs());
        assert!(matches!(writer.submit(Vec::new()).await, Err(Error::Inconsistent(_))));
    }
}
