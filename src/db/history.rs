//! The database's history as this process knows it: its identity, and the last known event of each stream.
//!
//! A database can lose events that were already answered: a standby that lacked them is promoted behind the same
//! address, or an older dump is restored in place. The database itself cannot detect this. So every process remembers a
//! mark for each stream and compares it with what it finds: on every new connection, with every read of the feed, and
//! whenever a writer locks a head.
//!
//! Invariants:
//! - A mark is an event that existed: a writer of this process committed it, or the feed read it. It only moves
//!   forward, until somebody accepts another history; then all marks begin again from that one.
//! - Marks of one epoch are never compared with those of another: the marks of the earlier history are dropped.
//! - While events are lost, nothing but a tightening is appended, so a process that knew an event never gives its
//!   number to another.
//! - [`mod@file`] keeps the marks over a restart. A mark that is older than the last answer is still valid.

pub mod file;
mod known;
mod store;
#[cfg(test)]
mod tests;

pub use file::{Marks, MarksFile};
pub use known::{Asked, Found, Heads, Judged, Lost};
pub use store::{found, losses, read_hash, read_point};
pub(crate) use store::{is_there, stored_hash};

use crate::clock::belief::{Belief, JUMP_MAX};
use crate::error::{Error, Result};
use crate::types::{Point, Stream};
use chrono::{DateTime, Utc};
use known::KnownHistory;
use sqlx::PgConnection;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

/// The shortest time between two writes of the marks to their file.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// The known history. Cheap to clone; all clones share one state.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: Mutex<KnownHistory>,
    /// The epoch of `known`, for a caller that only asks whether it moved.
    epoch: AtomicU64,
    /// True if a read contradicted the known history.
    rewound: AtomicBool,
    /// True if events are lost: then nothing is appended to this history.
    lost: AtomicBool,
    file: OnceLock<MarksFile>,
    belief: OnceLock<Belief>,
    /// The number of changes to the marks.
    news: AtomicU64,
    /// The number of those changes that the file has.
    saved: AtomicU64,
    wake: Notify,
}

/// The way in which the history contradicts the marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Only the switches went back: every known event exists.
    Switches,
    /// The database has another history than the known one.
    Other,
    /// Known events are missing.
    Lost(Vec<Lost>),
}

/// The last event of a stream that was known before a question was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The epoch in which the event was known.
    pub epoch: u64,
    /// The stream of the event.
    pub stream: Stream,
    /// The last known event.
    pub point: Point,
}

/// The depth of the check of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Only the heads, which a tightening needs anyway: no report and no migration delays that check.
    Heads,
    /// The known events as well.
    Events,
}

impl History {
    /// True if a read contradicted the known history and nobody has accepted the new one.
    #[must_use]
    pub fn is_rewound(&self) -> bool {
        self.0.rewound.load(Ordering::Acquire)
    }

    /// True if events are lost and nobody has accepted that.
    #[must_use]
    pub fn has_lost_events(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }

    /// The lost events that this process noticed; empty if the database is another one altogether.
    #[must_use]
    pub fn lost(&self) -> Vec<Lost> {
        self.known().lost.clone()
    }

    /// Refuses to append to a history that lost events.
    pub fn require_whole(&self) -> Result<()> {
        if self.has_lost_events() { Err(Error::StateRewound) } else { Ok(()) }
    }

    /// A number that moves whenever another history is believed. Anything remembered under an older number no longer
    /// counts.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    fn known(&self) -> MutexGuard<'_, KnownHistory> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The history as known now, for a read that is about to be sent.
    #[must_use]
    pub fn asked(&self) -> Asked {
        self.known().asked()
    }

    /// The identity of the known history; none before the first read.
    #[must_use]
    pub fn generation(&self) -> Option<Uuid> {
        self.known().generation
    }

    /// The last known event of a stream, for a head that is about to be read.
    #[must_use]
    pub fn mark(&self, stream: Stream) -> Mark {
        let known = self.known();
        Mark { epoch: known.epoch, stream, point: known.heads.get(&stream).copied().unwrap_or(Point::BEGINNING) }
    }

    /// The verdict on a read that was sent when `asked` was known.
    #[must_use]
    pub fn judge(&self, asked: &Asked, found: &Found) -> Judged {
        self.known().judge(asked, found)
    }

    /// Remembers a history that is not believed.
    pub fn reject(&self, generation: Uuid) {
        self.known().reject(generation);
    }

    /// Takes over an event that exists.
    pub fn note(&self, epoch: u64, stream: Stream, point: Point) {
        if self.has_lost_events() {
            return;
        }
        let noted = self.known().note(epoch, stream, point);
        match noted {
            Ok(true) => self.tell_file(),
            Ok(false) => {}
            Err(lost) => self.contradict(epoch, &Fault::Lost(vec![lost])),
        }
    }

    /// Takes over a read of the known history, or the first read: the heads of the streams that had not moved on.
    pub fn take(&self, asked: &Asked, found: &Found) {
        if self.known().generation.replace(found.generation).is_none() {
            self.tell_file();
        }
        for (&stream, &point) in &found.heads {
            if asked.heads.get(&stream).is_none_or(|known| known.seq == 0 || known.seq == point.seq) {
                self.note(asked.epoch, stream, point);
            }
        }
    }

    /// Takes over another history that somebody has accepted.
    pub fn restart(&self, found: &Found) {
        let mut known = self.known();
        known.restart(found.generation, found.heads.clone());
        self.0.epoch.store(known.epoch, Ordering::Release);
        self.0.lost.store(false, Ordering::Release);
        self.0.rewound.store(false, Ordering::Release);
        self.tell_file();
        drop(known);
        self.0.wake.notify_one();
    }

    /// Believes nothing until somebody accepts the history, unless that has happened since the epoch of this verdict.
    pub fn contradict(&self, epoch: u64, fault: &Fault) {
        let mut known = self.known();
        if known.epoch != epoch {
            return;
        }
        let news = match fault {
            Fault::Switches => !self.0.rewound.swap(true, Ordering::AcqRel),
            Fault::Other | Fault::Lost(_) => {
                self.0.rewound.store(true, Ordering::Release);
                !self.0.lost.swap(true, Ordering::AcqRel)
            }
        };
        if !news {
            return;
        }
        known.epoch += 1;
        self.0.epoch.store(known.epoch, Ordering::Release);
        if let Fault::Lost(lost) = fault {
            known.lost.clone_from(lost);
        }
        drop(known);
        match fault {
            Fault::Switches => {
                tracing::error!("the go-live state went backwards: blocking until holdfast db accept-rewind");
            }
            Fault::Other => tracing::error!(
                "the database is not the one that this instance knew: blocking and appending nothing until holdfast db \
                 accept-rewind"
            ),
            Fault::Lost(lost) => {
                let lost = lost.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                tracing::error!(
                    lost,
                    "events that were already answered are missing: blocking and appending nothing until holdfast db \
                     accept-rewind"
                );
            }
        }
        // The marks matter most now, so they are written at once.
        self.tell_file();
        self.0.wake.notify_one();
    }

    /// Sets the source of time for when the database's clock is not believed.
    pub fn go_by(&self, belief: Belief) {
        // Only the first feed's source counts, as with everything of the feed.
        let _ = self.0.belief.set(belief);
    }

    /// The time to use when the database shows `now`. Events are ordered by time, so a jumped clock must date none:
    /// every later event would have to be as late, and a series that falls silent would seem to have a future event.
    #[must_use]
    pub fn believed(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let expected = self.0.belief.get().and_then(|belief| belief.expected().0);
        expected.filter(|expected| now - *expected > JUMP_MAX).unwrap_or(now)
    }

    /// Compares a head that was read or locked with the mark from before. If others have appended since, the known
    /// event itself is looked up: another history may have grown past it.
    pub async fn admit(&self, conn: &mut PgConnection, mark: &Mark, head: Point) -> Result<()> {
        let is_past = mark.point.seq > 0 && head.seq > mark.point.seq;
        let stands = !is_past || is_there(conn, mark.stream, mark.point).await?;
        self.weigh(mark, head, stands)
    }

    /// The same comparison, with the result of the look-up of the marked event.
    fn weigh(&self, mark: &Mark, head: Point, stands: bool) -> Result<()> {
        self.require_whole()?;
        if !stands || known::contradicts(mark.point, head) {
            let lost = Lost { stream: mark.stream, kept: 0, head: head.seq, known: mark.point.seq };
            self.contradict(mark.epoch, &Fault::Lost(vec![lost]));
        }
        // The history changed since then: the next attempt is judged by the new one.
        if mark.epoch == self.epoch() { Ok(()) } else { Err(Error::StateRewound) }
    }

    /// Checks that this connection leads to the known history. The connection stays usable whatever the result, because
    /// engage and an acceptance need one.
    pub async fn check(&self, conn: &mut PgConnection, look: Look) -> Result<()> {
        let asked = self.asked();
        if self.generation().is_none() {
            return Ok(());
        }
        let found = match store::found(&mut *conn).await {
            // The tables are damaged; the statements that need them report it. Without a head nothing is appended.
            Err(Error::Inconsistent(_) | Error::Database(_)) => return Ok(()),
            found => found?,
        };
        match self.judge(&asked, &found) {
            Judged::Other => self.contradict(asked.epoch, &Fault::Other),
            Judged::Lost(lost) => self.contradict(asked.epoch, &Fault::Lost(lost)),
            Judged::Stands(moved) if look == Look::Events => match self.confirm(conn, &asked, &found, &moved).await {
                Ok(()) | Err(Error::StateRewound) => {}
                Err(error) => return Err(error),
            },
            // The feed takes an acceptance over.
            Judged::Stands(_) | Judged::Accepted | Judged::Overtaken => {}
        }
        Ok(())
    }

    /// Refuses a database whose snapshot lacks something that was known before the snapshot: a trail that lost events
    /// proves nothing.
    pub async fn require(&self, conn: &mut PgConnection, asked: &Asked) -> Result<()> {
        if self.generation().is_none() {
            return Ok(());
        }
        let found = store::found(&mut *conn).await?;
        let Judged::Stands(moved) = self.judge(asked, &found) else { return Err(Error::StateRewound) };
        for (stream, known) in moved {
            if !is_there(&mut *conn, stream, known).await? {
                return Err(Error::StateRewound);
            }
        }
        Ok(())
    }

    /// Looks up the known events of the streams that have moved on. An event that still exists moves its mark; a
    /// missing one is a loss.
    pub async fn confirm(
        &self,
        conn: &mut PgConnection,
        asked: &Asked,
        found: &Found,
        moved: &[(Stream, Point)],
    ) -> Result<()> {
        for &(stream, known) in moved {
            let head = found.heads.get(&stream).copied().unwrap_or(Point::BEGINNING);
            if is_there(&mut *conn, stream, known).await? {
                self.note(asked.epoch, stream, head);
            } else {
                let lost = Lost { stream, kept: 0, head: head.seq, known: known.seq };
                self.contradict(asked.epoch, &Fault::Lost(vec![lost]));
                return Err(Error::StateRewound);
            }
        }
        Ok(())
    }

    /// Sets the file that keeps the marks, and takes over its content.
    pub async fn remember_in(&self, file: MarksFile) -> io::Result<()> {
        if let Some(Marks { generation, heads }) = file.load().await? {
            let mut known = self.known();
            (known.generation, known.heads) = (Some(generation), heads);
        }
        file.tidy().await;
        // Only the first file counts.
        let _ = self.0.file.set(file);
        Ok(())
    }

    /// Notes that the file is out of date.
    fn tell_file(&self) {
        self.0.news.fetch_add(1, Ordering::AcqRel);
    }

    /// The marks for the file; none before the first read.
    fn marks(&self) -> Option<Marks> {
        let known = self.known();
        Some(Marks { generation: known.generation?, heads: known.heads.clone() })
    }

    /// Writes the marks, if there is anything new and a file.
    pub async fn save(&self) -> io::Result<()> {
        let news = self.0.news.load(Ordering::Acquire);
        let is_saved = self.0.saved.load(Ordering::Acquire) >= news;
        let (Some(file), false) = (self.0.file.get(), is_saved) else { return Ok(()) };
        let Some(marks) = self.marks() else { return Ok(()) };
        file.save(&marks).await?;
        // Only after the write: a write that fails or is dropped leaves them to be written.
        self.0.saved.fetch_max(news, Ordering::AcqRel);
        Ok(())
    }

    /// Writes the marks repeatedly until the task is cancelled.
    pub async fn keep(self) {
        let mut failing = false;
        loop {
            // At once when it matters, otherwise after the interval.
            let _ = tokio::time::timeout(SAVE_EVERY, self.0.wake.notified()).await;
            let saved = self.save().await;
            match (&saved, failing) {
                (Err(error), false) => tracing::warn!(%error, "the marks of the audit trail could not be written"),
                (Ok(()), true) => tracing::info!("the marks of the audit trail could be written again"),
                (Err(_), true) | (Ok(()), false) => {}
            }
            failing = saved.is_err();
        }
    }
}
