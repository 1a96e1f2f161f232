//! Reads the facts of a batch of measurements, in as few round trips as possible.

use super::request::Measurements;
use crate::audit::Head;
use crate::error::{Result, require_room};
use crate::idempotency::{self, Intent, Kept};
use crate::regression::load::{self, Cache};
use crate::regression::model::{Series, Wire, WireState};
use crate::regression::store::{self, Pair};
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// The facts on which a batch is decided.
pub(super) struct Known {
    /// The watched wires among its series.
    pub(super) wires: BTreeMap<Pair, Wire>,
    /// The series of the batch.
    pub(super) series: BTreeMap<Pair, Series>,
    /// The measurements that already have one of the batch's ids.
    pub(super) event_ids: BTreeMap<store::Named, store::Known>,
    keys: BTreeMap<(String, String), Kept>,
    /// The room for new series, which the batch uses up.
    pub(super) room: Room,
}

/// The room for new series under the head: the number of series, including those that this batch begins. Every series
/// counts. A watched series is never refused, so the number may exceed the limit.
#[derive(Debug)]
pub(super) struct Room {
    before: usize,
    begun: usize,
    max: usize,
}

impl Room {
    /// Refuses one more series at the limit.
    pub(super) fn require(&self) -> Result<()> {
        require_room("series", self.before + self.begun, self.max, "METRICS_MAX")
    }

    /// Counts one more series, whose first measurement was accepted.
    pub(super) const fn take(&mut self) {
        self.begun += 1;
    }

    /// The number of series that this batch begins.
    pub(super) const fn begun(&self) -> usize {
        self.begun
    }
}

/// The limit of series, and the number that this process knows of, which only grows within one history. It is counted
/// when a series is new, and again before one is refused.
#[derive(Debug)]
pub(super) struct SeriesCount {
    max: usize,
    known: Option<usize>,
    /// Whether the last count reached the limit.
    is_full: bool,
}

impl SeriesCount {
    pub(super) const fn new(max: usize) -> Self {
        Self { max, known: None, is_full: false }
    }

    /// Forgets the count, since series may be gone after the database went back.
    pub(super) const fn forget(&mut self) {
        (self.known, self.is_full) = (None, false);
    }

    /// Counts new series, whose batch may still fail; they are then counted again before a refusal.
    pub(super) fn add(&mut self, count: usize) {
        self.known = self.known.map(|known| known + count);
    }

    /// The number of series. Other instances may have begun more since, while there is room.
    async fn known(&mut self, conn: &mut PgConnection) -> Result<usize> {
        let known = match self.known {
            Some(known) if known < self.max || self.is_full => known,
            _ => store::count_series(conn, self.max).await?,
        };
        (self.known, self.is_full) = (Some(known), known >= self.max);
        Ok(known)
    }
}

impl Known {
    pub(super) async fn read(
        conn: &mut PgConnection,
        items: &[&Measurements],
        head: &Head,
        cache: &mut Cache,
        of_series: &mut SeriesCount,
    ) -> Result<Self> {
        let intents: Vec<&Intent> = items.iter().filter_map(|item| item.intent.as_ref()).collect();
        let mut keys = BTreeMap::new();
        if !intents.is_empty() {
            for (place, kept) in idempotency::store::find(&mut *conn, &intents, head.next().day()).await? {
                if let Some(intent) = intents.get(place) {
                    keys.insert((intent.principal.as_str().to_owned(), intent.key.clone()), kept);
                }
            }
        }
        let mut counts: BTreeMap<Pair, i64> = BTreeMap::new();
        let mut named: Vec<store::Named> = Vec::new();
        for (event, origin) in items.iter().flat_map(|item| &item.events) {
            let pair = (event.domain.clone(), event.metric.clone());
            if let Some(id) = &event.event_id {
                named.push((pair.clone(), origin.principal.clone(), id.to_string()));
            }
            *counts.entry(pair).or_default() += 1;
        }
        let event_ids =
            if named.is_empty() { BTreeMap::new() } else { store::find_event_ids(&mut *conn, &named).await? };
        let (wires, series) = load::wires(&mut *conn, &counts, cache).await?;
        let is_new = |pair: &Pair| series.get(pair).is_none_or(|series| series.end.events == 0);
        let before = if counts.keys().any(is_new) { of_series.known(conn).await? } else { 0 };
        let room = Room { before, begun: 0, max: of_series.max };
        Ok(Self { wires, series, event_ids, keys, room })
    }

    /// The kept answer of an intent's key.
    pub(super) fn kept(&self, intent: &Intent) -> Option<&Kept> {
        if self.keys.is_empty() {
            return None;
        }
        self.keys.get(&(intent.principal.as_str().to_owned(), intent.key.clone()))
    }

    /// Writes into each state the reading of its wire at the end of the batch.
    pub(super) fn show(&mut self) -> Result<()> {
        for (pair, wire) in &mut self.wires {
            let Some(series) = self.series.get(pair).filter(|series| series.has_grown()) else {
                continue;
            };
            let reading = wire.read(series.end, series).map_err(|sum| load::unknown(pair, sum))?;
            wire.take(&reading);
        }
        Ok(())
    }

    /// The states of the wires that took an event.
    pub(super) fn met(&self) -> impl Iterator<Item = &WireState> {
        let has_grown = |pair: &Pair| self.series.get(pair).is_some_and(Series::has_grown);
        self.wires.iter().filter(move |(pair, _)| has_grown(pair)).map(|(_, wire)| &wire.state)
    }
}
