//! Writes a decided batch of measurements: events, trips, states and keys. It also builds the answers.

use super::decide::{Decided, Deciding};
use super::{Measured, Measurements, Note};
use crate::db::history::History;
use crate::error::{Error, Result};
use crate::go_live::model::GoLiveState;
use crate::group_commit::{End, Prepared, Proof};
use crate::idempotency::{self, Answer};
use crate::regression::answers::{KpiAnswer, Tripped};
use crate::regression::store;
use crate::regression::trip::{self, Heads};
use sqlx::PgConnection;
use std::collections::BTreeMap;

impl Deciding<'_> {
    /// Writes the decisions, acts on the trips, and builds the answers.
    pub(super) async fn write(
        mut self,
        conn: &mut PgConnection,
        items: &[&Measurements],
        decided: Vec<Decided>,
        history: &History,
        epoch: u64,
    ) -> Result<Prepared<Measured, Note>> {
        let mut acted = Vec::new();
        let first = self.recorded.first();
        let proof = first.map(|one| Proof { seq: one.stamp.seq, hash: one.hash.clone() });
        if !self.recorded.is_empty() {
            // The heads are locked before the rows.
            let heads = self.lock_for_trips(&mut *conn, history).await?;
            store::insert_events(&mut *conn, &self.recorded).await?;
            self.head.store(&mut *conn).await?;
            if let Some(heads) = heads {
                acted = self.act(&mut *conn, heads).await?;
            }
            self.known.show()?;
            let met: Vec<_> = self.known.met().collect();
            if !met.is_empty() {
                store::write_states(&mut *conn, &met, self.head.last_at()).await?;
            }
        }
        let earlier = self.earlier_trips(&mut *conn, &decided).await?;
        let (stamp, mut writes) = (self.head.next(), proof.is_some());
        let mut outcomes = Vec::with_capacity(items.len());
        for (item, decided) in items.iter().zip(decided) {
            let taken = match decided {
                Decided::Replayed(answer) => {
                    outcomes.push(answer.map(|answer| Measured { answer, replayed: true }));
                    continue;
                }
                Decided::Taken(taken) => taken,
            };
            let answers: Vec<_> = taken
                .into_iter()
                .map(|taken| {
                    taken.map(|taken| KpiAnswer {
                        ok: true,
                        id: taken.id,
                        tripped: taken
                            .trip
                            .and_then(|trip| acted.get(trip).map(|(tripped, _)| tripped.clone()))
                            .or_else(|| earlier.get(&taken.id).cloned().filter(|_| taken.duplicate).map(Tripped::of)),
                        watched: taken.watched,
                        duplicate: taken.duplicate,
                    })
                })
                .collect();
            let answer = (item.answer)(answers);
            if let (Ok(answer), Some(intent)) = (&answer, &item.intent) {
                writes = true;
                idempotency::store::insert(&mut *conn, intent, stamp, &Answer::Text(answer.get().to_owned())).await?;
            }
            outcomes.push(answer.map(|answer| Measured { answer, replayed: false }));
        }
        let end = if writes { End::Commit } else { End::Discard };
        let note = Note { acted, end: proof.as_ref().map(|_| self.head.point()), epoch };
        Ok(Prepared { outcomes, proof, last: self.head.seq(), end, note })
    }

    /// The heads that all trips together need; none if nothing tripped.
    async fn lock_for_trips(&self, conn: &mut PgConnection, history: &History) -> Result<Option<Heads>> {
        if self.trips.is_empty() {
            return Ok(None);
        }
        let wires = self.trips.iter().filter_map(|(pair, ..)| self.known.wires.get(pair));
        let throttles = wires.into_iter().any(|wire| trip::throttles(&wire.policy));
        Heads::lock_to_trip(history, conn, throttles).await.map(Some)
    }

    /// Acts on the trips.
    async fn act(&mut self, conn: &mut PgConnection, mut heads: Heads) -> Result<Vec<(Tripped, Option<GoLiveState>)>> {
        let mut acted = Vec::with_capacity(self.trips.len());
        for (pair, tripping, origin) in std::mem::take(&mut self.trips) {
            let lost = || Error::Inconsistent("a wire tripped that is not there".into());
            let wire = self.known.wires.get_mut(&pair).ok_or_else(lost)?;
            acted.push(trip::act(&mut *conn, &mut heads, &wire.policy, &mut wire.state, &tripping, origin).await?);
        }
        Ok(acted)
    }

    /// The trips of repeated measurements, so that a retry after a lost answer learns the first result.
    async fn earlier_trips(
        &self,
        conn: &mut PgConnection,
        decided: &[Decided],
    ) -> Result<BTreeMap<i64, store::Caused>> {
        let taken = decided.iter().filter_map(|decided| match decided {
            Decided::Taken(taken) => Some(taken),
            Decided::Replayed(_) => None,
        });
        let duplicates: Vec<i64> =
            taken.flatten().flatten().filter(|taken| taken.duplicate).map(|taken| taken.id).collect();
        if duplicates.is_empty() { Ok(BTreeMap::new()) } else { store::find_trips(conn, &duplicates).await }
    }
}
