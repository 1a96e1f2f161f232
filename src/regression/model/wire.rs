//! A wire that takes its events one by one. It is pure: it receives all past values, so that a replay of history
//! decides bit for bit as the live wire did.

use super::state::FrozenSpan;
use super::{Detector, Mark, Measurement, RegressionPolicy, Verdict, WINDOW_MAX, Window, WireState};
use crate::regression::detector::Frozen;
use crate::types::{Measured, Ratio, Total};
use std::sync::Arc;

/// The running sums of a series.
pub trait Sums {
    /// The sum of the first `events` events; none if it is not known. Of the first 0 it is 0.
    fn sum(&self, events: i64) -> Option<Total>;
}

/// The windows of a PLAIN wire in its series, as counts of events: `(low, high]` is the baseline, `(high, last]` the
/// recent window. Events up to the watermark never count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The beginning of the baseline.
    pub low: i64,
    /// The end of the baseline, where the recent window begins.
    pub high: i64,
    /// Whether a pinned baseline is used, until a whole window and baseline have followed the watermark.
    pub pinned: bool,
}

impl Span {
    /// The windows of a policy over a series of `last` events.
    #[must_use]
    pub fn of(policy: &RegressionPolicy, last: i64, watermark: i64, has_pinned: bool) -> Self {
        let (window, baseline) = (policy.window_events.get(), policy.baseline_events.get());
        Self {
            low: (last - window - baseline).max(watermark),
            high: (last - window).max(watermark),
            pinned: has_pinned && last - watermark < window + baseline,
        }
    }
}

/// The reading of a wire's windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The baseline of the judgement.
    pub baseline: Window,
    /// The recent window; for SEQUENTIAL, since the estimated start of the change.
    pub recent: Window,
    /// The drop, rounded for display; none if it cannot be computed.
    pub drop: Option<Ratio>,
    /// SEQUENTIAL: the evidence against the baseline.
    pub evidence: Option<f64>,
    /// The verdict on these windows.
    pub verdict: Verdict,
}

impl Reading {
    const fn early(baseline: Window, recent: Window, verdict: Verdict) -> Self {
        Self { baseline, recent, drop: None, evidence: None, verdict }
    }
}

/// The error for a running sum that is needed but not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownSum(pub i64);

/// A wire between two events.
#[derive(Debug, Clone)]
pub struct Wire {
    /// The settings of the wire.
    pub policy: RegressionPolicy,
    /// The state of the wire.
    pub state: WireState,
    /// Whether the series consists of successes and failures.
    pub boolean: bool,
    /// SEQUENTIAL: the frozen baseline, once it is complete.
    pub frozen: Option<Arc<Frozen>>,
    /// SEQUENTIAL over values: the values of the baseline so far, while it is collected.
    pub values: Vec<Measured>,
    /// Whether it has tripped since it was read, by a trip that is not in its state yet.
    pub has_tripped: bool,
}

impl Wire {
    /// A wire as it was stored. A complete frozen baseline still has to be built.
    #[must_use]
    pub const fn new(policy: RegressionPolicy, state: WireState, boolean: bool) -> Self {
        Self { policy, state, boolean, frozen: None, values: Vec::new(), has_tripped: false }
    }

    /// Takes the event at this place, and returns the reading. A latched wire is evaluated, too.
    pub fn observe(&mut self, at: Mark, measurement: Measurement, sums: &impl Sums) -> Result<Reading, UnknownSum> {
        if self.policy.detector == Detector::Sequential {
            self.gather(at, measurement, sums)?;
        }
        self.read(at, sums)
    }

    /// The same without the reading: returns whether the event would trip.
    pub fn meets(&mut self, at: Mark, measurement: Measurement, sums: &impl Sums) -> Result<bool, UnknownSum> {
        match self.policy.detector {
            Detector::Plain => {
                let (baseline, recent) = self.windows(at, sums)?;
                let min = self.policy.min_events_to_enforce.get();
                let enough = recent.events >= min && baseline.events >= min;
                Ok(enough && self.policy.tolerance(self.boolean).reaches(baseline, recent))
            }
            Detector::Sequential => self.gather(at, measurement, sums),
        }
    }

    /// The reading of the wire now; the series ends at `at`.
    pub fn read(&self, at: Mark, sums: &impl Sums) -> Result<Reading, UnknownSum> {
        match self.policy.detector {
            Detector::Plain => self.compare(at, sums),
            Detector::Sequential => Ok(self.weigh(at)),
        }
    }

    /// PLAIN: the baseline and the recent window.
    fn windows(&self, at: Mark, sums: &impl Sums) -> Result<(Window, Window), UnknownSum> {
        let span = Span::of(&self.policy, at.events, self.state.watermark, self.state.pinned.is_some());
        let mark = |events: i64| match events {
            0 => Ok(Mark::default()),
            _ if events == at.events => Ok(at),
            _ => sums.sum(events).map(|sum| Mark { events, sum }).ok_or(UnknownSum(events)),
        };
        let high = mark(span.high)?;
        let recent = Window::between(high, at);
        let baseline = match self.state.pinned {
            Some(pinned) if span.pinned => pinned,
            _ => Window::between(mark(span.low)?, high),
        };
        Ok((baseline, recent))
    }

    /// PLAIN: the recent window against the baseline before it.
    fn compare(&self, at: Mark, sums: &impl Sums) -> Result<Reading, UnknownSum> {
        let (baseline, recent) = self.windows(at, sums)?;
        let min = self.policy.min_events_to_enforce.get();
        if recent.events < min || baseline.events < min {
            let verdict = Verdict::InsufficientEvents { recent: recent.events, baseline: baseline.events };
            return Ok(Reading::early(baseline, recent, verdict));
        }
        let compared = self.policy.tolerance(self.boolean).compare(baseline, recent);
        let verdict = match (compared.computable, compared.reaches) {
            (false, _) => Verdict::CannotCompute,
            (true, false) => Verdict::Holds,
            (true, true) => Verdict::Trips,
        };
        Ok(Reading { baseline, recent, drop: compared.drop, evidence: None, verdict })
    }

    /// SEQUENTIAL: takes an event into the baseline or into the evidence against it. Returns whether that trips.
    fn gather(&mut self, at: Mark, measurement: Measurement, sums: &impl Sums) -> Result<bool, UnknownSum> {
        if let Some(frozen) = &self.frozen {
            return Ok(self.state.bets.step(frozen, measurement).trips);
        }
        let Some(span) = self.state.frozen.filter(|span| at.events > span.after) else {
            return Ok(false);
        };
        if let Measurement::Value(value) = measurement {
            self.values.push(value);
        }
        if at.events == span.end() {
            let before = if span.after == 0 { Some(Total::ZERO) } else { sums.sum(span.after) };
            let before = before.ok_or(UnknownSum(span.after))?;
            self.freeze(span, Mark { events: span.after, sum: before }, at);
        }
        Ok(false)
    }

    /// Freezes the baseline between two marks; evidence begins with the next event. For a series of values,
    /// [`Wire::values`] must hold all of them.
    pub fn freeze(&mut self, span: FrozenSpan, from: Mark, to: Mark) {
        let window = Window::between(from, to);
        self.state.frozen = Some(FrozenSpan { sum: Some(window.sum), ..span });
        self.state.forget_evidence(to.events);
        self.build();
    }

    /// Builds the frozen baseline from its sum or its values, so that it can judge.
    pub fn build(&mut self) {
        let Some(FrozenSpan { events, sum: Some(sum), .. }) = self.state.frozen else {
            self.frozen = None;
            return;
        };
        let settings = self.policy.settings(self.boolean, Window { events, sum });
        let frozen = if self.boolean {
            Frozen::rate(settings, Window { events, sum })
        } else {
            Frozen::values(settings, &std::mem::take(&mut self.values))
        };
        self.frozen = frozen.map(Arc::new);
    }

    fn weigh(&self, at: Mark) -> Reading {
        let Some(frozen) = &self.frozen else {
            let need = self.state.frozen.map_or(WINDOW_MAX, |span| span.events);
            let have = self.state.frozen.map_or(0, |span| (at.events - span.after).clamp(0, need));
            let (baseline, recent) = (Window { events: have, sum: Total::ZERO }, Window::default());
            return Reading::early(baseline, recent, Verdict::Collecting { have, need });
        };
        let step = self.state.bets.reading(frozen);
        let (baseline, recent) = (frozen.baseline(), step.recent);
        let compared = frozen.settings().tolerance.compare(baseline, recent);
        // Before the first event after the baseline there is nothing to compare.
        let verdict = match (step.trips, compared.computable || recent.events == 0) {
            (true, _) => Verdict::Trips,
            (false, true) => Verdict::Holds,
            (false, false) => Verdict::CannotCompute,
        };
        Reading { baseline, recent, drop: compared.drop, evidence: Some(step.evidence), verdict }
    }

    /// Whether a trip stands or is about to be recorded.
    #[must_use]
    pub const fn is_latched(&self) -> bool {
        self.state.trip_id.is_some() || self.has_tripped
    }

    /// Takes a reading into the state. Returns whether the wire trips. A latched wire does not trip again: its note
    /// stays as at the trip, and its numbers continue.
    pub fn take(&mut self, reading: &Reading) -> bool {
        let is_latched = self.is_latched();
        let state = &mut self.state;
        let early = reading.verdict.is_early();
        (state.baseline, state.current) =
            if early { (None, None) } else { (reading.baseline.mean(), reading.recent.mean()) };
        state.drop_fraction = reading.drop;
        (state.baseline_events, state.current_events) = (reading.baseline.events, reading.recent.events);
        if !is_latched {
            state.note = reading.verdict.note(reading.drop, reading.evidence, self.policy.action);
        }
        state.show(Some(&self.policy), early);
        let trips = reading.verdict == Verdict::Trips && !is_latched;
        self.has_tripped |= trips;
        trips
    }
}
