//! A writer: one thread, one connection, one transaction for everything that waits.
//!
//! Whatever appends to a stream holds its head until a commit is flushed: with a transaction a request, the service would do
//! one commit at a time. So requests do not write. They put what they ask into a bounded queue and wait; the thread takes
//! whatever is queued (natural batching: no timer, and alone a request is a batch of one), and what else has come once the head
//! is its own, has all of it decided in order and written, commits, and only then answers.
//!
//! The decisions themselves are a [`Batcher`]'s: the ledger's (`risk::ledger`) and the measurements' (`regression::measure`).
//!
//! What is guaranteed:
//! - An answer is sent after the durable commit that backs it.
//! - A refusal of the database is confined: the batch is rolled back and retried in halves, down to the request that caused
//!   it, which alone fails. A request of many items is never split.
//! - What a standby has to confirm is confirmed: a new connection commits before anything is answered from it, and so does a batch
//!   that only tells what others did. A wait for a standby that was cancelled counts as a commit that broke.
//! - A connection that breaks during the commit leaves the outcome unknown only until the next one stands: the head is locked,
//!   which waits for the old transaction to end, and the batch's first event is there or it is not, and then never will be.
//! - A panic fails what was asked, after halving as a refusal does, and no writer. If the thread ends all the same, the process
//!   does: see [`Writer::ended`].
//! - Any number of processes may write: they alternate at the head.
//! - A caller that goes away changes nothing: what it asked completes.

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

/// How long an item may have waited and still be decided: with the 4 s that the head may be waited for, still within the
/// caller's deadline of 10 s. An approval that nobody hears of only holds capacity. Milliseconds.
const WAIT_MAX_MS: u64 = 5_000;

/// Decides what a writer is asked.
pub trait Batcher: Sized + Send + 'static {
    /// What is asked.
    type Item: Send + Sync + 'static;
    /// What comes of it.
    type Done: Send + 'static;
    /// The note that a batch leaves for [`Batcher::ended`].
    type Note: Send + 'static;
    /// How a batch begins.
    type Start;

    /// The stream whose head a batch holds.
    const STREAM: Stream;
    /// The thread's name.
    const THREAD: &'static str;
    /// The statement that is prepared on its connection for [`begin`](Batcher::begin), if anything.
    const PREPARE: Option<&'static str> = None;
    /// Items that may wait or be in a batch.
    const QUEUE_MAX: u32;
    /// Items of one transaction, unless one request has more.
    const BATCH_MAX: usize;

    /// How many places an item takes.
    #[must_use]
    fn weight(_: &Self::Item) -> usize {
        1
    }

    /// Begins a batch of these items and maybe more: waits for the head, where it has to be held. What is queued meanwhile comes
    /// into the batch.
    fn begin(&mut self, conn: &mut PgConnection, items: &[&Self::Item]) -> impl Future<Output = Result<Self::Start>>;

    /// Decides the items in order, and writes what came of them, up to the commit. Up to there nothing has happened, and an
    /// answer of the database is waited for until the deadline ([`by`]).
    fn prepare(
        &mut self,
        conn: &mut PgConnection,
        start: Self::Start,
        items: &[&Self::Item],
        deadline: Instant,
    ) -> impl Future<Output = Attempt<Self>>;

    /// Takes the note of a batch that was committed, or had nothing to commit.
    fn ended(&mut self, note: Self::Note);
}

/// A batch that was decided, or why it was not.
pub type Attempt<D> =
    Result<Prepared<<D as Batcher>::Done, <D as Batcher>::Note>, Failure<<D as Batcher>::Done, <D as Batcher>::Note>>;

/// What is left to do of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing was written, and the transaction is undone.
    Discard,
    /// The transaction is committed. What is not proven by an event may be lost with the connection.
    Commit,
    /// Nothing is: no transaction was begun, or its one statement was its commit.
    Done,
}

/// A batch that was decided.
#[derive(Debug)]
pub struct Prepared<Done, Note> {
    /// An outcome for each item, in order.
    pub outcomes: Vec<Result<Done>>,
    /// Its first event; none if it has none.
    pub proof: Option<Proof>,
    /// The last event of the stream, its own included.
    pub last: i64,
    /// What is left to do.
    pub end: End,
    /// What it leaves behind.
    pub note: Note,
}

/// What tells whether a batch was committed: its first event and that event's hash.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The event.
    pub seq: i64,
    /// Its hash.
    pub hash: Vec<u8>,
}

type Answers<Done> = Result<Vec<Result<Done>>>;

/// A request that waits, and whom to tell.
#[derive(Debug)]
struct Job<Item, Done> {
    /// Items that are committed together; none only to do what is due.
    items: Vec<Item>,
    weight: usize,
    queued_ms: u64,
    /// Its places among those that wait or are being decided, given back with the answer.
    _places: OwnedSemaphorePermit,
    answer: oneshot::Sender<Answers<Done>>,
}

/// The way to the thread. Cheap to clone; the thread ends when the last one is gone.
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
        // Bounded by the places, which count items and not requests.
        let (queue, waiting) = mpsc::unbounded_channel();
        let requests = Handle::current();
        thread::start(Task { db, clock: clock.clone(), batcher, conn: None, requests, waiting, carried: None });
        Self { queue, places: Arc::new(Semaphore::new(D::QUEUE_MAX as usize)), clock }
    }

    /// Has items decided, in one commit: an answer for each, in order. Answers at once when the queue is full.
    pub async fn submit(&self, items: Vec<D::Item>) -> Answers<D::Done> {
        let weight = items.iter().map(D::weight).sum();
        let size = u32::try_from(weight).unwrap_or(u32::MAX);
        // The semaphore is never closed, so this is about places alone.
        let places = Arc::clone(&self.places).try_acquire_many_owned(size).map_err(|_| Error::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let job = Job { items, weight, queued_ms: self.clock.now_ms(), _places: places, answer };
        self.queue.send(job).map_err(|_| Error::Inconsistent("the writer has ended".into()))?;
        answered.await.map_err(|_| Error::Inconsistent("the writer dropped what it was asked".into()))?
    }

    /// Whether the thread still takes what is asked.
    #[must_use]
    pub fn runs(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Waits for the thread to end, which it only does by a panic that nothing caught.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Items that wait now.
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
