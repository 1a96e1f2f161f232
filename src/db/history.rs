//! The database's history as this process knows it: which one it is, and the last event of each stream that it knew.
//!
//! A database can lose events that were answered: a standby that lacked them is promoted behind the same address, or an older dump is
//! restored in place. Nobody inside it can tell. So every process remembers a mark for each stream, and compares it with what it finds:
//! on every new connection, with every read of the feed, and whenever a writer takes a head.
//!
//! Invariants:
//! - A mark is an event that was there: a writer of this process committed it, or the feed read it. It only moves forward, until somebody accepts
//!   another history; then everything begins anew with that.
//! - Marks of one epoch are never compared with another: what was remembered of the history before is dropped.
//! - While events are lost nothing is appended but what tightens: no number of an event is given twice by a process that knew it.
//! - [`mod@file`] keeps the marks over a restart. A mark that is older than what was answered is still a mark.

pub mod file;
mod known;
mod store;
#[cfg(test)]
mod tests;

pub use file::{Marks, MarksFile};
pub use known::{Asked, Found, Heads, Judged, Lost};
use store::is_there;
pub(crate) use store::stored_hash;
pub use store::{found, losses, read_hash, read_point};

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

/// How often the marks are written to their file, at most.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// The known history. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: Mutex<KnownHistory>,
    /// The epoch of `known`, for a caller that only asks whether it moved.
    epoch: AtomicU64,
    /// Whether what was found contradicts what is known.
    rewound: AtomicBool,
    /// Whether events are lost: in this history nothing is appended.
    lost: AtomicBool,
    file: OnceLock<MarksFile>,
    belief: OnceLock<Belief>,
    /// Counts what the file does not know yet,
    news: AtomicU64,
    /// and how much of that it knows.
    saved: AtomicU64,
    wake: Notify,
}

/// The part that went backwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The switches alone: every event that was known is there.
    Switches,
    /// Another history stands where the known one was.
    Other,
    /// Events that were known are not there.
    Lost(Vec<Lost>),
}

/// The last event of a stream that was known before a question was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Of which epoch.
    pub epoch: u64,
    /// Of which stream.
    pub stream: Stream,
    /// The event.
    pub point: Point,
}

/// How closely a new connection is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// By the heads alone, which whoever tightens needs anyway: no report and no migration keeps that waiting.
    Heads,
    /// By the events that are known, too.
    Events,
}

impl History {
    /// Whether what was found contradicts what is known, and nobody has accepted that.
    #[must_use]
    pub fn is_rewound(&self) -> bool {
        self.0.rewound.load(Ordering::Acquire)
    }

    /// Whether events are lost, and nobody has accepted that.
    #[must_use]
    pub fn has_lost_events(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }

    /// The events that are lost, as far as this process noticed; none of a database that is another altogether.
    #[must_use]
    pub fn lost(&self) -> Vec<Lost> {
        self.known().lost.clone()
    }

    /// Refuses what appends to a history that lost events.
    pub fn require_whole(&self) -> Result<()> {
        if self.has_lost_events() { Err(Error::StateRewound) } else { Ok(()) }
    }

    /// Moves whenever the history that is believed changes: all that is remembered of the one before does not count any more.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    fn known(&self) -> MutexGuard<'_, KnownHistory> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The history as known now: for a read that is about to be sent.
    #[must_use]
    pub fn asked(&self) -> Asked {
        self.known().asked()
    }

    /// The history; none before the first read.
    #[must_use]
    pub fn generation(&self) -> Option<Uuid> {
        self.known().generation
    }

    /// The last event of a stream that is known now: for a head that is about to be read.
    #[must_use]
    pub fn mark(&self, stream: Stream) -> Mark {
        let known = self.known();
        Mark { epoch: known.epoch, stream, point: known.heads.get(&stream).copied().unwrap_or(Point::BEGINNING) }
    }

    /// The verdict of a read that was sent when `asked` was known.
    #[must_use]
    pub fn judge(&self, asked: &Asked, found: &Found) -> Judged {
        self.known().judge(asked, found)
    }

    /// Remembers a history as not believed.
    pub fn reject(&self, generation: Uuid) {
        self.known().reject(generation);
    }

    /// Takes over an event that is there.
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

    /// Takes over a read of the history that is known, or the first: where it found the streams that had not moved on.
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

    /// Takes over another history, which somebody has accepted.
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

    /// From now on nothing is believed until somebody accepts it; unless that has been done since the epoch in which this was judged.
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
                "the database is another one than this instance knew: blocking and appending nothing until holdfast db accept-rewind"
            ),
            Fault::Lost(lost) => {
                let lost = lost.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                tracing::error!(
                    lost,
                    "events that were answered are not there: blocking and appending nothing until holdfast db accept-rewind"
                );
            }
        }
        // The marks are worth the most now.
        self.tell_file();
        self.0.wake.notify_one();
    }

    /// From now on time is what this says where the database's is not believed.
    pub fn go_by(&self, belief: Belief) {
        // The first feed's, as all is.
        let _ = self.0.belief.set(belief);
    }

    /// The time to go by where the database shows this one. An event is later than all before it, so a clock that jumped must date none:
    /// whatever comes after would be as late, and a series that falls silent would look as if its next event were still to come.
    #[must_use]
    pub fn believed(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let expected = self.0.belief.get().and_then(|belief| belief.expected().0);
        expected.filter(|expected| now - *expected > JUMP_MAX).unwrap_or(now)
    }

    /// Compares a head that was read or locked with what was known before that. Where others have appended since, the known event is
    /// looked for: another history may have grown past it.
    pub async fn admit(&self, conn: &mut PgConnection, mark: &Mark, head: Point) -> Result<()> {
        let is_past = mark.point.seq > 0 && head.seq > mark.point.seq;
        let stands = !is_past || is_there(conn, mark.stream, mark.point).await?;
        self.weigh(mark, head, stands)
    }

    /// The same where it is known whether the marked event stands.
    fn weigh(&self, mark: &Mark, head: Point, stands: bool) -> Result<()> {
        self.require_whole()?;
        if !stands || known::contradicts(mark.point, head) {
            let lost = Lost { stream: mark.stream, kept: 0, head: head.seq, known: mark.point.seq };
            self.contradict(mark.epoch, &Fault::Lost(vec![lost]));
        }
        // Another history since then: whoever asks again is answered by that.
        if mark.epoch == self.epoch() { Ok(()) } else { Err(Error::StateRewound) }
    }

    /// Looks whether what is known is what this connection leads to. The connection stands whatever is found: engage and an acceptance
    /// need one.
    pub async fn check(&self, conn: &mut PgConnection, look: Look) -> Result<()> {
        let asked = self.asked();
        if self.generation().is_none() {
            return Ok(());
        }
        let found = match store::found(&mut *conn).await {
            // Damage, which the statements that need the tables name. Without a head nothing is appended.
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

    /// Refuses a database without all that was known before its snapshot was taken, by what that shows: nothing is to be proven by a
    /// trail that lost events.
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

    /// Looks at the known events of streams that have moved on. Only one that is still there moves its
    /// mark; one that is gone is a loss.
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

    /// Remembers in this file, and takes over what it says.
    pub async fn remember_in(&self, file: MarksFile) -> io::Result<()> {
        if let Some(Marks { generation, heads }) = file.load().await? {
            let mut known = self.known();
            (known.generation, known.heads) = (Some(generation), heads);
        }
        file.tidy().await;
        // Once.
        let _ = self.0.file.set(file);
        Ok(())
    }

    /// The file does not know all of it any more.
    fn tell_file(&self) {
        self.0.news.fetch_add(1, Ordering::AcqRel);
    }

    /// The marks, for the file; none before the first read.
    fn marks(&self) -> Option<Marks> {
        let known = self.known();
        Some(Marks { generation: known.generation?, heads: known.heads.clone() })
    }

    /// Writes the marks, if there is anything new and a place for them.
    pub async fn save(&self) -> io::Result<()> {
        let news = self.0.news.load(Ordering::Acquire);
        let is_saved = self.0.saved.load(Ordering::Acquire) >= news;
        let (Some(file), false) = (self.0.file.get(), is_saved) else { return Ok(()) };
        let Some(marks) = self.marks() else { return Ok(()) };
        file.save(&marks).await?;
        // Only now: a write that fails, or that nobody waits for any more, leaves them to be written.
        self.0.saved.fetch_max(news, Ordering::AcqRel);
        Ok(())
    }

    /// Writes the marks, over and over, until the task is ended.
    pub async fn keep(self) {
        let mut failing = false;
        loop {
            // At once when it matters, else in its turn.
            let _ = tokio::time::timeout(SAVE_EVERY, self.0.wake.notified()).await;
            let saved = self.save().await;
            match (&saved, failing) {
                (Err(error), false) => tracing::warn!(%error, "the marks of the audit trail cannot be written"),
                (Ok(()), true) => tracing::info!("the marks of the audit trail are written again"),
                (Err(_), true) | (Ok(()), false) => {}
            }
            failing = saved.is_err();
        }
    }
}
