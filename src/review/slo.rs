//! The delivery document's success metrics, measured.

use super::store;
use crate::error::Result;
use crate::go_live::model::Stretch;
use crate::types::Ratio;
use chrono::{DateTime, Duration, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Time to remediate that is still good, seconds.
const REMEDIATE_SECONDS_MAX: i64 = 2 * 60 * 60;

/// One success metric over the period.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Objective {
    /// Its name.
    pub name: &'static str,
    /// What it should be.
    pub target: &'static str,
    /// What it was: a share from 0 to 1, or seconds; null when there was nothing to measure.
    pub value: Option<Ratio>,
    /// Whether the target was met; null when there was nothing to measure.
    pub met: Option<bool>,
    /// What it was measured from.
    pub detail: String,
}

/// The success metrics.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Slo {
    /// Share of the period in which go-live was on and the kill switch not out, from the first enable on.
    pub go_live_uptime: Objective,
    /// Denied reserves among all.
    pub denial_rate: Objective,
    /// False alarms among acknowledged trips.
    pub false_alarm_share: Objective,
    /// Mean seconds from a trip to its re-arm.
    pub time_to_remediate: Objective,
    /// Successful sandbox trials among all.
    pub sandbox_success_rate: Objective,
}

impl Slo {
    /// All of them, in order.
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

/// The time live and the time counted, from the first stretch on.
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

/// A duration as people say it, to the second where that matters.
fn span(duration: Duration) -> String {
    let seconds = duration.num_seconds();
    match seconds {
        0..=119 => format!("{}.{:03} s", seconds, duration.subsec_millis()),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

pub(super) async fn collect(conn: &mut PgConnection, since: DateTime<Utc>, now: DateTime<Utc>) -> Result<Slo> {
    let stretches = crate::go_live::store::stretches(&mut *conn, since).await?;
    let (live, counted) = uptime(&stretches, since, now);
    let share = |part: i64, whole: i64| Ratio::of(part.into(), whole.into());
    let up = share(live.num_milliseconds(), counted.num_milliseconds());
    let (reserved, denied) = store::decisions_since(&mut *conn, since).await?;
    let trips = crate::regression::store::trips(&mut *conn, None, None, Some(since), None, 1_000).await?;
    let (trials, successes) = crate::heimdall::store::trials_since(conn, since.date_naive()).await?;

    // What was done in SHADOW mode troubled nobody.
    let trips: Vec<_> = trips.into_iter().filter(|trip| !trip.shadow).collect();
    let judged: Vec<_> = trips.iter().filter_map(|trip| trip.verdict.as_deref()).collect();
    let count = |verdicts: usize| i64::try_from(verdicts).unwrap_or(i64::MAX);
    let false_alarms = count(judged.iter().filter(|verdict| **verdict == "FALSE_ALARM").count());
    let false_share = share(false_alarms, count(judged.len()));
    let remediated: Vec<i64> =
        trips.iter().filter_map(|trip| trip.rearmed_at.map(|end| (end - trip.tripped_at).num_seconds())).collect();
    let overdue = trips
        .iter()
        .filter(|trip| trip.rearmed_at.is_none() && (now - trip.tripped_at).num_seconds() >= REMEDIATE_SECONDS_MAX)
        .count();
    let mean_seconds = share(remediated.iter().sum(), i64::try_from(remediated.len()).unwrap_or(i64::MAX));
    let remediated_in_time = mean_seconds.map(|mean| mean.units() < i128::from(REMEDIATE_SECONDS_MAX) * RATIO_ONE);
    Ok(Slo {
        go_live_uptime: Objective {
            name: "Go-live uptime",
            target: ">= 99.9 %",
            value: up,
            met: up.map(|up| up.units() * 1_000 >= 999 * RATIO_ONE),
            detail: if stretches.is_empty() {
                "go-live was never enabled".into()
            } else {
                format!("up {}, down {}", span(live), span(counted - live))
            },
        },
        denial_rate: Objective {
            name: "Denial rate",
            target: "< 5 %",
            value: share(denied, reserved + denied),
            met: share(denied, reserved + denied).map(|rate| rate.units() * 100 < 5 * RATIO_ONE),
            detail: format!("{denied} of {} reserves denied", reserved + denied),
        },
        false_alarm_share: Objective {
            name: "False alarms",
            target: "< 10 %",
            value: false_share,
            met: false_share.map(|share| share.units() * 100 < 10 * RATIO_ONE),
            detail: if judged.is_empty() {
                "no trip was acknowledged with a verdict".into()
            } else {
                format!("{false_alarms} of {} acknowledged trips, of {} in all", judged.len(), trips.len())
            },
        },
        time_to_remediate: Objective {
            name: "Time to remediate",
            target: "< 2 h",
            value: mean_seconds,
            met: if overdue > 0 { Some(false) } else { remediated_in_time },
            detail: format!("{} trips re-armed, {overdue} standing for 2 h or longer", remediated.len()),
        },
        sandbox_success_rate: Objective {
            name: "Sandbox success rate",
            target: "> 80 %",
            value: share(successes, trials),
            met: share(successes, trials).map(|rate| rate.units() * 100 > 80 * RATIO_ONE),
            detail: format!("{successes} of {trials} trials succeeded"),
        },
    })
}

/// 1 as a [`Ratio`] counts it.
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
