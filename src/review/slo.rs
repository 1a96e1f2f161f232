//! The delivery document's success metrics, measured over the period.

use super::week::Counts;
use crate::error::Result;
use crate::go_live::model::Stretch;
use crate::regression::model::TripVerdict;
use crate::types::{Portion, Ratio};
use chrono::{DateTime, Duration, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// The largest time to remediate that meets the target, seconds.
const REMEDIATE_SECONDS_MAX: i64 = 2 * 60 * 60;

/// The least time before an uptime is judged, seconds.
const UPTIME_SECONDS_MIN: i64 = 60 * 60;
/// The least number of reserves before a rate of denials is judged: of fewer, one denial exceeds the target.
const RESERVES_MIN: i64 = 20;
/// The least number of acknowledged trips before their share of false alarms is judged.
const TRIPS_MIN: i64 = 10;
/// The least number of trials before their success rate is judged.
const TRIALS_MIN: i64 = 20;

/// The unit of a number, for the review's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A share of a whole, or a count.
    None,
    /// Seconds.
    Seconds,
}

/// One success metric over the period.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Objective {
    /// The metric's name.
    pub name: &'static str,
    /// The target, as a text.
    pub target: &'static str,
    /// The measured value: a share from 0 to 1, or seconds; null if there was nothing to measure.
    pub value: Option<Ratio>,
    /// The value of the week before; null for the metrics that no day's row counts, and without anything to measure.
    pub value_week_before: Option<Ratio>,
    /// Whether the target was met; null if there was nothing to measure, or too little to decide.
    pub met: Option<bool>,
    /// The size of the sample: reserves, trips or trials; for the uptime, seconds.
    pub sample: i64,
    /// The least sample from which `met` is decided.
    pub sample_min: i64,
    /// The numbers behind the value, as a text.
    pub detail: String,
    /// The unit of the value.
    #[serde(skip)]
    pub value_unit: Unit,
    /// The unit of the sample.
    #[serde(skip)]
    pub sample_unit: Unit,
}

impl Objective {
    fn new(name: &'static str, target: &'static str, (sample, sample_min): (i64, i64), detail: String) -> Self {
        let (value_unit, sample_unit) = (Unit::None, Unit::None);
        Self {
            name,
            target,
            value: None,
            value_week_before: None,
            met: None,
            sample,
            sample_min,
            detail,
            value_unit,
            sample_unit,
        }
    }

    /// Adds the measured value, and decides whether it meets the target.
    fn judged(self, value: Option<Ratio>, meets: impl FnOnce(Ratio) -> bool) -> Self {
        let met = value.filter(|_| self.sample >= self.sample_min).map(meets);
        Self { value, met, ..self }
    }

    /// Adds the value of the week before.
    fn after(self, value_week_before: Option<Ratio>) -> Self {
        Self { value_week_before, ..self }
    }

    /// Whether there is a sample, but one that is too small to decide whether the target was met.
    #[must_use]
    pub const fn is_too_small(&self) -> bool {
        self.sample > 0 && self.sample < self.sample_min
    }
}

/// The success metrics.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Slo {
    /// The share of the period in which go-live was on and the kill switch released, from the first enable on.
    pub go_live_uptime: Objective,
    /// The share of denied reserves.
    pub denial_rate: Objective,
    /// The share of false alarms among acknowledged trips.
    pub false_alarm_share: Objective,
    /// The mean seconds from a trip to its re-arm.
    pub time_to_remediate: Objective,
    /// The share of successful sandbox trials.
    pub sandbox_success_rate: Objective,
}

impl Slo {
    /// All metrics, in order.
    #[must_use]
    pub fn all(&self) -> [&Objective; 5] {
        [
            &self.go_live_uptime,
            &self.denial_rate,
            &self.false_alarm_share,
            &self.time_to_remediate,
            &self.sandbox_success_rate,
        ]
    }
}

/// The live time and the counted time, from the first period on.
#[must_use]
fn uptime(stretches: &[Stretch], since: DateTime<Utc>, now: DateTime<Utc>) -> (Duration, Duration) {
    let (mut live, mut counted) = (Duration::zero(), Duration::zero());
    let ends = stretches.iter().skip(1).map(|next| next.from).chain([now]);
    for (stretch, end) in stretches.iter().zip(ends) {
        let length = (end.max(since) - stretch.from.max(since)).max(Duration::zero());
        counted += length;
        if stretch.live {
            live += length;
        }
    }
    (live, counted)
}

/// A duration as a text for people, to the second if that matters.
fn span(duration: Duration) -> String {
    let seconds = duration.num_seconds();
    match seconds {
        0..=119 => format!("{}.{:03} s", seconds, duration.subsec_millis()),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

pub(super) async fn collect(
    conn: &mut PgConnection,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
    before: Counts,
) -> Result<Slo> {
    let stretches = crate::go_live::store::stretches(&mut *conn, since).await?;
    let (live, counted) = uptime(&stretches, since, now);
    let share = |part: i64, whole: i64| Ratio::of(part.into(), whole.into());
    let up = share(live.num_milliseconds(), counted.num_milliseconds());
    let (reserved, denied) = crate::risk::store::decisions_since(&mut *conn, since.date_naive()).await?;
    let trips = crate::regression::store::trips(&mut *conn, None, None, Some(since), Portion::last(1_000)).await?;
    let (trials, successes) = crate::heimdall::store::trials_since(conn, since.date_naive()).await?;

    // Trips in SHADOW mode acted on nothing, so they are left out.
    let trips: Vec<_> = trips.into_iter().filter(|trip| !trip.shadow).collect();
    let judged: Vec<_> = trips.iter().filter_map(|trip| trip.verdict.as_deref()).collect();
    let count = |verdicts: usize| i64::try_from(verdicts).unwrap_or(i64::MAX);
    let false_alarms = count(judged.iter().filter(|verdict| **verdict == TripVerdict::FalseAlarm.as_str()).count());
    let false_share = share(false_alarms, count(judged.len()));
    let remediated: Vec<i64> =
        trips.iter().filter_map(|trip| trip.rearmed_at.map(|end| (end - trip.tripped_at).num_seconds())).collect();
    let overdue = trips
        .iter()
        .filter(|trip| trip.rearmed_at.is_none() && (now - trip.tripped_at).num_seconds() >= REMEDIATE_SECONDS_MAX)
        .count();
    let mean_seconds = share(remediated.iter().sum(), i64::try_from(remediated.len()).unwrap_or(i64::MAX));
    let uptime_detail = if stretches.is_empty() {
        "go-live was never enabled".into()
    } else {
        format!("up {}, down {}", span(live), span(counted - live))
    };
    let reserves = reserved + denied;
    let alarms_detail = if judged.is_empty() {
        "no trip was acknowledged with a verdict".into()
    } else {
        format!("{false_alarms} of {} acknowledged trips, of {} in all", judged.len(), trips.len())
    };
    let rearmed = count(remediated.len());
    let remediate_detail = format!("{rearmed} trips re-armed, {overdue} standing for 2 h or longer");
    let mut time_to_remediate = Objective::new("Time to remediate", "< 2 h", (rearmed, 1), remediate_detail)
        .judged(mean_seconds, |mean| mean.units() < i128::from(REMEDIATE_SECONDS_MAX) * RATIO_ONE);
    time_to_remediate.value_unit = Unit::Seconds;
    if overdue > 0 {
        time_to_remediate.met = Some(false);
    }
    let mut go_live_uptime =
        Objective::new("Go-live uptime", ">= 99.9 %", (counted.num_seconds(), UPTIME_SECONDS_MIN), uptime_detail)
            .judged(up, |up| up.units() * 1_000 >= 999 * RATIO_ONE);
    go_live_uptime.sample_unit = Unit::Seconds;
    Ok(Slo {
        go_live_uptime,
        denial_rate: Objective::new(
            "Denial rate",
            "< 5 %",
            (reserves, RESERVES_MIN),
            format!("{denied} of {reserves} reserves denied"),
        )
        .judged(share(denied, reserves), |rate| rate.units() * 100 < 5 * RATIO_ONE)
        .after(share(before.denied, before.reserved + before.denied)),
        false_alarm_share: Objective::new("False alarms", "< 10 %", (count(judged.len()), TRIPS_MIN), alarms_detail)
            .judged(false_share, |share| share.units() * 100 < 10 * RATIO_ONE),
        time_to_remediate,
        sandbox_success_rate: Objective::new(
            "Sandbox success rate",
            "> 80 %",
            (trials, TRIALS_MIN),
            format!("{successes} of {trials} trials succeeded"),
        )
        .judged(share(successes, trials), |rate| rate.units() * 100 > 80 * RATIO_ONE)
        .after(share(before.successes, before.trials)),
    })
}

/// The value 1 in the units of a [`Ratio`].
pub(super) const RATIO_ONE: i128 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_counts_from_the_first_stretch_and_clips_at_the_period() {
        let at = |minute: i64| DateTime::from_timestamp(minute * 60, 0).unwrap();
        let stretch = |minute, live| Stretch { from: at(minute), live };
        let minutes = |stretches: &[Stretch]| {
            let (live, counted) = uptime(stretches, at(100), at(200));
            (live.num_minutes(), counted.num_minutes())
        };
        assert_eq!(minutes(&[]), (0, 0));
        assert_eq!(minutes(&[stretch(0, true)]), (100, 100));
        assert_eq!(minutes(&[stretch(150, true)]), (50, 50));
        assert_eq!(
            minutes(&[stretch(0, true), stretch(50, false), stretch(120, true), stretch(190, false)]),
            (70, 100)
        );
    }
}
