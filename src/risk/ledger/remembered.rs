//! The book as this process's last batch left it, so that the next batch need not read it.
//!
//! Nothing is decided on it alone. The statement that writes the next batch compares the head, the switches, the time
//! and the counters of the levels that move with the database, and writes nothing if one of them differs. Whatever else
//! a reserve depends on (policies, throttles, a halt) moves the head's revision. A batch that this statement does not
//! write whole is decided again on facts that were read.

use super::decide::Deciding;
use crate::audit::Head;
use crate::db::history::Mark;
use crate::risk::model::Level;
use crate::risk::store::{BookView, Facts};
use crate::types::Engine;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The age after which it is not tried: under load, batches follow each other within milliseconds.
const AGE_MAX: Duration = Duration::from_millis(250);
/// Most levels that are remembered, since a batch copies them.
const LEVELS_MAX: usize = 16;

/// The facts after a batch.
#[derive(Debug)]
pub(super) struct Remembered {
    /// The epoch of the history that the head belongs to.
    epoch: u64,
    head: Head,
    facts: Facts,
    levels: BTreeMap<Engine, Level>,
    /// The database's time during the write, and this process's time after it. An estimate from both is a little late,
    /// never early, so no event is dated after a switch that was pulled later.
    at: DateTime<Utc>,
    noted: Instant,
}

impl Remembered {
    /// The facts that a batch of reserves leaves, which one statement wrote at this time of the database.
    pub(super) fn after(deciding: Deciding<'_>, facts: Facts, epoch: u64, at: DateTime<Utc>) -> Self {
        let moved: Vec<Engine> = deciding.moved().cloned().collect();
        let (head, book) = (deciding.head, deciding.known.book);
        let mut levels = book.levels;
        for engine in moved {
            // The write gives each level that moved the time of the last event.
            levels.entry(engine).and_modify(|level| level.usage.updated_at = Some(head.last_at()));
        }
        let new = book.reservations.values().filter_map(|one| one.expires_at);
        let next_due = facts.next_due.into_iter().chain(new).min();
        Self { epoch, head, facts: Facts { next_due, ..facts }, levels, at, noted: Instant::now() }
    }

    /// True if no other event of the ledger is known, and the history is the same.
    pub(super) fn is_latest(&self, known: &Mark) -> bool {
        (known.epoch, known.point) == (self.epoch, self.head.point())
    }

    /// The view of the next batch; none if that must be read.
    pub(super) fn view(self, engines: &[Engine]) -> Option<BookView> {
        let age = self.noted.elapsed();
        // In whole microseconds, as the database's own times.
        let now = self.at + TimeDelta::microseconds(i64::try_from(age.as_micros()).ok()?);
        let is_due = self.facts.next_due.is_some_and(|due| due <= now);
        // Not in the last second of a day either: an estimate that is late would book an event on a day that has ended.
        let is_same_day = (now + TimeDelta::seconds(1)).date_naive() == self.head.last_at().date_naive();
        let has_levels = engines.iter().all(|engine| self.levels.contains_key(engine));
        let is_usable = age < AGE_MAX && !is_due && is_same_day && has_levels && self.levels.len() <= LEVELS_MAX;
        let Self { head, facts, levels, .. } = self;
        is_usable.then(|| BookView { now, day: now.date_naive(), facts, levels, head })
    }
}
