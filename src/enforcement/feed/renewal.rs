//! Keeps the feed fresh: a poll is the authority, and notifications only wake it early.
//!
//! Poll and listener have their own connections, and reopen them after any failure, so that neither a flood of requests
//! nor a dead connection delays them. A failure is logged when it begins and when it ends. The lease lapses by itself,
//! also if these tasks end.

use super::{Feed, GateState, store};
use crate::clock::belief::JUMP_MAX;
use crate::db::Database;
use crate::error::{Error, Result};
use crate::panics;
use sqlx::postgres::PgListener;
use sqlx::{Executor, PgConnection};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The interval of reads of the state, at the longest lease; for a shorter lease it is a quarter of it. Three reads in
/// a row may fail before the lease lapses.
pub const POLL_MAX: Duration = Duration::from_millis(500);
/// The shortest time between two reads. Faster notifications are answered by one read.
const GAP: Duration = Duration::from_millis(5);
/// The time limit of connecting. It is longer than a read, since a database that hung serves every abandoned attempt
/// first when it continues.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(900);
/// The time after which a silent listener is checked.
const LISTENER_SILENCE: Duration = Duration::from_secs(1);
/// The time limit of that check, and of connecting.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before a lost listener is replaced.
const LISTENER_RETRY: Duration = Duration::from_secs(1);
/// The time limit of a change's notification. After it, the other instances find the change by their poll.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);

const NANOS_PER_MS: u64 = 1_000_000;
/// The time that a change of the tokens waits to take effect here before it is answered anyway.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// The notification of an engaged kill switch.
pub(super) const ENGAGED: &str = "kill_switch_engaged";
/// The notification of a disabled go-live.
pub(super) const DISABLED: &str = "go_live_disabled";
/// The notification of any other change.
const CHANGED: &str = "changed";

/// A change of the switches, as notifications announce it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The kill switch was engaged.
    Engaged,
    /// Go-live was switched off.
    Disabled,
    /// Another change; a read shows it.
    Changed,
}

impl Feed {
    /// Takes over a notification, if it tightens, until the next read, and requests that read. A notification of a
    /// known version is ignored: this instance's own notifications come back to it, also after its next change.
    pub(super) fn take_notice(&self, payload: &str) {
        let (change, version) = payload.split_once(' ').unwrap_or((payload, ""));
        let known = self.0.state.load(Ordering::Acquire) >> 2;
        let is_news = version.parse::<i64>().map_or(true, |version| version > known);
        match change {
            _ if !is_news => {}
            ENGAGED => _ = self.0.told_killed_ns.fetch_max(self.now(), Ordering::AcqRel),
            DISABLED => _ = self.0.told_off_ns.fetch_max(self.now(), Ordering::AcqRel),
            _ => {}
        }
        self.0.wake.notify_one();
    }

    /// Reads the database once and renews the lease.
    pub async fn refresh(&self, db: &Database) -> Result<()> {
        let mut conn = db.work().await?;
        let refreshed = self.refresh_on(&mut conn).await;
        self.refresh_policies(&mut conn).await;
        refreshed
    }

    async fn refresh_on(&self, conn: &mut PgConnection) -> Result<()> {
        // The time is taken before the statement, so that no answer looks younger than it is.
        let sent_ns = self.now() - 1;
        // A disk that does not answer also lets the lease lapse.
        if let Some(file) = self.kill_file() {
            self.note_kill_file(file.look().await, sent_ns + 1);
        }
        let asked = self.history().asked();
        let version = self.0.state.load(Ordering::Acquire) >> 2;
        let version = (version > 0).then_some(version);
        let read = store::heartbeat(&mut *conn, self.instance(), self.standing(), version).await?;
        // The ledger is only asked while the clock is behind, when its last event does not measure the clock.
        let is_behind = read.latest - read.now > JUMP_MAX;
        let is_accepted = is_behind && crate::audit::clock_is_accepted(&mut *conn).await?;
        let latest = if is_accepted { read.now } else { read.latest };
        let now = self.belief().read(read.now, latest, sent_ns / NANOS_PER_MS);
        let of = read.control();
        if let Some(follower) = self.0.follower.get() {
            // If the tokens cannot be read, the register lapses, and every caller is refused.
            let renewed = panics::caught(follower.renew(conn, of, now, sent_ns)).await;
            if let Err(error) = renewed.unwrap_or(Err(Error::Panicked)) {
                tracing::error!(%error, "the tokens cannot be read: every caller is refused when the known tokens lapse");
            }
        }
        self.hold_policies(of, sent_ns);
        let moved = self.take(&read, &asked, sent_ns)?;
        // This follows the lease, so that a report or a migration that locks these rows closes no gate.
        self.history().confirm(conn, &asked, &read.found, &moved).await
    }

    /// Keeps the feed fresh for as long as this future is polled.
    pub async fn run(self, db: Database) {
        tokio::join!(self.poll(&db), self.look_for_kill_file(), self.keep_policies(&db));
    }

    /// Reads the state again and again.
    async fn poll(&self, db: &Database) {
        let poll = POLL_MAX.min(self.lease() / 4);
        // The time limit is shorter than the interval, so that a hung read costs one turn.
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
            // An unreadable row ends a turn, never the task.
            let renewed = panics::caught(self.renew(db, &mut conn, timeout)).await;
            let error = renewed.unwrap_or(Err(Error::Panicked)).err();
            if error.is_some() {
                // After any failure the connection is dropped, with every pending answer; the next turn starts with a
                // new one.
                conn = None;
            }
            match (&error, failing) {
                (Some(error), false) => {
                    tracing::error!(%error, "the go-live state cannot be read: everything is blocked when the lease lapses");
                }
                (None, true) => tracing::info!("the go-live state can be read again"),
                (Some(_), true) | (None, false) => {}
            }
            failing = error.is_some();
            tokio::time::sleep(GAP).await;
        }
    }

    /// Renews once, on its own connection. A new connection is checked more closely.
    async fn renew(&self, db: &Database, kept: &mut Option<PgConnection>, timeout: Duration) -> Result<()> {
        let late = |_| Error::Unavailable(sqlx::Error::PoolTimedOut);
        if kept.is_none() {
            let mut conn = tokio::time::timeout(CONNECT_TIMEOUT, db.connect_feed()).await.map_err(late)??;
            // A new connection may lead to another server: a restored one, or one with another version's schema.
            let pending =
                tokio::time::timeout(timeout, crate::db::pending_migrations(&mut conn)).await.map_err(late)??;
            self.known().pending_migrations = pending;
            *kept = Some(conn);
        }
        let conn = kept.as_mut().ok_or(Error::Unavailable(sqlx::Error::PoolTimedOut))?;
        tokio::time::timeout(timeout, self.refresh_on(conn)).await.map_err(late)?
    }

    /// Listens for changes of other instances for as long as this future is polled.
    pub async fn listen(self, db: Database) {
        loop {
            let lost = self.listen_until_lost(&db).await;
            if self.0.listening.swap(false, Ordering::AcqRel) {
                tracing::warn!(error = %lost, "notifications have stopped: only the poll sees changes until they arrive again");
            }
            self.0.wake.notify_one();
            loop {
                tokio::time::sleep(LISTENER_RETRY).await;
                // While the poll fails too, another connection would only be one more that hangs.
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
        // Notifications from before the listener started are lost, so a read follows.
        self.0.wake.notify_one();
        loop {
            match tokio::time::timeout(LISTENER_SILENCE, listener.try_recv()).await {
                Ok(Ok(Some(notice))) => self.take_notice(notice.payload()),
                Ok(Ok(None)) => return gone(),
                Ok(Err(error)) => return error.into(),
                // The listener was silent, so its connection is checked: a dead connection is silent, too.
                Err(_) => match tokio::time::timeout(LISTENER_TIMEOUT, listener.execute("SELECT 1")).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return error.into(),
                    Err(_) => return gone(),
                },
            }
        }
    }

    /// Takes over a change of the switches that this instance has just committed, and notifies the others. The bound
    /// does not need the notification, so no caller waits for it, and a database without notifications works as well.
    pub fn publish(&self, db: &Database, news: News, state: GateState) {
        self.apply_own(state);
        let (db, version) = (db.clone(), state.version);
        tokio::spawn(async move { announce(&db, news, version).await });
    }

    /// Takes over a change of the tokens that this instance has just committed, before the answer if the database is
    /// quick, and notifies the others.
    pub async fn publish_access(&self, db: &Database) {
        let refreshed = tokio::time::timeout(REFRESH_TIMEOUT, self.refresh(db)).await;
        if !matches!(refreshed, Ok(Ok(()))) {
            tracing::warn!("a change of the tokens takes effect here at the next read of the state");
        }
        let db = db.clone();
        tokio::spawn(async move { tell(&db, CHANGED).await });
    }
}

/// Notifies every instance of a committed change and its version, or gives up soon.
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
        Ok(Err(error)) => {
            tracing::warn!(%error, "a change could not be announced: the other instances see it by their poll");
        }
        Err(_) => tracing::warn!("a change could not be announced in time: the other instances see it by their poll"),
    }
}

async fn open_listener(db: &Database) -> Result<PgListener> {
    let mut listener = PgListener::connect_with(&db.listener_pool()?).await?;
    listener.eager_reconnect(false);
    let channel = store::channel(&mut listener).await?;
    listener.listen(&channel).await?;
    Ok(listener)
}
