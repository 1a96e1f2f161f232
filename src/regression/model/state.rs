//! The state of a wire, as answers show it and the database stores it.

use super::{Action, Detector, RegressionPolicy, Window};
use crate::regression::detector::{Evidence, evidence_pct};
use crate::types::{Domain, Metric, Ratio, Total};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The verdict of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// A window has too few events.
    InsufficientEvents {
        /// The number of events in the recent window.
        recent: i64,
        /// The number of events in the baseline.
        baseline: i64,
    },
    /// The frozen baseline is not complete yet.
    Collecting {
        /// The number of events that it has.
        have: i64,
        /// The number of events that it needs.
        need: i64,
    },
    /// No drop can be computed: a relative drop needs a positive baseline.
    CannotCompute,
    /// The drop is too small, or there is not enough evidence.
    Holds,
    /// The wire trips.
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

/// The status of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WireStatus {
    /// The wire is off, and not tripped.
    Disabled,
    /// The wire is on, with too few events to judge.
    Warmup,
    /// The wire is on and judges.
    Armed,
    /// The wire has tripped and is not re-armed.
    Tripped,
    /// The wire has tripped, and a person has given a verdict.
    Acknowledged,
    /// The wire would have tripped, in SHADOW mode, so nothing was done. This stays until it is re-armed.
    ShadowTripped,
}

/// The effect on a wire's baseline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Rebase {
    /// The baseline stays.
    #[default]
    Keep,
    /// The last `baseline_events` events become the baseline.
    ResetLastN,
    /// The next `baseline_events` events become the baseline; until they have arrived, nothing is judged.
    ResetNextN,
}

impl Rebase {
    /// The name of the effect in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "KEEP",
            Self::ResetLastN => "RESET_LAST_N",
            Self::ResetNextN => "RESET_NEXT_N",
        }
    }
}

/// The verdict of a person on a trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TripVerdict {
    /// Performance had dropped.
    TrueRegression,
    /// Nothing had changed.
    FalseAlarm,
    /// Performance had changed as intended.
    ExpectedChange,
}

impl TripVerdict {
    /// The verdict's name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrueRegression => "TRUE_REGRESSION",
            Self::FalseAlarm => "FALSE_ALARM",
            Self::ExpectedChange => "EXPECTED_CHANGE",
        }
    }
}

/// The guarantee of SEQUENTIAL for a series that is no worse than its baseline's lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Guarantee {
    /// The least mean number of events to a false trip.
    pub arl_events: i64,
    /// The largest probability of a false trip within 5,000 events.
    pub max_false_trip_per_5000: f64,
}

/// A frozen baseline: `events` events of the series after the place `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrozenSpan {
    /// The place after which it begins.
    pub after: i64,
    /// The number of its events once all have arrived.
    pub events: i64,
    /// The sum of its events; none while some are missing.
    pub sum: Option<Total>,
}

impl FrozenSpan {
    /// The last `wanted` events of a series of `last`, none of them up to `floor`. If there are fewer, the next events
    /// complete it.
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
    /// Whether it has tripped and was not re-armed since.
    pub triggered: bool,
    /// The status of the wire.
    pub status: WireStatus,
    /// The mean of the baseline at the last check; null if it has none.
    pub baseline: Option<Ratio>,
    /// The recent mean at the last check; null if it has none.
    pub current: Option<Ratio>,
    /// The drop at the last check: a fraction of the baseline, or in the metric's own units if the effect is ABSOLUTE.
    pub drop_fraction: Option<Ratio>,
    /// The number of events in the baseline.
    pub baseline_events: i64,
    /// The number of events in the recent window; for SEQUENTIAL, since the estimated start of the change.
    pub current_events: i64,
    /// SEQUENTIAL: the evidence that the series is worse than its baseline; 1 means no evidence.
    pub evidence: Option<f64>,
    /// The progress of the evidence towards a trip, in percent of the logarithm.
    pub evidence_pct: Option<f64>,
    /// SEQUENTIAL: the event of the series at which a change is estimated to have begun.
    pub began_at_event: Option<i64>,
    /// SEQUENTIAL: the guarantee against false trips.
    pub guarantee: Option<Guarantee>,
    /// The time of the last check; null before the first.
    pub last_checked_at: Option<DateTime<Utc>>,
    /// The time of the last trip; null before the first.
    pub last_triggered_at: Option<DateTime<Utc>>,
    /// The verdict as a text; while the wire is tripped, that of the trip.
    pub note: String,
    /// The id of the standing trip; null if none stands.
    pub trip_id: Option<i64>,
    /// The number of events of the series up to the last re-arm, which never count again.
    pub watermark: i64,
    /// The number of baselines that were frozen or reset; 0 before the first.
    pub baseline_version: i64,
    /// Whether a person has given a verdict on the standing trip.
    #[serde(skip)]
    pub acknowledged: bool,
    /// A baseline that is used until enough new events exist.
    #[serde(skip)]
    pub pinned: Option<Window>,
    /// The frozen baseline; none for PLAIN.
    #[serde(skip)]
    pub frozen: Option<FrozenSpan>,
    /// The place of the series after which evidence began.
    #[serde(skip)]
    pub evidence_after: i64,
    /// The evidence of the bets since then.
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

    /// Whether its last check could not compute a drop, so that the wire judges nothing.
    #[must_use]
    pub fn cannot_compute(&self) -> bool {
        self.note == CANNOT_COMPUTE
    }

    /// Whether a trip in SHADOW mode stands.
    #[must_use]
    pub const fn is_shadow_tripped(&self) -> bool {
        self.trip_id.is_some() && !self.triggered
    }

    /// Sets the parts that follow from the policy: the status, and the shown values of SEQUENTIAL.
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

    /// The event at which a change is estimated to have begun.
    #[must_use]
    pub fn began(&self) -> i64 {
        self.evidence_after + self.bets.began[self.bets.leading()].events + 1
    }

    /// Excludes all events up to here, and keeps the baseline of the trip; for PLAIN, until a whole window and baseline
    /// have followed.
    pub fn rearm(&mut self, policy: &RegressionPolicy, baseline: Window, last: i64) {
        self.watermark = last;
        self.forget_evidence(last);
        if policy.detector == Detector::Plain && baseline.events > 0 {
            self.pinned = Some(baseline);
        }
    }

    /// Starts again after a place of the series, without any baseline: events before it are not comparable.
    pub fn begin_anew(&mut self, after: i64) {
        self.watermark = after;
        self.forget_evidence(after);
        (self.pinned, self.frozen) = (None, None);
        (self.baseline, self.current, self.drop_fraction) = (None, None, None);
        (self.baseline_events, self.current_events) = (0, 0);
    }

    /// Restarts the evidence after a place of the series.
    pub fn forget_evidence(&mut self, after: i64) {
        (self.evidence_after, self.bets) = (after, Evidence::default());
    }
}
