//! A writer: one thread, one connection, one transaction for everything that waits.
//!
//! Whatever appends to a stream holds its head until a commit is flushed: with a transaction a request, the service would do
//! one commit at a time. So requests do not write. They put what they ask into a bounded queue and wait; the thread takes
//! whatever is queued (natural batching: no timer, and alone a request is a batch of one), and what else has come once the head
//! is its own, has all of it decided in order and written, commits, and only then answers.
//!
//! What is decided and how is a [`Decider`]'s: the ledger's (`risk::writer`) and the measurements' (`regression::writer`).
//!
//! What is guaranteed:
//! - An answer is sent after the durable commit that backs it.
//! - A refusal of the database is confined: the batch is rolled back and retried in halves, down to the request that caused
//!   it, which alone fails. A request of many items is never split.
//! - A connection that breaks during the commit leaves the outcome unknown only until the next one stands: the head is locked,
//!   which waits for the old transaction to end, and the batch's first event is there or it is not, and then never will be.
//! - Any number of processes may write: they alternate at the head.
//! - A caller that goes away changes nothing: what it asked completes.

mod batch;

pub use batch::{Failure, by, committed};

use crate::audit::{self, Stream};
use crate::clock::Clock;
use crate::db::{Database, is_unreachable};
use crate::error::{Error, Result};
use sqlx::postgres::PgConnection;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// How long an item may have waited and still be decided: with the 4 s that the head may be waited for, still within the
/// caller's deadline of 10 s. An approval that nobody hears of only holds capacity. Milliseconds.
const WAIT_MAX_MS: u64 = 5_000;

/// How long a new connection is waited for, and one that looks up what came of a commit, which may wait 4 s for the head.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(6);

/// Decides what a writer is asked.
pub trait Decider: Sized + Send + 'static {
    /// What is asked.
    type Item: Send + Sync + 'static;
    /// What comes of it.
    type Done: Send + 'static;
    /// What a batch leaves for [`Decider::ended`].
    type Note: Send + 'static;
    /// How a batch begins.
    type Start;

    /// The stream whose head a batch holds.
    const STREAM: Stream;
    /// The thread's name.
    const THREAD: &'static str;
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
    Result<Prepared<<D as Decider>::Done, <D as Decider>::Note>, Failure<<D as Decider>::Done, <D as Decider>::Note>>;

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
pub struct Writer<D: Decider> {
    queue: mpsc::UnboundedSender<Job<D::Item, D::Done>>,
    places: Arc<Semaphore>,
    clock: Clock,
}

impl<D: Decider> Clone for Writer<D> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), places: Arc::clone(&self.places), clock: self.clock.clone() }
    }
}

impl<D: Decider> Writer<D> {
    /// Starts the thread.
    #[must_use]
    pub fn start(db: Database, clock: Clock, decider: D) -> Self {
        // Bounded by the places, which count items and not requests.
        let (queue, waiting) = mpsc::unbounded_channel();
        let requests = Handle::current();
        start_thread(Task { db, clock: clock.clone(), decider, conn: None, requests, waiting, carried: None });
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

    /// Items that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        (D::QUEUE_MAX as usize).saturating_sub(self.places.available_permits())
    }
}

/// Gives the writer a thread of its own. Among the requests' tasks it would wait for its turn behind each of them at every
/// round trip, and PostgreSQL, and everybody, with it.
fn start_thread<D: Decider>(task: Task<D>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a process that serves can have one more event loop");
    let thread = std::thread::Builder::new().name(D::THREAD.to_owned());
    thread.spawn(move || runtime.block_on(task.run())).expect("a process that serves can have one more thread");
}

type Jobs<D> = Vec<Job<<D as Decider>::Item, <D as Decider>::Done>>;

struct Task<D: Decider> {
    db: Database,
    clock: Clock,
    decider: D,
    /// None until the first batch, and after the connection broke.
    conn: Option<PgConnection>,
    /// Where those who asked wait.
    requests: Handle,
    waiting: mpsc::UnboundedReceiver<Job<D::Item, D::Done>>,
    /// One that had no room in the batch before.
    carried: Option<Job<D::Item, D::Done>>,
}

/// Requests that are to be decided together.
struct Batch<D: Decider> {
    jobs: Jobs<D>,
    weight: usize,
    /// Whether it may take in what comes until it is decided. What was refused is only ever split.
    grows: bool,
}

impl<D: Decider> Batch<D> {
    fn items(&self) -> Vec<&D::Item> {
        self.jobs.iter().flat_map(|job| &job.items).collect()
    }
}

impl<D: Decider> Task<D> {
    async fn run(mut self) {
        loop {
            if self.carried.is_none() {
                self.carried = self.waiting.recv().await;
            }
            if self.carried.is_none() {
                return;
            }
            let mut batch = Batch { jobs: Vec::new(), weight: 0, grows: true };
            self.fill(&mut batch);
            self.decide(batch).await;
        }
    }

    /// Takes who waited too long out of a batch of which nothing has happened, and tells them.
    fn drop_late(&self, batch: &mut Batch<D>) {
        let now_ms = self.clock.now_ms();
        for late in batch.jobs.extract_if(.., |job| is_late(job, now_ms)) {
            answer(late, Err(Error::Overloaded));
        }
    }

    /// Takes in what waits, as far as there is room. Who waited too long is told so.
    fn fill(&mut self, batch: &mut Batch<D>) {
        let now_ms = self.clock.now_ms();
        while batch.weight < D::BATCH_MAX {
            let Some(job) = self.carried.take().or_else(|| self.waiting.try_recv().ok()) else {
                return;
            };
            if is_late(&job, now_ms) {
                answer(job, Err(Error::Overloaded));
            } else if batch.weight > 0 && batch.weight + job.weight > D::BATCH_MAX {
                self.carried = Some(job);
                return;
            } else {
                batch.weight += job.weight;
                batch.jobs.push(job);
            }
        }
    }

    /// Decides every job, in as many transactions as it takes: one, unless something refuses.
    async fn decide(&mut self, batch: Batch<D>) {
        let mut pending = vec![batch];
        while let Some(mut batch) = pending.pop() {
            if batch.jobs.is_empty() {
                continue;
            }
            let mut done = self.commit(&mut batch).await;
            batch.grows = false;
            // Another route took one of the keys since they were looked up. It is seen now, and refuses its item alone.
            if let Err(Error::IdempotencyKeyReused { .. }) = &done {
                done = self.commit(&mut batch).await;
            }
            let mut jobs = batch.jobs;
            match done {
                // Over there waking everybody is one call from this thread, not one each, and the next batch begins.
                Ok(outcomes) => drop(self.requests.spawn(async move { answer_all(jobs, outcomes) })),
                Err(error) if is_fatal(&error) || jobs.len() == 1 => fail_all(jobs, error),
                Err(error) => {
                    tracing::warn!(%error, requests = jobs.len(), "a batch was refused: retrying in halves");
                    let second = jobs.split_off(jobs.len() / 2);
                    pending.extend([second, jobs].map(|jobs| Batch { jobs, weight: 0, grows: false }));
                }
            }
        }
    }

    /// One transaction. On an error nothing of it was committed, except where the error says that this is not known.
    async fn commit(&mut self, batch: &mut Batch<D>) -> Answers<D::Done> {
        if self.db.is_closed() {
            self.conn = None;
            return Err(Error::Unavailable(sqlx::Error::PoolClosed));
        }
        // A connection from before a restart of PostgreSQL breaks at its first statement: nothing was decided on it, so a
        // new one may try. Only one: a database that is away is told to the callers at once.
        if let Some(conn) = self.conn.take() {
            match self.commit_on(conn, batch).await {
                Err(Error::Unavailable(error)) if !is_limit(&error) => {
                    tracing::warn!(%error, "a writer's connection broke: trying a new one");
                }
                done => return done,
            }
        }
        let conn = by(Instant::now() + CONNECT_TIMEOUT, self.connect()).await?;
        self.drop_late(batch);
        self.commit_on(conn, batch).await
    }

    async fn connect(&self) -> Result<PgConnection> {
        let mut conn = self.db.connect_writer().await?;
        audit::prepare_to_begin(&mut conn, D::STREAM).await?;
        Ok(conn)
    }

    async fn commit_on(&mut self, mut conn: PgConnection, batch: &mut Batch<D>) -> Answers<D::Done> {
        let deadline = Instant::now() + batch::PREPARE_TIMEOUT;
        let start = by(deadline, self.decider.begin(&mut conn, &batch.items())).await;
        if start.is_ok() && batch.grows {
            self.fill(batch);
        }
        let done = match start {
            Ok(start) => batch::run(&mut self.decider, &mut conn, start, &batch.items(), deadline).await,
            Err(error) => Err(Failure::Refused(error)),
        };
        match done {
            Ok(ended) => {
                self.conn = ended.is_sound.then_some(conn);
                self.decider.ended(ended.note);
                Ok(ended.outcomes)
            }
            // Nothing was committed; a connection in doubt is not used again.
            Err(Failure::Refused(error)) => {
                if !is_fatal(&error) && batch::roll_back(&mut conn).await.is_ok() {
                    self.conn = Some(conn);
                }
                Err(error)
            }
            Err(Failure::CommitBroke { error, proof, outcomes, note }) => {
                drop(conn);
                tracing::warn!(%error, "the connection broke during a commit: looking the batch up");
                // Late is as good as not at all: then nobody knows.
                match by(Instant::now() + LOOK_UP_TIMEOUT, self.look_up(&proof)).await {
                    Ok(true) => {
                        self.decider.ended(note);
                        Ok(outcomes)
                    }
                    Ok(false) => Err(Error::Unavailable(error)),
                    Err(_) => Err(Error::OutcomeUnknown(error)),
                }
            }
        }
    }

    /// Whether a batch was committed. The answer is final: locking the head waits for its transaction to end, and what has not
    /// begun finds the head moved.
    async fn look_up(&mut self, proof: &Proof) -> Result<bool> {
        let mut conn = self.connect().await?;
        let committed = batch::is_committed(&mut conn, D::STREAM, proof).await?;
        self.conn = Some(conn);
        Ok(committed)
    }
}

fn is_late<Item, Done>(job: &Job<Item, Done>, now_ms: u64) -> bool {
    now_ms.saturating_sub(job.queued_ms) > WAIT_MAX_MS
}

/// Whether an error is of the database as a whole: it fails every item alike, so that splitting the batch is of no use.
fn is_fatal(error: &Error) -> bool {
    match error {
        Error::Unavailable(_) | Error::OutcomeUnknown(_) => true,
        Error::Database(error) => is_unreachable(error),
        _ => false,
    }
}

/// Whether time ran out on a connection that may be sound, by PostgreSQL's limits or ours: a new one would only wait again.
fn is_limit(error: &sqlx::Error) -> bool {
    if matches!(error, sqlx::Error::PoolTimedOut) {
        return true;
    }
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["55P03", "57014"].contains(&code.as_ref()))
}

fn answer_all<Item, Done>(jobs: Vec<Job<Item, Done>>, outcomes: Vec<Result<Done>>) {
    let mut outcomes = outcomes.into_iter();
    for job in jobs {
        let own = outcomes.by_ref().take(job.items.len()).collect();
        answer(job, Ok(own));
    }
}

fn answer<Item, Done>(job: Job<Item, Done>, answers: Answers<Done>) {
    // Whoever asked may be gone; what was decided stands.
    let _ = job.answer.send(answers);
}

/// Tells everyone the same; `Error` holds sources that cannot be cloned, so each gets its kind anew.
fn fail_all<Item, Done>(jobs: Vec<Job<Item, Done>>, error: Error) {
    let again = |error: &Error| match error {
        Error::OutcomeUnknown(_) => Error::OutcomeUnknown(sqlx::Error::PoolClosed),
        Error::Unavailable(_) => Error::Unavailable(sqlx::Error::PoolClosed),
        other => Error::Inconsistent(other.to_string()),
    };
    let mut jobs = jobs.into_iter();
    let first = jobs.next();
    for job in jobs {
        answer(job, Err(again(&error)));
    }
    if let Some(job) = first {
        answer(job, Err(error));
    }
}
