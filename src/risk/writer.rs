//! The writer: one thread, one connection, one transaction for everything that waits.
//!
//! Every reserve touches GLOBAL, and PostgreSQL holds that row until a commit is flushed: with a transaction a request, the
//! service would do one commit at a time. So requests do not write. They put parsed operations into a bounded queue and wait;
//! this thread takes whatever is queued (natural batching: no timer, and alone a request is a batch of one), expires what is
//! due, decides each operation in order on one [`Book`](super::model::Book), writes all of it, commits, and only then answers.
//!
//! Statements of a batch, however long: begin and lock the head; time, switches and levels; one write; commit.
//! Only where there is something: changed reservations and denials to write; keys, reservations by id, past events, what original settles match (two), holds that
//! are due (two).
//!
//! What is guaranteed:
//! - An answer is sent after the durable commit that backs it. No path answers "allowed" without one.
//! - A refusal of the database is confined: the batch is rolled back and retried in halves, down to the request that caused
//!   it, which alone fails. A request of many operations is never split.
//! - A connection that breaks during the commit leaves the outcome unknown only until the next one stands: the head is locked,
//!   which waits for the old transaction to end, and the batch's first event is there or it is not.
//! - Any number of processes may write: they alternate at the head.
//! - A caller that goes away changes nothing: its operation completes.

mod batch;
mod decide;
mod read;

use super::operation::{Done, Item};
use crate::audit::{self, Stream};
use crate::clock::Clock;
use crate::db::{Database, is_unreachable};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use batch::{Conditions, Failure};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgConnection;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Operations that may wait or be in a batch. At 20,000 a second, 8,192 are 0.4 s: beyond that, waiting longer helps nobody.
const QUEUE_MAX: u32 = 8_192;
/// Operations of one transaction. Enough to spread a flush thin, few enough that a batch stays in the tens of milliseconds.
const BATCH_MAX: usize = 1_024;
/// How long an operation may have waited and still be decided: with the 4 s that the head may be waited for, still within the
/// caller's deadline of 10 s. An approval that nobody hears of only holds capacity. Milliseconds.
const WAIT_MAX_MS: u64 = 5_000;
/// How far the database clock may run ahead of this process's before it is not believed: an hour.
const JUMP_MAX: TimeDelta = TimeDelta::hours(1);

/// Gives the writer a thread of its own. Among the requests' tasks it would wait for its turn behind each of them at every
/// round trip, and PostgreSQL, and everybody, with it.
fn start_thread(task: Task, waiting: mpsc::UnboundedReceiver<Job>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a process that serves can have one more event loop");
    let thread = std::thread::Builder::new().name("ledger-writer".to_owned());
    thread.spawn(move || runtime.block_on(task.run(waiting))).expect("a process that serves can have one more thread");
}

type Answers = Result<Vec<Result<Done>>>;

/// A request that waits, and whom to tell.
#[derive(Debug)]
struct Job {
    /// Operations that are committed together; none only to expire what is due.
    items: Vec<Item>,
    queued_ms: u64,
    /// Its places among those that wait or are being decided, given back with the answer.
    _places: OwnedSemaphorePermit,
    answer: oneshot::Sender<Answers>,
}

/// The way to the writer. Cheap to clone; the thread ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::UnboundedSender<Job>,
    places: Arc<Semaphore>,
    db: Database,
    belief: Belief,
    go_live_required: bool,
    feed: Feed,
}

impl Writer {
    /// Starts the thread.
    #[must_use]
    pub fn start(db: Database, clock: Clock, feed: Feed, go_live_required: bool) -> Self {
        // Bounded by the places, which count operations and not requests.
        let (queue, waiting) = mpsc::unbounded_channel();
        let belief = Belief { clock, last: Arc::default() };
        let requests = Handle::current();
        let task =
            Task { db: db.clone(), belief: belief.clone(), go_live_required, feed: feed.clone(), conn: None, requests };
        start_thread(task, waiting);
        Self { queue, places: Arc::new(Semaphore::new(QUEUE_MAX as usize)), db, belief, go_live_required, feed }
    }

    /// Decides an operation on one instant of the database, without the lock and without a trace: what a batch of this one
    /// operation would decide.
    pub async fn dry_run(&self, item: &Item) -> Result<Done> {
        let mut tx = self.db.begin_snapshot().await?;
        let (expected, _) = self.belief.expected();
        let conditions = Conditions::of(&self.feed, self.go_live_required, expected);
        batch::decide_dry(&mut tx, item, &conditions).await
    }

    /// Has operations decided, in one commit: an answer for each, in order. Answers at once when the queue is full.
    pub async fn submit(&self, items: Vec<Item>) -> Answers {
        let size = u32::try_from(items.len()).unwrap_or(u32::MAX);
        // The semaphore is never closed, so this is about places alone.
        let places = Arc::clone(&self.places).try_acquire_many_owned(size).map_err(|_| Error::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let job = Job { items, queued_ms: self.belief.clock.now_ms(), _places: places, answer };
        self.queue.send(job).map_err(|_| Error::Inconsistent("the writer has ended".into()))?;
        answered.await.map_err(|_| Error::Inconsistent("the writer dropped an operation".into()))?
    }

    /// Operations that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        (QUEUE_MAX as usize).saturating_sub(self.places.available_permits())
    }
}

/// What this process believes of the database's time: when it last did, by both clocks.
#[derive(Debug, Clone)]
struct Belief {
    clock: Clock,
    last: Arc<Mutex<Last>>,
}

/// When the database's time was last believed: what it was, and the time here, milliseconds.
type Last = Option<(DateTime<Utc>, u64)>;

impl Belief {
    fn last(&self) -> MutexGuard<'_, Last> {
        // Nothing can panic while it is held.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest time that the database can reasonably show: what it last showed, and what has passed here since. None at
    /// the beginning. Also the time here, milliseconds.
    fn expected(&self) -> (Option<DateTime<Utc>>, u64) {
        let now_ms = self.clock.now_ms();
        let expected = self.last().and_then(|(at, ms)| {
            let passed = i64::try_from(now_ms.saturating_sub(ms)).ok()?;
            at.checked_add_signed(TimeDelta::milliseconds(passed))
        });
        (expected, now_ms)
    }

    /// Takes over a time that was believed.
    fn believe(&self, at: DateTime<Utc>, now_ms: u64) {
        *self.last() = Some((at, now_ms));
    }
}

struct Task {
    db: Database,
    belief: Belief,
    go_live_required: bool,
    feed: Feed,
    /// None until the first batch, and after the connection broke.
    conn: Option<PgConnection>,
    /// Where those who asked wait.
    requests: Handle,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::UnboundedReceiver<Job>) {
        let mut carried = None;
        loop {
            let first = match carried.take() {
                Some(job) => job,
                None => match waiting.recv().await {
                    Some(job) => job,
                    None => return,
                },
            };
            let mut size = first.items.len();
            let mut jobs = vec![first];
            while size < BATCH_MAX {
                let Ok(job) = waiting.try_recv() else {
                    break;
                };
                if size + job.items.len() > BATCH_MAX {
                    carried = Some(job);
                    break;
                }
                size += job.items.len();
                jobs.push(job);
            }
            let now_ms = self.belief.clock.now_ms();
            let (in_time, late): (Vec<_>, Vec<_>) =
                jobs.into_iter().partition(|job| now_ms.saturating_sub(job.queued_ms) <= WAIT_MAX_MS);
            for job in late {
                answer(job, Err(Error::Overloaded));
            }
            self.decide(in_time).await;
        }
    }

    /// Decides every job, in as many transactions as it takes: one, unless something refuses.
    async fn decide(&mut self, jobs: Vec<Job>) {
        let mut pending = vec![jobs];
        while let Some(mut jobs) = pending.pop() {
            if jobs.is_empty() {
                continue;
            }
            let mut done = self.commit(&jobs).await;
            // Another route took one of the keys since they were looked up. It is seen now, and refuses its operation alone.
            if let Err(Error::IdempotencyKeyReused { .. }) = &done {
                done = self.commit(&jobs).await;
            }
            match done {
                // Over there waking everybody is one call from this thread, not one each, and the next batch begins.
                Ok(outcomes) => drop(self.requests.spawn(async move { answer_all(jobs, outcomes) })),
                Err(error) if is_fatal(&error) || jobs.len() == 1 => fail_all(jobs, error),
                Err(error) => {
                    tracing::warn!(%error, requests = jobs.len(), "a batch was refused: retrying in halves");
                    let second = jobs.split_off(jobs.len() / 2);
                    pending.push(second);
                    pending.push(jobs);
                }
            }
        }
    }

    /// One transaction. On an error nothing of it was committed, except where the error says that this is not known.
    async fn commit(&mut self, jobs: &[Job]) -> Answers {
        if self.db.is_closed() {
            self.conn = None;
            return Err(Error::Unavailable(sqlx::Error::PoolClosed));
        }
        // A connection from before a restart of PostgreSQL breaks at its first statement: nothing was decided on it, so a
        // new one may try. Only one: a database that is away is told to the callers at once.
        if let Some(conn) = self.conn.take() {
            match self.commit_on(conn, jobs).await {
                Err(Error::Unavailable(error)) if !is_limit(&error) => {
                    tracing::warn!(%error, "the writer's connection broke: trying a new one");
                }
                done => return done,
            }
        }
        let conn = self.connect().await?;
        self.commit_on(conn, jobs).await
    }

    async fn connect(&self) -> Result<PgConnection> {
        let mut conn = self.db.connect_writer().await?;
        audit::prepare_to_begin(&mut conn, Stream::Risk).await?;
        Ok(conn)
    }

    async fn commit_on(&mut self, mut conn: PgConnection, jobs: &[Job]) -> Answers {
        let items: Vec<&Item> = jobs.iter().flat_map(|job| &job.items).collect();
        let (expected, read_ms) = self.belief.expected();
        let conditions = Conditions::of(&self.feed, self.go_live_required, expected);
        match batch::run(&mut conn, &items, &conditions).await {
            Ok(done) => {
                self.conn = Some(conn);
                // A time that is not believed is not the measure of the next one.
                if let Some(at) = done.believed_at {
                    self.belief.believe(at, read_ms);
                }
                Ok(done.outcomes)
            }
            // Nothing was committed; a connection in doubt is not used again.
            Err(Failure::Refused(error)) => {
                if !is_fatal(&error) && batch::roll_back(&mut conn).await.is_ok() {
                    self.conn = Some(conn);
                }
                Err(error)
            }
            Err(Failure::CommitBroke { error, proof, outcomes }) => {
                drop(conn);
                tracing::warn!(%error, "the connection broke during a commit: looking the batch up");
                match self.look_up(&proof).await {
                    Ok(true) => Ok(outcomes),
                    Ok(false) => Err(Error::Unavailable(error)),
                    Err(_) => Err(Error::OutcomeUnknown(error)),
                }
            }
        }
    }

    /// Whether a batch was committed. Locking the head waits for its transaction to end, so the answer is final.
    async fn look_up(&mut self, proof: &batch::Proof) -> Result<bool> {
        let mut conn = self.connect().await?;
        let committed = batch::is_committed(&mut conn, proof).await?;
        self.conn = Some(conn);
        Ok(committed)
    }
}

/// Whether an error is of the database as a whole: it fails every operation alike, so that splitting the batch is of no use.
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

fn answer_all(jobs: Vec<Job>, outcomes: Vec<Result<Done>>) {
    let mut outcomes = outcomes.into_iter();
    for job in jobs {
        let own = outcomes.by_ref().take(job.items.len()).collect();
        answer(job, Ok(own));
    }
}

fn answer(job: Job, answers: Answers) {
    // Whoever asked may be gone; what was decided stands.
    let _ = job.answer.send(answers);
}

/// Tells everyone the same; `Error` holds sources that cannot be cloned, so each gets its kind anew.
fn fail_all(jobs: Vec<Job>, error: Error) {
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
