//! One batch: read what its operations need, decide them in order, write what changed.

use super::{Job, Operation, Outcome};
use crate::audit::{self, Head, Origin, Stamp, Stream};
use crate::db::stored_json;
use crate::error::{Error, Result};
use crate::risk::model::reserve::{self, Reserve};
use crate::risk::model::settle::{self, MATCHES_MAX, Settle, Target};
use crate::risk::model::{Book, Reservation, Switches};
use crate::risk::store::{self, Batch, Recorded};
use crate::risk::{Reserved, SettleRequest};
use crate::types::{CorrelationId, Engine};
use chrono::{Days, NaiveTime};
use serde_json::value::RawValue;
use sqlx::{Executor, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// How long a batch may take up to its commit: a little more than the 4 s that its head may be waited for.
const PREPARE_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Why a batch was not answered with its outcomes.
#[derive(Debug)]
pub(super) enum Failure {
    /// Before the commit: nothing of it happened.
    Refused(Error),
    /// During the commit: it happened or it did not.
    CommitBroke { error: sqlx::Error, proof: Proof, outcomes: Vec<Result<Outcome>> },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// What tells whether a batch was committed: its first event and that event's hash.
#[derive(Debug)]
pub(super) struct Proof {
    seq: i64,
    hash: Vec<u8>,
}

/// Runs a batch from begin to commit. The outcomes may be fewer than the jobs: the rest belongs to the next day.
pub(super) async fn run(
    conn: &mut PgConnection,
    jobs: &[Job],
    go_live_required: bool,
) -> Result<Vec<Result<Outcome>>, Failure> {
    // Until the commit nothing has happened: an answer that does not come (a frozen server, a cut cable) is waited for no
    // longer than the callers can be told the truth.
    let prepared = tokio::time::timeout(PREPARE_TIMEOUT, prepare(conn, jobs, go_live_required)).await;
    let (outcomes, proof) = match prepared {
        Ok(prepared) => prepared?,
        Err(_) => return Err(Error::Unavailable(sqlx::Error::PoolTimedOut).into()),
    };
    let Some(proof) = proof else {
        conn.execute("ROLLBACK").await?;
        return Ok(outcomes);
    };
    match conn.execute("COMMIT").await {
        Ok(_) => Ok(outcomes),
        Err(error) => Err(Failure::CommitBroke { error, proof, outcomes }),
    }
}

/// Decides and writes a batch, up to its commit. Without a proof nothing was written.
async fn prepare(
    conn: &mut PgConnection,
    jobs: &[Job],
    go_live_required: bool,
) -> Result<(Vec<Result<Outcome>>, Option<Proof>)> {
    conn.execute("BEGIN").await?;
    let mut head = audit::lock_head(conn, Stream::Risk).await?;
    let state = store::read_instant(conn).await?;
    head.set_now(state.now);
    let switches = Switches {
        kill_switch_engaged: state.kill_switch_engaged,
        go_live_enabled: state.go_live_enabled,
        go_live_required,
    };
    let jobs = &jobs[..jobs.len().min(until_midnight(head.next()))];
    let mut known = read(conn, jobs, switches, head.next()).await?;
    let mut recorded = Vec::with_capacity(jobs.len());
    let outcomes: Vec<_> = jobs.iter().map(|job| decide(job, &mut known, &mut head, &mut recorded)).collect();
    let Some(first) = recorded.first() else {
        return Ok((outcomes, None));
    };
    let proof = Proof { seq: first.stamp.seq, hash: first.hash.clone() };
    store::write_batch(conn, &known.changes(&recorded), &head).await?;
    Ok((outcomes, Some(proof)))
}

/// Undoes a refused batch on a connection that still answers.
pub(super) async fn roll_back(conn: &mut PgConnection) -> Result<()> {
    conn.execute("ROLLBACK").await?;
    Ok(())
}

/// Whether a batch was committed; waits for its transaction to end.
pub(super) async fn is_committed(conn: &mut PgConnection, proof: &Proof) -> Result<bool> {
    conn.execute("BEGIN").await?;
    audit::lock_head(conn, Stream::Risk).await?;
    let hash = store::event_hash(conn, proof.seq).await?;
    conn.execute("ROLLBACK").await?;
    Ok(hash.as_deref() == Some(&proof.hash[..]))
}

/// How many events fit before midnight at a microsecond each: a batch is of one day.
fn until_midnight(first: Stamp) -> usize {
    let midnight = first.day().checked_add_days(Days::new(1)).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    let left = midnight.and_then(|midnight| (midnight - first.at).num_microseconds()).unwrap_or(i64::MAX);
    usize::try_from(left).unwrap_or(usize::MAX).max(1)
}

/// What a batch knows and changes.
struct Known {
    book: Book,
    before: Book,
    clock_went_back: Option<i64>,
    /// Outcomes of the closed reservations that the batch names, by closing event.
    settlements: BTreeMap<i64, String>,
    /// Threads of original settles that ever had a reservation, of whatever engine.
    correlated: BTreeSet<String>,
    denials: BTreeMap<(Engine, String, &'static str), i64>,
}

impl Known {
    fn changes<'a>(&'a self, recorded: &'a [Recorded<'a>]) -> Batch<'a> {
        let levels = self.book.levels.iter().filter(|(engine, level)| self.before.levels.get(*engine) != Some(*level));
        let (old, new): (Vec<_>, Vec<_>) =
            self.book.reservations.values().partition(|one| self.before.reservations.contains_key(&one.id));
        let changed = old.into_iter().filter(|one| self.before.reservations.get(&one.id) != Some(*one)).collect();
        Batch { recorded, levels: levels.collect(), new, changed, denials: &self.denials }
    }
}

/// Reads what the operations name: each kind in one statement, and only where something asks for it.
async fn read(conn: &mut PgConnection, jobs: &[Job], switches: Switches, first: Stamp) -> Result<Known> {
    let mut named = BTreeSet::new();
    let mut engines = BTreeSet::from([Engine::global()]);
    let mut matching: BTreeMap<(Engine, Option<String>), i64> = BTreeMap::new();
    for job in jobs {
        match &job.operation {
            Operation::Reserve { engine, .. } => {
                engines.insert(engine.clone());
            }
            Operation::Settle(SettleRequest { reservation_id: Some(id), .. }) => {
                named.insert(*id);
            }
            Operation::Settle(request) => {
                if let Some(engine) = &request.engine {
                    engines.insert(engine.clone());
                    *matching.entry((engine.clone(), thread_of(&job.origin))).or_default() += MATCHES_MAX;
                }
            }
        }
    }
    let mut reservations: BTreeMap<Uuid, Reservation> = BTreeMap::new();
    if !named.is_empty() {
        let ids: Vec<_> = named.into_iter().collect();
        reservations.extend(store::read_reservations(conn, &ids).await?.into_iter().map(|one| (one.id, one)));
    }
    // What an operation before it closes, a settle passes over: it sees as many more as the batch may close.
    let named_count = i64::try_from(reservations.len()).unwrap_or(i64::MAX);
    let limit = matching.values().sum::<i64>().saturating_add(named_count);
    let mut correlated = BTreeSet::new();
    for (engine, thread) in matching.into_keys() {
        if let Some(thread) = &thread
            && store::is_correlated(conn, thread).await?
        {
            correlated.insert(thread.clone());
            let open = store::candidates(conn, &engine, Some(thread), limit).await?;
            reservations.extend(open.into_iter().map(|one| (one.id, one)));
            continue;
        }
        let open = store::candidates(conn, &engine, None, limit).await?;
        reservations.extend(open.into_iter().map(|one| (one.id, one)));
    }
    let closed: Vec<_> = reservations.values().filter_map(|one| one.closed.map(|stamp| stamp.seq)).collect();
    let settlements = if closed.is_empty() { BTreeMap::new() } else { store::settlements_of(conn, &closed).await? };
    engines.extend(reservations.values().map(|one| one.engine.clone()));
    let engines: Vec<_> = engines.into_iter().collect();
    let levels = store::read_levels(conn, &engines, first.day()).await?;
    let book = Book { switches, levels, reservations };
    Ok(Known { before: book.clone(), book, clock_went_back: None, settlements, correlated, denials: BTreeMap::new() })
}

fn thread_of(origin: &Origin) -> Option<String> {
    origin.correlation_id.as_ref().map(|id| CorrelationId::as_str(id).to_owned())
}

/// Decides one operation and notes its event. A refusal leaves no event and moves nothing.
fn decide<'a>(job: &'a Job, known: &mut Known, head: &mut Head, recorded: &mut Vec<Recorded<'a>>) -> Result<Outcome> {
    let stamp = head.next();
    if known.clock_went_back.is_none() {
        known.clock_went_back = head.clock_went_back();
    }
    let (event, outcome) = match &job.operation {
        Operation::Reserve { engine, amount, id, words } => {
            if let Some(seconds) = known.clock_went_back {
                return Err(Error::ClockWentBack(seconds));
            }
            let reserve =
                Reserve { engine: engine.clone(), amount: *amount, id: *id, correlation_id: thread_of(&job.origin) };
            let (decision, event) = reserve::apply(&mut known.book, &reserve, words.clone(), stamp)?;
            if let Some((reason, scope)) = &event.denial {
                *known.denials.entry((engine.clone(), scope.clone(), reason)).or_default() += 1;
            }
            let reservation_id = decision.is_allowed().then_some(*id);
            (event, Outcome::Reserved(Reserved { decision, reservation_id }))
        }
        Operation::Settle(request) => {
            let (engine, target) = resolve(known, request, &job.origin)?;
            let settle =
                Settle { engine, target, settled_amount: request.settled_amount, realized_loss: request.realized_loss };
            let (settlement, event) = settle::apply(&mut known.book, &settle, request.words.clone(), stamp)?;
            known.settlements.insert(stamp.seq, event.detail.clone());
            (event, Outcome::Settled(settlement))
        }
    };
    let hash = head.seal(stamp, event.canonical(stamp, &job.origin).bytes());
    recorded.push(Recorded { stamp, origin: &job.origin, event, hash });
    Ok(outcome)
}

/// Finds what a settle is about: the reservation it names, or the open ones that the original settle matches.
fn resolve(known: &Known, request: &SettleRequest, origin: &Origin) -> Result<(Engine, Target)> {
    if let Some(id) = request.reservation_id {
        let not_found = || Error::NotFound { what: "reservation", id: id.to_string() };
        let reservation = known.book.reservations.get(&id).ok_or_else(not_found)?;
        // Another engine's reservation is not confirmed to exist.
        if request.engine.as_ref().is_some_and(|engine| *engine != reservation.engine) {
            return Err(not_found());
        }
        if let Some(closed) = reservation.closed {
            return Err(already_settled(known, id, closed)?);
        }
        if let Some(claimed) = request.reserved_amount
            && claimed != reservation.amount
            && claimed != reservation.open_amount
        {
            let detail = format!("is {claimed}, but {} was reserved: send that or leave it out", reservation.amount);
            return Err(Error::invalid("reserved_amount", detail));
        }
        return Ok((reservation.engine.clone(), Target::Reservation(id)));
    }
    let required = |field| Error::invalid(field, "is required without a reservation_id");
    let engine = request.engine.clone().ok_or_else(|| required("engine"))?;
    let reserved_amount = request.reserved_amount.ok_or_else(|| required("reserved_amount"))?;
    // Policies are never deleted, so an engine without one never had a reservation: this is a slip, not a position.
    if known.book.level(&engine).policy.is_none() {
        return Err(Error::NotFound { what: "engine", id: engine.to_string() });
    }
    let thread = thread_of(origin);
    let carried = |one: &Reservation| one.correlation_id.is_some() && one.correlation_id == thread;
    let mine = |one: &&Reservation| one.engine == engine && one.closed.is_none();
    // Reservations that this batch has made count as well, in the order they were made.
    let correlated = thread
        .as_ref()
        .is_some_and(|thread| known.correlated.contains(thread) || known.book.reservations.values().any(carried));
    let mut open: Vec<_> =
        known.book.reservations.values().filter(mine).filter(|one| !correlated || carried(one)).collect();
    open.sort_by_key(|one| one.seq);
    let candidates = open.into_iter().take(usize::try_from(MATCHES_MAX).unwrap_or(usize::MAX)).map(|one| one.id);
    Ok((engine, Target::Matching { reserved_amount, candidates: candidates.collect() }))
}

fn already_settled(known: &Known, id: Uuid, closed: Stamp) -> Result<Error> {
    let detail = known.settlements.get(&closed.seq);
    let detail = detail.ok_or_else(|| Error::Inconsistent(format!("event {} has no settlement", closed.seq)))?;
    let settled: Box<RawValue> = stored_json(detail.clone())?;
    let settled_at = closed.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    Ok(Error::AlreadySettled { reservation_id: id, settled_at, settled })
}
