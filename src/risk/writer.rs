//! The ledger's writer: reserves and what becomes of them, decided in batches.
//!
//! Every reserve touches GLOBAL, and PostgreSQL holds that row until a commit is flushed; [`crate::writer`] says how requests
//! share a commit. Here is what a batch decides: it expires what is due, takes each operation in order on one
//! [`Book`](super::model::Book), and writes all of it. No path answers "allowed" without a durable commit.
//!
//! Statements of a batch, however long: begin and lock the head; time, switches and levels; one write; commit.
//! Only where there is something: changed reservations and denials to write; keys, reservations by id, past events, what original settles match (two), holds that
//! are due (two).

mod batch;
mod decide;
mod read;

use super::operation::{Done, Item};
use crate::audit::Stream;
use crate::clock::Clock;
use crate::db::Database;
use crate::enforcement::feed::Feed;
use crate::error::Result;
use crate::writer::{Decider, Prepared, Writer};
use batch::Conditions;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far the database clock may run ahead of this process's before it is not believed: an hour.
const JUMP_MAX: TimeDelta = TimeDelta::hours(1);

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
    pub fn start(db: Database, clock: Clock, feed: Feed, go_live_required: bool) -> Self {
        let belief = Belief { clock: clock.clone(), last: Arc::default() };
        let by = By { belief, feed, go_live_required };
        let writer = Writer::start(db.clone(), clock, Operations { by: by.clone() });
        Self { writer, db, by }
    }

    /// Decides an operation on one instant of the database, without the lock and without a trace: what a batch of this one
    /// operation would decide.
    pub async fn dry_run(&self, item: &Item) -> Result<Done> {
        let mut tx = self.db.begin_snapshot().await?;
        batch::decide_dry(&mut tx, item, &self.by.conditions().0).await
    }

    /// Has operations decided, in one commit: an answer for each, in order. Answers at once when the queue is full.
    pub async fn submit(&self, items: Vec<Item>) -> Result<Vec<Result<Done>>> {
        self.writer.submit(items).await
    }

    /// Operations that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.writer.waiting()
    }
}

/// What decides beside the database.
#[derive(Debug, Clone)]
struct By {
    belief: Belief,
    feed: Feed,
    go_live_required: bool,
}

impl By {
    /// The conditions now, and the time here, milliseconds.
    fn conditions(&self) -> (Conditions, u64) {
        let (expected, now_ms) = self.belief.expected();
        (Conditions::of(&self.feed, self.go_live_required, expected), now_ms)
    }
}

/// Decides batches of operations.
#[derive(Debug)]
struct Operations {
    by: By,
}

impl Decider for Operations {
    type Item = Item;
    type Done = Done;
    /// A time that was believed, and the time here when the batch began, milliseconds.
    type Note = Option<(DateTime<Utc>, u64)>;

    const STREAM: Stream = Stream::Risk;
    const THREAD: &'static str = "ledger-writer";
    /// At 20,000 a second, 8,192 are 0.4 s: beyond that, waiting longer helps nobody.
    const QUEUE_MAX: u32 = 8_192;
    /// Enough to spread a flush thin, few enough that a batch stays in the tens of milliseconds.
    const BATCH_MAX: usize = 1_024;

    async fn prepare(&mut self, conn: &mut PgConnection, items: &[&Item]) -> Result<Prepared<Done, Self::Note>> {
        let (conditions, read_ms) = self.by.conditions();
        let decided = batch::prepare(conn, items, &conditions).await?;
        let note = decided.believed_at.map(|at| (at, read_ms));
        let writes = decided.proof.is_some();
        Ok(Prepared { outcomes: decided.outcomes, proof: decided.proof, writes, note })
    }

    /// A time that is not believed is not the measure of the next one.
    fn ended(&mut self, note: Self::Note) {
        if let Some((at, read_ms)) = note {
            self.by.belief.believe(at, read_ms);
        }
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
