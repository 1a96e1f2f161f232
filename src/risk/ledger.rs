//! The ledger: decides reserves and all later operations on them, in batches.
//!
//! Every reserve touches GLOBAL, and PostgreSQL locks that row until a commit is flushed; [`crate::group_commit`]
//! describes how requests share a commit. A batch expires the due holds, applies each operation in order to one
//! [`Book`](super::model::Book), and writes all of it. No path answers "allowed" without a durable commit.
//!
//! Round trips of a batch of any length: begin, lock the head, and read time, switches and levels; one write; commit. A
//! process that writes alone needs two: read, and write if the head and the switches have not moved; right after such a
//! batch only the write, since the book is remembered. Extra round trips happen only when needed: for keys, reservations
//! by id, past events, matches of original settles (two), due holds, and levels that the operations did not name; and to
//! write late settles and corrections.

mod batch;
mod decide;
mod read;

use super::operation::{Answered, Submission};
use crate::approval;
use crate::audit::Stream;
use crate::clock::Clock;
use crate::db::history::{History, Mark};
use crate::db::{self, Database, archived};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use crate::group_commit::{Batcher, Failure, Prepared, Writer};
use crate::risk::model::stored::Form;
use crate::risk::store;
use crate::types::Engine;
use crate::types::Point;
use batch::{Remembered, Start};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::time::Instant;

/// The number of batches that lock the head first after another process has written: about a second of them under load.
const SHARED_FOR: u32 = 100;
/// Engines of the last batch whose levels are read in advance for operations that name none.
const RECENT_MAX: usize = 8;

/// A handle to the ledger's thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    writer: Writer<Operations>,
    db: Database,
    by: By,
}

impl Ledger {
    /// Starts the thread.
    #[must_use]
    pub fn start(
        db: Database,
        clock: Clock,
        feed: Feed,
        go_live_required: bool,
        two_person: approval::Policy,
        form: FormInUse,
    ) -> Self {
        let mark = feed.history().mark(Stream::Risk);
        let by = By { feed, clock: clock.clone(), go_live_required, two_person, form };
        let writer = Writer::start(
            db.clone(),
            clock,
            Operations { by: by.clone(), mark, left_at: None, shared_for: 0, recent: Vec::new(), remembered: None },
        );
        Self { writer, db, by }
    }

    /// Decides an operation at one instant of the database, without the lock and without a record: the decision is that
    /// of a batch with this operation alone.
    pub async fn dry_run(&self, item: &Submission) -> Result<Answered> {
        let mut tx = archived::snapshot(&self.db).await?;
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

    /// Decides a correction that a second person approved, in a transaction that holds the ledger's head.
    pub async fn correct(&self, conn: &mut PgConnection, item: &Submission) -> Result<Answered> {
        let conditions =
            Conditions { corrections: Corrections::Booked, ..self.by.conditions(self.db.history().mark(Stream::Risk)) };
        batch::decide_apart(conn, item, &conditions).await
    }

    /// Has operations decided in one commit. Returns an answer for each, in order, or fails at once if the queue is
    /// full.
    pub async fn submit(&self, items: Vec<Submission>) -> Result<Vec<Result<Answered>>> {
        self.writer.submit(items).await
    }

    /// True while the thread accepts operations.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.writer.runs()
    }

    /// Resolves when the thread ends, which it never should.
    pub async fn ended(&self) {
        self.writer.ended().await;
    }

    /// The number of waiting operations.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.writer.waiting()
    }
}

/// The inputs of a decision beside the database.
#[derive(Debug, Clone)]
struct By {
    feed: Feed,
    clock: Clock,
    go_live_required: bool,
    two_person: approval::Policy,
    form: FormInUse,
}

impl By {
    fn conditions(&self, mark: Mark) -> Conditions {
        let (expected, now_ms) = self.feed.belief().expected();
        let corrections = match self.two_person {
            approval::Policy::OfDatabase => Corrections::OfDatabase,
            approval::Policy::Always => Corrections::Wait,
        };
        Conditions {
            go_live_required: self.go_live_required,
            killed_locally: self.feed.is_killed_locally(),
            history: self.feed.history().clone(),
            mark,
            expected,
            now_ms,
            clock: self.clock.clone(),
            corrections,
            form: self.form.now(),
        }
    }
}

/// The inputs of a batch beside the database.
#[derive(Debug)]
struct Conditions {
    go_live_required: bool,
    /// True if this instance has a kill file, whatever the database says.
    killed_locally: bool,
    /// The known history of the database. It tells whether the state went backwards, so that its switches may be
    /// outdated, and the last event of the ledger before it was read.
    history: History,
    mark: Mark,
    /// The time that the database should show now, as far as this process can tell; none at its start.
    expected: Option<DateTime<Utc>>,
    /// This process's time in milliseconds.
    now_ms: u64,
    /// The clock of this process.
    clock: Clock,
    /// The handling of downward corrections.
    corrections: Corrections,
    /// The form in which events store their outcome.
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Corrections {
    /// The setting in the database decides whether they wait for approval.
    OfDatabase,
    /// They wait for approval.
    Wait,
    /// They are booked at once.
    Booked,
}

/// The form in use, and the look that chose it. Cheap to clone: all clones are one.
#[derive(Debug, Clone, Default)]
pub struct FormInUse(Arc<AtomicU8>);

/// The look after which outcomes are compact.
pub(in crate::risk) const COMPACT: u8 = 1;

impl FormInUse {
    /// The form that the last look chose; the long one before the first.
    #[must_use]
    pub fn now(&self) -> Form {
        if self.0.load(Ordering::Acquire) == COMPACT { Form::Compact } else { Form::Long }
    }

    /// Keeps the result of a look, and says whether it differs from the last one.
    pub(in crate::risk) fn keep(&self, look: u8) -> bool {
        self.0.swap(look, Ordering::AcqRel) != look
    }
}

#[derive(Debug)]
struct Operations {
    by: By,
    /// The last event of the ledger that was known before the batch.
    mark: Mark,
    /// The last event after this process's last batch; none before its first.
    left_at: Option<i64>,
    /// The number of further batches that lock the head before they read, because another process writes too.
    shared_for: u32,
    /// Some engines of the last batch.
    recent: Vec<Engine>,
    /// The book after the last batch; none unless the next one may use it.
    remembered: Option<Box<Remembered>>,
}

#[derive(Debug)]
struct Note {
    /// The believed time, and this process's time when the batch began, in milliseconds.
    believed_at: Option<DateTime<Utc>>,
    read_ms: u64,
    /// The last event before the batch, and the batch's last event.
    before: i64,
    after: Point,
    /// The epoch of the history that the events belong to.
    epoch: u64,
    /// True if another process moved the head during the batch.
    is_contended: bool,
    /// Some engines whose levels the batch moved.
    recent: Vec<Engine>,
    /// The book after the batch; none unless it wrote alone, by one statement.
    remembered: Option<Box<Remembered>>,
}

impl Operations {
    /// The levels to read with the head: those that operations name, and for operations that name none, those of the
    /// last batch.
    fn asked(&self, items: &[&Submission]) -> Vec<Engine> {
        let mut engines = batch::engines(items);
        if batch::are_by_id(items) {
            engines.extend(self.recent.iter().cloned());
        }
        engines.into_iter().collect()
    }
}

impl Batcher for Operations {
    type Item = Submission;
    type Done = Answered;
    type Note = Note;
    type Start = Start;

    const STREAM: Stream = Stream::Risk;
    const THREAD: &'static str = "ledger-writer";
    const PREPARE: Option<&'static str> = Some(store::PREPARE_BEGIN);
    /// At 20,000 a second, 8,192 are 0.4 s: a longer queue would help nobody.
    const QUEUE_MAX: u32 = 8_192;
    /// Enough to share the cost of a flush, and few enough that a batch takes tens of milliseconds.
    const BATCH_MAX: usize = 1_024;

    async fn begin(&mut self, conn: &mut PgConnection, items: &[&Submission]) -> Result<Start> {
        // Set before anything is read. Events of an earlier history say nothing about this one.
        self.mark = self.by.feed.history().mark(Self::STREAM);
        let remembered = self.remembered.take().filter(|remembered| remembered.is_latest(&self.mark));
        self.by.feed.history().require_whole()?;
        if self.shared_for == 0 && batch::can_be_optimistic(items) {
            return Ok(Start::Optimistic(remembered));
        }
        self.shared_for = self.shared_for.saturating_sub(1);
        Ok(Start::Locked(store::begin(conn, &self.asked(items)).await?))
    }

    async fn prepare(
        &mut self,
        conn: &mut PgConnection,
        start: Start,
        items: &[&Submission],
        deadline: Instant,
    ) -> Result<Prepared<Answered, Note>, Failure<Answered, Note>> {
        batch::prepare(conn, start, items, &self.asked(items), || self.by.conditions(self.mark), deadline).await
    }

    fn ended(&mut self, note: Note) {
        // A time that is not believed is no measure for the next one.
        if let Some(at) = note.believed_at {
            self.by.feed.belief().believe(at, note.read_ms);
        }
        if note.is_contended || self.left_at.is_some_and(|left_at| left_at != note.before) {
            self.shared_for = SHARED_FOR;
        }
        self.by.feed.history().note(note.epoch, Self::STREAM, note.after);
        self.left_at = Some(note.after.seq);
        self.recent = note.recent;
        self.remembered = note.remembered;
    }
}
