//! One batch, up to its commit.

use super::decide::Deciding;
use super::read::{self, Read};
pub(super) use super::read::{are_by_id, can_be_optimistic, engines};
use super::{Conditions, Note, RECENT_MAX};
use crate::audit::Head;
use crate::clock::Clock;
use crate::db::history::Mark;
use crate::error::{Error, Result};
use crate::group_commit::{End, Failure, Prepared, Proof, by, committed};
use crate::panics;
use crate::risk::model::Level;
use crate::risk::operation::{Answered, Outcome, Submission};
use crate::risk::store::{self, BookView, Facts, Moment};
use crate::types::Engine;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use std::collections::BTreeMap;
use std::ops::Range;
use tokio::time;

/// The age after which a remembered book is not tried: under load, batches follow each other within milliseconds.
const AGE_MAX: TimeDelta = TimeDelta::milliseconds(250);
/// Most levels of a remembered book, since a batch copies them.
const LEVELS_MAX: usize = 16;

/// The state in which a batch begins.
#[derive(Debug)]
pub(super) enum Start {
    /// The head is locked in a transaction.
    Locked(BookView),
    /// The head is read with everything else, or remembered; the batch is written only if it has not moved since.
    Optimistic(Option<Box<Remembered>>),
}

type Ended = Prepared<Answered, Note>;
type Broken = Failure<Answered, Note>;

/// Decides and writes a batch, up to its commit.
pub(super) async fn prepare(
    conn: &mut PgConnection,
    start: Start,
    items: &[&Submission],
    asked: &[Engine],
    by_now: impl Fn() -> Conditions,
    deadline: time::Instant,
) -> Result<Ended, Broken> {
    let mut is_contended = false;
    let view = match start {
        Start::Locked(view) => {
            if let Some(ended) = by(deadline, decide_and_check(conn, view, items, &by_now())).await? {
                return Ok(ended);
            }
            by(deadline, store::read_view(conn, asked)).await?
        }
        Start::Optimistic(remembered) => {
            let decided = by(deadline, decide_alone(conn, remembered, items, asked, &by_now())).await?;
            is_contended = decided.is_some();
            if let Some(decided) = decided
                && let Some(ended) = decided.write_alone(conn).await?
            {
                return Ok(ended);
            }
            by(deadline, store::begin(conn, asked)).await?
        }
    };
    let mut ended = by(deadline, decide_finally(conn, view, items, &by_now())).await?;
    ended.note.is_contended = is_contended;
    Ok(ended)
}

/// Decides a batch without a lock, on the book as it is remembered or else read; none if it needs the locked head:
/// because one statement does not write it, or because the rows read one after the other do not fit together.
async fn decide_alone<'a>(
    conn: &mut PgConnection,
    remembered: Option<Box<Remembered>>,
    items: &[&'a Submission],
    asked: &[Engine],
    conditions: &Conditions,
) -> Result<Option<Decided<'a>>> {
    if !can_be_optimistic(items) {
        return Ok(None);
    }
    // Work that is due needs the right time more than speed.
    let remembered = remembered.filter(|_| !items.is_empty());
    let remembered = remembered.and_then(|remembered| remembered.view(asked, conditions.clock.now_ns()));
    let is_estimate = remembered.is_some();
    let view = match remembered {
        Some(view) => view,
        None => store::read_view(conn, asked).await?,
    };
    match decide(conn, view, items, conditions).await {
        Ok(mut decided) => {
            if is_estimate {
                // The time says nothing about the database's clock.
                decided.note.believed_at = None;
            }
            Ok(Some(decided).filter(Decided::is_written_alone))
        }
        Err(error @ Error::Unavailable(_)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Decides and writes a batch under the head that was locked before its last items arrived; none if the switches have
/// changed since. An item may have been sent after such a change was answered.
async fn decide_and_check(
    conn: &mut PgConnection,
    view: BookView,
    items: &[&Submission],
    conditions: &Conditions,
) -> Result<Option<Ended>> {
    let decided = decide(conn, view, items, conditions).await?;
    let read = Moment { at: None, ..decided.moment };
    decided.write_locked(conn, read).await
}

/// Decides and writes a batch under the locked head, on a view that was read after its last item arrived. However often
/// a switch moves from then on, it is decided once.
async fn decide_finally(
    conn: &mut PgConnection,
    view: BookView,
    items: &[&Submission],
    conditions: &Conditions,
) -> Result<Ended> {
    let decided = decide(conn, view, items, conditions).await?;
    let ended = decided.write_locked(conn, Moment { switches_version: None, at: None }).await?;
    ended.ok_or_else(|| Error::Inconsistent("the ledger's head moved while it was held".into()))
}

/// A decided batch that is not written yet.
struct Decided<'a> {
    deciding: Deciding<'a>,
    facts: Facts,
    moment: Moment,
    outcomes: Vec<Result<Answered>>,
    note: Note,
    clock: Clock,
}

async fn decide<'a>(
    conn: &mut PgConnection,
    view: BookView,
    items: &[&'a Submission],
    conditions: &Conditions,
) -> Result<Decided<'a>> {
    let facts = view.facts;
    let Read { known, head, believed_at, moment } = read::read(conn, items, view, conditions).await?;
    let epoch = conditions.mark.epoch;
    let mut deciding = Deciding::new(known, head);
    deciding.expire_due();
    let outcomes: Vec<_> = items.iter().map(|item| deciding.decide(item)).collect();
    let note = Note {
        believed_at,
        read_ms: conditions.now_ms,
        before: deciding.began.seq,
        epoch,
        after: deciding.head.point(),
        is_contended: false,
        recent: deciding.moved().take(RECENT_MAX).cloned().collect(),
        remembered: None,
    };
    Ok(Decided { deciding, facts, moment, outcomes, note, clock: conditions.clock.clone() })
}

impl Decided<'_> {
    /// True if one statement writes it. A batch that only repeats earlier answers must confirm them by a commit.
    fn is_written_alone(&self) -> bool {
        let has_events = !self.deciding.recorded.is_empty();
        (has_events || self.outcomes.is_empty()) && self.deciding.changes().is_one_statement()
    }

    fn ended(self, proof: Option<Proof>, end: End) -> Ended {
        Prepared { outcomes: self.outcomes, proof, last: self.note.after.seq, end, note: self.note }
    }

    /// Writes the batch under the locked head, up to the commit; none if the facts in `read` have changed.
    async fn write_locked(self, conn: &mut PgConnection, read: Moment) -> Result<Option<Ended>> {
        let Some(proof) = self.deciding.proof() else {
            // Nothing is written, so no write checks whether the switches still allow a replayed approval.
            let is_allowed = |done: &Result<Answered>| done.as_ref().is_ok_and(Answered::allows_again);
            let is_moved = read.switches_version.is_some()
                && self.outcomes.iter().any(is_allowed)
                && read.switches_version
                    != Some(store::read_view(conn, &[Engine::global()]).await?.facts.switches_version);
            // Not an event of the ledger, so its number does not tell whether a standby has it.
            let is_waiting =
                |done: &Result<Answered>| matches!(done, Ok(Answered { outcome: Outcome::Waiting(_), .. }));
            let end = if self.outcomes.iter().any(is_waiting) { End::Confirm } else { End::Discard };
            return Ok((!is_moved).then(|| self.ended(None, end)));
        };
        let written = store::write_batch(conn, &self.deciding.changes(), &self.deciding.head, read).await?;
        Ok(written.map(|_| self.ended(Some(proof), End::Commit)))
    }

    /// Writes the batch by one statement; none if the facts that were read have changed.
    async fn write_alone(self, conn: &mut PgConnection) -> Result<Option<Ended>, Broken> {
        let Some(proof) = self.deciding.proof() else {
            return Ok(Some(self.ended(None, End::Done)));
        };
        let changes = self.deciding.changes();
        let sent_ns = self.clock.now_ns();
        match committed(store::write_batch(conn, &changes, &self.deciding.head, self.moment)).await {
            Ok(Some(at)) => {
                let Self { deciding, facts, outcomes, mut note, clock, .. } = self;
                let (epoch, written_ns) = (note.epoch, sent_ns..clock.now_ns());
                // It is committed: a panic must not have it decided again.
                let remembered =
                    panics::caught_now(|| Box::new(Remembered::after(deciding, facts, epoch, at, written_ns)));
                note.remembered = remembered.ok();
                let last = note.after.seq;
                Ok(Some(Prepared { outcomes, proof: Some(proof), last, end: End::Done, note }))
            }
            Ok(None) => Ok(None),
            Err(Error::Unavailable(error) | Error::Database(error)) if !is_refusal(&error) => {
                let Self { outcomes, note, .. } = self;
                Err(Failure::CommitBroke { error, proof, outcomes, note })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// True if the server reported that a statement did nothing, and continues. An error that ends the connection or the
/// server may have come after the commit. A pooler reports a lost connection (class 08) as an ordinary error.
fn is_refusal(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| {
        let is_of_the_connection = ["08", "57P"].iter().any(|class| error.code().starts_with(class));
        matches!(error.severity(), PgSeverity::Error) && !is_of_the_connection
    })
}

/// Decides one operation on a snapshot, as a batch of it alone would, and writes nothing.
pub(super) async fn decide_dry(
    conn: &mut PgConnection,
    item: &Submission,
    conditions: &Conditions,
) -> Result<Answered> {
    let asked: Vec<_> = engines(&[item]).into_iter().collect();
    let view = store::read_view(conn, &asked).await?;
    let Read { known, head, .. } = read::read(conn, &[item], view, conditions).await?;
    let mut deciding = Deciding::new(known, head);
    deciding.expire_due();
    deciding.decide(item)
}

/// Decides and writes one operation in a transaction outside the ledger's thread that holds the ledger's head.
pub(super) async fn decide_apart(
    conn: &mut PgConnection,
    item: &Submission,
    conditions: &Conditions,
) -> Result<Answered> {
    let asked: Vec<_> = engines(&[item]).into_iter().collect();
    let view = store::read_view(conn, &asked).await?;
    let done = decide_finally(conn, view, &[item], conditions).await?.outcomes.pop();
    done.unwrap_or_else(|| Err(Error::Inconsistent("an operation was not answered".into())))
}

/// The book as this process's last batch left it, so that the next batch need not read it.
///
/// Nothing is decided on it alone. The statement that writes the next batch compares the head, the switches, the time
/// and the counters of the levels that move with the database, and writes nothing if one of them differs. Whatever else
/// a decision depends on (policies, throttles, a halt) moves the head's revision.
#[derive(Debug)]
pub(super) struct Remembered {
    /// The epoch of the history that the head belongs to.
    epoch: u64,
    head: Head,
    facts: Facts,
    levels: BTreeMap<Engine, Level>,
    /// The database's time during the write, and this process's time before and after it, in nanoseconds.
    at: DateTime<Utc>,
    written_ns: Range<u64>,
}

impl Remembered {
    /// The facts that a batch leaves, which one statement wrote.
    pub(super) fn after(
        deciding: Deciding<'_>,
        facts: Facts,
        epoch: u64,
        at: DateTime<Utc>,
        written_ns: Range<u64>,
    ) -> Self {
        let moved: Vec<Engine> = deciding.moved().cloned().collect();
        let (head, book) = (deciding.head, deciding.known.book);
        let mut levels = book.levels;
        for engine in moved {
            // The write gives each level that moved the time of the last event.
            levels.entry(engine).and_modify(|level| level.usage.updated_at = Some(head.last_at()));
        }
        let new = book.reservations.values().filter_map(|one| one.expires_at);
        let next_due = facts.next_due.into_iter().chain(new).min();
        Self { epoch, head, facts: Facts { next_due, ..facts }, levels, at, written_ns }
    }

    /// True if no other event of the ledger is known, and the history is the same.
    pub(super) fn is_latest(&self, known: &Mark) -> bool {
        (known.epoch, known.point) == (self.epoch, self.head.point())
    }

    /// The view of the next batch; none if that must be read.
    ///
    /// The database's time is between two estimates. Events are dated by the earlier one, so none is dated after a switch
    /// that was pulled later; by the later one, no hold may be due, and the day must be the same.
    pub(super) fn view(self, engines: &[Engine], now_ns: u64) -> Option<BookView> {
        // In whole microseconds, as the database's own times.
        let since = |ns: u64| i64::try_from((now_ns - ns) / 1_000).ok().map(TimeDelta::microseconds);
        let age = since(self.written_ns.end)?;
        let (now, latest) = (self.at + age, self.at + since(self.written_ns.start)? + TimeDelta::microseconds(1));
        let is_due = self.facts.next_due.is_some_and(|due| due <= latest);
        let is_same_day = latest.date_naive() == self.head.last_at().date_naive();
        let has_levels = engines.iter().all(|engine| self.levels.contains_key(engine));
        let is_usable = age < AGE_MAX && !is_due && is_same_day && has_levels && self.levels.len() <= LEVELS_MAX;
        let Self { head, facts, levels, .. } = self;
        is_usable.then(|| BookView { now, day: now.date_naive(), facts, levels, head })
    }
}
