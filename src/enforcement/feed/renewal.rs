//! How the feed stays fresh: a poll that is the authority, and notifications that only wake it early.
//!
//! Both have a connection of their own, opened anew after any trouble, so that neither a flood of requests nor a connection
//! whose other end has vanished keeps them waiting. A failure is logged when it begins and when it ends; the lease lapses by
//! itself, also if these tasks end.

use super::{Feed, GateState, store};
use crate::clock::belief::JUMP_MAX;
use crate::db::Database;
use crate::error::{Error, Result};
use crate::panics;
use sqlx::postgres::PgListener;
use sqlx::{Executor, PgConnection};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the state is read, at the longest lease; a shorter one is a quarter of itself. A read may fail three times in a row
/// before the lease lapses.
pub const POLL_MAX: Duration = Duration::from_millis(500);
/// The least time between two reads: notifications that come faster than this, of whomever, are answered by one read.
const GAP: Duration = Duration::from_millis(5);
/// How long connecting may take. Longer than a read: each attempt that is given up is one that a database which hung has to serve
/// first when it goes on.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(900);
/// How long a listener may be silent before it is asked whether it is still there.
const LISTENER_SILENCE: Duration = Duration::from_secs(1);
/// How long it may take over the answer, and over connecting.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long after a listener was lost another one is tried.
const LISTENER_RETRY: Duration = Duration::from_secs(1);
/// How long a change tries to tell the others before they have to find out by themselves.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);

const NANOS_PER_MS: u64 = 1_000_000;
/// How long a change of the tokens waits to be in force here before it is answered all the same.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// The notification of an engaged kill switch.
pub(super) const ENGAGED: &str = "kill_switch_engaged";
/// The notification of a disabled go-live.
pub(super) const DISABLED: &str = "go_live_disabled";
/// The notification of any other change.
const CHANGED: &str = "changed";

/// A change of the switches, as the other instances are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The kill switch was engaged.
    Engaged,
    /// Go-live was switched off.
    Disabled,
    /// Something else; only a read tells.
    Changed,
}

impl Feed {
    /// Reads the database once and renews the lease.
    pub async fn refresh(&self, db: &Database) -> Result<()> {
        let mut conn = db.work().await?;
        let refreshed = self.refresh_on(&mut conn).await;
        self.refresh_policies(&mut conn).await;
        refreshed
    }

    async fn refresh_on(&self, conn: &mut PgConnection) -> Result<()> {
        // Before anything is asked, so that no answer looks younger than it is.
        let sent_ns = self.now() - 1;
        // A disk that does not answer lets the lease lapse, too.
        if let Some(file) = self.kill_file() {
            self.note_kill_file(file.look().await, sent_ns + 1);
        }
        let asked = self.history().asked();
        let version = self.0.state.load(Ordering::Acquire) >> 2;
        let version = (version > 0).then_some(version);
        let read = store::heartbeat(&mut *conn, self.instance(), self.standing(), version).await?;
        // Asked only while the clock is behind: then the ledger's last event is no measure of it.
        let is_behind = read.latest - read.now > JUMP_MAX;
        let is_accepted = is_behind && crate::audit::clock_is_accepted(&mut *conn).await?;
        let latest = if is_accepted { read.now } else { read.latest };
        let now = self.belief().read(read.now, latest, sent_ns / NANOS_PER_MS);
        let of = read.control();
        if let Some(follower) = self.0.follower.get() {
            // A token that cannot be read lets the register lapse, and nobody in.
            let renewed = panics::caught(follower.renew(conn, of, now, sent_ns)).await;
            if let Err(error) = renewed.unwrap_or(Err(Error::Panicked)) {
                tracing::error!(%error, "the tokens cannot be read: nobody is let in when what is known of them lapses");
            }
        }
        self.hold_policies(of, sent_ns);
        let moved = self.take(&read, &asked, sent_ns)?;
        // After the lease: a report or a migration that keeps these rows locked closes no gate.
        self.history().confirm(conn, &asked, &read.found, &moved).await
    }

    /// Keeps the feed fresh for as long as it is polled.
    pub async fn run(self, db: Database) {
        tokio::join!(self.poll(&db), self.look_for_kill_file(), self.keep_policies(&db));
    }

    /// Reads the state, over and over.
    async fn poll(&self, db: &Database) {
        let poll = POLL_MAX.min(self.lease() / 4);
        // Shorter than the poll, so that a hung read costs one turn.
        let timeout = poll.mul_f32(0.9);
        let mut conn = None;
        let mut failing = false;
        let mut turns = tokio::time::interval(poll);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = self.0.wake.notified() => {}
            }
            // A row that cannot be read ends a turn, never the task.
            let renewed = panics::caught(self.renew(db, &mut conn, timeout)).await;
            let error = renewed.unwrap_or(Err(Error::Panicked)).err();
            if error.is_some() {
                // Whatever it was, and whatever is still on its way: the next turn begins anew.
                conn = None;
            }
            match (&error, failing) {
                (Some(error), false) => {
                    tracing::error!(%error, "the go-live state cannot be read: blocking when the lease lapses");
                }
                (None, true) => tracing::info!("the go-live state is read again"),
                (Some(_), true) | (None, false) => {}
            }
            failing = error.is_some();
            tokio::time::sleep(GAP).await;
        }
    }

    /// One renewal, on a connection of its own; one that was just made is looked at more closely.
    async fn renew(&self, db: &Database, kept: &mut Option<PgConnection>, timeout: Duration) -> Result<()> {
        let late = |_| Error::Unavailable(sqlx::Error::PoolTimedOut);
        if kept.is_none() {
            let mut conn = tokio::time::timeout(CONNECT_TIMEOUT, db.connect_feed()).await.map_err(late)??;
            // Another connection may be to another server: one that was restored, or is not of this version.
            let pending =
                tokio::time::timeout(timeout, crate::db::pending_migrations(&mut conn)).await.map_err(late)??;
            self.known().pending_migrations = pending;
            *kept = Some(conn);
        }
        let conn = kept.as_mut().ok_or(Error::Unavailable(sqlx::Error::PoolTimedOut))?;
        tokio::time::timeout(timeout, self.refresh_on(conn)).await.map_err(late)?
    }

    /// Listens for changes of other instances for as long as it is polled.
    pub async fn listen(self, db: Database) {
        loop {
            let lost = self.listen_until_lost(&db).await;
            if self.0.listening.swap(false, Ordering::AcqRel) {
                tracing::warn!(error = %lost, "notifications are lost: changes are seen by the poll until they are back");
            }
            self.0.wake.notify_one();
            loop {
                tokio::time::sleep(LISTENER_RETRY).await;
                // While the poll does not get through either, more connections would only be more that hang.
                if self.age().is_some_and(|age| age < POLL_MAX * 2) {
                    break;
                }
            }
        }
    }

    async fn listen_until_lost(&self, db: &Database) -> Error {
        let gone = || Error::Unavailable(sqlx::Error::PoolTimedOut);
        let listener = tokio::time::timeout(LISTENER_TIMEOUT, open_listener(db)).await;
        let mut listener = match listener {
            Ok(Ok(listener)) => listener,
            Ok(Err(error)) => return error,
            Err(_) => return gone(),
        };
        self.0.listening.store(true, Ordering::Release);
        // Notifications from before it listened are lost: a read tells.
        self.0.wake.notify_one();
        loop {
            match tokio::time::timeout(LISTENER_SILENCE, listener.try_recv()).await {
                Ok(Ok(Some(notice))) => self.take_notice(notice.payload()),
                Ok(Ok(None)) => return gone(),
                Ok(Err(error)) => return error.into(),
                // Nothing was said; is it still there? A connection whose other end has vanished says nothing, too.
                Err(_) => match tokio::time::timeout(LISTENER_TIMEOUT, listener.execute("SELECT 1")).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.into(),
                    Err(_) => return gone(),
                },
            }
        }
    }

    /// Takes over a change of the switches that this instance has just committed, and tells the others. That they hear it is
    /// not needed for the bound, so nobody waits for it, and a database without notifications is as good.
    pub fn publish(&self, db: &Database, news: News, state: GateState) {
        self.apply_own(state);
        let (db, version) = (db.clone(), state.version);
        tokio::spawn(async move { announce(&db, news, version).await });
    }

    /// Takes over a change of the tokens that this instance has just committed, before it is answered if the database is quick,
    /// and tells the others.
    pub async fn publish_access(&self, db: &Database) {
        let refreshed = tokio::time::timeout(REFRESH_TIMEOUT, self.refresh(db)).await;
        if !matches!(refreshed, Ok(Ok(()))) {
            tracing::warn!("a change of the tokens is in force here when the state is read next");
        }
        let db = db.clone();
        tokio::spawn(async move { tell(&db, CHANGED).await });
    }
}

/// Tells every instance of a change that was committed, and of the version that it made, or gives up soon.
pub async fn announce(db: &Database, news: News, version: i64) {
    let payload = match news {
        News::Engaged => ENGAGED,
        News::Disabled => DISABLED,
        News::Changed => CHANGED,
    };
    tell(db, &format!("{payload} {version}")).await;
}

async fn tell(db: &Database, payload: &str) {
    let tell = async {
        let mut conn = db.work().await?;
        store::notify(&mut conn, payload).await
    };
    match tokio::time::timeout(ANNOUNCE_TIMEOUT, tell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a change could not be announced: others see it by their poll"),
        Err(_) => tracing::warn!("a change could not be announced in time: others see it by their poll"),
    }
}

async fn open_listener(db: &Database) -> Result<PgListener> {
    let mut listener = PgListener::connect_with(&db.listener_pool()?).await?;
    listener.eager_reconnect(false);
    let channel = store::channel(&mut listener).await?;
    listener.listen(&channel).await?;
    Ok(listener)
}
