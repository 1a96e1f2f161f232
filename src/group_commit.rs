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

mod batch;
mod thread;

pub use batch::{Failure, by, committed};

use crate::audit::Stream;
use crate::clock::Clock;
use crate::db::Database;
use crate::error::{Error, Result};
use sqlx::postgres::PgConnection;
use std::future::Future;
use std::sync::Arc;
use thread::Task;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// How long an item may wait and still be decided, in milliseconds. With the 4 s for the head, that is within the
/// caller's deadline of 10 s. An approval without a caller would only hold capacity.
const WAIT_MAX_MS: u64 = 5_000;

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
    /// Roll back: nothing was written.
    Discard,
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
