//! Reconciliation: compares the counters with the reservations and events, and halts new reserves if they differ.
//!
//! The open amounts are compared with the open reservations, and today's flows with today's events, on one snapshot. A
//! server's comparison is continuous: events never change, so each is summed once, and the open reservations are added
//! up again every minute. A difference is checked again in full and under the head, where nothing moves. If it is
//! confirmed, the book is halted: settles and releases continue, and new reserves are refused until a repair, which sets
//! the counters to the sums of the rows and is a control event.
//!
//! A crash cannot cause a difference, because counters and events commit together. The causes are manual changes of the
//! database, a bad restore, or a bug.
//!
//! Statements: four to compare (head, new events, stocks, flows), and two more for a comparison in full; under the head,
//! the same again.

use super::model::OutOfRange;
use super::store::{self, Flow};
use crate::audit::{self, ControlEvent, Origin, Stream};
use crate::db::{self, Database};
use crate::error::Result;
use crate::types::{ControlAction, Engine, Reason, Total};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sqlx::{Executor, PgConnection, Postgres, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

/// The time limit for summing a day of many millions of events.
const PATIENCE: &str = "SET LOCAL statement_timeout = '60s'";
/// The comparison uses one processor: nobody waits for it, and everybody waits for the ledger.
const MODESTY: &str = "SET LOCAL max_parallel_workers_per_gather = 0";
/// How often a server compares on its own: often enough that few events are new.
const EVERY: Duration = Duration::from_secs(5);
/// How often it adds up the open reservations.
const ADD_UP_EVERY: Duration = Duration::from_mins(1);

/// A counter that differs from its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Difference {
    /// The engine, or `GLOBAL`.
    pub engine: String,
    /// The name of the counter: `open_risk_reserved`, `exposure_used`, `realized_loss` or `actions_count`.
    pub counter: &'static str,
    /// The value of the counter.
    pub recorded: Total,
    /// The sum of the reservations or events.
    pub computed: Total,
}

/// The result of a comparison.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Reconciliation {
    /// The business day whose flows were compared.
    pub day: NaiveDate,
    /// The last event of the risk stream that was included.
    pub seq: i64,
    /// True if every counter equals its rows.
    pub balanced: bool,
    /// The counters that differ.
    pub differences: Vec<Difference>,
    /// The time since which new reserves are refused; null if they are not.
    pub halted_at: Option<DateTime<Utc>>,
}

/// Sums up to an event.
#[derive(Debug, Clone, Default)]
struct Sums {
    day: NaiveDate,
    seq: i64,
    /// The flows of the day, by engine.
    flows: BTreeMap<String, Flow>,
    /// The open amounts, by engine.
    open: BTreeMap<String, Total>,
}

impl Sums {
    /// Adds the events up to this one.
    async fn proceed(&mut self, conn: &mut PgConnection, day: NaiveDate, seq: i64) -> Result<()> {
        if self.day != day {
            self.flows.clear();
        }
        for (engine, flow, open) in store::sum_events(conn, day, self.seq, seq).await? {
            let stock = self.open.entry(engine.clone()).or_default();
            *stock = stock.plus(open).unwrap_or_default();
            let sum = self.flows.entry(engine).or_default();
            *sum = sum.plus(&flow);
        }
        (self.day, self.seq) = (day, seq);
        Ok(())
    }
}

/// The continuous comparison of a server.
#[derive(Debug, Clone)]
pub struct Reconciler {
    db: Database,
    sums: Arc<Mutex<Option<Sums>>>,
}

impl Reconciler {
    /// A comparison without sums yet.
    #[must_use]
    pub fn new(db: Database) -> Self {
        Self { db, sums: Arc::default() }
    }

    /// Compares, and halts the book on a confirmed difference.
    pub async fn reconcile(&self) -> Result<Reconciliation> {
        self.look(false).await
    }

    async fn look(&self, adds_up: bool) -> Result<Reconciliation> {
        let mut kept = self.sums.lock().await;
        let mut tx = snapshot(&self.db).await?;
        let is_full = kept.is_none();
        let (found, sums) = compare(&mut tx, kept.clone(), adds_up).await?;
        drop(tx);
        let is_balanced = found.differences.is_empty();
        *kept = is_balanced.then_some(sums);
        drop(kept);
        // A difference that sums over time show may be theirs; one of a halted book is known already.
        if is_balanced || (is_full && found.halted_at.is_some()) { Ok(found) } else { reconcile(&self.db).await }
    }

    /// Compares periodically, until the task is ended.
    pub async fn watch(self) {
        let mut turns = tokio::time::interval(EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut added_up, mut is_halted) = (Instant::now(), false);
        loop {
            turns.tick().await;
            let adds_up = added_up.elapsed() >= ADD_UP_EVERY;
            // Each comparison of a book that does not balance is one in full.
            if is_halted && !adds_up {
                continue;
            }
            match self.look(adds_up).await {
                Ok(found) => {
                    is_halted = found.halted_at.is_some();
                    if adds_up {
                        added_up = Instant::now();
                    }
                    metrics::gauge!("holdfast_ledger_halted").set(if is_halted { 1.0 } else { 0.0 });
                }
                Err(error) => tracing::warn!(%error, "the book could not be compared: trying again"),
            }
        }
    }
}

async fn snapshot(db: &Database) -> Result<Transaction<'static, Postgres>> {
    let mut tx = db.begin_snapshot().await?;
    tx.execute(PATIENCE).await?;
    tx.execute(MODESTY).await?;
    Ok(tx)
}

/// Compares in full, and halts the book on a confirmed difference.
pub async fn reconcile(db: &Database) -> Result<Reconciliation> {
    let mut tx = snapshot(db).await?;
    let (found, _) = compare(&mut tx, None, true).await?;
    drop(tx);
    if found.differences.is_empty() || found.halted_at.is_some() {
        return Ok(found);
    }
    // Counters and events commit together, so a difference in a snapshot is real; but a repair may have come since.
    let mut tx = db.begin().await?;
    tx.execute(PATIENCE).await?;
    // Lock order: risk, control.
    let head = db.history().lock(&mut tx, Stream::Risk).await?;
    let mut confirmed = compare(&mut tx, None, true).await?.0;
    if confirmed.differences.is_empty() || confirmed.halted_at.is_some() {
        return Ok(confirmed);
    }
    let at = head.next().at;
    let detail = db::json_text(&confirmed.differences);
    let mut control_head = db.history().lock(&mut tx, Stream::Control).await?;
    audit::revise(&mut tx, Stream::Risk).await?;
    store::halt(&mut tx, at, &detail).await?;
    let event = ControlEvent::new(ControlAction::RiskHalt).detail(&confirmed.differences);
    let origin = Origin::system(None);
    event.append(&mut tx, &mut control_head, &origin).await?;
    db::commit(tx).await?;
    tracing::error!(differences = confirmed.differences.len(), "the book does not balance: new reserves are halted");
    confirmed.halted_at = Some(at);
    Ok(confirmed)
}

/// Sets every counter to the sum of its rows and resumes reserves. Returns the differences; a balanced book that is not
/// halted is left alone.
pub async fn repair(db: &Database, reason: &Reason, origin: &Origin) -> Result<Reconciliation> {
    let mut tx = db.begin().await?;
    tx.execute(PATIENCE).await?;
    // Lock order: risk, control.
    let head = db.history().lock(&mut tx, Stream::Risk).await?;
    let mut found = compare(&mut tx, None, true).await?.0;
    if found.differences.is_empty() && found.halted_at.is_none() {
        db::confirm(tx).await?;
        return Ok(found);
    }
    let at = head.next().at;
    let mut control_head = db.history().lock(&mut tx, Stream::Control).await?;
    audit::revise(&mut tx, Stream::Risk).await?;
    for difference in &found.differences {
        store::set_counter(&mut tx, found.day, difference, at).await?;
    }
    store::lift_halt(&mut tx).await?;
    let left = compare(&mut tx, None, true).await?.0;
    if let Some(difference) = left.differences.first() {
        let engine = difference.engine.parse().unwrap_or_else(|_| Engine::global());
        return Err(OutOfRange { engine, counter: difference.counter }.into());
    }
    let event = ControlEvent::new(ControlAction::RiskRepair).because(reason).detail(&found.differences);
    event.append(&mut tx, &mut control_head, origin).await?;
    db::commit(tx).await?;
    found.halted_at = None;
    Ok(found)
}

/// Compares the counters with the sums of the rows, and returns the sums. Earlier sums are continued, unless the database
/// was restored to a time before them; the open reservations are added up if `adds_up`, and always without earlier sums.
async fn compare(conn: &mut PgConnection, earlier: Option<Sums>, adds_up: bool) -> Result<(Reconciliation, Sums)> {
    let (day, seq, halted_at) = store::reconciled_at(&mut *conn).await?;
    let earlier = earlier.filter(|earlier| earlier.seq <= seq && earlier.day <= day);
    let adds_up = adds_up || earlier.is_none();
    let mut sums = match earlier {
        Some(sums) => sums,
        None => Sums { day, seq: store::first_of(&mut *conn, day).await? - 1, ..Sums::default() },
    };
    sums.proceed(&mut *conn, day, seq).await?;
    if adds_up {
        sums.open = store::sum_open(&mut *conn).await?;
    }
    let (recorded_open, recorded_flows) = store::recorded(&mut *conn, day).await?;
    let computed_flows = with_global(&sums.flows, Flow::plus);
    let computed_open = with_global(&sums.open, |one: &Total, other: &Total| one.plus(*other).unwrap_or_default());
    let mut differences = Vec::new();
    let engines: BTreeSet<_> = recorded_open.keys().chain(computed_open.keys()).collect();
    for engine in engines {
        let both = |map: &BTreeMap<String, Total>| map.get(engine).copied().unwrap_or_default();
        note(&mut differences, engine, "open_risk_reserved", both(&recorded_open), both(&computed_open));
    }
    let engines: BTreeSet<_> = recorded_flows.keys().chain(computed_flows.keys()).collect();
    for engine in engines {
        let recorded = recorded_flows.get(engine).copied().unwrap_or_default();
        let computed = computed_flows.get(engine).copied().unwrap_or_default();
        note(&mut differences, engine, "exposure_used", recorded.exposure, computed.exposure);
        note(&mut differences, engine, "realized_loss", recorded.loss, computed.loss);
        note(&mut differences, engine, "actions_count", recorded.actions(), computed.actions());
    }
    Ok((Reconciliation { day, seq, balanced: differences.is_empty(), differences, halted_at }, sums))
}

/// The sums of the engines, and of all of them together.
fn with_global<T: Copy + Default>(engines: &BTreeMap<String, T>, plus: impl Fn(&T, &T) -> T) -> BTreeMap<String, T> {
    let mut all = engines.clone();
    let global = engines.values().fold(T::default(), |sum, one| plus(&sum, one));
    all.insert(Engine::global().to_string(), global);
    all
}

fn note(differences: &mut Vec<Difference>, engine: &str, counter: &'static str, recorded: Total, computed: Total) {
    if recorded != computed {
        differences.push(Difference { engine: engine.to_owned(), counter, recorded, computed });
    }
}
