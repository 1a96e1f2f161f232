//! One batch, up to its commit.

use super::Note;
use super::RECENT_MAX;
use super::decide::Deciding;
use super::read::{self, Read};
pub(super) use super::read::{are_by_id, can_be_optimistic, engines};
use super::remembered::Remembered;
use crate::approval;
use crate::audit::{self, Head, Stream};
use crate::db::history::{History, Mark};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use crate::group_commit::{End, Failure, Prepared, Proof, by, committed};
use crate::idempotency;
use crate::risk::model::stored::Form;
use crate::risk::operation::{Answered, Submission};
use crate::risk::store::{self, BookView, Facts, Moment};
use crate::types::Engine;
use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use sqlx::PgConnection;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokio::time;

/// Longer than the microseconds that the events of a batch need, one each.
const BATCH_SPAN: TimeDelta = TimeDelta::milliseconds(10);

/// The inputs of a batch beside the database.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) go_live_required: bool,
    /// True if this instance has a kill file, whatever the database says.
    pub(super) killed_locally: bool,
    /// The known history of the database. It tells whether the state went backwards, so that its switches may be
    /// outdated, and the last event of the ledger before it was read.
    pub(super) history: History,
    pub(super) mark: Mark,
    /// The time that the database should show now, as far as this process can tell; none at its start.
    pub(super) expected: Option<DateTime<Utc>>,
    /// This process's time in milliseconds.
    pub(super) now_ms: u64,
    /// The handling of downward corrections.
    pub(super) corrections: Corrections,
    /// The form in which events store their outcome.
    pub(super) form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Corrections {
    /// The setting in the database decides whether they wait for approval.
    OfDatabase,
    /// They wait for approval.
    Wait,
    /// They are booked at once.
    Booked,
}

impl Conditions {
    pub(super) fn of(
        feed: &Feed,
        mark: Mark,
        go_live_required: bool,
        two_person: approval::Policy,
        form: Form,
        (expected, now_ms): (Option<DateTime<Utc>>, u64),
    ) -> Self {
        let corrections = match two_person {
            approval::Policy::OfDatabase => Corrections::OfDatabase,
            approval::Policy::Always => Corrections::Wait,
        };
        Self {
            corrections,
            form,
            go_live_required,
            killed_locally: feed.is_killed_locally(),
            history: feed.history().clone(),
            mark,
            expected,
            now_ms,
        }
    }
}

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
///
/// An optimistic batch that needs more than one statement locks the head before it writes, and is decided again if the
/// head has moved.
pub(super) async fn prepare(
    conn: &mut PgConnection,
    start: Start,
    items: &[&Submission],
    by_now: impl Fn() -> Conditions,
    deadline: time::Instant,
) -> Result<Ended, Broken> {
    let asked: Vec<_> = engines(items).into_iter().collect();
    let mut is_contended = false;
    let view = match start {
        Start::Locked(view) => view,
        Start::Optimistic(remembered) if can_be_optimistic(items) => {
            let remembered = match remembered.and_then(|remembered| remembered.view(&asked)) {
                Some(view) => {
                    let mut decided = by(deadline, decide(conn, view, items, &by_now())).await?;
                    // The time is an estimate, which says nothing about the database's clock.
                    decided.note.believed_at = None;
                    Some(decided)
                }
                None => None,
            };
            let decided = if let Some(decided) = remembered.filter(Decided::is_one_statement) {
                decided
            } else {
                let view = by(deadline, store::read_view(conn, &asked)).await?;
                by(deadline, decide(conn, view, items, &by_now())).await?
            };
            is_contended = true;
            match decided.write_optimistic(conn, deadline).await? {
                Written::All(ended) => return Ok(ended),
                Written::Nothing { is_locked: true } => by(deadline, store::read_view(conn, &asked)).await?,
                Written::Nothing { is_locked: false } => by(deadline, store::begin(conn, &asked)).await?,
            }
        }
        Start::Optimistic(_) => by(deadline, store::begin(conn, &asked)).await?,
    };
    let prepared = async {
        let view = if is_contended {
            view
        } else {
            // Recomputed after the head is locked, because the lock may have taken time.
            let decided = decide(conn, view, items, &by_now()).await?;
            let read = Moment { at: None, ..decided.moment };
            if let Some(prepared) = decided.write_locked(conn, read).await? {
                return Ok(prepared);
            }
            store::read_view(conn, &asked).await?
        };
        // The second decision. It has all items of the batch and any earlier answers among the rows just read, so
        // however often a switch moves, there is no third.
        let decided = decide(conn, view, items, &by_now()).await?;
        let prepared = decided.write_locked(conn, Moment { switches_version: None, at: None }).await?;
        prepared.ok_or_else(|| Error::Inconsistent("the ledger's head moved while it was held".into()))
    };
    let mut prepared = by(deadline, prepared).await?;
    prepared.note.is_contended = is_contended;
    Ok(prepared)
}

enum Written {
    /// It was written, or had nothing to write.
    All(Ended),
    /// The head had moved.
    Nothing { is_locked: bool },
}

/// A decided batch that is not written yet.
struct Decided<'a> {
    deciding: Deciding<'a>,
    facts: Facts,
    moment: Moment,
    outcomes: Vec<Result<Answered>>,
    note: Note,
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
    Ok(Decided { deciding, facts, moment, outcomes, note })
}

impl Decided<'_> {
    /// True if there is something to write, and one statement writes all of it.
    fn is_one_statement(&self) -> bool {
        !self.deciding.recorded.is_empty() && self.deciding.changes().is_one_statement()
    }

    fn ended(self, proof: Option<Proof>, end: End) -> Ended {
        Prepared { outcomes: self.outcomes, proof, last: self.note.after.seq, end, note: self.note }
    }

    /// Writes the batch under the locked head, up to the commit; none if the facts in `read` have changed. A changed
    /// switch counts, because the batch takes in items until it is decided: an item may have been sent after the change
    /// was answered.
    async fn write_locked(self, conn: &mut PgConnection, read: Moment) -> Result<Option<Ended>> {
        let Some((proof, day)) = self.deciding.first() else {
            // Nothing is written, so no write checks whether the switches still allow a replayed approval.
            let is_allowed = |done: &Result<Answered>| done.as_ref().is_ok_and(Answered::allows_again);
            let is_moved = read.switches_version.is_some()
                && self.outcomes.iter().any(is_allowed)
                && read.switches_version
                    != Some(store::read_view(conn, &[Engine::global()]).await?.facts.switches_version);
            return Ok((!is_moved).then(|| self.ended(None, End::Discard)));
        };
        if store::write_batch(conn, &self.deciding.changes(), &self.deciding.head, read).await?.is_none() {
            return Ok(None);
        }
        if !self.deciding.new_keys.keys.is_empty() {
            idempotency::store::insert_all(conn, day, &self.deciding.new_keys).await?;
        }
        Ok(Some(self.ended(Some(proof), End::Commit)))
    }

    /// Writes the batch if the facts that were read have not changed.
    async fn write_optimistic(self, conn: &mut PgConnection, deadline: time::Instant) -> Result<Written, Broken> {
        let Some((proof, _)) = self.deciding.first() else {
            return Ok(Written::All(self.ended(None, End::Done)));
        };
        let (changes, head) = (self.deciding.changes(), &self.deciding.head);
        if !changes.is_one_statement() {
            let locked = by(deadline, audit::begin(conn, Stream::Risk)).await?;
            let stands = locked.is_at(self.note.before, head.revision());
            if stands && by(deadline, store::write_batch(conn, &changes, head, self.moment)).await?.is_some() {
                return Ok(Written::All(self.ended(Some(proof), End::Commit)));
            }
            return Ok(Written::Nothing { is_locked: true });
        }
        match committed(store::write_batch(conn, &changes, head, self.moment)).await {
            Ok(Some(at)) => {
                let Self { deciding, facts, outcomes, mut note, .. } = self;
                note.remembered = Some(Box::new(Remembered::after(deciding, facts, note.epoch, at)));
                let last = note.after.seq;
                Ok(Written::All(Prepared { outcomes, proof: Some(proof), last, end: End::Done, note }))
            }
            Ok(None) => Ok(Written::Nothing { is_locked: false }),
            Err(Error::Unavailable(error) | Error::Database(error)) if !is_refusal(&error) => {
                let Self { outcomes, note, .. } = self;
                Err(Failure::CommitBroke { error, proof, outcomes, note })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// True if the server reported that a statement did nothing, and continues. An error that ends the connection or the
/// server may have come after the commit.
fn is_refusal(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| matches!(error.severity(), PgSeverity::Error))
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
    let mut decided = decide(conn, view, &[item], conditions).await?;
    let done =
        decided.outcomes.pop().unwrap_or_else(|| Err(Error::Inconsistent("an operation was not answered".into())))?;
    let written = decided.write_locked(conn, Moment { switches_version: None, at: None }).await?;
    written.map(|_| done).ok_or_else(|| Error::Inconsistent("the ledger's head moved while it was held".into()))
}

/// Keeps a batch on one day: a batch that could reach midnight begins at midnight, a few milliseconds early.
pub(super) fn keep_to_one_day(head: &mut Head) {
    let first = head.next();
    let midnight = first.day().checked_add_days(Days::new(1)).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    if let Some(midnight) = midnight.filter(|midnight| *midnight - first.at < BATCH_SPAN) {
        head.set_now(midnight);
    }
}
