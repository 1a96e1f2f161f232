//! The thread: takes waiting requests, has them decided, and answers only known outcomes.

use super::{Answers, Batcher, Failure, Job, PREPARE_TIMEOUT, Proof, WAIT_MAX_MS, by};
use crate::audit::{self, partitions};
use crate::clock::Clock;
use crate::db::Database;
use crate::error::database::{self as trouble, is_of_the_connection, is_unreachable};
use crate::error::{Error, Result};
use crate::panics;
use sqlx::{Executor, PgConnection};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long a new connection and its first commit are awaited; the same for one that looks up a commit, which may wait
/// 4 s for the head.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(6);
/// How often a batch makes the partition that it needs, and is tried again.
const PARTITION_ATTEMPTS: usize = 3;

/// Starts a runtime of its own for the thread. Among the requests' tasks, it would wait behind each of them at every
/// round trip, and PostgreSQL and all callers would wait with it.
pub(super) fn start<D: Batcher>(task: Task<D>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a process that serves can have one more event loop");
    let thread = std::thread::Builder::new().name(D::THREAD.to_owned());
    thread.spawn(move || runtime.block_on(task.run())).expect("a process that serves can have one more thread");
}

type Jobs<D> = Vec<Job<<D as Batcher>::Item, <D as Batcher>::Done>>;

pub(super) struct Task<D: Batcher> {
    pub(super) db: Database,
    pub(super) clock: Clock,
    pub(super) batcher: D,
    /// The connection; none until the first batch, and after it broke.
    pub(super) conn: Option<Connected>,
    /// The runtime in which the callers wait.
    pub(super) requests: Handle,
    pub(super) waiting: mpsc::UnboundedReceiver<Job<D::Item, D::Done>>,
    /// A request that had no room in the last batch.
    pub(super) carried: Option<Job<D::Item, D::Done>>,
}

/// A connection on which a commit was confirmed.
pub(super) struct Connected {
    conn: PgConnection,
    /// The last event that is known to be durable: a commit of this connection came after it.
    confirmed: i64,
}

/// Requests that are decided together.
struct Batch<D: Batcher> {
    jobs: Jobs<D>,
    weight: usize,
    /// True if it may take in requests that arrive until it is decided. A refused batch is only split.
    grows: bool,
}

impl<D: Batcher> Batch<D> {
    fn items(&self) -> Vec<&D::Item> {
        self.jobs.iter().flat_map(|job| &job.items).collect()
    }
}

impl<D: Batcher> Task<D> {
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

    /// Removes and answers the requests that waited too long; nothing of the batch has happened yet.
    fn drop_late(&self, batch: &mut Batch<D>) {
        let now_ms = self.clock.now_ms();
        for late in batch.jobs.extract_if(.., |job| is_late(job, now_ms)) {
            answer(late, Err(Error::Overloaded));
        }
    }

    /// Takes in waiting requests while there is room. Those that waited too long are refused.
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

    /// Decides every request: in one transaction, or in more if one is refused.
    async fn decide(&mut self, batch: Batch<D>) {
        let mut pending = vec![batch];
        while let Some(mut batch) = pending.pop() {
            if batch.jobs.is_empty() {
                continue;
            }
            let mut done = self.commit(&mut batch).await;
            batch.grows = false;
            // Another route took one of the keys after the look-up. The next attempt sees it, and only its item is
            // refused.
            if let Err(Error::IdempotencyKeyReused { .. }) = &done {
                done = self.commit(&mut batch).await;
            }
            // Nobody made the next partition in time. Another maker may be at it, and be waited for in vain.
            for _ in 0..PARTITION_ATTEMPTS {
                if !done.as_ref().is_err_and(partitions::is_missing) {
                    break;
                }
                if let Err(error) = partitions::make_ahead(&self.db).await {
                    tracing::warn!(%error, "the partition that a batch needs could not be made");
                }
                done = self.commit(&mut batch).await;
            }
            let mut jobs = batch.jobs;
            match done {
                // One call wakes all callers in the other runtime, so that the next batch begins at once.
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

    /// Runs one transaction. On an error nothing was committed, unless the error says that the outcome is unknown.
    async fn commit(&mut self, batch: &mut Batch<D>) -> Answers<D::Done> {
        if self.db.is_closed() {
            self.conn = None;
            return Err(Error::Unavailable(sqlx::Error::PoolClosed));
        }
        // A connection from before a restart of PostgreSQL breaks at its first statement. Nothing was decided on it, so
        // one new connection may try; if the database is away, the callers learn it at once.
        if let Some(conn) = self.conn.take() {
            match self.commit_on(conn, batch).await {
                Err(Error::Unavailable(error)) if is_of_the_connection(&error) => {
                    tracing::warn!(%error, "a writer's connection broke: trying a new one");
                }
                done => return done,
            }
        }
        let conn = no_panic(Box::pin(by(Instant::now() + CONNECT_TIMEOUT, self.connect_confirmed()))).await?;
        self.drop_late(batch);
        self.commit_on(conn, batch).await
    }

    async fn connect_confirmed(&self) -> Result<Connected> {
        let mut conn = self.connect().await?;
        let confirmed = super::confirm(&mut conn, D::STREAM).await?;
        Ok(Connected { conn, confirmed })
    }

    async fn connect(&self) -> Result<PgConnection> {
        let mut conn = self.db.connect_writer().await?;
        audit::prepare_to_begin(&mut conn, D::STREAM).await?;
        if let Some(prepare) = D::PREPARE {
            conn.execute(sqlx::raw_sql(prepare)).await?;
        }
        Ok(conn)
    }

    async fn commit_on(&mut self, on: Connected, batch: &mut Batch<D>) -> Answers<D::Done> {
        let Connected { mut conn, confirmed } = on;
        let deadline = Instant::now() + PREPARE_TIMEOUT;
        let start = no_panic(by(deadline, self.batcher.begin(&mut conn, &batch.items()))).await;
        if start.is_ok() && batch.grows {
            self.fill(batch);
        }
        let done = match start {
            Ok(start) => super::run(&mut self.batcher, &mut conn, start, &batch.items(), deadline, confirmed).await,
            Err(error) => Err(Failure::Refused(error)),
        };
        match done {
            Ok(ended) => {
                self.conn = ended.is_usable.then_some(Connected { conn, confirmed: ended.last });
                self.note(ended.note);
                Ok(ended.outcomes)
            }
            // Nothing was committed; a doubtful connection is not used again.
            Err(Failure::Refused(error)) => {
                if let Error::Unavailable(cause) = &error {
                    self.db.disk().note(cause);
                }
                if !is_fatal(&error) && !matches!(error, Error::Panicked) && super::roll_back(&mut conn).await.is_ok() {
                    self.conn = Some(Connected { conn, confirmed });
                }
                Err(error)
            }
            Err(Failure::CommitBroke { error, proof, outcomes, note }) => {
                drop(conn);
                tracing::warn!(%error, "the connection broke during a commit: looking the batch up");
                // A late look-up is no better than none: the outcome stays unknown.
                match no_panic(Box::pin(by(Instant::now() + LOOK_UP_TIMEOUT, self.look_up(&proof)))).await {
                    Ok(true) => {
                        self.note(note);
                        Ok(outcomes)
                    }
                    Ok(false) => Err(Error::Unavailable(error)),
                    Err(_) => Err(Error::OutcomeUnknown(error)),
                }
            }
        }
    }

    /// Hands over the note. A panic here does not undo the commit.
    fn note(&mut self, note: D::Note) {
        if panics::caught_now(|| self.batcher.ended(note)).is_err() {
            tracing::error!(writer = D::THREAD, "the note of a committed batch could not be processed");
        }
    }

    /// Returns whether a batch was committed. The answer is final: locking the head waits for its transaction to end, and a
    /// transaction that has not begun finds the head moved.
    async fn look_up(&mut self, proof: &Proof) -> Result<bool> {
        let mut conn = self.connect().await?;
        let (is_committed, confirmed) = super::is_committed(&mut conn, D::STREAM, proof).await?;
        self.conn = Some(Connected { conn, confirmed });
        Ok(is_committed)
    }
}

/// Turns a panic (for example a value that the driver cannot read) into an error of these requests.
async fn no_panic<T>(attempt: impl Future<Output = Result<T>>) -> Result<T> {
    panics::caught(attempt).await.unwrap_or(Err(Error::Panicked))
}

fn is_late<Item, Done>(job: &Job<Item, Done>, now_ms: u64) -> bool {
    now_ms.saturating_sub(job.queued_ms) > WAIT_MAX_MS
}

/// True for an error of the database as a whole: it fails every item alike, so splitting the batch would not help.
fn is_fatal(error: &Error) -> bool {
    match error {
        Error::Unavailable(_) | Error::OutcomeUnknown(_) | Error::StateRewound => true,
        Error::Database(error) => is_unreachable(error),
        _ => false,
    }
}

fn answer_all<Item, Done>(jobs: Vec<Job<Item, Done>>, outcomes: Vec<Result<Done>>) {
    let mut outcomes = outcomes.into_iter();
    for job in jobs {
        let own = outcomes.by_ref().take(job.items.len()).collect();
        answer(job, Ok(own));
    }
}

fn answer<Item, Done>(job: Job<Item, Done>, answers: Answers<Done>) {
    // The caller may be gone; the decision remains.
    let _ = job.answer.send(answers);
}

/// Gives every request the same error. `Error` has sources that cannot be cloned, so each gets a copy of its kind.
fn fail_all<Item, Done>(jobs: Vec<Job<Item, Done>>, error: Error) {
    let again = |error: &Error| match error {
        Error::OutcomeUnknown(_) => Error::OutcomeUnknown(sqlx::Error::PoolClosed),
        Error::Unavailable(error) => Error::Unavailable(trouble::again(error)),
        Error::StateRewound => Error::StateRewound,
        Error::Panicked => Error::Panicked,
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
