//! The backtest of a wire: replays its history, event by event, through the code that decides live.
//!
//! A replay begins with the first event of its range as if the wire had been set up before it. It re-arms the wire
//! right after each trip, keeping the baseline, so that every trip is seen. A live wire that is re-armed right after
//! each trip makes the same trips, bit for bit.

use super::advice::{Profile, to_real};
use super::detector::permutation;
use super::model::wire::UnknownSum;
use super::model::{Detector, FrozenSpan, Mark, Measurement, RegressionPolicy, Sums, Wire, WireState};
use crate::types::{Ratio, Total};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::VecDeque;
use utoipa::ToSchema;

/// The most trips that a report lists.
const TRIPS_MAX: usize = 1_000;
/// The most events of a history that are shuffled, its last ones.
pub const SHUFFLED_MAX: usize = 20_000;
/// The number of events over which the tables of docs/TRIPWIRE.md count false trips.
const TABLE_EVENTS: usize = 5_000;

/// A trip that the wire would have made.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ReplayedTrip {
    /// The event of the trip, by its number in the series.
    pub series_seq: i64,
    /// The time at which that event was recorded.
    pub at: DateTime<Utc>,
    /// The number of events in the baseline.
    pub baseline_events: i64,
    /// The sum of the baseline's events.
    pub baseline_sum: Total,
    /// The number of events in the recent window.
    pub current_events: i64,
    /// The sum of the recent window's events.
    pub current_sum: Total,
    /// The drop that tripped.
    pub drop_fraction: Option<Ratio>,
    /// SEQUENTIAL: the evidence at the trip.
    pub evidence: Option<f64>,
    /// SEQUENTIAL: the event of the series at which the change is estimated to have begun.
    pub began_at_event: Option<i64>,
}

/// The trips that chance causes: those on the same events, shuffled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct ChanceTrips {
    /// The number of shuffles.
    pub shuffles: u32,
    /// The share of shuffles in which the wire tripped, 0 to 1.
    pub tripped_share: f64,
    /// The mean number of trips in 5,000 events.
    pub trips_per_5000: f64,
    /// The number of shuffled events, the last of the history.
    pub events: usize,
}

/// A setting that the history supports.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Recommended {
    /// The detector.
    pub detector: Detector,
    /// The number of events in the baseline.
    pub baseline_events: i64,
    /// The drop that trips, as a fraction.
    pub max_drop_fraction: f64,
    /// The grounds of the recommendation, as a sentence.
    pub because: String,
}

/// The last sums of a series, as many as two windows need.
#[derive(Debug)]
struct Tail {
    sums: VecDeque<Total>,
    /// The place of the first sum.
    first: i64,
    length: usize,
}

impl Tail {
    fn new(length: usize) -> Self {
        Self { sums: VecDeque::from([Total::ZERO]), first: 0, length }
    }

    fn push(&mut self, sum: Total) {
        if self.sums.len() > self.length {
            self.sums.pop_front();
            self.first += 1;
        }
        self.sums.push_back(sum);
    }
}

impl Sums for Tail {
    fn sum(&self, events: i64) -> Option<Total> {
        self.sums.get(usize::try_from(events - self.first).ok()?).copied()
    }
}

/// A replay between two events.
#[derive(Debug)]
pub struct Replay {
    wire: Wire,
    tail: Tail,
    end: Mark,
    /// The number of events of the series before the range.
    before: i64,
    trips: u64,
    listed: Vec<ReplayedTrip>,
}

impl Replay {
    /// A wire with this policy before the first event of a range, after `before` events of its series.
    #[must_use]
    pub fn new(policy: &RegressionPolicy, boolean: bool, before: i64) -> Self {
        let mut state = WireState::new(policy.domain.clone(), policy.metric.clone());
        if policy.detector == Detector::Sequential {
            state.frozen = Some(FrozenSpan::last(policy.baseline_events.get(), 0, 0));
        }
        let reach = policy.window_events.get() + policy.baseline_events.get();
        let tail = Tail::new(usize::try_from(reach).unwrap_or(usize::MAX - 1) + 1);
        let wire = Wire::new(policy.clone(), state, boolean);
        Self { wire, tail, end: Mark::default(), before, trips: 0, listed: Vec::new() }
    }

    /// Takes the next event. `at` is called for its time if it trips.
    pub fn meet(&mut self, measurement: Measurement, at: impl FnOnce() -> DateTime<Utc>) -> Result<(), UnknownSum> {
        let sum = self.end.sum.plus(measurement.addend()).ok_or(UnknownSum(self.end.events + 1))?;
        self.end = Mark { events: self.end.events + 1, sum };
        self.tail.push(sum);
        if !self.wire.meets(self.end, measurement, &self.tail)? {
            return Ok(());
        }
        let reading = self.wire.read(self.end, &self.tail)?;
        self.trips += 1;
        if self.listed.len() < TRIPS_MAX {
            let began = reading.evidence.map(|_| self.before + self.wire.state.began());
            self.listed.push(ReplayedTrip {
                series_seq: self.before + self.end.events,
                at: at(),
                baseline_events: reading.baseline.events,
                baseline_sum: reading.baseline.sum,
                current_events: reading.recent.events,
                current_sum: reading.recent.sum,
                drop_fraction: reading.drop,
                evidence: reading.evidence,
                began_at_event: began,
            });
        }
        self.wire.state.rearm(&self.wire.policy, reading.baseline, self.end.events);
        Ok(())
    }

    /// The number of replayed events.
    #[must_use]
    pub const fn events(&self) -> i64 {
        self.end.events
    }

    /// The number of trips, and the first 1,000 of them.
    #[must_use]
    pub fn trips(self) -> (u64, Vec<ReplayedTrip>) {
        (self.trips, self.listed)
    }
}

/// The frequency with which a wire of this policy trips by chance on these events. The result is meaningless if the
/// caller stopped waiting for it.
#[must_use]
pub fn by_chance(
    policy: &RegressionPolicy,
    history: &[Measurement],
    shuffles: u32,
    seed: u64,
    is_wanted: impl Fn() -> bool,
) -> Option<ChanceTrips> {
    let history = &history[history.len().saturating_sub(SHUFFLED_MAX)..];
    let boolean = matches!(history.first()?, Measurement::Success(_));
    let counted = permutation::estimate(history, shuffles, seed, is_wanted, |series| {
        let mut replay = Replay::new(policy, boolean, 0);
        for measurement in series {
            // The sums of a part fit, since those of the whole series did.
            if replay.meet(*measurement, || DateTime::UNIX_EPOCH).is_err() {
                break;
            }
        }
        replay.trips
    });
    #[expect(clippy::cast_precision_loss, reason = "at most 20,000 trips in each of a few hundred shuffles")]
    let per_5000 = counted.trips as f64 * to_real(TABLE_EVENTS) / (f64::from(shuffles.max(1)) * to_real(history.len()));
    Some(ChanceTrips {
        shuffles,
        tripped_share: f64::from(counted.tripped) / f64::from(shuffles.max(1)),
        trips_per_5000: per_5000,
        events: history.len(),
    })
}

/// The share of shuffles with a false trip in 5,000 events that counts as quiet: the delivery document's target.
const QUIET: f64 = 0.10;

/// The setting that a history supports: the policy's own if chance rarely trips it, SEQUENTIAL if that is quiet, and
/// otherwise SEQUENTIAL with the smallest drop that can be told from chance.
#[must_use]
pub fn recommend(
    policy: &RegressionPolicy,
    profile: &Profile,
    chance: ChanceTrips,
    sequential: Option<ChanceTrips>,
) -> Recommended {
    #[expect(clippy::cast_precision_loss, reason = "millionths of one")]
    let drop = policy.max_drop_fraction.units() as f64 / 1e6;
    let own = policy.baseline_events.get();
    if chance.trips_per_5000 < QUIET {
        let because = format!("chance trips it {:.2} times in 5,000 events", chance.trips_per_5000);
        return Recommended { detector: policy.detector, baseline_events: own, max_drop_fraction: drop, because };
    }
    let longer = own.max(i64::try_from(profile.events / 2).unwrap_or(own).min(1_000));
    if let Some(quiet) = sequential.filter(|chance| chance.trips_per_5000 < QUIET) {
        let because = format!(
            "chance trips the draft {:.2} times in 5,000 events, and SEQUENTIAL {:.2} times; a longer baseline finds a drop sooner",
            chance.trips_per_5000, quiet.trips_per_5000
        );
        let detector = Detector::Sequential;
        return Recommended { detector, baseline_events: longer, max_drop_fraction: drop, because };
    }
    let resolvable = profile.min_resolvable_drop(policy).unwrap_or(drop).clamp(drop, 1.0);
    let because = format!(
        "chance trips the draft {:.2} times in 5,000 events: a drop below {resolvable:.2} cannot be told from chance here",
        chance.trips_per_5000
    );
    Recommended { detector: Detector::Sequential, baseline_events: longer, max_drop_fraction: resolvable, because }
}
