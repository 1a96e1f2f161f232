//! Finds blind spots: series without a wire, and wires that judge nothing.

use crate::regression::model::{RegressionPolicy, WireState, WireStatus, series_name};
use crate::types::{Domain, Metric, letters_apart};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// The most differences between two names that count as a misspelling.
const TYPOS_MAX: usize = 2;
/// The most unwatched series that a review lists.
const UNWATCHED_MAX: usize = 100;

/// A series that was ever measured.
#[derive(Debug)]
pub struct Series {
    /// Its domain.
    pub domain: Domain,
    /// Its metric.
    pub metric: Metric,
    /// The number of its events.
    pub events: i64,
    /// The time of its last event.
    pub last_at: DateTime<Utc>,
}

/// A series that was measured in the period and has no wire.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Unwatched {
    /// Its domain.
    pub domain: Domain,
    /// Its metric.
    pub metric: Metric,
    /// The number of events of the series, over all time.
    pub events: i64,
    /// The time of the last event.
    pub last_at: DateTime<Utc>,
    /// A wire with almost the same name, as `DOMAIN.metric`; null if there is none.
    pub did_you_mean: Option<String>,
}

/// The reasons why a wire judges nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Blindness {
    /// The wire is off, although it was set up or its series is measured.
    Off,
    /// The wire's series never had an event.
    NoEvents,
    /// The wire's windows cannot be compared: the measured values are not above 0 on average.
    CannotCompute,
    /// The wire has too few events since it was set up, re-armed, or given another baseline.
    Warmup,
}

/// A wire that judges nothing.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BlindWire {
    /// Its domain.
    pub domain: Domain,
    /// Its metric.
    pub metric: Metric,
    /// The reason why it judges nothing.
    pub why: Blindness,
    /// The number of events of its series, over all time.
    pub events: i64,
    /// The note of the wire's state.
    pub note: String,
    /// The actor of the last change, as claimed.
    pub changed_by: Option<String>,
    /// A series without a wire and with almost the same name, as `DOMAIN.metric`; null if there is none.
    pub did_you_mean: Option<String>,
}

/// The blind spots of the period.
pub(super) struct Blind {
    pub(super) unwatched: Vec<Unwatched>,
    /// The number of further unwatched series among those that were read.
    pub(super) unwatched_more: usize,
    pub(super) wires: Vec<BlindWire>,
}

pub(super) fn find(
    policies: &[RegressionPolicy],
    states: &[WireState],
    series: &[Series],
    since: DateTime<Utc>,
) -> Blind {
    let wires: Vec<String> = policies.iter().map(|policy| series_name(&policy.domain, &policy.metric)).collect();
    let has_wire = |series: &Series| {
        policies.iter().any(|policy| (&policy.domain, &policy.metric) == (&series.domain, &series.metric))
    };
    let orphans: Vec<&Series> = series.iter().filter(|series| series.last_at >= since && !has_wire(series)).collect();
    let unwatched = orphans.iter().take(UNWATCHED_MAX).map(|orphan| Unwatched {
        domain: orphan.domain.clone(),
        metric: orphan.metric.clone(),
        events: orphan.events,
        last_at: orphan.last_at,
        did_you_mean: nearest(&series_name(&orphan.domain, &orphan.metric), wires.iter().map(String::as_str)),
    });
    let orphan_names: Vec<String> =
        orphans.iter().take(UNWATCHED_MAX).map(|orphan| series_name(&orphan.domain, &orphan.metric)).collect();
    let blind = policies.iter().filter_map(|policy| {
        let of = |domain: &Domain, metric: &Metric| (domain, metric) == (&policy.domain, &policy.metric);
        let state = states.iter().find(|state| of(&state.domain, &state.metric))?;
        let events = series.iter().find(|series| of(&series.domain, &series.metric)).map_or(0, |series| series.events);
        let why = match state.status {
            WireStatus::Disabled if policy.version > 1 || events > 0 => Blindness::Off,
            WireStatus::Warmup if events == 0 => Blindness::NoEvents,
            WireStatus::Warmup => Blindness::Warmup,
            WireStatus::Armed if state.cannot_compute() => Blindness::CannotCompute,
            _ => return None,
        };
        let meant = (why == Blindness::NoEvents)
            .then(|| nearest(&series_name(&policy.domain, &policy.metric), orphan_names.iter().map(String::as_str)))
            .flatten();
        Some(BlindWire {
            domain: policy.domain.clone(),
            metric: policy.metric.clone(),
            why,
            events,
            note: state.note.clone(),
            changed_by: policy.changed_by.clone(),
            did_you_mean: meant,
        })
    });
    let unwatched_more = orphans.len().saturating_sub(UNWATCHED_MAX);
    Blind { unwatched: unwatched.collect(), unwatched_more, wires: blind.collect() }
}

/// The nearest of these names, if it is near enough to be a misspelling.
fn nearest<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> Option<String> {
    let near = others.filter_map(|other| Some((letters_apart(name, other, TYPOS_MAX)?, other)));
    near.min().map(|(_, other)| other.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_names_that_are_near_the_nearest_is_meant() {
        let near = nearest("LAB.rate", ["LAB.rates", "LAB.rate_", "ZOO.rate"].into_iter());
        assert_eq!(near.as_deref(), Some("LAB.rate_"));
    }
}
