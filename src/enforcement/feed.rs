//! The feed: what this instance knows of the state and the policies, and since when.
//!
//! [`renewal`] reads the database, this instance's own changes are applied the moment they commit, and the gate reads a few
//! atomics. A state counts as fresh for the lease from the instant *before* its read was sent, so that a slow answer never
//! looks younger than it is, on a clock that counts the time a machine was suspended.
//!
//! Invariants:
//! - **The bound**: an instance admits nothing by a state that stopped being true more than [`LEASE_MAX`] ago.
//! - Only a read renews the lease, and only one that came with a committed write.
//! - A notification can only tighten, and only until the next read: whoever forges one gains a moment's block.
//! - Versions never go backwards, and no event that was known is missing: a read that was overtaken by a newer change is dropped; a
//!   database that went backwards (a restore, a failover that lost commits) blocks until somebody accepts that.
//! - A kill file blocks, whatever the database says.

mod killed;
mod policies;
pub mod renewal;
mod store;

pub use policies::{Policies, PolicyReader};

use super::gate::{Source, View};
use super::instance::{Instance, Standing};
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

/// How old a state may be and still admit something. An instance may choose less, never more: receipts are counted by this.
pub const LEASE_MAX: Duration = Duration::from_secs(2);
/// The shortest lease, which leaves a quarter of it for a read.
pub const LEASE_MIN: Duration = Duration::from_millis(200);

/// The highest version that the state's word has room for.
const VERSION_MAX: i64 = i64::MAX >> 2;
const GO_LIVE: i64 = 0b01;
const KILL_SWITCH: i64 = 0b10;

/// The switches, as a change has left them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateState {
    /// Counted up by every change.
    pub version: i64,
    /// Whether production is on.
    pub go_live_enabled: bool,
    /// Whether the kill switch is out.
    pub kill_switch_engaged: bool,
}

/// A future that borrows what it works on.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A follower of the feed: it is renewed with each read of the state, on the same connection.
pub trait Follower: std::fmt::Debug + Send + Sync {
    /// Renews it with a read that was sent at `sent_ns` of the process's clock, and that found the control stream at `control` and the
    /// believed time at `now`.
    fn renew<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        control: Point,
        now: DateTime<Utc>,
        sent_ns: u64,
    ) -> BoxFuture<'a, Result<()>>;
}

/// The state as this instance knows it. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    lease_ns: u64,
    instance: Instance,
    kill_file: Option<KillFile>,
    /// Renewed with each read of the state; none where nobody follows it.
    follower: OnceLock<Arc<dyn Follower>>,
    /// Reads the policies; none where nobody asks for them.
    policy_reader: OnceLock<PolicyReader>,
    /// Of the database's time.
    belief: Belief,
    /// `version << 2 | kill switch << 1 | go-live`: one word, so that the gate never sees half a change. 0 before the first read.
    state: AtomicI64,
    /// The instant before the last successful read was sent, on `clock`, plus one; 0 before the first read.
    renewed_ns: AtomicU64,
    /// When this instance last committed a change of its own, on `clock`, plus one: a read that was sent before it may be older.
    own_ns: AtomicU64,
    /// When a notification last said that the kill switch was engaged, on `clock`, plus one; 0 when a later read was taken.
    told_killed_ns: AtomicU64,
    /// The same of a disable.
    told_off_ns: AtomicU64,
    /// Whether there is a kill file.
    killed: AtomicBool,
    /// When this instance last made a kill file, on `clock`, plus one: who looked before it may have seen none.
    killed_ns: AtomicU64,
    /// The history of the database that the state belongs to, and whether it went backwards.
    history: History,
    /// Whether notifications arrive.
    listening: AtomicBool,
    /// Calls for a read before its turn.
    wake: Notify,
    /// Calls for the policies, which are read apart.
    moved: Notify,
    /// The facts of the task that reads, and the policies, for metrics and flags; never on the path of a request.
    known: Mutex<Latest>,
}

/// The facts that only the reader of the database needs.
#[derive(Debug, Default)]
struct Latest {
    /// The policies as last read; none before the first read.
    policies: Option<policies::Kept>,
    /// Where the control stream stood at the last read.
    control: Option<Point>,
    /// How many of this server's migrations the database lacks.
    pending_migrations: i64,
}

impl Feed {
    /// A feed that knows nothing yet but the database's `history`, and so blocks. A lease outside [`LEASE_MIN`] and [`LEASE_MAX`] is
    /// brought inside.
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

    /// Takes over a change that this instance has just committed. How old the *rest* is does not change.
    ///
    /// Two changes that commit one after the other may arrive here the other way round, so an older one is not a rewind: it is
    /// dropped, and if the database did move backwards, the next read says so.
    pub fn apply_own(&self, state: GateState) {
        // With `take` in turns: a read that was overtaken must find both, that it was and by what.
        let _known = self.known();
        self.0.own_ns.fetch_max(self.now(), Ordering::AcqRel);
        self.advance(word(state.version, state.go_live_enabled, state.kill_switch_engaged));
    }

    /// Takes over what was read, and renews the lease, unless it contradicts what is known: a version that goes backwards, the
    /// same version saying something else, events that are not there, or another history. It is a restored or a lost database,
    /// and nothing is admitted by it until its history is a new one, which is how `holdfast db accept-rewind` says that this is
    /// meant. Gives the marks that have to be looked at yet: those of streams that moved on.
    fn take(&self, read: &Reading, asked: &Asked, sent_ns: u64) -> Result<Vec<(Stream, Point)>> {
        if !(1..=VERSION_MAX).contains(&read.version) {
            return Err(Error::Inconsistent(format!("the go-live state has version {}", read.version)));
        }
        let word = word(read.version, read.go_live_enabled, read.kill_switch_engaged);
        let history = &self.0.history;
        let _known = self.known();
        let overtaken = self.0.own_ns.load(Ordering::Acquire) > sent_ns;
        let moved = match history.judge(asked, &read.found) {
            // A change of our own is newer than this read; the next one shows both.
            Judged::Accepted if overtaken => return Ok(Vec::new()),
            Judged::Overtaken => return Ok(Vec::new()),
            Judged::Accepted => {
                // With any version: somebody has looked, after this instance noticed or before it could.
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
                    // A change of our own may have overtaken this read; then the next one agrees again.
                    return if overtaken { Ok(Vec::new()) } else { Err(self.rewind(read, asked, &Fault::Switches)) };
                }
                history.take(asked, &read.found);
                moved
            }
        };
        // A notification that came before this read was sent is in it, if it was true.
        for told in [&self.0.told_killed_ns, &self.0.told_off_ns] {
            let _ =
                told.fetch_update(Ordering::AcqRel, Ordering::Acquire, |at| (at != 0 && at <= sent_ns).then_some(0));
        }
        self.0.renewed_ns.fetch_max(sent_ns + 1, Ordering::AcqRel);
        Ok(moved)
    }

    /// Blocks everything, until somebody accepts it.
    fn rewind(&self, read: &Reading, asked: &Asked, fault: &Fault) -> Error {
        let before = self.0.state.load(Ordering::Acquire) >> 2;
        self.0.history.reject(read.found.generation);
        self.0.history.contradict(asked.epoch, fault);
        self.0.renewed_ns.store(0, Ordering::Release);
        tracing::error!(version = read.version, before, "what was read is older than what this instance knew");
        Error::StateRewound
    }

    /// Takes over what a notification says, if it tightens, until a read says more; and calls for that read. A notice of a
    /// version that is known is no news: this instance's own notice comes back to it, also after what it did next.
    fn take_notice(&self, payload: &str) {
        let (change, version) = payload.split_once(' ').unwrap_or((payload, ""));
        let known = self.0.state.load(Ordering::Acquire) >> 2;
        let is_news = version.parse::<i64>().map_or(true, |version| version > known);
        match change {
            _ if !is_news => {}
            renewal::ENGAGED => _ = self.0.told_killed_ns.fetch_max(self.now(), Ordering::AcqRel),
            renewal::DISABLED => _ = self.0.told_off_ns.fetch_max(self.now(), Ordering::AcqRel),
            _ => {}
        }
        self.0.wake.notify_one();
    }

    /// The state as it was last known, however old: version, go-live, kill switch. None before the first read.
    #[must_use]
    pub fn last_known(&self) -> Option<(i64, bool, bool)> {
        let word = self.0.state.load(Ordering::Acquire);
        (word > 0).then_some((word >> 2, word & GO_LIVE != 0, word & KILL_SWITCH != 0))
    }

    /// Whether the state went backwards or events are lost, and nobody has accepted that.
    #[must_use]
    pub fn is_rewound(&self) -> bool {
        self.0.history.is_rewound()
    }

    /// The known history of the database.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// Whether notifications arrive. Without them changes of other instances are seen half a second later.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.0.listening.load(Ordering::Acquire)
    }

    /// How old a state may be here.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_nanos(self.0.lease_ns)
    }

    /// Renews this with each read of the state. The first one counts.
    #[must_use]
    pub fn followed_by(self, follower: Arc<dyn Follower>) -> Self {
        let _ = self.0.follower.set(follower);
        self
    }

    /// Reads the policies with this. The first one counts.
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

    /// This instance.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.0.instance
    }

    /// How long ago the state was last known to hold; none before the first read, and after a rewind.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.age_ns().map(Duration::from_nanos)
    }

    fn age_ns(&self) -> Option<u64> {
        let renewed = self.0.renewed_ns.load(Ordering::Acquire);
        (renewed > 0 && !self.is_rewound()).then(|| self.now().saturating_sub(renewed))
    }

    /// How many of this server's migrations the database lacks, as last read.
    #[must_use]
    pub fn pending_migrations(&self) -> i64 {
        self.known().pending_migrations
    }

    /// The state that this instance's gate goes by, for its row.
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

    /// The clock, plus one, since 0 says never.
    fn now(&self) -> u64 {
        self.0.clock.now_ns() + 1
    }

    /// Moves to a state if it is newer, or the same; says whether what is known agrees with it now.
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
        // Noticed by a writer, or by any new connection.
        if self.0.history.is_rewound() {
            return View::Rewound;
        }
        // The lease before the state: whoever sees a renewal sees what it read.
        match self.age_ns() {
            Some(age) if age <= self.0.lease_ns => {}
            _ => return View::Stale,
        }
        // The notifications before the state: a reader that sees one withdrawn sees the state that replaced it.
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
