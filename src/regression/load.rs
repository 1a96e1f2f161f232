//! Reads wires and their series for the events that they are about to take.

use crate::error::{Error, Result};
use crate::regression::detector::Frozen;
use crate::regression::model::wire::UnknownSum;
use crate::regression::model::{
    Detector, FrozenSpan, Mark, RegressionPolicy, Series, Sums, Window, Wire, WireState, series_name,
};
use crate::regression::store::{self, Pair};
use crate::types::Total;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Frozen baselines that are ready to judge. They never change, and building one of values reads all of them.
#[derive(Debug, Default)]
pub(super) struct Cache(BTreeMap<Pair, (Of, Arc<Frozen>)>);

/// The identity of a baseline: its version, its policy's version, and its span.
type Of = (i64, i64, FrozenSpan);

/// The most baselines that are kept; those of more wires are built each time.
const CACHE_MAX: usize = 1_024;

impl Cache {
    fn get(&self, pair: &Pair, of: Of) -> Option<Arc<Frozen>> {
        self.0.get(pair).filter(|(kept, _)| *kept == of).map(|(_, frozen)| Arc::clone(frozen))
    }

    fn keep(&mut self, pair: &Pair, of: Of, frozen: &Arc<Frozen>) {
        if self.0.len() >= CACHE_MAX && !self.0.contains_key(pair) {
            self.0.clear();
        }
        self.0.insert(pair.clone(), (of, Arc::clone(frozen)));
    }
}

/// The error for a running sum that must be stored but is not.
pub(super) fn unknown(pair: &Pair, UnknownSum(events): UnknownSum) -> Error {
    Error::Inconsistent(format!("{} has no event {events}", series_name(&pair.0, &pair.1)))
}

/// Reads the enabled wires of these series, each ready to take this many further events, and the series.
pub(super) async fn wires(
    conn: &mut PgConnection,
    counts: &BTreeMap<Pair, i64>,
    cache: &mut Cache,
) -> Result<(BTreeMap<Pair, Wire>, BTreeMap<Pair, Series>)> {
    let pairs: Vec<Pair> = counts.keys().cloned().collect();
    let ends = store::read_ends(&mut *conn, &pairs).await?;
    let mut series: BTreeMap<Pair, Series> =
        ends.into_iter().map(|(pair, end)| (pair, Series::ending(end.mark, end.seq, end.kind))).collect();
    let policies = store::read_policies_of(&mut *conn, &pairs).await?;
    let policies: Vec<_> = policies.into_iter().filter(|policy| policy.enabled).collect();
    if policies.is_empty() {
        return Ok((BTreeMap::new(), series));
    }
    let watched: Vec<Pair> = policies.iter().map(|policy| (policy.domain.clone(), policy.metric.clone())).collect();
    let mut states: BTreeMap<Pair, WireState> = BTreeMap::new();
    for state in store::read_states_of(&mut *conn, &watched).await? {
        states.insert((state.domain.clone(), state.metric.clone()), state);
    }
    let mut wires = BTreeMap::new();
    for (pair, policy) in watched.into_iter().zip(policies) {
        let state = states.remove(&pair);
        let state = state.unwrap_or_else(|| WireState::new(pair.0.clone(), pair.1.clone()));
        let boolean = series.get(&pair).is_none_or(Series::is_boolean);
        wires.insert(pair, Wire::new(policy, state, boolean));
    }
    ready(conn, &mut wires, &mut series, counts, cache).await?;
    Ok((wires, series))
}

/// Reads one wire, enabled or not, in its current state.
pub(super) async fn wire(
    conn: &mut PgConnection,
    policy: &RegressionPolicy,
    state: WireState,
) -> Result<(Wire, Series)> {
    let pair: Pair = (policy.domain.clone(), policy.metric.clone());
    let end = store::read_end(&mut *conn, &pair.0, &pair.1).await?;
    let series = end.map(|end| Series::ending(end.mark, end.seq, end.kind)).unwrap_or_default();
    let wire = Wire::new(policy.clone(), state, series.is_boolean());
    let (mut wires, mut all) = (BTreeMap::from([(pair.clone(), wire)]), BTreeMap::from([(pair.clone(), series)]));
    ready(conn, &mut wires, &mut all, &BTreeMap::from([(pair.clone(), 0)]), &mut Cache::default()).await?;
    let (wire, series) = (wires.remove(&pair), all.remove(&pair));
    wire.zip(series).ok_or_else(|| Error::Inconsistent("a wire was lost".into()))
}

/// The events of a span and their sum; none until all events have arrived.
pub(super) async fn window(
    conn: &mut PgConnection,
    policy: &RegressionPolicy,
    span: FrozenSpan,
) -> Result<Option<Window>> {
    let pair: Pair = (policy.domain.clone(), policy.metric.clone());
    let asked = [(pair.clone(), span.after, span.after), (pair.clone(), span.end(), span.end())];
    let sums = store::read_sums(conn, &asked).await?.remove(&pair).unwrap_or_default();
    let before = if span.after == 0 { Some(Total::ZERO) } else { sums.get(&span.after).copied() };
    let mark = |events, sum| Mark { events, sum };
    let ends = before.zip(sums.get(&span.end()).copied());
    Ok(ends.map(|(before, end)| Window::between(mark(span.after, before), mark(span.end(), end))))
}

async fn ready(
    conn: &mut PgConnection,
    wires: &mut BTreeMap<Pair, Wire>,
    series: &mut BTreeMap<Pair, Series>,
    counts: &BTreeMap<Pair, i64>,
    cache: &mut Cache,
) -> Result<()> {
    let mut asked = Vec::new();
    for (pair, wire) in wires.iter() {
        let last = series.get(pair).map_or(0, |series| series.end.events);
        let more = counts.get(pair).copied().unwrap_or(0);
        asked.extend(places(wire, last, more).into_iter().map(|(low, high)| (pair.clone(), low, high)));
    }
    if !asked.is_empty() {
        for (pair, sums) in store::read_sums(&mut *conn, &asked).await? {
            series.entry(pair).or_default().read = sums;
        }
    }
    for (pair, wire) in wires.iter_mut().filter(|(_, wire)| wire.policy.detector == Detector::Sequential) {
        freeze(&mut *conn, pair, wire, series.entry(pair.clone()).or_default(), cache).await?;
    }
    Ok(())
}

/// The ranges of places in a series whose sums a wire needs while the series grows from `last` by `more` events.
fn places(wire: &Wire, last: i64, more: i64) -> Vec<(i64, i64)> {
    let mut places = Vec::new();
    let mut want = |low: i64, high: i64| {
        let (low, high) = (low.max(1), high.min(last));
        if low <= high {
            places.push((low, high));
        }
    };
    match wire.policy.detector {
        Detector::Plain => {
            let (window, baseline) = (wire.policy.window_events.get(), wire.policy.baseline_events.get());
            let floor = wire.state.watermark;
            // Without a further event, the place is the current end of the series.
            let first = last + more.min(1);
            for back in [window, window + baseline] {
                want((first - back).max(floor), (last + more - back).max(floor));
            }
        }
        Detector::Sequential => {
            if let Some(span) = wire.state.frozen.filter(|span| span.sum.is_none()) {
                want(span.after, span.after);
                want(span.end(), span.end());
            }
        }
    }
    places
}

/// Builds the frozen baseline of a wire, or collects the part that has arrived.
async fn freeze(
    conn: &mut PgConnection,
    pair: &Pair,
    wire: &mut Wire,
    series: &Series,
    cache: &mut Cache,
) -> Result<()> {
    let Some(span) = wire.state.frozen else {
        return Ok(());
    };
    let of = (wire.state.baseline_version, wire.policy.version, span);
    if let Some(frozen) = cache.get(pair, of).filter(|_| span.sum.is_some()) {
        wire.frozen = Some(frozen);
        return Ok(());
    }
    let last = series.end.events;
    if !wire.boolean {
        wire.values = store::read_values(conn, pair, span.after, span.end().min(last)).await?;
    }
    if span.sum.is_some() {
        wire.build();
    } else if last >= span.end() {
        // The last event of the baseline came while the wire was off.
        let mark = |events: i64| {
            let sum = series.sum(events).ok_or_else(|| unknown(pair, UnknownSum(events)))?;
            Ok::<_, Error>(Mark { events, sum })
        };
        wire.freeze(span, mark(span.after)?, mark(span.end())?);
        wire.state.forget_evidence(last);
    }
    if let Some(frozen) = &wire.frozen {
        let of = (wire.state.baseline_version, wire.policy.version, wire.state.frozen.unwrap_or(span));
        cache.keep(pair, of, frozen);
    }
    Ok(())
}
