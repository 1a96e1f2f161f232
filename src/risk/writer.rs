//! The writer: one task, one connection, one transaction for everything that waits.
//!
//! Every reserve touches GLOBAL, and PostgreSQL holds that row until a commit is flushed: with a transaction a request, the
//! service would do one commit at a time. So requests do not write. They put a canonical [`Operation`] into a bounded queue
//! and wait; this task takes whatever is queued (natural batching: no timer, and alone a request is a batch of one), decides
//! each operation in order on one [`Book`](super::model::Book), writes all of it, commits, and only then answers.
//!
//! Statements of a batch, however long: begin; lock the head; time and switches; levels; one write of everything; commit. One
//! more for the reservations that settles name, and two for each engine and thread that original settles are about.
//!
//! What is guaranteed:
//! - An answer is sent after the durable commit that backs it. No path answers "allowed" without one.
//! - A refusal of the database is confined: the batch is rolled back and retried in halves, down to the operation that caused
//!   it, which alone fails.
//! - A connection that breaks during the commit leaves the outcome unknown only until the next one stands: the head is locked,
//!   which waits for the old transaction to end, and the batch's first event is there or it is not.
//! - Any number of processes may write: they alternate at the head.
//! - A caller that goes away changes nothing: its operation completes.

mod batch;

use super::model::settle::Settlement;
use super::{Reserved, SettleRequest};
use crate::audit::Origin;
use crate::clock::Clock;
use crate::db::Database;
use crate::error::{Error, Result, is_unreachable};
use crate::risk::model::Words;
use crate::types::{Amount, Engine};
use batch::Failure;
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Operations that may wait. At 10,000 a second, 4,096 are 0.4 s: beyond that, waiting longer helps nobody.
const QUEUE_MAX: usize = 4_096;
/// Operations of one transaction. Enough to spread a flush thin, few enough that a batch stays in the tens of milliseconds.
const BATCH_MAX: usize = 1_024;
/// How long an operation may have waited and still be decided: with the 4 s that the head may be waited for, still within the
/// caller's deadline of 10 s. An approval that nobody hears of only holds capacity. Milliseconds.
const WAIT_MAX_MS: u64 = 5_000;

/// What is asked of the ledger, fully parsed.
#[derive(Debug)]
pub enum Operation {
    /// Reserve before an action.
    Reserve {
        /// For which engine; never GLOBAL.
        engine: Engine,
        /// How much; more than zero.
        amount: Amount,
        /// The id that the reservation gets.
        id: Uuid,
        /// The caller's words.
        words: Words,
    },
    /// Settle after it.
    Settle(SettleRequest),
}

/// What came of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// Of a reserve.
    Reserved(Reserved),
    /// Of a settle.
    Settled(Settlement),
}

/// An operation that waits, and whom to tell.
#[derive(Debug)]
struct Job {
    operation: Operation,
    origin: Origin,
    queued_ms: u64,
    answer: oneshot::Sender<Result<Outcome>>,
}

/// The way to the writer. Cheap to clone; the task ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Job>,
    clock: Clock,
}

impl Writer {
    /// Starts the task.
    #[must_use]
    pub fn start(db: Database, clock: Clock, go_live_required: bool) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let task = Task { db, clock: clock.clone(), go_live_required, conn: None };
        tokio::spawn(task.run(waiting));
        Self { queue, clock }
    }

    /// Has an operation decided. Answers at once when the queue is full.
    pub async fn submit(&self, operation: Operation, origin: &Origin) -> Result<Outcome> {
        let (answer, answered) = oneshot::channel();
        let job = Job { operation, origin: origin.clone(), queued_ms: self.clock.now_ms(), answer };
        self.queue.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::Inconsistent("the writer has ended".into()),
        })?;
        metrics::gauge!("holdfast_writer_queue").set(depth(self.queue.max_capacity() - self.queue.capacity()));
        answered.await.map_err(|_| Error::Inconsistent("the writer dropped an operation".into()))?
    }
}

#[expect(clippy::cast_precision_loss, reason = "the queue holds a few thousand")]
fn depth(operations: usize) -> f64 {
    operations as f64
}

struct Task {
    db: Database,
    clock: Clock,
    go_live_required: bool,
    /// None until the first batch, and after the connection broke.
    conn: Option<PgConnection>,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(BATCH_MAX);
        while waiting.recv_many(&mut jobs, BATCH_MAX).await > 0 {
            metrics::gauge!("holdfast_writer_queue").set(depth(waiting.len()));
            let now_ms = self.clock.now_ms();
            let (in_time, late): (Vec<_>, Vec<_>) =
                jobs.drain(..).partition(|job| now_ms.saturating_sub(job.queued_ms) <= WAIT_MAX_MS);
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
            match self.commit(&jobs).await {
                Ok(outcomes) => {
                    // A batch may end early, at midnight; the rest is the next one.
                    let rest = jobs.split_off(outcomes.len());
                    pending.push(rest);
                    for (job, outcome) in jobs.into_iter().zip(outcomes) {
                        answer(job, outcome);
                    }
                }
                Err(error) if is_fatal(&error) || jobs.len() == 1 => fail_all(jobs, error),
                Err(error) => {
                    tracing::warn!(%error, operations = jobs.len(), "a batch was refused: retrying in halves");
                    let second = jobs.split_off(jobs.len() / 2);
                    pending.push(second);
                    pending.push(jobs);
                }
            }
        }
    }

    /// One transaction. On an error nothing of it was committed, except where the error says that this is not known.
    async fn commit(&mut self, jobs: &[Job]) -> Result<Vec<Result<Outcome>>> {
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
        let conn = self.db.connect_writer().await?;
        self.commit_on(conn, jobs).await
    }

    async fn commit_on(&mut self, mut conn: PgConnection, jobs: &[Job]) -> Result<Vec<Result<Outcome>>> {
        match batch::run(&mut conn, jobs, self.go_live_required).await {
            Ok(outcomes) => {
                self.conn = Some(conn);
                Ok(outcomes)
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
        let mut conn = self.db.connect_writer().await?;
        let committed = batch::is_committed(&mut conn, proof).await?;
        self.conn = Some(conn);
        Ok(committed)
    }
}

/// Whether an error would meet every operation alike, so that splitting the batch is of no use.
fn is_fatal(error: &Error) -> bool {
    match error {
        Error::Unavailable(_) | Error::OutcomeUnknown(_) | Error::ClockWentBack(_) => true,
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

fn answer(job: Job, outcome: Result<Outcome>) {
    // Whoever asked may be gone; what was decided stands.
    let _ = job.answer.send(outcome);
}

/// Tells everyone the same; `Error` holds sources that cannot be cloned, so each gets its kind anew.
fn fail_all(jobs: Vec<Job>, error: Error) {
    let again = |error: &Error| match error {
        Error::OutcomeUnknown(_) => Error::OutcomeUnknown(sqlx::Error::PoolClosed),
        Error::Unavailable(_) => Error::Unavailable(sqlx::Error::PoolClosed),
        Error::ClockWentBack(seconds) => Error::ClockWentBack(*seconds),
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
