//! The decision on each measurement of a batch, in order. It is pure, except for its notes of refused ids.

use super::known::Known;
use super::request::Measurements;
use super::reused::Reused;
use crate::audit::{Head, Origin};
use crate::error::{Error, Result};
use crate::idempotency::{Answer, Intent, Kept};
use crate::regression::load;
use crate::regression::model::{KpiEvent, Mark};
use crate::regression::store::{self, Pair, Recorded};
use crate::regression::trip::{Cause, Tripping};
use crate::types::Detail;
use serde_json::value::RawValue;

/// The decision on a request, before the effects of its trips are known.
pub(super) enum Decided {
    /// The request was answered before.
    Replayed(Result<Box<RawValue>>),
    /// The results of its measurements.
    Taken(Vec<Result<Taken>>),
}

/// The decision on a measurement.
pub(super) struct Taken {
    pub(super) id: i64,
    /// The index of its trip in the batch; none if it caused none.
    pub(super) trip: Option<usize>,
    pub(super) watched: bool,
    pub(super) duplicate: bool,
}

pub(super) struct Deciding<'a> {
    pub(super) known: Known,
    pub(super) head: Head,
    pub(super) recorded: Vec<Recorded<'a>>,
    /// The wires that tripped, each with the sender of the tripping measurement.
    pub(super) trips: Vec<(Pair, Tripping, &'a Origin)>,
    /// The error that breaks the whole batch: a wire that cannot be judged after its measurement was taken.
    pub(super) broken: Option<Error>,
    pub(super) reused: &'a Reused,
}

impl<'a> Deciding<'a> {
    pub(super) fn decide(&mut self, item: &'a Measurements) -> Decided {
        let kept = item.intent.as_ref().and_then(|intent| Some((self.known.kept(intent)?, intent)));
        match kept {
            Some((kept, intent)) => Decided::Replayed(replay(kept, intent)),
            None => Decided::Taken(item.events.iter().map(|(event, origin)| self.take(event, origin)).collect()),
        }
    }

    /// Records a measurement and gives it to its wire. A refusal leaves no trace; a failure after the measurement was
    /// taken breaks the batch.
    fn take(&mut self, event: &'a KpiEvent, origin: &'a Origin) -> Result<Taken> {
        let pair: Pair = (event.domain.clone(), event.metric.clone());
        if let Some(wire) = self.known.wires.get(&pair) {
            // The measurements of the caller may throttle that engine.
            wire.policy.require_reach(&origin.authority)?;
        }
        if let Some(id) = self.duplicate(&pair, event, origin)? {
            let watched = self.known.wires.contains_key(&pair);
            return Ok(Taken { id, trip: None, watched, duplicate: true });
        }
        let is_new = self.known.series.get(&pair).is_none_or(|series| series.end.events == 0);
        if is_new && !self.known.wires.contains_key(&pair) {
            self.known.room.require()?;
        }
        let kind = event.measurement.kind();
        let series = self.known.series.entry(pair.clone()).or_default();
        if let Some(other) = series.kind.filter(|other| *other != kind) {
            let (domain, metric) = (event.domain.to_string(), event.metric.to_string());
            return Err(Error::SeriesKind { domain, metric, kind: other.as_str(), wanted: other.field() });
        }
        let full = || Error::Inconsistent(format!("the sum of {}.{} is full", event.domain, event.metric));
        let sum = series.end.sum.plus(event.measurement.addend()).ok_or_else(full)?;
        let mark = Mark { events: series.end.events + 1, sum };
        // From here on nothing refuses the measurement.
        if is_new {
            self.known.room.take();
        }
        let stamp = self.head.next();
        let hash = self.head.seal(stamp, event.canonical(stamp, origin, mark).bytes());
        self.recorded.push(Recorded { stamp, origin, event, mark, hash });
        series.push(mark, kind, stamp.seq);
        if let Some(id) = &event.event_id {
            let detail = event.detail.as_ref().map(|detail| detail.as_str().to_owned());
            let known = store::Known { seq: stamp.seq, measurement: event.measurement, detail };
            self.known.event_ids.insert((pair.clone(), origin.principal.clone(), id.to_string()), known);
        }
        let Some(wire) = self.known.wires.get_mut(&pair) else {
            return Ok(Taken { id: stamp.seq, trip: None, watched: false, duplicate: false });
        };
        wire.boolean = series.is_boolean();
        // The shown state of a wire is made once per batch; only a trip is reported at its event.
        let reading = wire
            .meets(mark, event.measurement, &*series)
            .and_then(|trips| if trips && !wire.is_latched() { wire.read(mark, &*series).map(Some) } else { Ok(None) });
        let reading = match reading {
            Ok(reading) => reading,
            Err(sum) => {
                self.broken = Some(load::unknown(&pair, sum));
                return Err(load::unknown(&pair, sum));
            }
        };
        let mut trip = None;
        if let Some(reading) = reading {
            wire.take(&reading);
            let cause = Cause::Drop { began: wire.state.began() };
            trip = Some(self.trips.len());
            let tripping = Tripping { reading, end: mark, kpi_seq: stamp.seq, cause, by_event: true };
            self.trips.push((pair, tripping, origin));
        }
        Ok(Taken { id: stamp.seq, trip, watched: true, duplicate: false })
    }

    /// The measurement that already has this id of the same sender. A different measurement under the same id is
    /// refused.
    fn duplicate(&self, pair: &Pair, event: &KpiEvent, origin: &Origin) -> Result<Option<i64>> {
        let Some(event_id) = &event.event_id else {
            return Ok(None);
        };
        let named = (pair.clone(), origin.principal.clone(), event_id.to_string());
        let Some(known) = self.known.event_ids.get(&named) else {
            return Ok(None);
        };
        let mut fields = Vec::new();
        if known.measurement != event.measurement {
            fields.push(event.measurement.kind().field());
        }
        if known.detail.as_deref() != event.detail.as_ref().map(Detail::as_str) {
            fields.push("detail");
        }
        if fields.is_empty() {
            return Ok(Some(known.seq));
        }
        self.reused.note(pair, event_id, origin);
        Err(Error::EventIdReused { event_id: event_id.to_string(), fields })
    }
}

fn replay(kept: &Kept, intent: &Intent) -> Result<Box<RawValue>> {
    kept.check(intent)?;
    match &kept.answer {
        Answer::Text(text) => crate::db::stored_json(text.clone()),
        Answer::Waiting(_) => Err(Error::Inconsistent(format!("key {} waits, and no measurement does", intent.key))),
        Answer::RiskEvent(seq) => Err(Error::Inconsistent(format!("key {} points to event {seq}", intent.key))),
    }
}
