//! Reconciliation: compares the counters with the reservations and events, and halts new reserves if they differ.
//!
//! The open amounts are compared with the open reservations, and today's flows with today's events, on one snapshot. A
//! difference is checked again under the head, where nothing moves. If it is confirmed, the book is halted: settles and
//! releases continue, and new reserves are refused until a repair, which sets the counters to the sums of the rows and
//! is a control event.
//!
//! A crash cannot cause a difference, because counters and events commit together. The causes are manual changes of the
//! database, a bad restore, or a bug.
//!
//! Statements: three to compare (head, stocks, flows); under the head, the same again.

use super::model::OutOfRange;
use super::store::{self, Flow, Recomputed};
use crate::audit::{self, ControlEvent, Origin, Stream};
use crate::db::{self, Database};
use crate::error::Result;
use crate::types::{Engine, Reason, Total};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sqlx::{Executor, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use utoipa::ToSchema;

/// The time limit for summing a day of many millions of events.
const PATIENCE: &str = "SET LOCAL statement_timeout = '60s'";
/// The comparison uses one processor: nobody waits for it, and everybody waits for the ledger.
const MODESTY: &str = "SET LOCAL max_parallel_workers_per_gather = 0";
/// How often a server compares on its own.
const EVERY: Duration = Duration::from_mins(1);

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

/// Summed flows of a day up to an event. Events never change, so only later ones are summed next time.
#[derive(Debug, Default)]
struct Summed {
    day: Option<NaiveDate>,
    seq: i64,
    flows: BTreeMap<String, Flow>,
}

/// Compares, and halts the book if a difference is confirmed.
pub async fn reconcile(db: &Database) -> Result<Reconciliation> {
    reconcile_after(db, &mut Summed::default()).await
}

async fn reconcile_after(db: &Database, summed: &mut Summed) -> Result<Reconciliation> {
    let mut tx = db.begin_snapshot().await?;
    tx.execute(PATIENCE).await?;
    tx.execute(MODESTY).await?;
    let found = compare(&mut tx, summed).await?;
    drop(tx);
    if found.differences.is_empty() || found.halted_at.is_some() {
        return Ok(found);
    }
    // Counters and events commit together, so a difference in a snapshot is real; but a repair may have come since.
    let mut tx = db.begin().await?;
    tx.execute(PATIENCE).await?;
    // Lock order: risk, control.
    let head = db.history().lock(&mut tx, Stream::Risk).await?;
    let mut confirmed = compare(&mut tx, &mut Summed::default()).await?;
    if confirmed.differences.is_empty() || confirmed.halted_at.is_some() {
        return Ok(confirmed);
    }
    let at = head.next().at;
    let detail = db::json_text(&confirmed.differences);
    let mut control_head = db.history().lock(&mut tx, Stream::Control).await?;
    audit::revise(&mut tx, Stream::Risk).await?;
    store::halt(&mut tx, at, &detail).await?;
    let event = ControlEvent { action: "RISK_HALT", subject: None, error: None, reason: None, detail: Some(detail) };
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
    let mut found = compare(&mut tx, &mut Summed::default()).await?;
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
    let left = compare(&mut tx, &mut Summed::default()).await?;
    if let Some(difference) = left.differences.first() {
        let engine = difference.engine.parse().unwrap_or_else(|_| Engine::global());
        return Err(OutOfRange { engine, counter: difference.counter }.into());
    }
    let event = ControlEvent::new("RISK_REPAIR").because(reason).detail(&found.differences);
    event.append(&mut tx, &mut control_head, origin).await?;
    db::commit(tx).await?;
    found.halted_at = None;
    Ok(found)
}

/// Compares at intervals until the task is cancelled.
pub async fn watch(db: Database) {
    let mut summed = Summed::default();
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match reconcile_after(&db, &mut summed).await {
            Ok(found) => {
                metrics::gauge!("holdfast_ledger_halted").set(if found.halted_at.is_some() { 1.0 } else { 0.0 });
            }
            Err(error) => tracing::warn!(%error, "the book could not be compared: trying again"),
        }
    }
}

async fn compare(conn: &mut PgConnection, summed: &mut Summed) -> Result<Reconciliation> {
    let (day, seq, halted_at) = store::reconciled_at(&mut *conn).await?;
    if summed.day != Some(day) {
        *summed = Summed { day: Some(day), ..Summed::default() };
    }
    for (engine, flow) in store::sum_flows(&mut *conn, day, summed.seq).await? {
        let sum = summed.flows.entry(engine).or_default();
        *sum = sum.plus(&flow);
    }
    summed.seq = seq;
    let Recomputed { open, recorded_open, recorded_flows } = store::recompute(&mut *conn, day).await?;
    let computed_flows = with_global(&summed.flows, Flow::plus);
    let computed_open = with_global(&open, |one: &Total, other: &Total| one.plus(*other).unwrap_or_default());
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
    Ok(Reconciliation { day, seq, balanced: differences.is_empty(), differences, halted_at })
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
