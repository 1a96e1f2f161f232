//! The feed: what this instance knows of the state and the policies, and since when.
//!
//! One task reads the database every [`POLL`]; this instance's own changes are applied the moment they commit. The gate
//! reads two atomics. A state counts as fresh for [`LEASE`] from the instant *before* its read was sent, so that a slow
//! answer never looks younger than it is. Versions never go backwards within a process: a read that was overtaken by a
//! newer change is dropped.
//!
//! Bound: an instance admits nothing by a state that stopped being true more than [`LEASE`] ago.

use super::gate::{Source, View};
use crate::clock::Clock;
use crate::db::Database;
use crate::error::{Error, Result};
use crate::go_live::model::GoLiveState;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often the state is read. A read may fail three times in a row before the lease lapses.
pub const POLL: Duration = Duration::from_millis(500);
/// How old a state may be and still admit something.
pub const LEASE: Duration = Duration::from_secs(2);
/// How long one read may take: shorter than the poll, so that a hung read costs one turn.
const READ_TIMEOUT: Duration = Duration::from_millis(450);

const GO_LIVE: i64 = 0b01;
const KILL_SWITCH: i64 = 0b10;

/// What this instance knows. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    /// `version << 2 | kill switch << 1 | go-live`: one word, so that the gate never sees half a change. 0 before the first read.
    state: AtomicI64,
    /// The instant before the last successful read was sent, on `clock`, plus one; 0 before the first read.
    renewed_ms: AtomicU64,
    /// When this instance last committed a change of its own, on `clock`, plus one: a read that was sent before it may be older.
    own_ms: AtomicU64,
    /// Which policies hold, for the metrics; never on the path of a request.
    policies: Mutex<Policies>,
}

/// Which policies let something happen, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// Where the control stream stood when they were read: they are read again only when it moved.
    pub control_seq: i64,
    /// Engines and whether their reserves can pass.
    pub engines: Vec<(String, bool)>,
    /// AI domains and whether production use is on.
    pub domains: Vec<(String, bool)>,
    /// Wires and whether they stand tripped.
    pub wires: Vec<(String, bool)>,
}

impl Feed {
    /// A feed that knows nothing yet, and so blocks.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            clock,
            state: AtomicI64::new(0),
            renewed_ms: AtomicU64::new(0),
            own_ms: AtomicU64::new(0),
            policies: Mutex::new(Policies::default()),
        }))
    }

    /// Takes over a change that this instance has just committed. How old the *rest* is does not change.
    ///
    /// Two changes that commit one after the other may arrive here the other way round, so an older one is not a rewind: it is
    /// dropped, and if the database did move backwards, the next read says so.
    pub fn apply_own(&self, state: &GoLiveState) {
        self.0.own_ms.fetch_max(self.0.clock.now_ms() + 1, Ordering::AcqRel);
        self.advance(state);
    }

    /// Takes over what was read, and renews the lease, unless it contradicts what is known: a version that goes backwards, or
    /// the same version saying something else, is a restored or a lost database, and nothing is admitted by it.
    fn take(&self, state: &GoLiveState, sent_ms: u64) -> Result<()> {
        if self.advance(state) {
            self.0.renewed_ms.fetch_max(sent_ms + 1, Ordering::AcqRel);
            return Ok(());
        }
        // A change of our own may have overtaken this read; then the next one agrees again.
        let known = self.0.state.load(Ordering::Acquire) >> 2;
        if self.0.own_ms.load(Ordering::Acquire) > sent_ms {
            return Ok(());
        }
        self.rewound(state);
        Err(Error::Inconsistent(format!("the go-live state went from version {known} to {}", state.version)))
    }

    /// Lets the lease lapse at once.
    fn rewound(&self, state: &GoLiveState) {
        self.0.renewed_ms.store(0, Ordering::Release);
        tracing::error!(
            version = state.version,
            "the go-live state moved backwards: blocking everything; restart when that is meant"
        );
    }

    /// Reads the database once and renews the lease.
    pub async fn refresh(&self, db: &Database) -> Result<()> {
        let sent_ms = self.0.clock.now_ms();
        let mut conn = db.feed().await?;
        let state = crate::go_live::store::read_state(&mut conn).await?;
        self.take(&state, sent_ms)?;
        let control_seq = crate::audit::head_seq(&mut conn, crate::audit::Stream::Control).await?;
        if control_seq != self.policies().control_seq {
            let policies = Policies {
                control_seq,
                engines: crate::risk::store::read_policies(&mut conn)
                    .await?
                    .iter()
                    .map(|policy| (policy.engine.to_string(), policy.is_active()))
                    .collect(),
                domains: crate::heimdall::store::read_policies(&mut conn)
                    .await?
                    .iter()
                    .map(|policy| (policy.domain.to_string(), policy.prod_use_enabled))
                    .collect(),
                wires: crate::regression::store::read_wires(&mut conn).await?,
            };
            *self.0.policies.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = policies;
        }
        Ok(())
    }

    /// Keeps the feed fresh for as long as it is polled. A failure is logged when it begins and when it ends; the lease lapses
    /// by itself.
    pub async fn run(self, db: Database) {
        let mut failing = false;
        let mut turns = tokio::time::interval(POLL);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let error = match tokio::time::timeout(READ_TIMEOUT, self.refresh(&db)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {} ms", READ_TIMEOUT.as_millis())),
            };
            match (&error, failing) {
                (Some(error), false) => {
                    tracing::error!(error, "the go-live state cannot be read: blocking when the lease lapses");
                }
                (None, true) => tracing::info!("the go-live state is read again"),
                (Some(_), true) | (None, false) => {}
            }
            failing = error.is_some();
        }
    }

    /// Milliseconds since the state was last known to hold; none before the first read.
    #[must_use]
    pub fn age_ms(&self) -> Option<u64> {
        let renewed = self.0.renewed_ms.load(Ordering::Acquire);
        (renewed > 0).then(|| (self.0.clock.now_ms() + 1).saturating_sub(renewed))
    }

    /// The policies as last read.
    #[must_use]
    pub fn policies(&self) -> Policies {
        self.0.policies.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Moves to a state if it is newer, or the same; says whether what is known agrees with it now.
    fn advance(&self, state: &GoLiveState) -> bool {
        let word = (state.version << 2)
            | if state.go_live_enabled { GO_LIVE } else { 0 }
            | if state.kill_switch_engaged { KILL_SWITCH } else { 0 };
        let before = self
            .0
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |known| (known >> 2 < state.version).then_some(word));
        match before {
            Ok(_) => true,
            Err(known) => known == word,
        }
    }
}

impl Source for Feed {
    fn view(&self) -> View {
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(0);
        match self.age_ms() {
            Some(age) if age <= lease_ms => {
                let word = self.0.state.load(Ordering::Acquire);
                View::Fresh {
                    version: word >> 2,
                    go_live_enabled: word & GO_LIVE != 0,
                    kill_switch_engaged: word & KILL_SWITCH != 0,
                }
            }
            _ => View::Stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go_live::model::{Movement, apply};
    use chrono::DateTime;

    fn state(version: i64, go_live_enabled: bool, kill_switch_engaged: bool) -> GoLiveState {
        let none = Movement { at: None, by: None, reason: None };
        GoLiveState {
            go_live_enabled,
            kill_switch_engaged,
            changed_by: None,
            reason: None,
            updated_at: DateTime::UNIX_EPOCH,
            version,
            go_live: none.clone(),
            kill_switch: none,
        }
    }

    fn renewed(feed: &Feed) {
        feed.0.renewed_ms.store(feed.0.clock.now_ms() + 1, Ordering::Release);
    }

    #[test]
    fn nothing_read_is_stale_and_the_lease_ends_exactly() {
        let clock = Clock::manual(10_000);
        let feed = Feed::new(clock.clone());
        assert_eq!(feed.view(), View::Stale);
        feed.advance(&state(1, true, false));
        assert_eq!(feed.view(), View::Stale, "a change of our own does not renew the lease");
        renewed(&feed);
        assert!(matches!(feed.view(), View::Fresh { version: 1, go_live_enabled: true, kill_switch_engaged: false }));
        clock.advance(2_000);
        assert!(matches!(feed.view(), View::Fresh { .. }));
        clock.advance(1);
        assert_eq!(feed.view(), View::Stale);
    }

    #[test]
    fn an_overtaken_read_never_undoes_a_newer_change() {
        let clock = Clock::manual(10);
        let feed = Feed::new(clock.clone());
        let live = state(7, true, false);
        feed.take(&live, 10).unwrap();
        let sent_ms = clock.now_ms();
        clock.advance(1);
        let killed = apply(&live, crate::go_live::model::Change::Engage, None, None, DateTime::UNIX_EPOCH);
        feed.apply_own(&killed);
        feed.take(&live, sent_ms).unwrap();
        assert!(matches!(feed.view(), View::Fresh { version: 8, kill_switch_engaged: true, .. }));
    }

    #[test]
    fn a_state_that_moves_backwards_blocks_everything() {
        for older in [state(6, true, false), state(7, false, false), state(7, true, true)] {
            let clock = Clock::manual(10);
            let feed = Feed::new(clock.clone());
            feed.take(&state(7, true, false), clock.now_ms()).unwrap();
            clock.advance(1);
            assert!(feed.take(&older, clock.now_ms()).is_err());
            assert_eq!(feed.view(), View::Stale, "{older:?}");
            assert!(feed.take(&older, clock.now_ms()).is_err(), "and it stays so");
            assert_eq!(feed.view(), View::Stale);
        }
    }

    #[test]
    fn a_rewound_database_blocks_at_the_next_read_though_it_takes_changes_of_our_own() {
        let clock = Clock::manual(10);
        let feed = Feed::new(clock.clone());
        feed.take(&state(13, true, false), clock.now_ms()).unwrap();
        let killed = state(2, false, true);
        feed.apply_own(&killed);
        clock.advance(1);
        assert!(feed.take(&killed, clock.now_ms()).is_err());
        assert_eq!(feed.view(), View::Stale);
    }

    #[test]
    fn changes_of_our_own_that_arrive_out_of_order_block_nothing_and_leave_the_newest() {
        let clock = Clock::manual(10);
        let feed = Feed::new(clock.clone());
        feed.take(&state(7, false, false), clock.now_ms()).unwrap();
        feed.apply_own(&state(9, true, false));
        feed.apply_own(&state(8, false, false));
        assert!(matches!(feed.view(), View::Fresh { version: 9, go_live_enabled: true, kill_switch_engaged: false }));
    }
}
