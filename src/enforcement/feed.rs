//! The feed: the state and the policies that this instance knows, and the age of both.
//!
//! [`renewal`] reads the database; this instance's own changes are applied as soon as they commit; the gate reads a few
//! atomics. A state is fresh for the lease from the instant *before* its read was sent, so that a slow answer never
//! looks younger than it is. The clock counts the time for which a machine was suspended.
//!
//! Invariants:
//! - **The bound**: an instance admits nothing by a state that stopped being true more than [`LEASE_MAX`] ago.
//! - Only a read renews the lease, and only one that came with a committed write.
//! - A notification can only tighten, and only until the next read: a forged one blocks for a moment.
//! - Versions never go backwards, and no known event goes missing. A read that a newer change overtook is dropped; a
//!   database that went backwards (a restore, a failover that lost commits) blocks until an operator accepts it.
//! - A kill file blocks, whatever the database says.

mod killed;
mod policies;
pub mod renewal;
mod store;

pub use policies::{Policies, PolicyReader};

use super::gate::{Source, View};
use super::instance::{Instance, LEASE_MAX, LEASE_MIN, Standing};
use super::kill_file::KillFile;
use crate::audit::Stream;
use crate::clock::Clock;
use crate::clock::belief::Belief;
use crate::db::history::{Asked, Fault, History, Judged};
use crate::error::{Error, Result};
use crate::types::Point;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use store::Reading;
use tokio::sync::Notify;

/// The highest version that fits into the state's word.
const VERSION_MAX: i64 = i64::MAX >> 2;
const GO_LIVE: i64 = 0b01;
const KILL_SWITCH: i64 = 0b10;

/// The switches after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateState {
    /// The version, which every change increments.
    pub version: i64,
    /// Whether go-live is enabled.
    pub go_live_enabled: bool,
    /// Whether the kill switch is engaged, which overrides go-live.
    pub kill_switch_engaged: bool,
}

/// A future that borrows its inputs.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A follower of the feed. Each read of the state renews it, on the same connection.
pub trait Follower: std::fmt::Debug + Send + Sync {
    /// Renews the follower from a read that was sent at `sent_ns` of the process's clock, and that found the control
    /// stream at `control` and the believed time at `now`.
    fn renew<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        control: Point,
        now: DateTime<Utc>,
        sent_ns: u64,
    ) -> BoxFuture<'a, Result<()>>;
}

/// The state as this instance knows it. Cheap to clone: all clones share it.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    lease_ns: u64,
    instance: Instance,
    kill_file: Option<KillFile>,
    /// Renewed with each read of the state; none if nothing follows the feed.
    follower: OnceLock<Arc<dyn Follower>>,
    /// Reads the policies; none if nothing uses them.
    policy_reader: OnceLock<PolicyReader>,
    /// Whether the database's time is believed.
    belief: Belief,
    /// `version << 2 | kill switch << 1 | go-live`: one word, so that the gate never sees half a change. 0 before the
    /// first read.
    state: AtomicI64,
    /// The instant before the last successful read was sent, on `clock`, plus one; 0 before the first read.
    renewed_ns: AtomicU64,
    /// The time of this instance's last own commit, on `clock`, plus one. A read that was sent before it may be older.
    own_ns: AtomicU64,
    /// The time of the last notification of an engage, on `clock`, plus one; 0 when a later read was taken.
    told_killed_ns: AtomicU64,
    /// The same for a disable.
    told_off_ns: AtomicU64,
    /// Whether a kill file exists.
    killed: AtomicBool,
    /// The time at which this instance last made a kill file, on `clock`, plus one. A look before it may not have seen
    /// the file.
    killed_ns: AtomicU64,
    /// The history of the database that the state belongs to, and whether it went backwards.
    history: History,
    /// Whether notifications arrive.
    listening: AtomicBool,
    /// Wakes the reader before its next turn.
    wake: Notify,
    /// Wakes the separate reader of the policies.
    moved: Notify,
    /// The values of the reading task, and the policies, for metrics and flags; never on the path of a request.
    known: Mutex<Latest>,
}

/// The values that only the reader of the database needs.
#[derive(Debug, Default)]
struct Latest {
    /// The policies as last read; none before the first read.
    policies: Option<policies::Kept>,
    /// The point of the control stream at the last read.
    control: Option<Point>,
    /// The number of this server's migrations that the database lacks.
    pending_migrations: i64,
}

impl Feed {
    /// A feed that only knows the database's `history`, and so blocks. A lease outside [`LEASE_MIN`] and [`LEASE_MAX`]
    /// is moved to the nearer bound.
    #[must_use]
    pub fn new(
        clock: Clock,
        lease: Duration,
        instance: Instance,
        kill_file: Option<KillFile>,
        history: History,
    ) -> Self {
        let lease = lease.clamp(LEASE_MIN, LEASE_MAX);
        let belief = Belief::new(clock.clone());
        history.go_by(belief.clone());
        Self(Arc::new(Inner {
            follower: OnceLock::new(),
            policy_reader: OnceLock::new(),
            belief,
            clock,
            lease_ns: u64::try_from(lease.as_nanos()).unwrap_or(0),
            instance,
            kill_file,
            state: AtomicI64::new(0),
            renewed_ns: AtomicU64::new(0),
            own_ns: AtomicU64::new(0),
            told_killed_ns: AtomicU64::new(0),
            told_off_ns: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            killed_ns: AtomicU64::new(0),
            history,
            listening: AtomicBool::new(false),
            wake: Notify::new(),
            moved: Notify::new(),
            known: Mutex::default(),
        }))
    }

    /// Takes over a change that this instance has just committed. The age of all other knowledge stays.
    ///
    /// Two changes that commit one after the other may arrive here the other way round, so an older one is not a
    /// rewind: it is dropped, and if the database did move backwards, the next read says so.
    pub fn apply_own(&self, state: GateState) {
        // The lock is shared with `take`, since a read that was overtaken must see both that it was overtaken and by
        // which change.
        let _known = self.known();
        self.0.own_ns.fetch_max(self.now(), Ordering::AcqRel);
        self.advance(word(state.version, state.go_live_enabled, state.kill_switch_engaged));
    }

    /// Takes over a read and renews the lease, unless the read contradicts earlier knowledge: a lower version, the same
    /// version with another content, missing events, or another history. Such a database was restored or lost commits.
    /// It admits nothing until it has a new history, which `holdfast db accept-rewind` creates. Returns the marks that
    /// must still be checked: those of streams that moved on.
    fn take(&self, read: &Reading, asked: &Asked, sent_ns: u64) -> Result<Vec<(Stream, Point)>> {
        if !(1..=VERSION_MAX).contains(&read.version) {
            return Err(Error::Inconsistent(format!("the go-live state has version {}", read.version)));
        }
        let word = word(read.version, read.go_live_enabled, read.kill_switch_engaged);
        let history = &self.0.history;
        let _known = self.known();
        let overtaken = self.0.own_ns.load(Ordering::Acquire) > sent_ns;
        let moved = match history.judge(asked, &read.found) {
            // This instance's own change is newer than this read; the next read shows both.
            Judged::Accepted if overtaken => return Ok(Vec::new()),
            Judged::Overtaken => return Ok(Vec::new()),
            Judged::Accepted => {
                // Any version is accepted, since an operator has accepted this history, after this instance noticed the
                // loss or before it could.
                self.0.state.store(word, Ordering::Release);
                history.restart(&read.found);
                tracing::warn!(version = read.version, "an older database was accepted");
                Vec::new()
            }
            _ if history.is_rewound() => {
                history.reject(read.found.generation);
                return Err(Error::StateRewound);
            }
            Judged::Other => return Err(self.rewind(read, asked, &Fault::Other)),
            Judged::Lost(lost) => return Err(self.rewind(read, asked, &Fault::Lost(lost))),
            Judged::Stands(moved) => {
                if !self.advance(word) {
                    // This instance's own change may have overtaken this read; the next read then agrees again.
                    return if overtaken { Ok(Vec::new()) } else { Err(self.rewind(read, asked, &Fault::Switches)) };
                }
                history.take(asked, &read.found);
                moved
            }
        };
        // A true notification from before this read was sent is included in the read.
        for told in [&self.0.told_killed_ns, &self.0.told_off_ns] {
            let _ =
                told.fetch_update(Ordering::AcqRel, Ordering::Acquire, |at| (at != 0 && at <= sent_ns).then_some(0));
        }
        self.0.renewed_ns.fetch_max(sent_ns + 1, Ordering::AcqRel);
        Ok(moved)
    }

    /// Blocks everything until an operator accepts the loss.
    fn rewind(&self, read: &Reading, asked: &Asked, fault: &Fault) -> Error {
        let before = self.0.state.load(Ordering::Acquire) >> 2;
        self.0.history.reject(read.found.generation);
        self.0.history.contradict(asked.epoch, fault);
        self.0.renewed_ns.store(0, Ordering::Release);
        tracing::error!(
            version = read.version,
            before,
            "the database's state is older than the one that this instance knows"
        );
        Error::StateRewound
    }

    /// The last known state at any age: version, go-live, kill switch. None before the first read.
    #[must_use]
    pub fn last_known(&self) -> Option<(i64, bool, bool)> {
        let word = self.0.state.load(Ordering::Acquire);
        (word > 0).then_some((word >> 2, word & GO_LIVE != 0, word & KILL_SWITCH != 0))
    }

    /// Whether the state went backwards or events are lost, and no operator has accepted that.
    #[must_use]
    pub fn is_rewound(&self) -> bool {
        self.0.history.is_rewound()
    }

    /// The known history of the database, shared with its other users.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// Whether notifications arrive. Without them, changes of other instances are seen half a second later.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.0.listening.load(Ordering::Acquire)
    }

    /// The longest age at which this instance uses a state.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_nanos(self.0.lease_ns)
    }

    /// Sets the follower that each read of the state renews. Only the first call counts.
    #[must_use]
    pub fn followed_by(self, follower: Arc<dyn Follower>) -> Self {
        let _ = self.0.follower.set(follower);
        self
    }

    /// Sets the reader of the policies. Only the first call counts.
    #[must_use]
    pub fn reading_policies(self, reader: PolicyReader) -> Self {
        let _ = self.0.policy_reader.set(reader);
        self
    }

    /// Whether the database's time is believed.
    #[must_use]
    pub fn belief(&self) -> &Belief {
        &self.0.belief
    }

    /// This process, as its row describes it.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.0.instance
    }

    /// The time since the state was last known to hold; none before the first read, and after a rewind.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.age_ns().map(Duration::from_nanos)
    }

    fn age_ns(&self) -> Option<u64> {
        let renewed = self.0.renewed_ns.load(Ordering::Acquire);
        (renewed > 0 && !self.is_rewound()).then(|| self.now().saturating_sub(renewed))
    }

    /// The number of this server's migrations that the database lacked at the last read.
    #[must_use]
    pub fn pending_migrations(&self) -> i64 {
        self.known().pending_migrations
    }

    /// The state that this instance's gate uses, for its row.
    fn standing(&self) -> Standing {
        match self.view() {
            View::Killed => Standing::KillFile,
            View::Rewound => Standing::Rewound,
            View::Stale | View::Fresh { .. } => Standing::State,
        }
    }

    fn known(&self) -> MutexGuard<'_, Latest> {
        self.0.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The clock plus one, since 0 means never.
    fn now(&self) -> u64 {
        self.0.clock.now_ns() + 1
    }

    /// Moves to a state if it is newer or the same. Returns whether the known state now equals it.
    fn advance(&self, word: i64) -> bool {
        let newer = |known: i64| (known >> 2 < word >> 2).then_some(word);
        match self.0.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, newer) {
            Ok(_) => true,
            Err(known) => known == word,
        }
    }
}

/// A state as one word.
const fn word(version: i64, go_live_enabled: bool, kill_switch_engaged: bool) -> i64 {
    (version << 2) | if go_live_enabled { GO_LIVE } else { 0 } | if kill_switch_engaged { KILL_SWITCH } else { 0 }
}

impl Source for Feed {
    fn view(&self) -> View {
        if self.0.killed.load(Ordering::Acquire) {
            return View::Killed;
        }
        // A writer, or any new connection, has noticed the rewind.
        if self.0.history.is_rewound() {
            return View::Rewound;
        }
        // The lease is read before the state: a reader that sees a renewal also sees the state of that read.
        match self.age_ns() {
            Some(age) if age <= self.0.lease_ns => {}
            _ => return View::Stale,
        }
        // The notifications are read before the state: a reader that sees one withdrawn also sees the state that
        // replaced it.
        let told_killed = self.0.told_killed_ns.load(Ordering::Acquire) != 0;
        let told_off = self.0.told_off_ns.load(Ordering::Acquire) != 0;
        let word = self.0.state.load(Ordering::Acquire);
        View::Fresh {
            version: word >> 2,
            go_live_enabled: word & GO_LIVE != 0 && !told_off,
            kill_switch_engaged: word & KILL_SWITCH != 0 || told_killed,
        }
    }
}

#[cfg(test)]
mod tests;
