//! The backtest of a wire: its history replayed, event by event, through the very code that decides live.
//!
//! A replay begins with the first event of its range as if the wire had been set up before it, and arms the wire again right after
//! each trip, keeping the baseline, so that every trip that it would have made is seen. A live wire that is re-armed right after
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

/// Trips that a report lists.
const TRIPS_MAX: usize = 1_000;
/// Events of a history that are shuffled: its last ones.
pub const SHUFFLED_MAX: usize = 20_000;
/// Events over which false trips are counted in the tables of docs/TRIPWIRE.md.
const TABLE_EVENTS: usize = 5_000;

/// A trip that the wire would have made.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ReplayedTrip {
    /// Its event, counted in the series.
    pub series_seq: i64,
    /// When that was recorded.
    pub at: DateTime<Utc>,
    /// Events in the baseline.
    pub baseline_events: i64,
    /// Their sum.
    pub baseline_sum: Total,
    /// Events in the recent window.
    pub current_events: i64,
    /// Their sum.
    pub current_sum: Total,
    /// The drop.
    pub drop_fraction: Option<Ratio>,
    /// SEQUENTIAL: the evidence.
    pub evidence: Option<f64>,
    /// SEQUENTIAL: the event of the series with which the change would have begun.
    pub began_at_event: Option<i64>,
}

/// How often the wire would trip by chance: the same events, shuffled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct ChanceTrips {
    /// Shuffles that were made.
    pub shuffles: u32,
    /// The share of them in which the wire tripped.
    pub tripped_share: f64,
    /// Trips in 5,000 events, on average.
    pub trips_per_5000: f64,
    /// How many events were shuffled: the last of the history.
    pub events: usize,
}

/// A setting that the history speaks for.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Recommended {
    /// The detector.
    pub detector: Detector,
    /// Events in the baseline.
    pub baseline_events: i64,
    /// The drop that trips.
    pub max_drop_fraction: f64,
    /// The reason, in the caller's words.
    pub because: String,
}

/// The last sums of a series, as many as two windows reach back.
#[derive(Debug)]
struct Tail {
    sums: VecDeque<Total>,
    /// The place of the first.
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
    /// Events of the series before the range.
    before: i64,
    trips: u64,
    listed: Vec<ReplayedTrip>,
}

impl Replay {
    /// A wire of this policy before the first event of a range, behind `before` events of its series.
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

    /// Meets the next event; `at` is asked for where it trips.
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

    /// Events that were met.
    #[must_use]
    pub const fn events(&self) -> i64 {
        self.end.events
    }

    /// How often the wire tripped, and the first 1,000 of the trips.
    #[must_use]
    pub fn trips(self) -> (u64, Vec<ReplayedTrip>) {
        (self.trips, self.listed)
    }
}

/// How often a wire of this policy trips by chance on these events. Means nothing where it was not wanted to its end.
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
            // Sums of part of a series fit where those of all of it did.
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

/// A share of false trips in 5,000 events that is still quiet: the delivery document's target.
const QUIET: f64 = 0.10;

/// The setting that a history speaks for: the policy's own where chance leaves it alone, SEQUENTIAL where that is quiet, and otherwise
/// SEQUENTIAL with the smallest drop that can be told from chance.
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
