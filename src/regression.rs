//! Lever 4, the regression tripwire: it finds a drop in performance, and then throttles the engine or engages the kill
//! switch.
//!
//! Invariants:
//! - Every measurement is evaluated in the transaction that records it, in the order of arrival. The next reserve after
//!   a tripping event is denied.
//! - A wire is latched: it acts once per trip, and stays tripped until an operator re-arms it. Events from before a
//!   re-arm never count again.
//! - The cost of an event does not depend on the history: the windows are three index reads of running sums, and the
//!   evidence is a few numbers.
//!
//! A trip throttles an engine or engages the kill switch, and a re-arm lifts a throttle: this lever is above those two
//! levers.
//!
//! **Locks**: kpi, then risk, then control, forward only. A measurement that trips nothing takes the KPI head alone, so
//! measurements do not wait for the ledger.

pub mod advice;
mod answers;
pub mod backtest;
pub mod detector;
pub mod http;
mod kind;
mod load;
pub mod measure;
pub mod model;
mod operate;
mod remove;
mod stale;
pub mod store;
mod trip;
mod upsert;

pub use answers::{
    AcknowledgeAnswer, BaselineAnswer, EvaluateAnswer, KindAnswer, KpiAnswer, RearmAnswer, RegressionPolicyRemoved,
    RegressionPolicyUpserted, Tripped,
};

use crate::approval::model::ApprovalAction;
use crate::approval::{self, Gated, Wanted};
use crate::audit::{Head, Stamp};
use crate::budget::turns::Turns;
use crate::clock::Clock;
use crate::config::LimitsConfig;
use crate::db::Database;
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use crate::group_commit::Writer;
use crate::idempotency::Asked;
use crate::types::{Domain, Metric, Ratio};
use advice::{PROFILED, Profile};
use measure::{Measure, Measured, Measurements, Reused};
use model::{FrozenSpan, Rebase, RegressionPolicy, WireState};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

pub(crate) use upsert::WireRequest;

/// The least number of events in a rate that may block a new baseline.
const WORSE_MIN: i64 = 20;
/// The evidence that blocks a new baseline; evidence of 20 is routine noise.
const EVIDENCE_MAX: f64 = 1_000.0;

/// The service of the tripwire.
#[derive(Debug, Clone)]
pub struct Regression {
    db: Database,
    feed: Feed,
    two_person: approval::Policy,
    writer: Writer<Measure>,
    reused: Reused,
    wires_max: usize,
    metrics_max: usize,
    /// The turns of backtests: one history is replayed at a time.
    pub replaying: Turns,
}

/// A requested re-arm, as a request for a second person stores it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RearmRequest {
    pub(crate) domain: Domain,
    pub(crate) metric: Metric,
    pub(crate) baseline: Rebase,
}

/// A requested reset of a baseline, as a request for a second person stores it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BaselineRequest {
    pub(crate) domain: Domain,
    pub(crate) metric: Metric,
    pub(crate) source: Rebase,
    pub(crate) force: bool,
}

impl Regression {
    /// The lever on this database. `feed` passes a kill switch that it engages to this instance's gate at once.
    #[must_use]
    pub fn new(db: Database, clock: Clock, feed: Feed, two_person: approval::Policy, limits: &LimitsConfig) -> Self {
        let reused = Reused::default();
        let measure = Measure::new(db.clone(), feed.clone(), reused.clone(), limits.metrics_max);
        let writer = Writer::start(db.clone(), clock, measure);
        Self {
            db,
            feed,
            two_person,
            writer,
            reused,
            wires_max: limits.wires_max,
            metrics_max: limits.metrics_max,
            replaying: Turns::default(),
        }
    }

    /// Records measurements, in order and in one transaction, and acts on their trips.
    pub async fn record(&self, measurements: Measurements) -> Result<Measured> {
        for (event, origin) in &measurements.events {
            origin.authority.require_domain(&event.domain)?;
        }
        let answers = self.writer.submit(vec![measurements]).await?;
        let only = answers.into_iter().next();
        only.ok_or_else(|| Error::Inconsistent("a measurement was not answered".into()))?
    }

    /// Decides whether a change may be done now or waits for a second person.
    async fn gate(
        &self,
        conn: &mut PgConnection,
        head: &mut Head,
        asked: &Asked,
        loosening: Option<ApprovalAction>,
        wanted: Wanted<'_>,
    ) -> Result<Gated> {
        approval::gate(conn, head, self.two_person, asked, loosening, wanted).await
    }

    /// Whether the writer of measurements still runs.
    #[must_use]
    pub fn writer_runs(&self) -> bool {
        self.writer.runs()
    }

    /// Waits for the end of the writer, which only a fault causes.
    pub async fn writer_ended(&self) {
        self.writer.ended().await;
    }

    /// The measurements that were refused because their sender had used their id for another one.
    #[must_use]
    pub const fn reused(&self) -> &Reused {
        &self.reused
    }

    /// The number of measurements that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.writer.waiting()
    }

    /// The database, for reads of the lever.
    #[must_use]
    pub const fn db(&self) -> &Database {
        &self.db
    }
}

/// Begins all counters at 0, since a counter that begins with its first event shows no increase at that event.
pub(crate) fn begin_counting() {
    trip::begin_counting();
    Reused::begin_counting();
}

/// The profile of the last events of a wire's series.
async fn profile(conn: &mut PgConnection, policy: &RegressionPolicy) -> Result<Option<Profile>> {
    let pair = (policy.domain.clone(), policy.metric.clone());
    let end = store::read_end(&mut *conn, &pair.0, &pair.1).await?;
    let after = end.map_or(0, |end| (end.mark.events - PROFILED).max(end.since));
    let past = store::read_history(conn, &pair, after, (None, None), PROFILED).await?;
    let past: Vec<_> = past.into_iter().map(|(.., measurement)| measurement).collect();
    Ok(Profile::of(&past, policy.direction))
}

/// Refuses a new baseline if the last events, either those that would become it or the recent ones, are worse than the
/// current baseline by half of the tripping drop, since it would hide a drop. For a baseline of the next events, only
/// their start is known.
async fn refuse_worse(conn: &mut PgConnection, policy: &RegressionPolicy, state: &WireState) -> Result<()> {
    let (wire, series) = load::wire(&mut *conn, policy, state.clone()).await?;
    let pair = (policy.domain.clone(), policy.metric.clone());
    let reading = wire.read(series.end, &series).map_err(|sum| load::unknown(&pair, sum))?;
    if reading.verdict.is_early() || reading.baseline.events == 0 {
        return Ok(());
    }
    let refused = |drop: Option<Ratio>| Error::BaselineWorse {
        domain: pair.0.to_string(),
        metric: pair.1.to_string(),
        drop: drop.unwrap_or_default(),
    };
    if reading.evidence.is_some_and(|evidence| evidence > EVIDENCE_MAX) {
        return Err(refused(reading.drop));
    }
    let last = FrozenSpan::last(policy.baseline_events.get(), series.end.events, state.watermark);
    let there = FrozenSpan { events: series.end.events - last.after, ..last };
    let mut half = policy.tolerance(wire.boolean);
    half.limit = (half.limit + 1) / 2;
    for new in [load::window(conn, policy, there).await?, Some(reading.recent)].into_iter().flatten() {
        // A few events do not determine a rate.
        if new.events < policy.min_events_to_enforce.get().min(WORSE_MIN) {
            continue;
        }
        let compared = half.compare(reading.baseline, new);
        if compared.reaches {
            return Err(refused(compared.drop));
        }
    }
    Ok(())
}

/// Writes the current reading of a wire's windows into its state. The next measurement or evaluation acts on it.
async fn note_reading(
    conn: &mut PgConnection,
    policy: &RegressionPolicy,
    state: &mut WireState,
    now: Stamp,
) -> Result<()> {
    let (mut wire, series) = load::wire(&mut *conn, policy, state.clone()).await?;
    let pair = (policy.domain.clone(), policy.metric.clone());
    let reading = wire.read(series.end, &series).map_err(|sum| load::unknown(&pair, sum))?;
    if wire.take(&reading) {
        wire.state.note = format!("PENDING drop={}", reading.drop.unwrap_or_default().short());
    }
    *state = wire.state;
    state.show(Some(policy), reading.verdict.is_early());
    store::write_states(conn, &[&*state], now.at).await
}
