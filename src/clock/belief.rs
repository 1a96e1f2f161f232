//! The belief in the database's time.
//!
//! This process measures the time between two readings of the database's clock. A reading more than `JUMP_MAX` ahead of
//! that is not believed: nothing new is reserved, and nothing expires by it. It may be right all the same (a paused
//! machine, a corrected clock), so it is watched. The readings are believed once they have agreed for `AGREE_FOR_MS`
//! with this process's own clock, within `PROGRESS_WITHIN`, and with the machine's wall clock, within `WALL_WITHIN`. A
//! contradiction restarts that minute: a reading that differs from either, an event of the ledger at a later time, or
//! no reading for `SILENCE_MAX_MS`.
//!
//! The feed's readings drive it, so it needs no request.

use super::Clock;
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far the database clock may be ahead of this process's clock, or behind the ledger's last event, before it is not
/// believed: an hour.
pub const JUMP_MAX: TimeDelta = TimeDelta::hours(1);
/// How long everything must agree before a jump is believed, in milliseconds.
const AGREE_FOR_MS: u64 = 60_000;
/// The longest time without a reading in that minute, in milliseconds.
const SILENCE_MAX_MS: u64 = 10_000;
/// How far the readings may differ from this process's clock in that minute.
const PROGRESS_WITHIN: TimeDelta = TimeDelta::seconds(5);
/// How far the readings may differ from the machine's wall clock.
const WALL_WITHIN: TimeDelta = TimeDelta::minutes(1);

/// The reason why the database's clock stops reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The clock jumped ahead by this many seconds.
    Ahead(i64),
    /// The clock is this many seconds behind the ledger's last event.
    Behind(i64),
}

/// This process's belief in the database's time. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Belief {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

/// A time of the database and this process's time in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Pair {
    at: DateTime<Utc>,
    ms: u64,
}

impl Pair {
    /// The database's expected time at a time of this process.
    fn expected(self, ms: u64) -> Option<DateTime<Utc>> {
        let passed = i64::try_from(ms.saturating_sub(self.ms)).ok()?;
        self.at.checked_add_signed(TimeDelta::milliseconds(passed))
    }
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    now: Pair,
    /// The later of the database's time and the ledger's last event.
    latest: DateTime<Utc>,
    /// The machine's wall clock at the reading.
    wall: DateTime<Utc>,
}

impl Reading {
    /// True if nothing except the jump contradicts the reading.
    fn stands(&self) -> bool {
        self.latest - self.now.at <= PROGRESS_WITHIN && (self.now.at - self.wall).abs() <= WALL_WITHIN
    }
}

/// Readings that agree but are not believed yet.
#[derive(Debug, Clone, Copy)]
struct Agreement {
    began: Pair,
    last_ms: u64,
}

impl Agreement {
    fn holds(&self, now: Pair) -> bool {
        let drift = self.began.expected(now.ms).map(|expected| (now.at - expected).abs());
        now.ms.saturating_sub(self.last_ms) <= SILENCE_MAX_MS && drift.is_some_and(|drift| drift <= PROGRESS_WITHIN)
    }
}

#[derive(Debug, Default)]
struct State {
    /// The last believed time; none at the start, when there is nothing to compare with.
    believed: Option<Pair>,
    /// This process's time of the feed's last reading, in milliseconds. Older readings change nothing.
    seen_ms: u64,
    doubt: Option<Doubt>,
    /// None while the last reading contradicts.
    agreement: Option<Agreement>,
}

impl State {
    fn read(&mut self, reading: Reading) {
        let Reading { now, latest, .. } = reading;
        let expected = self.believed.and_then(|believed| believed.expected(now.ms));
        let ahead = expected.map(|expected| now.at - expected).filter(|ahead| *ahead > JUMP_MAX);
        if let Some(ahead) = ahead
            && !self.has_agreed(reading)
        {
            self.doubt = Some(Doubt::Ahead(ahead.num_seconds()));
        } else if now.ms >= self.seen_ms {
            self.believe(Pair { at: latest, ..now });
            let behind = latest - now.at;
            self.doubt = (behind > JUMP_MAX).then(|| Doubt::Behind(behind.num_seconds()));
        }
        self.seen_ms = self.seen_ms.max(now.ms);
    }

    /// True if the readings have agreed with everything for long enough.
    fn has_agreed(&mut self, reading: Reading) -> bool {
        let now = reading.now;
        let kept = self.agreement.filter(|agreement| agreement.holds(now));
        let began = kept.map_or(now, |agreement| agreement.began);
        self.agreement = reading.stands().then_some(Agreement { began, last_ms: now.ms });
        self.agreement.is_some() && now.ms.saturating_sub(began.ms) >= AGREE_FOR_MS
    }

    fn believe(&mut self, now: Pair) {
        if now.ms >= self.seen_ms {
            if self.believed.is_none_or(|believed| believed.ms <= now.ms) {
                self.believed = Some(now);
            }
            self.agreement = None;
            self.doubt = self.doubt.filter(|doubt| matches!(doubt, Doubt::Behind(_)));
        }
    }
}

impl Belief {
    /// A belief without readings: the first one is believed.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, state: Arc::default() }
    }

    /// Takes a reading of the feed at `ms`, this process's time: the database's time, and the later of that and the
    /// ledger's last event. Returns the time to use: the reading, or the expected time if it is not believed.
    pub(crate) fn read(&self, at: DateTime<Utc>, latest: DateTime<Utc>, ms: u64) -> DateTime<Utc> {
        let reading = Reading { now: Pair { at, ms }, latest, wall: self.clock.wall() };
        self.change(|state| {
            state.read(reading);
            let expected = state.believed.and_then(|believed| believed.expected(ms));
            expected.filter(|expected| at - *expected > JUMP_MAX).unwrap_or(at)
        })
    }

    /// Takes a time that a batch of the ledger used.
    pub(crate) fn believe(&self, at: DateTime<Utc>, ms: u64) {
        self.change(|state| state.believe(Pair { at, ms }));
    }

    /// The latest reasonable time of the database: its last believed time plus the time since then; none at the start.
    /// Also this process's time in milliseconds.
    pub(crate) fn expected(&self) -> (Option<DateTime<Utc>>, u64) {
        let now_ms = self.clock.now_ms();
        (self.state().believed.and_then(|believed| believed.expected(now_ms)), now_ms)
    }

    /// The reason why the database's clock stops reserves; none while it is believed.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        self.state().doubt
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing can panic while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let before = state.doubt;
        let made = change(&mut state);
        let doubt = state.doubt;
        drop(state);
        if before.map(|doubt| std::mem::discriminant(&doubt)) != doubt.map(|doubt| std::mem::discriminant(&doubt)) {
            say(doubt);
        }
        made
    }
}

/// Logs once when a doubt begins, and once when it ends.
fn say(doubt: Option<Doubt>) {
    match doubt {
        Some(Doubt::Ahead(seconds)) => tracing::error!(
            seconds,
            "the database clock jumped ahead: reserves are halted until this machine's clock and the database's have agreed \
             for a minute"
        ),
        Some(Doubt::Behind(seconds)) => tracing::error!(
            seconds,
            "the database clock is behind the last recorded event: reserves are halted until it is right"
        ),
        None => tracing::warn!("the database clock is believed again: reserves resume"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database and a machine whose clocks a test moves.
    struct World {
        clock: Clock,
        belief: Belief,
        at: DateTime<Utc>,
    }

    const DAY: TimeDelta = TimeDelta::days(1);

    impl World {
        fn new() -> Self {
            let (clock, at) = (Clock::manual(1_000), "2040-01-03T12:00:00Z".parse().unwrap());
            clock.set_wall(at);
            let world = Self { belief: Belief::new(clock.clone()), clock, at };
            world.read();
            world
        }

        /// Both clocks just after both have jumped.
        fn jumped() -> Self {
            let mut world = Self::new();
            world.at += DAY;
            world.clock.set_wall(world.at);
            world.read();
            world
        }

        fn read(&self) -> DateTime<Utc> {
            self.belief.read(self.at, self.at, self.clock.now_ms())
        }

        fn pass(&mut self, ms: u32) {
            self.clock.advance(ms.into());
            self.at += TimeDelta::milliseconds(ms.into());
        }

        fn agree_for(&mut self, seconds: u32) {
            for _ in 0..seconds {
                self.pass(1_000);
                self.read();
            }
        }

        fn is_believed(&self) -> bool {
            self.belief.doubt().is_none()
        }
    }

    #[test]
    fn a_jump_is_believed_after_a_minute_of_agreement_and_not_before() {
        let mut world = World::jumped();
        assert_eq!(world.belief.doubt(), Some(Doubt::Ahead(86_400)));
        world.agree_for(59);
        assert_eq!(world.read(), world.at - DAY, "nothing goes by it before");
        assert!(!world.is_believed());
        world.agree_for(1);
        assert!(world.is_believed());
        assert_eq!(world.belief.expected().0, Some(world.at));
    }

    #[test]
    fn a_jump_that_the_wall_clock_does_not_make_is_never_believed() {
        let mut world = World::new();
        world.at += DAY;
        world.agree_for(600);
        assert!(!world.is_believed());
        world.clock.set_wall(world.at + WALL_WITHIN + TimeDelta::milliseconds(1));
        world.agree_for(600);
        assert!(!world.is_believed());
        world.clock.set_wall(world.at - WALL_WITHIN);
        world.read();
        world.agree_for(60);
        assert_eq!(world.belief.doubt(), None, "within the bound it agrees");
    }

    #[test]
    fn a_contradiction_begins_the_minute_anew() {
        let contradictions: [fn(&mut World); 4] = [
            |world| {
                // The database jumps again, and the wall clock with it.
                world.at += TimeDelta::seconds(6);
                world.clock.set_wall(world.at);
            },
            |world| {
                world.clock.set_wall(world.at - DAY);
                world.read();
                world.clock.set_wall(world.at);
            },
            |world| {
                world.belief.read(world.at, world.at + TimeDelta::seconds(6), world.clock.now_ms());
            },
            |world| world.pass(10_001),
        ];
        for (place, contradict) in contradictions.into_iter().enumerate() {
            let mut world = World::jumped();
            world.agree_for(59);
            contradict(&mut world);
            world.read();
            world.agree_for(59);
            assert!(!world.is_believed(), "{place}");
            world.agree_for(1);
            assert!(world.is_believed(), "{place}");
        }
    }

    #[test]
    fn a_clock_that_is_right_again_is_believed_at_once() {
        let mut world = World::jumped();
        world.agree_for(30);
        world.at -= DAY;
        assert_eq!(world.read(), world.at);
        assert!(world.is_believed());
        world.at += DAY;
        world.read();
        world.agree_for(59);
        assert!(!world.is_believed(), "what agreed before does not count");
    }

    #[test]
    fn an_hour_ahead_is_no_jump_and_time_that_passed_here_is_none() {
        let mut world = World::new();
        world.at += JUMP_MAX;
        world.read();
        assert!(world.is_believed());
        for _ in 0..3 {
            world.pass(86_400_000);
            world.read();
            assert!(world.is_believed());
        }
        world.at += JUMP_MAX + TimeDelta::microseconds(1);
        world.read();
        assert!(!world.is_believed());
    }

    #[test]
    fn a_clock_behind_the_ledger_is_doubted_and_is_not_the_measure_of_the_next_reading() {
        let mut world = World::new();
        let right = world.at;
        world.at -= JUMP_MAX * 2;
        world.belief.read(world.at, right, world.clock.now_ms());
        assert_eq!(world.belief.doubt(), Some(Doubt::Behind(7_200)));
        world.belief.believe(right, world.clock.now_ms());
        assert!(!world.is_believed(), "a settle goes by the last event, and says nothing of the clock");
        world.at = right;
        world.read();
        assert!(world.is_believed());
    }

    #[test]
    fn a_reading_that_a_later_one_overtook_changes_nothing() {
        let mut world = World::jumped();
        let (old, old_ms) = (world.at - DAY, world.clock.now_ms());
        world.agree_for(30);
        world.belief.believe(old, old_ms);
        world.belief.read(old, old, old_ms);
        assert!(!world.is_believed());
        world.agree_for(30);
        assert!(world.is_believed());
    }
}
