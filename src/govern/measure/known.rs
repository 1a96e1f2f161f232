//! What a batch of measurements needs to know, in as few round trips as possible.

use super::Measurements;
use crate::audit::Head;
use crate::error::Result;
use crate::govern::load::{self, Cache};
use crate::govern::trip;
use crate::idempotency::{self, Intent, Kept};
use crate::regression::model::{Series, Wire, WireState};
use crate::regression::store::{self, Pair};
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// What a batch knows before it decides.
pub(super) struct Known {
    /// The watched wires among its series.
    pub(super) wires: BTreeMap<Pair, Wire>,
    /// Its series.
    pub(super) series: BTreeMap<Pair, Series>,
    /// Measurements that already carry one of its ids.
    pub(super) event_ids: BTreeMap<store::Named, store::Known>,
    keys: BTreeMap<(String, String), Kept>,
}

impl Known {
    pub(super) async fn read(
        conn: &mut PgConnection,
        items: &[&Measurements],
        head: &Head,
        cache: &mut Cache,
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
        let (wires, series) = load::wires(conn, &counts, cache).await?;
        Ok(Self { wires, series, event_ids, keys })
    }

    /// What an intent's key was kept for.
    pub(super) fn kept(&self, intent: &Intent) -> Option<&Kept> {
        if self.keys.is_empty() {
            return None;
        }
        self.keys.get(&(intent.principal.as_str().to_owned(), intent.key.clone()))
    }

    /// Takes into each state what its wire says at the end of the batch.
    pub(super) fn show(&mut self) -> Result<()> {
        for (pair, wire) in &mut self.wires {
            let Some(series) = self.series.get(pair).filter(|series| series.has_grown()) else {
                continue;
            };
            let reading = wire.read(series.end, series).map_err(|sum| trip::unknown(pair, sum))?;
            wire.take(&reading);
        }
        Ok(())
    }

    /// The states of wires that met something.
    pub(super) fn met(&self) -> impl Iterator<Item = &WireState> {
        let has_grown = |pair: &Pair| self.series.get(pair).is_some_and(Series::has_grown);
        self.wires.iter().filter(move |(pair, _)| has_grown(pair)).map(|(_, wire)| &wire.state)
    }
}
