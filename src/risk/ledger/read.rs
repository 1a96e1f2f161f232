//! The facts of a batch, in as few round trips as possible: one statement per kind, and only if an operation needs it.

use super::{Conditions, Corrections};
use crate::approval;
use crate::audit::{self, Head, archive};
use crate::clock::belief::JUMP_MAX;
use crate::db::archived::{self, Segment};
use crate::error::{Error, Result};
use crate::idempotency::{self, Answer, Kept};
use crate::risk::model::settle::{MATCHES_MAX, Settlement};
use crate::risk::model::stored;
use crate::risk::model::{Book, Reservation, ReservationStatus, Switches};
use crate::risk::operation::{Operation, Submission};
use crate::risk::store::{self, BookView, Corrected, Correlation, Moment, PastEvent, UsedCorrelations, Wanted};
use crate::types::{Amount, CorrelationId, Engine, RiskAction};
use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Most holds that one batch expires, so that a hundred thousand due at one instant delay nobody: about 20 ms.
const EXPIRIES_MAX: i64 = 512;
/// Longer than the microseconds that the events of a batch need, one each.
const BATCH_SPAN: TimeDelta = TimeDelta::milliseconds(10);
/// The shortest time after which a reservation may be in the archive.
const ARCHIVED_AFTER: TimeDelta = TimeDelta::days(archive::DAYS_MIN.cast_signed());

pub(super) struct Loaded {
    pub(super) book: Book,
    /// The reason why nothing new is reserved; none if reserves are possible.
    pub(super) halt: Option<Halt>,
    /// The due holds, oldest first.
    pub(super) due: Vec<Uuid>,
    /// The events that operations refer to, by number.
    pub(super) past: BTreeMap<i64, PastEvent>,
    /// The archived segments, read only if something that operations name is missing.
    pub(super) archived: Vec<Segment>,
    /// The kept answers of the operations' keys, by principal and key.
    pub(super) keys: BTreeMap<(String, String), Kept>,
    /// The events that operations correct, with earlier corrections included.
    pub(super) corrected: BTreeMap<i64, Corrected>,
    /// The correlation ids of original settles that were ever used, including those of this batch's reserves.
    pub(super) correlations: UsedCorrelations,
    /// The handling of downward corrections.
    pub(super) corrections: Corrections,
}

/// The reason why nothing new is reserved, whatever the caps.
#[derive(Debug, Clone)]
pub(super) enum Halt {
    /// The clock went back by this many seconds.
    ClockWentBack(i64),
    /// The clock jumped ahead by this many seconds.
    ClockJumped(i64),
    /// The book has not balanced since this time.
    Unbalanced(DateTime<Utc>),
    /// The go-live state went backwards.
    Rewound,
}

impl Halt {
    pub(super) fn error(&self) -> Error {
        match self {
            Self::ClockWentBack(seconds) => Error::ClockWentBack(*seconds),
            Self::ClockJumped(seconds) => Error::ClockJumped(*seconds),
            Self::Unbalanced(since) => Error::LedgerHalted(*since),
            Self::Rewound => Error::StateRewound,
        }
    }
}

pub(super) fn correlation_id_of(item: &Submission) -> Option<&str> {
    item.origin.correlation_id.as_ref().map(CorrelationId::as_str)
}

/// The reservations and correlation ids that the operations of a batch name.
#[derive(Default)]
struct Named {
    reservations: BTreeSet<Uuid>,
    events: BTreeSet<i64>,
    engines: BTreeSet<Engine>,
    /// The engines and correlation ids of original settles, with the amounts that they want.
    matching: BTreeMap<(Engine, Option<Correlation>), Wanted>,
}

impl Named {
    fn by(items: &[&Submission]) -> Self {
        let mut named = Self { engines: BTreeSet::from([Engine::global()]), ..Self::default() };
        for item in items {
            match &item.operation {
                Operation::Reserve { request, .. } => {
                    named.engines.insert(request.engine.clone());
                    named.reservations.extend(request.reservation_id);
                }
                Operation::Settle(request) => match (request.reservation_id, &request.engine) {
                    (Some(id), _) => {
                        named.reservations.insert(id);
                    }
                    (None, Some(engine)) => {
                        named.engines.insert(engine.clone());
                        let key = (engine.clone(), Correlation::of(item, engine));
                        let units = request.reserved_amount.map_or(0, Amount::units);
                        // One more row shows that others stay open.
                        named.matching.entry(key).or_default().add(units, MATCHES_MAX + 1);
                    }
                    (None, None) => {}
                },
                Operation::Release(request) => {
                    named.reservations.insert(request.reservation_id);
                }
                Operation::Extend(request) => {
                    named.reservations.insert(request.reservation_id);
                }
                Operation::Adjust(request) => {
                    named.events.insert(request.corrects_seq);
                }
            }
        }
        named
    }
}

/// True if an operation names a reservation that was not found and that may have ended in the archive. The id of a new one
/// was made a moment ago, so a reserve hardly ever is.
fn names_unknown(item: &Submission, found: &BTreeMap<Uuid, Reservation>, now: DateTime<Utc>) -> bool {
    let is_old = |id: &Uuid| archived::made_at(*id).is_some_and(|made| made < now - ARCHIVED_AFTER);
    let id = match &item.operation {
        Operation::Reserve { request, .. } => request.reservation_id.filter(is_old),
        Operation::Adjust(_) => None,
        Operation::Settle(request) => request.reservation_id,
        Operation::Release(request) => Some(request.reservation_id),
        Operation::Extend(request) => Some(request.reservation_id),
    };
    id.is_some_and(|id| !found.contains_key(&id))
}

/// True if the batch may be decided without a lock: its write proves every fact that it rests on, by the head, the
/// switches, or the unique index of the keys. A correction also depends on a setting.
pub(super) fn can_be_optimistic(items: &[&Submission]) -> bool {
    !items.iter().any(|item| matches!(item.operation, Operation::Adjust(_)))
}

/// The levels that operations name, with GLOBAL first.
pub(super) fn engines(items: &[&Submission]) -> BTreeSet<Engine> {
    Named::by(items).engines
}

/// True if some operations name a reservation or an event instead of an engine.
pub(super) fn are_by_id(items: &[&Submission]) -> bool {
    items.iter().any(|item| match &item.operation {
        Operation::Reserve { .. } => false,
        Operation::Settle(request) => request.reservation_id.is_some(),
        Operation::Release(_) | Operation::Extend(_) | Operation::Adjust(_) => true,
    })
}

/// The rows that were read for a batch.
pub(super) struct Read {
    pub(super) known: Loaded,
    /// The head of the view, with its time.
    pub(super) head: Head,
    /// The database's time; none if it is not believed.
    pub(super) believed_at: Option<DateTime<Utc>>,
    /// The version of the switches, and the time of the read.
    pub(super) moment: Moment,
}

/// Reads everything that the operations name beyond the view. It belongs to the same time if the head is locked, on a
/// snapshot, or if the head turns out to be unchanged at the write.
pub(super) async fn read(
    conn: &mut PgConnection,
    items: &[&Submission],
    view: BookView,
    conditions: &Conditions,
) -> Result<Read> {
    let Named { reservations: named, events, mut engines, matching } = Named::by(items);
    let mut keys = read_keys(conn, items, &view.head).await?;
    let mut reservations: BTreeMap<Uuid, Reservation> = BTreeMap::new();
    if !named.is_empty() {
        let ids: Vec<_> = named.into_iter().collect();
        reservations.extend(store::read_reservations(conn, &ids).await?.into_iter().map(|one| (one.id, one)));
    }
    let corrected = store::corrected(conn, &events.iter().copied().collect::<Vec<_>>()).await?;
    let roots = corrected.values().filter_map(|one| one.root);
    let events = events.into_iter().chain(roots).collect();
    let (past, lacking) = read_past(conn, events, &keys, &reservations, items).await?;
    let is_missing = lacking || items.iter().any(|item| names_unknown(item, &reservations, view.now));
    let archived = if is_missing { archived::all(&mut *conn).await? } else { Vec::new() };
    let told = told_holds(&keys, &past, &reservations);
    if !told.is_empty() {
        reservations.extend(store::read_reservations(conn, &told).await?.into_iter().map(|one| (one.id, one)));
    }
    engines.extend(reservations.values().map(|one| one.engine.clone()));
    engines.extend(past.values().map(|event| event.engine.clone()));

    let facts = view.facts;
    let moment = Moment { switches_version: Some(facts.switches_version), at: Some(view.now) };
    let mut head = view.head;
    conditions.history.admit(&mut *conn, &conditions.mark, head.point()).await?;
    let jumped = conditions.expected.filter(|expected| view.now - *expected > JUMP_MAX);
    // A clock that is not believed dates nothing: this process's own clock continues the time.
    head.set_now(jumped.unwrap_or(view.now));
    let behind = head.clock_went_back().filter(|_| jumped.is_none());
    let accepted = behind.is_some() && audit::clock_is_accepted(&mut *conn).await?;
    let halt = jumped
        .map(|expected| Halt::ClockJumped((view.now - expected).num_seconds()))
        .or_else(|| behind.filter(|_| !accepted).map(Halt::ClockWentBack))
        .or_else(|| conditions.history.is_rewound().then_some(Halt::Rewound))
        .or_else(|| facts.halted_at.map(Halt::Unbalanced));
    keep_to_one_day(&mut head);

    let corrections = match conditions.corrections {
        // Locked until the commit, so that no downward correction is booked without approval after the setting was
        // switched on.
        Corrections::OfDatabase if items.iter().any(|item| item.operation.loosens()) => {
            if approval::hold_required_by_database(conn).await? {
                Corrections::Wait
            } else {
                Corrections::Booked
            }
        }
        other => other,
    };
    // Uses the believed time: a hold that is due only by another time is live.
    let correlations = read_candidates(conn, matching, &mut reservations, head.next().at).await?;
    let mut due = Vec::new();
    let is_any_due = facts.next_due.is_some_and(|due| due <= view.now);
    if is_any_due && jumped.is_none() {
        let expiring = store::read_due(conn, head.next().at, EXPIRIES_MAX).await?;
        due = expiring.iter().map(|one| one.id).collect();
        engines.extend(expiring.iter().map(|one| one.engine.clone()));
        reservations.extend(expiring.into_iter().map(|one| (one.id, one)));
    }
    let day = head.next().day();
    keys.retain(|_, kept| kept.stands(day));
    let mut levels = view.levels;
    if day != view.day {
        // At midnight, or with a clock behind the head, the flows are those of the booked day.
        engines.extend(std::mem::take(&mut levels).into_keys());
    }
    engines.retain(|engine| !levels.contains_key(engine));
    if !engines.is_empty() {
        let missing: Vec<_> = engines.into_iter().collect();
        levels.extend(store::read_levels(conn, &missing, day).await?);
    }
    let switches = Switches {
        kill_switch_engaged: facts.kill_switch_engaged || conditions.killed_locally,
        go_live_enabled: facts.go_live_enabled,
        go_live_required: conditions.go_live_required,
    };
    let book = Book { switches, levels, reservations, form: conditions.form };
    // A clock behind the last event is no measure for the next one: once right again, it would seem to jump.
    let believed_at = jumped.is_none().then(|| if accepted { view.now } else { view.now.max(head.last_at()) });
    Ok(Read {
        known: Loaded { book, halt, due, past, archived, keys, corrected, correlations, corrections },
        head,
        believed_at,
        moment,
    })
}

/// Keeps a batch on one day: a batch that could reach midnight begins at midnight, a few milliseconds early.
fn keep_to_one_day(head: &mut Head) {
    let first = head.next();
    let midnight = first.day().checked_add_days(Days::new(1)).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    if let Some(midnight) = midnight.filter(|midnight| *midnight - first.at < BATCH_SPAN) {
        head.set_now(midnight);
    }
}

async fn read_keys(
    conn: &mut PgConnection,
    items: &[&Submission],
    head: &Head,
) -> Result<BTreeMap<(String, String), Kept>> {
    let intents: Vec<_> = items.iter().filter_map(|item| item.intent.as_ref()).collect();
    if intents.is_empty() {
        return Ok(BTreeMap::new());
    }
    // The time is not read yet. The head's day is not later than today, so no valid key is missed.
    let found = idempotency::store::find(conn, &intents, head.next().day()).await?;
    Ok(found
        .into_iter()
        .map(|(place, kept)| ((intents[place].principal.as_str().to_owned(), intents[place].key.clone()), kept))
        .collect())
}

/// Adds the reservations that original settles may match. Returns the correlation ids that were ever used.
async fn read_candidates(
    conn: &mut PgConnection,
    matching: BTreeMap<(Engine, Option<Correlation>), Wanted>,
    reservations: &mut BTreeMap<Uuid, Reservation>,
    now: DateTime<Utc>,
) -> Result<UsedCorrelations> {
    if matching.is_empty() {
        return Ok(UsedCorrelations::default());
    }
    let asked: Vec<_> = matching.keys().filter_map(|(_, correlation)| correlation.clone()).collect();
    let used = UsedCorrelations::read(conn, &asked).await?;
    // A match skips holds that other operations of this batch close, by id or by another match, so it reads that many
    // more rows.
    let mut of_engine: BTreeMap<&Engine, Wanted> = BTreeMap::new();
    for ((engine, _), wanted) in &matching {
        of_engine.entry(engine).or_default().add(wanted.units, wanted.rows);
    }
    for one in reservations.values().filter(|one| one.status == ReservationStatus::Open) {
        if let Some(wanted) = of_engine.get_mut(&one.engine) {
            wanted.add(one.open_amount.units(), 1);
        }
    }
    // A correlation id that was never used does not restrict the match.
    let of_correlation = |((engine, correlation), _): (&(Engine, Option<Correlation>), _)| {
        let correlation = correlation.as_ref().filter(|correlation| used.contains(correlation));
        ((engine.clone(), correlation.map(|correlation| correlation.id.clone())), of_engine[engine])
    };
    let wanted = matching.iter().map(of_correlation).collect();
    let found = store::candidates(conn, &wanted, now).await?;
    reservations.extend(found.into_iter().map(|one| (one.id, one)));
    Ok(used)
}

/// The holds that kept answers mention and that are not read yet: the answers include their status now.
fn told_holds(
    keys: &BTreeMap<(String, String), Kept>,
    past: &BTreeMap<i64, PastEvent>,
    known: &BTreeMap<Uuid, Reservation>,
) -> Vec<Uuid> {
    let events = keys.values().filter_map(|kept| match kept.answer {
        Answer::RiskEvent(seq) => past.get(&seq),
        Answer::Text(_) | Answer::Waiting(_) => None,
    });
    let holds = events.flat_map(|event| match event.reservation_id {
        Some(id) => vec![id],
        // A settle of several holds names them in its outcome; whether it can be read is checked when it is answered.
        None if event.action == RiskAction::Settle => stored::recall::<Settlement>(&event.detail, &event.columns())
            .map(|settled| settled.reservations.into_iter().map(|one| one.reservation_id).collect())
            .unwrap_or_default(),
        None => Vec::new(),
    });
    holds.filter(|id| !known.contains_key(id)).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The events of answers: those of kept keys, those that made or closed a named reservation, and those to be corrected.
/// And whether one of them is missing.
async fn read_past(
    conn: &mut PgConnection,
    mut events: BTreeSet<i64>,
    keys: &BTreeMap<(String, String), Kept>,
    reservations: &BTreeMap<Uuid, Reservation>,
    items: &[&Submission],
) -> Result<(BTreeMap<i64, PastEvent>, bool)> {
    for kept in keys.values() {
        if let Answer::RiskEvent(seq) = kept.answer {
            events.insert(seq);
        }
    }
    events.extend(reservations.values().filter_map(|one| one.closed.map(|stamp| stamp.seq)));
    let chosen = items.iter().filter_map(|item| match &item.operation {
        Operation::Reserve { request, .. } => request.reservation_id,
        _ => None,
    });
    events.extend(chosen.filter_map(|id| reservations.get(&id).map(|one| one.seq)));
    if events.is_empty() {
        return Ok((BTreeMap::new(), false));
    }
    let past = store::past_events(conn, &events.iter().copied().collect::<Vec<_>>()).await?;
    let is_missing = past.len() < events.len();
    Ok((past, is_missing))
}
