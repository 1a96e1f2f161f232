//! The duration of a series' silence. Only time in which something could be measured counts.

use crate::go_live::model::Stretch;
use chrono::{DateTime, TimeDelta, Utc};

/// A span of time, which may have no end yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between {
    /// The beginning of the span.
    pub from: DateTime<Utc>,
    /// The end of the span; none while it lasts.
    pub until: Option<DateTime<Utc>>,
}

/// The time from `since` that lies in none of these spans, which may overlap.
#[must_use]
pub fn outside(spans: &[Between], since: DateTime<Utc>, now: DateTime<Utc>) -> TimeDelta {
    let mut spans: Vec<_> =
        spans.iter().map(|span| (span.from.max(since), span.until.unwrap_or(now).min(now))).collect();
    spans.sort_unstable();
    let (mut counted, mut covered) = (TimeDelta::zero(), since);
    for (from, until) in spans {
        counted += (from - covered).max(TimeDelta::zero());
        covered = covered.max(until);
    }
    counted + (now - covered).max(TimeDelta::zero())
}

/// The spans in which the switches blocked production, by their periods since before the time in question. Before the
/// first period, which begins with the first enable, everything was blocked.
#[must_use]
pub fn switched_off(stretches: &[Stretch]) -> Vec<Between> {
    let first = stretches.first().map(|first| first.from);
    let mut spans = vec![Between { from: DateTime::<Utc>::MIN_UTC, until: first }];
    let ends = stretches.iter().skip(1).map(|next| Some(next.from)).chain([None]);
    let off = stretches.iter().zip(ends).filter(|(stretch, _)| !stretch.live);
    spans.extend(off.map(|(stretch, until)| Between { from: stretch.from, until }));
    spans
}

/// A change of an engine's policy, as far as it shows whether the engine could act.
#[derive(Debug, Clone)]
pub struct EngineMove {
    /// The time of the change.
    pub at: DateTime<Utc>,
    /// Whether the engine was enabled before; none if the change did not move that.
    pub was_enabled: Option<bool>,
    /// The trips whose throttles the change lifted.
    pub lifted: Vec<i64>,
}

/// A trip that throttled an engine.
#[derive(Debug, Clone, Copy)]
pub struct Throttle {
    /// The id of the trip.
    pub trip_id: i64,
    /// The time of the trip.
    pub from: DateTime<Utc>,
    /// The time of the re-arm; none while the trip stands.
    pub rearmed_at: Option<DateTime<Utc>>,
}

/// The spans in which an engine was off, disabled or throttled, from its current setting and its changes, oldest first.
#[must_use]
pub fn engine_off(enabled_now: bool, moves: &[EngineMove], throttles: &[Throttle]) -> Vec<Between> {
    let mut spans = Vec::new();
    let mut until = None;
    let mut enabled = enabled_now;
    for change in moves.iter().rev() {
        let Some(before) = change.was_enabled else { continue };
        if !enabled {
            spans.push(Between { from: change.at, until });
        }
        (enabled, until) = (before, Some(change.at));
    }
    if !enabled {
        spans.push(Between { from: DateTime::<Utc>::MIN_UTC, until });
    }
    spans.extend(throttles.iter().map(|throttle| {
        let lifted = moves.iter().find(|change| change.lifted.contains(&throttle.trip_id)).map(|change| change.at);
        let ends = [lifted, throttle.rearmed_at];
        Between { from: throttle.from, until: ends.into_iter().flatten().min() }
    }));
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn span(from: i64, until: impl Into<Option<i64>>) -> Between {
        Between { from: at(from), until: until.into().map(at) }
    }

    #[test]
    fn overlapping_spans_are_counted_once_and_clipped_at_both_ends() {
        let seconds = |spans: &[Between]| outside(spans, at(100), at(200)).num_seconds();
        assert_eq!(seconds(&[]), 100);
        assert_eq!(seconds(&[span(0, 100), span(200, None)]), 100);
        assert_eq!(seconds(&[span(0, 130)]), 70);
        assert_eq!(seconds(&[span(150, None), span(120, 160), span(110, 115)]), 15);
        assert_eq!(seconds(&[span(0, None)]), 0);
        assert_eq!(seconds(&[span(120, 180), span(130, 140)]), 40);
    }

    #[test]
    fn nothing_is_on_before_the_first_enable() {
        let stretch = |second, live| Stretch { from: at(second), live };
        let seconds = |stretches: &[Stretch]| outside(&switched_off(stretches), at(100), at(200)).num_seconds();
        assert_eq!(seconds(&[]), 0);
        assert_eq!(seconds(&[stretch(150, true)]), 50);
        assert_eq!(seconds(&[stretch(0, true), stretch(110, false), stretch(190, true)]), 20);
    }

    #[test]
    fn an_engine_is_off_by_hand_and_by_each_throttle_until_it_is_lifted() {
        let moved =
            |second, was_enabled, lifted: &[i64]| EngineMove { at: at(second), was_enabled, lifted: lifted.into() };
        let ever = DateTime::<Utc>::MIN_UTC;
        assert_eq!(engine_off(true, &[], &[]), []);
        assert_eq!(engine_off(false, &[], &[]), [Between { from: ever, until: None }]);
        let moves = [moved(10, Some(true), &[]), moved(15, None, &[]), moved(20, Some(false), &[7])];
        let throttle = |trip_id, from, rearmed_at: Option<i64>| Throttle {
            trip_id,
            from: at(from),
            rearmed_at: rearmed_at.map(at),
        };
        let throttles = [throttle(7, 12, Some(30)), throttle(8, 40, Some(50)), throttle(9, 60, None)];
        assert_eq!(engine_off(true, &moves, &throttles), [span(10, 20), span(12, 20), span(40, 50), span(60, None)]);
        assert_eq!(engine_off(true, &moves[2..], &[]), [Between { from: ever, until: Some(at(20)) }]);
    }
}
