//! The writer of measurements: records and evaluates each one in one transaction, together with all others that wait.
//!
//! [`crate::group_commit`] describes the shared commit. A batch records every measurement in order, gives each armed
//! wire its events one by one ([`Wire`](crate::regression::model::Wire)), and then acts on the wires that tripped, in
//! the same transaction: the next reserve after the answer to a tripping measurement is denied.
//!
//! Statements of a batch of any length: begin and lock the head; time; ends of series, policies (two), states; one
//! write each of events, states and head; commit. Further statements only if they have work: keys, ids of events, sums
//! of windows, values of a baseline that is complete, trips of repeated events, and the effects of a trip.

mod decide;
mod known;
mod request;
mod reused;
mod write;

pub use request::{Measurements, Render};
pub use reused::Reused;

use super::answers::{KpiAnswer, Tripped};
use super::load::Cache;
use super::trip;
use crate::audit::{self, Head, Stream};
use crate::db::{Database, to_json};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use crate::go_live::model::GoLiveState;
use crate::group_commit::{Batcher, Failure, Prepared, by};
use crate::types::Point;
use decide::Deciding;
use known::{Known, SeriesCount};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use tokio::time::Instant;

/// The outcome of a request: its answer, and whether it is an earlier one.
#[derive(Debug)]
pub struct Measured {
    /// The answer's JSON.
    pub answer: Box<RawValue>,
    /// Whether the answer was given before, under the same key, so that nothing was done this time.
    pub replayed: bool,
}

/// Decides batches of measurements.
#[derive(Debug)]
pub struct Measure {
    db: Database,
    feed: Feed,
    cache: Cache,
    /// The history of the batch.
    epoch: u64,
    reused: Reused,
    series: SeriesCount,
}

/// The result of a batch.
#[derive(Debug)]
pub struct Note {
    /// The effects of the batch's trips.
    acted: Vec<(Tripped, Option<GoLiveState>)>,
    /// The last event of the batch; none if it has none.
    end: Option<Point>,
    /// The history of the batch.
    epoch: u64,
}

impl Measure {
    /// The writer on this database. `feed` passes a kill switch that it engages to this instance's gate at once.
    #[must_use]
    pub fn new(db: Database, feed: Feed, reused: Reused, metrics_max: usize) -> Self {
        let series = SeriesCount::new(metrics_max);
        Self { db, feed, cache: Cache::default(), epoch: 0, reused, series }
    }
}

impl Batcher for Measure {
    type Item = Measurements;
    type Done = Measured;
    type Note = Note;
    type Start = Head;

    const STREAM: Stream = Stream::Kpi;
    const THREAD: &'static str = "kpi-writer";
    /// Two seconds of measurements, or 26 of the largest batches.
    const QUEUE_MAX: u32 = 262_144;
    const BATCH_MAX: usize = 4_096;

    fn weight(item: &Measurements) -> usize {
        item.events.len()
    }

    async fn begin(&mut self, conn: &mut PgConnection, _: &[&Measurements]) -> Result<Head> {
        let history = self.feed.history();
        let mark = history.mark(Self::STREAM);
        history.require_whole()?;
        if self.epoch != mark.epoch {
            // The version of a baseline is only meaningful within one history.
            (self.cache, self.epoch) = (Cache::default(), mark.epoch);
            self.series.forget();
        }
        let mut head = audit::begin(&mut *conn, Self::STREAM).await?;
        head.set_now(history.believed(head.now()));
        history.admit(conn, &mark, head.point()).await?;
        Ok(head)
    }

    async fn prepare(
        &mut self,
        conn: &mut PgConnection,
        head: Head,
        items: &[&Measurements],
        deadline: Instant,
    ) -> Result<Prepared<Measured, Self::Note>, Failure<Measured, Self::Note>> {
        let prepared = async {
            let known = Known::read(conn, items, &head, &mut self.cache, &mut self.series).await?;
            let (recorded, trips, reused) = (Vec::new(), Vec::new(), &self.reused);
            let mut deciding = Deciding { known, head, recorded, trips, broken: None, reused };
            let decided: Vec<_> = items.iter().map(|item| deciding.decide(item)).collect();
            if let Some(error) = deciding.broken.take() {
                return Err(error);
            }
            self.series.add(deciding.known.room.begun());
            deciding.write(conn, items, decided, self.feed.history(), self.epoch).await
        };
        Ok(by(deadline, prepared).await?)
    }

    fn ended(&mut self, note: Self::Note) {
        if let Some(end) = note.end {
            self.feed.history().note(note.epoch, Self::STREAM, end);
        }
        for (tripped, killed) in note.acted {
            trip::publish(&self.feed, &self.db, &tripped, killed.as_ref());
        }
    }
}

/// The answer to a single measurement.
pub fn answer_one(answers: Vec<Result<KpiAnswer>>) -> Result<Box<RawValue>> {
    let only = answers.into_iter().next();
    only.ok_or_else(|| Error::Inconsistent("a measurement has one answer".into()))?.map(|answer| to_json(&answer))
}
