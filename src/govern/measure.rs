//! The writer of measurements: each is recorded and evaluated in one transaction, together with whatever waits.
//!
//! [`crate::writer`] says how requests share a commit. A batch records every measurement in order, lets each armed wire meet its
//! events one by one ([`Wire`](crate::regression::model::Wire)), and then acts on the wires that tripped, in the same transaction: the next reserve after a
//! tripping measurement's answer is denied.
//!
//! Statements of a batch, however long: begin and lock the head; time; ends of series, policies (two), states; one write each of
//! events, states and head; commit. Only where there is something: keys, ids of events, sums of windows, values of a baseline that
//! is complete, trips of repeated events, and what a trip does.

mod known;
mod reused;

pub use reused::Reused;

use super::answers::{KpiAnswer, Tripped};
use super::load::Cache;
use super::require_reach;
use super::trip::{self, Cause, Heads, Tripping};
use crate::audit::{self, Head, Origin, Stream};
use crate::db::history::History;
use crate::db::{Database, to_json};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use crate::go_live::model::GoLiveState;
use crate::idempotency::{self, Answer, Intent, Kept};
use crate::regression::model::{KpiEvent, Mark};
use crate::regression::store::{self, Pair, Recorded};
use crate::types::Detail;
use crate::types::Point;
use crate::writer::{Decider, End, Failure, Prepared, Proof, by};
use known::{Known, SeriesCount};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::fmt;
use tokio::time::Instant;

/// Makes the answer to a request from what came of each of its measurements.
pub type Render = Box<dyn Fn(Vec<Result<KpiAnswer>>) -> Result<Box<RawValue>> + Send + Sync>;

/// Measurements of one request, recorded together.
pub struct Measurements {
    /// Each, and who measured it.
    pub events: Vec<(KpiEvent, Origin)>,
    /// The caller's key.
    pub intent: Option<Intent>,
    /// What the request is answered, kept with its key.
    pub answer: Render,
}

impl fmt::Debug for Measurements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measurements")
            .field("events", &self.events.len())
            .field("intent", &self.intent)
            .finish_non_exhaustive()
    }
}

/// What came of a request: its answer, and whether it is an earlier one.
#[derive(Debug)]
pub struct Measured {
    /// The answer.
    pub answer: Box<RawValue>,
    /// Whether it was given before, under the same key; nothing was done this time.
    pub replayed: bool,
}

/// Decides batches of measurements.
#[derive(Debug)]
pub struct Measure {
    db: Database,
    feed: Feed,
    cache: Cache,
    /// Of which history the batch is.
    epoch: u64,
    reused: Reused,
    series: SeriesCount,
}

/// The result that a batch leaves behind.
#[derive(Debug)]
pub struct Note {
    /// The effects of its trips.
    acted: Vec<(Tripped, Option<GoLiveState>)>,
    /// Its last event; none if it has none.
    end: Option<Point>,
    /// Of which history.
    epoch: u64,
}

impl Measure {
    /// A kill switch pulled here reaches this instance's gate through `feed` at once.
    #[must_use]
    pub fn new(db: Database, feed: Feed, reused: Reused, metrics_max: usize) -> Self {
        let series = SeriesCount::new(metrics_max);
        Self { db, feed, cache: Cache::default(), epoch: 0, reused, series }
    }
}

impl Decider for Measure {
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
            // A version says what a baseline is within one history alone.
            (self.cache, self.epoch) = (Cache::default(), mark.epoch);
            self.series.forget();
        }
        let mut head = audit::begin(conn, Self::STREAM).await?;
        head.set_now(history.believed(head.now()));
        history.admit(&mark, head.point())?;
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
            let history = self.feed.history();
            let mut deciding = Deciding { known, head, recorded, trips, broken: None, reused, history };
            let decided: Vec<_> = items.iter().map(|item| deciding.decide(item)).collect();
            if let Some(error) = deciding.broken.take() {
                return Err(error);
            }
            self.series.add(deciding.known.room.begun());
            deciding.write(conn, items, decided, self.epoch).await
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

/// What was decided of a request, before it is known what its trips did.
enum Decided {
    /// It was answered before.
    Replayed(Result<Box<RawValue>>),
    /// Each of its measurements.
    Taken(Vec<Result<Taken>>),
}

/// What was decided of a measurement.
struct Taken {
    id: i64,
    /// The place of its trip in the batch.
    trip: Option<usize>,
    watched: bool,
    duplicate: bool,
}

struct Deciding<'a> {
    known: Known,
    head: Head,
    recorded: Vec<Recorded<'a>>,
    /// Wires that tripped, with who sent the measurement that did it.
    trips: Vec<(Pair, Tripping, &'a Origin)>,
    /// Why nothing of the batch can stand: a wire that cannot be judged, after its measurement was taken.
    broken: Option<Error>,
    reused: &'a Reused,
    history: &'a History,
}

impl<'a> Deciding<'a> {
    fn decide(&mut self, item: &'a Measurements) -> Decided {
        let kept = item.intent.as_ref().and_then(|intent| Some((self.known.kept(intent)?, intent)));
        match kept {
            Some((kept, intent)) => Decided::Replayed(replay(kept, intent)),
            None => Decided::Taken(item.events.iter().map(|(event, origin)| self.take(event, origin)).collect()),
        }
    }

    /// Records a measurement and lets its wire meet it. A refusal leaves nothing behind; what fails after the measurement was taken
    /// breaks the batch.
    fn take(&mut self, event: &'a KpiEvent, origin: &'a Origin) -> Result<Taken> {
        let pair: Pair = (event.domain.clone(), event.metric.clone());
        if let Some(wire) = self.known.wires.get(&pair) {
            // Its measurements may throttle that engine.
            require_reach(origin, &wire.policy)?;
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
        // Nothing refuses it any more.
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
        // What is shown of a wire is made once a batch; only a trip has to be told at its event.
        let reading = wire
            .meets(mark, event.measurement, &*series)
            .and_then(|trips| if trips && !wire.is_latched() { wire.read(mark, &*series).map(Some) } else { Ok(None) });
        let reading = match reading {
            Ok(reading) => reading,
            Err(sum) => {
                self.broken = Some(trip::unknown(&pair, sum));
                return Err(trip::unknown(&pair, sum));
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

    /// The measurement that already carries this id of the same sender; another one under the same id is refused.
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

    /// Writes what was decided, acts on the trips, and makes the answers.
    async fn write(
        mut self,
        conn: &mut PgConnection,
        items: &[&Measurements],
        decided: Vec<Decided>,
        epoch: u64,
    ) -> Result<Prepared<Measured, Note>> {
        let mut acted = Vec::new();
        let first = self.recorded.first();
        let proof = first.map(|one| Proof { seq: one.stamp.seq, hash: one.hash.clone() });
        if !self.recorded.is_empty() {
            // Heads, then rows.
            let heads = self.lock_for_trips(&mut *conn).await?;
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

    /// The heads that all trips together need; none where nothing tripped.
    async fn lock_for_trips(&self, conn: &mut PgConnection) -> Result<Option<Heads>> {
        if self.trips.is_empty() {
            return Ok(None);
        }
        let wires = self.trips.iter().filter_map(|(pair, ..)| self.known.wires.get(pair));
        let throttles = wires.into_iter().any(|wire| trip::throttles(&wire.policy));
        Heads::lock_to_trip(self.history, conn, throttles).await.map(Some)
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

    /// A retry after a lost answer learns what the first one did.
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

fn replay(kept: &Kept, intent: &Intent) -> Result<Box<RawValue>> {
    kept.check(intent)?;
    match &kept.answer {
        Answer::Text(text) => crate::db::stored_json(text.clone()),
        Answer::Waiting(_) => Err(Error::Inconsistent(format!("key {} waits, and no measurement does", intent.key))),
        Answer::RiskEvent(seq) => Err(Error::Inconsistent(format!("key {} points to event {seq}", intent.key))),
    }
}

/// The answer to a single measurement.
pub fn answer_one(answers: Vec<Result<KpiAnswer>>) -> Result<Box<RawValue>> {
    let only = answers.into_iter().next();
    only.ok_or_else(|| Error::Inconsistent("a measurement has one answer".into()))?.map(|answer| to_json(&answer))
}
