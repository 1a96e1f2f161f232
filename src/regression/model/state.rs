//! Where a wire stands, as answers show it and the database keeps it.

use super::{Action, Detector, RegressionPolicy, Window};
use crate::regression::detector::{Evidence, evidence_pct};
use crate::types::{Domain, Metric, Ratio, Total};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The verdict of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Too few events in a window.
    InsufficientEvents {
        /// In the recent one.
        recent: i64,
        /// In the baseline.
        baseline: i64,
    },
    /// The frozen baseline does not have all its events yet.
    Collecting {
        /// So many it has.
        have: i64,
        /// So many it needs.
        need: i64,
    },
    /// There is no drop to speak of: a relative one needs a positive baseline.
    CannotCompute,
    /// It is not bad enough, or there is not enough evidence.
    Holds,
    /// It is.
    Trips,
}

/// The note of [`Verdict::CannotCompute`], in the original's words.
const CANNOT_COMPUTE: &str = "cannot_compute_rate";

impl Verdict {
    /// The note, in the original's words.
    #[must_use]
    pub fn note(self, drop: Option<Ratio>, evidence: Option<f64>, action: Action) -> String {
        match (self, evidence) {
            (Self::InsufficientEvents { recent, baseline }, _) => {
                format!("insufficient_events(recent={recent}, baseline={baseline})")
            }
            (Self::Collecting { have, need }, _) => format!("baseline_collecting(have={have}, need={need})"),
            (Self::CannotCompute, _) => CANNOT_COMPUTE.into(),
            (Self::Holds, None) => format!("OK drop={}", drop.unwrap_or_default().short()),
            (Self::Holds, Some(evidence)) => {
                format!("OK drop={} evidence={evidence:.1}", drop.unwrap_or_default().short())
            }
            (Self::Trips, _) => trip_note(drop.unwrap_or_default(), action),
        }
    }

    /// Whether there are too few events to judge.
    #[must_use]
    pub const fn is_early(self) -> bool {
        matches!(self, Self::InsufficientEvents { .. } | Self::Collecting { .. })
    }
}

/// The note of a trip, in the original's words.
#[must_use]
pub fn trip_note(drop: Ratio, action: Action) -> String {
    format!("TRIGGERED drop={} action={}", drop.short(), action.as_str())
}

/// Where a wire stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WireStatus {
    /// Not watched, and not tripped.
    Disabled,
    /// Watched, with too few events to judge.
    Warmup,
    /// Watched.
    Armed,
    /// Tripped, until it is re-armed.
    Tripped,
    /// Tripped, and somebody has said what it was.
    Acknowledged,
    /// Would have tripped, in SHADOW mode: nothing was done. It stands until it is re-armed.
    ShadowTripped,
}

/// The effect on a wire's baseline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Rebase {
    /// It stays.
    #[default]
    Keep,
    /// The last `baseline_events` events become it.
    ResetLastN,
    /// The next ones do; until they are there, nothing is judged.
    ResetNextN,
}

impl Rebase {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "KEEP",
            Self::ResetLastN => "RESET_LAST_N",
            Self::ResetNextN => "RESET_NEXT_N",
        }
    }
}

/// The verdict on a trip, by a person who looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TripVerdict {
    /// Performance had dropped.
    TrueRegression,
    /// Nothing was wrong.
    FalseAlarm,
    /// It had changed, and was meant to.
    ExpectedChange,
}

impl TripVerdict {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrueRegression => "TRUE_REGRESSION",
            Self::FalseAlarm => "FALSE_ALARM",
            Self::ExpectedChange => "EXPECTED_CHANGE",
        }
    }
}

/// What SEQUENTIAL guarantees of a series that is no worse than its baseline's lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Guarantee {
    /// Events to a false trip, on average, at least.
    pub arl_events: i64,
    /// The probability of a false trip within 5,000 events, at most.
    pub max_false_trip_per_5000: f64,
}

/// A frozen baseline: `events` events of the series behind `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrozenSpan {
    /// The place behind which it begins.
    pub after: i64,
    /// How many events it has once all are there.
    pub events: i64,
    /// Their sum; none while some are missing.
    pub sum: Option<Total>,
}

impl FrozenSpan {
    /// The last `wanted` events of a series of `last`, none of those up to `floor`; the next ones where there are fewer.
    #[must_use]
    pub fn last(wanted: i64, last: i64, floor: i64) -> Self {
        Self { after: (last - wanted).max(floor), events: wanted, sum: None }
    }

    /// The place of its last event.
    #[must_use]
    pub const fn end(&self) -> i64 {
        self.after + self.events
    }
}

/// The state of a wire, as answers show it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WireState {
    /// The domain.
    pub domain: Domain,
    /// The metric.
    pub metric: Metric,
    /// Whether it tripped and was not re-armed since.
    pub triggered: bool,
    /// Where it stands.
    pub status: WireStatus,
    /// The baseline's mean at the last check.
    pub baseline: Option<Ratio>,
    /// The recent mean at the last check.
    pub current: Option<Ratio>,
    /// The drop at the last check: a fraction of the baseline, or in the metric's own units where the effect is ABSOLUTE.
    pub drop_fraction: Option<Ratio>,
    /// Events in the baseline.
    pub baseline_events: i64,
    /// Events in the recent window; of SEQUENTIAL, since the estimated start of the change.
    pub current_events: i64,
    /// SEQUENTIAL: the evidence that the series is worse than its baseline; 1 is none.
    pub evidence: Option<f64>,
    /// How far that is on its way to a trip, in percent of the logarithm.
    pub evidence_pct: Option<f64>,
    /// SEQUENTIAL: the event of the series with which a change would have begun.
    pub began_at_event: Option<i64>,
    /// SEQUENTIAL: what is guaranteed of false trips.
    pub guarantee: Option<Guarantee>,
    /// When it was last checked; null before the first time.
    pub last_checked_at: Option<DateTime<Utc>>,
    /// When it last tripped.
    pub last_triggered_at: Option<DateTime<Utc>>,
    /// The verdict in words; while it is tripped, that of the trip.
    pub note: String,
    /// The standing trip.
    pub trip_id: Option<i64>,
    /// Events of the series up to the last re-arm; they never count again.
    pub watermark: i64,
    /// Counts the baselines that were frozen or reset; 0 before the first.
    pub baseline_version: i64,
    /// Whether somebody said what the standing trip was.
    #[serde(skip)]
    pub acknowledged: bool,
    /// A baseline that stands in until enough new events exist.
    #[serde(skip)]
    pub pinned: Option<Window>,
    /// The frozen baseline.
    #[serde(skip)]
    pub frozen: Option<FrozenSpan>,
    /// The place of the series behind which evidence began.
    #[serde(skip)]
    pub evidence_after: i64,
    /// The evidence since then.
    #[serde(skip)]
    pub bets: Evidence,
}

impl WireState {
    /// A wire that was never checked.
    #[must_use]
    pub fn new(domain: Domain, metric: Metric) -> Self {
        Self {
            domain,
            metric,
            triggered: false,
            status: WireStatus::Disabled,
            baseline: None,
            current: None,
            drop_fraction: None,
            baseline_events: 0,
            current_events: 0,
            evidence: None,
            evidence_pct: None,
            began_at_event: None,
            guarantee: None,
            last_checked_at: None,
            last_triggered_at: None,
            note: "policy_missing_or_disabled".into(),
            trip_id: None,
            watermark: 0,
            baseline_version: 0,
            acknowledged: false,
            pinned: None,
            frozen: None,
            evidence_after: 0,
            bets: Evidence::default(),
        }
    }

    /// Whether its last check found that there is no drop to speak of, whatever happens: it judges nothing.
    #[must_use]
    pub fn cannot_compute(&self) -> bool {
        self.note == CANNOT_COMPUTE
    }

    /// Whether a trip stands that was made in SHADOW mode.
    #[must_use]
    pub const fn is_shadow_tripped(&self) -> bool {
        self.trip_id.is_some() && !self.triggered
    }

    /// Takes over what follows from the policy: the status, and what is shown of SEQUENTIAL.
    pub fn show(&mut self, policy: Option<&RegressionPolicy>, is_early: bool) {
        let enabled = policy.is_some_and(|policy| policy.enabled);
        self.status = match (self.trip_id, self.triggered, self.acknowledged) {
            (Some(_), true, false) => WireStatus::Tripped,
            (Some(_), _, true) => WireStatus::Acknowledged,
            (Some(_), false, false) => WireStatus::ShadowTripped,
            (None, ..) if !enabled => WireStatus::Disabled,
            (None, ..) if is_early => WireStatus::Warmup,
            (None, ..) => WireStatus::Armed,
        };
        let sequential = policy.filter(|policy| policy.detector == Detector::Sequential);
        let judged = sequential.filter(|_| self.frozen.is_some_and(|frozen| frozen.sum.is_some()));
        let arl = |policy: &RegressionPolicy| policy.arl();
        let evidence = self.bets.mean();
        #[expect(clippy::cast_precision_loss, reason = "at most 10^12")]
        let real = |events: i64| events as f64;
        self.evidence = judged.map(|_| evidence);
        self.evidence_pct = judged.map(|policy| evidence_pct(evidence, real(arl(policy))));
        self.began_at_event = judged.filter(|_| evidence > 1.0).map(|_| self.began());
        self.guarantee = sequential.map(|policy| Guarantee {
            arl_events: arl(policy),
            max_false_trip_per_5000: (5_000.0 / real(arl(policy))).min(1.0),
        });
    }

    /// The event with which a change would have begun.
    #[must_use]
    pub fn began(&self) -> i64 {
        self.evidence_after + self.bets.began[self.bets.leading()].events + 1
    }

    /// Lets nothing up to here count again, and keeps the baseline of the trip: of PLAIN, until a whole window and baseline lie behind.
    pub fn rearm(&mut self, policy: &RegressionPolicy, baseline: Window, last: i64) {
        self.watermark = last;
        self.forget_evidence(last);
        if policy.detector == Detector::Plain && baseline.events > 0 {
            self.pinned = Some(baseline);
        }
    }

    /// Begins anew behind a place of the series, with no baseline at all: events before it are not to be compared with.
    pub fn begin_anew(&mut self, after: i64) {
        self.watermark = after;
        self.forget_evidence(after);
        (self.pinned, self.frozen) = (None, None);
        (self.baseline, self.current, self.drop_fraction) = (None, None, None);
        (self.baseline_events, self.current_events) = (0, 0);
    }

    /// Begins to gather evidence anew, behind a place of the series.
    pub fn forget_evidence(&mut self, after: i64) {
        (self.evidence_after, self.bets) = (after, Evidence::default());
    }
}
