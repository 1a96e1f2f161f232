//! The ledger's writer: reserves and what becomes of them, decided in batches.
//!
//! Every reserve touches GLOBAL, and PostgreSQL holds that row until a commit is flushed; [`crate::group_commit`] says how requests
//! share a commit. Here is what a batch decides: it expires what is due, takes each operation in order on one
//! [`Book`](super::model::Book), and writes all of it. No path answers "allowed" without a durable commit.
//!
//! Round trips of a batch, however long: begin, lock the head, and read time, switches and levels; one write; commit. Alone, two:
//! read, and write if what was read still stands.
//! Only where there is something: changed reservations and denials to write; keys, reservations by id, past events, what original
//! settles match (two), holds that are due, levels that were not known to be asked for.

mod batch;
mod decide;
mod read;

use super::operation::{Answered, Submission};
use crate::approval;
use crate::audit::Stream;
use crate::clock::Clock;
use crate::db::history::Mark;
use crate::db::{self, Database};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use crate::group_commit::{Batcher, Failure, Prepared, Writer};
use crate::risk::store;
use crate::types::Engine;
use crate::types::Point;
use batch::{Conditions, Corrections, Start};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tokio::time::Instant;

/// How many batches lock the head first once somebody else has written: about a second of them under load.
const SHARED_FOR: u32 = 100;
/// Engines of the batch before whose levels are read at once for operations that name none.
const RECENT_MAX: usize = 8;

/// The way to the ledger's writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    writer: Writer<Operations>,
    db: Database,
    by: By,
}

impl Ledger {
    /// Starts the writer.
    #[must_use]
    pub fn start(db: Database, clock: Clock, feed: Feed, go_live_required: bool, two_person: approval::Policy) -> Self {
        let mark = feed.history().mark(Stream::Risk);
        let by = By { feed, go_live_required, two_person };
        let writer = Writer::start(
            db.clone(),
            clock,
            Operations { by: by.clone(), mark, left_at: None, shared_for: 0, recent: Vec::new() },
        );
        Self { writer, db, by }
    }

    /// Decides an operation on one instant of the database, without the lock and without a trace: what a batch of this one
    /// operation would decide.
    pub async fn dry_run(&self, item: &Submission) -> Result<Answered> {
        let mut tx = self.db.begin_snapshot().await?;
        let mark = self.db.history().mark(Stream::Risk);
        let done = batch::decide_dry(&mut tx, item, &self.by.conditions(mark)).await;
        tx.rollback().await?;
        let tells_what_was_done = match &done {
            Ok(done) => done.replayed,
            Err(error) => matches!(error, Error::AlreadyClosed { .. }),
        };
        if tells_what_was_done {
            db::confirm(self.db.begin().await?).await?;
        }
        done
    }

    /// Decides a correction that a second person agreed to, in a transaction that holds the ledger's head.
    pub async fn correct(&self, conn: &mut PgConnection, item: &Submission) -> Result<Answered> {
        let conditions =
            Conditions { corrections: Corrections::Booked, ..self.by.conditions(self.db.history().mark(Stream::Risk)) };
        batch::decide_apart(conn, item, &conditions).await
    }

    /// Has operations decided, in one commit: an answer for each, in order. Answers at once when the queue is full.
    pub async fn submit(&self, items: Vec<Submission>) -> Result<Vec<Result<Answered>>> {
        self.writer.submit(items).await
    }

    /// Whether its thread still takes what is asked.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.writer.runs()
    }

    /// Waits for its thread to end, which it never should.
    pub async fn ended(&self) {
        self.writer.ended().await;
    }

    /// Operations that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.writer.waiting()
    }
}

/// The means of a decision beside the database.
#[derive(Debug, Clone)]
struct By {
    feed: Feed,
    go_live_required: bool,
    two_person: approval::Policy,
}

impl By {
    fn conditions(&self, mark: Mark) -> Conditions {
        Conditions::of(&self.feed, mark, self.go_live_required, self.two_person, self.feed.belief().expected())
    }
}

/// Decides batches of operations.
#[derive(Debug)]
struct Operations {
    by: By,
    /// The last event of the ledger that was known before the batch.
    mark: Mark,
    /// The last event that this writer left; none before its first.
    left_at: Option<i64>,
    /// Batches that lock the head before they read, since somebody else writes too.
    shared_for: u32,
    /// Some engines of the last batch.
    recent: Vec<Engine>,
}

/// The result that a batch leaves behind.
#[derive(Debug)]
struct Note {
    /// A time that was believed, and the time here when the batch began, milliseconds.
    believed_at: Option<DateTime<Utc>>,
    read_ms: u64,
    /// The last event before it, and its own last.
    before: i64,
    after: Point,
    /// Of which history.
    epoch: u64,
    /// Whether somebody else moved the head while it was decided.
    is_contended: bool,
    /// Some engines whose levels it moved.
    recent: Vec<Engine>,
}

impl Batcher for Operations {
    type Item = Submission;
    type Done = Answered;
    type Note = Note;
    type Start = Start;

    const STREAM: Stream = Stream::Risk;
    const THREAD: &'static str = "ledger-writer";
    const PREPARE: Option<&'static str> = Some(store::PREPARE_BEGIN);
    /// At 20,000 a second, 8,192 are 0.4 s: beyond that, waiting longer helps nobody.
    const QUEUE_MAX: u32 = 8_192;
    /// Enough to spread a flush thin, few enough that a batch stays in the tens of milliseconds.
    const BATCH_MAX: usize = 1_024;

    async fn begin(&mut self, conn: &mut PgConnection, items: &[&Submission]) -> Result<Start> {
        // Before anything is read. Events of the history before say nothing of this one.
        self.mark = self.by.feed.history().mark(Self::STREAM);
        self.by.feed.history().require_whole()?;
        if self.shared_for == 0 && batch::can_be_optimistic(items) {
            return Ok(Start::Optimistic);
        }
        self.shared_for = self.shared_for.saturating_sub(1);
        let mut engines = batch::engines(items);
        if batch::are_by_id(items) {
            engines.extend(self.recent.iter().cloned());
        }
        let engines: Vec<_> = engines.into_iter().collect();
        Ok(Start::Locked(store::begin(conn, &engines).await?))
    }

    async fn prepare(
        &mut self,
        conn: &mut PgConnection,
        start: Start,
        items: &[&Submission],
        deadline: Instant,
    ) -> Result<Prepared<Answered, Note>, Failure<Answered, Note>> {
        batch::prepare(conn, start, items, || self.by.conditions(self.mark), deadline).await
    }

    fn ended(&mut self, note: Note) {
        // A time that is not believed is not the measure of the next one.
        if let Some(at) = note.believed_at {
            self.by.feed.belief().believe(at, note.read_ms);
        }
        if note.is_contended || self.left_at.is_some_and(|left_at| left_at != note.before) {
            self.shared_for = SHARED_FOR;
        }
        self.by.feed.history().note(note.epoch, Self::STREAM, note.after);
        self.left_at = Some(note.after.seq);
        self.recent = note.recent;
    }
}
