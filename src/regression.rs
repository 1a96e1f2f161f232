//! Lever 4, the regression tripwire: has performance dropped? Then throttle the engine or pull the kill switch.
//!
//! Invariants:
//! - Every measurement is evaluated in the transaction that records it, by order of arrival. The next reserve after a tripping
//!   event is denied.
//! - A wire is latched: it acts once a trip, and stays tripped until somebody re-arms it. Events from before a re-arm never
//!   count again.
//! - The cost of an event does not depend on the history: the windows are three index reads of running sums, evidence is a few
//!   numbers.
//!
//! A trip throttles an engine or pulls the kill switch, and a re-arm lifts a throttle: this lever is above the two that it moves.
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

pub use answers::{
    AcknowledgeAnswer, BaselineAnswer, EvaluateAnswer, KindAnswer, KpiAnswer, RearmAnswer, RegressionPolicyRemoved,
    RegressionPolicyUpserted, Tripped,
};

use crate::approval::model::ApprovalAction;
use crate::approval::{self, Gated, Loosened, Wanted, WithChanges};
use crate::audit::{self, Changes, ControlEvent, Head, Origin, Stamp, Stream};
use crate::budget::turns::Turns;
use crate::clock::Clock;
use crate::config::LimitsConfig;
use crate::db::{self, Database, to_json};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result, require_room};
use crate::group_commit::Writer;
use crate::idempotency::{self, Asked, Once};
use crate::types::{Actor, Domain, Engine, Metric, Ratio, Reason};
use advice::{PROFILED, Profile};
use measure::{Measure, Measured, Measurements, Reused};
use model::{Action, Detector, FrozenSpan, Mode, PolicyUpsert, Rebase, RegressionPolicy, WireState};
use operate::HeldSeries;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use trip::{Cause, Heads, Tripping};

pub(crate) use trip::begin_counting;

/// Events that a rate is told from at least, before it stands in the way of another baseline.
const WORSE_MIN: i64 = 20;
/// Evidence beyond which something is happening: 20 is routine noise.
const EVIDENCE_MAX: f64 = 1_000.0;

/// The lever's service.
#[derive(Debug, Clone)]
pub struct Regression {
    db: Database,
    feed: Feed,
    two_person: approval::Policy,
    writer: Writer<Measure>,
    reused: Reused,
    wires_max: usize,
    metrics_max: usize,
    /// The right to replay a history: one at a time.
    pub replaying: Turns,
}

/// A wire that is to be set up.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireRequest {
    pub(crate) wire: PolicyUpsert,
    pub(crate) force: bool,
}

/// A wire that is to be armed again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RearmRequest {
    pub(crate) domain: Domain,
    pub(crate) metric: Metric,
    pub(crate) baseline: Rebase,
}

/// A wire that is to get another baseline.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BaselineRequest {
    pub(crate) domain: Domain,
    pub(crate) metric: Metric,
    pub(crate) source: Rebase,
    pub(crate) force: bool,
}

/// An upsert, for the audit trail.
#[derive(Serialize)]
struct PolicyDetail<'a> {
    changes: &'a Changes,
    policy: &'a RegressionPolicy,
}

/// Refuses a wire that would throttle the name of Holdfast itself, unless it does so already.
fn refuse_system(existing: Option<&RegressionPolicy>, policy: &RegressionPolicy) -> Result<()> {
    let engine = policy.throttled_engine();
    if engine.as_ref().is_some_and(Engine::is_system) && existing.and_then(RegressionPolicy::throttled_engine) != engine
    {
        return Err(Error::invalid("engine", "is SYSTEM, as events call Holdfast itself: name another one"));
    }
    Ok(())
}

fn wire_tripped(request: &PolicyUpsert, trip_id: i64) -> Error {
    Error::WireTripped { domain: request.domain.to_string(), metric: request.metric.to_string(), trip_id }
}

impl Regression {
    /// The lever on this database; a kill switch pulled here reaches this instance's gate through `feed` at once.
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

    /// Records measurements, in order and together, and acts on them.
    pub async fn record(&self, measurements: Measurements) -> Result<Measured> {
        for (event, origin) in &measurements.events {
            origin.authority.require_domain(&event.domain)?;
        }
        let answers = self.writer.submit(vec![measurements]).await?;
        let only = answers.into_iter().next();
        only.ok_or_else(|| Error::Inconsistent("a measurement was not answered".into()))?
    }

    /// Evaluates a wire as it stands; a read that also acts.
    pub async fn evaluate(&self, domain: &Domain, metric: &Metric, asked: &Asked) -> Result<Once<EvaluateAnswer>> {
        let intent = asked.intent.as_ref();
        let HeldSeries { mut tx, now, policy, mut state } = match self.hold_series((domain, metric), asked).await? {
            Once::Replayed(answer) => return Ok(Once::Replayed(answer)),
            Once::Done(held) => held,
        };
        state.last_checked_at = Some(now.at);
        let Some(policy) = policy.filter(|policy| policy.enabled) else {
            // Nothing to judge by: nothing but a key is written, so that a name nobody watches leaves no row behind.
            let unwatched = EvaluateAnswer { ok: true, state };
            idempotency::keep(&mut tx, intent, now, &unwatched).await?;
            db::commit(tx).await?;
            return Ok(Once::Done(unwatched));
        };
        let (mut wire, series) = load::wire(&mut tx, &policy, state).await?;
        let pair = (domain.clone(), metric.clone());
        let reading = wire.read(series.end, &series).map_err(|sum| trip::unknown(&pair, sum))?;
        let mut acted = None;
        if wire.take(&reading) {
            let cause = Cause::Drop { began: wire.state.began() };
            let tripping = Tripping { reading, end: series.end, kpi_seq: series.seq, cause, by_event: false };
            let mut heads = Heads::lock_to_trip(self.db.history(), &mut tx, trip::throttles(&policy)).await?;
            acted = Some(trip::act(&mut tx, &mut heads, &policy, &mut wire.state, &tripping, &asked.origin).await?);
        }
        store::write_states(&mut tx, &[&wire.state], now.at).await?;
        let answer = EvaluateAnswer { ok: true, state: wire.state };
        idempotency::keep(&mut tx, intent, now, &answer).await?;
        db::commit(tx).await?;
        if let Some((tripped, killed)) = acted {
            trip::publish(&self.feed, &self.db, &tripped, killed.as_ref());
        }
        Ok(Once::Done(answer))
    }

    /// Sets up a wire. `enabled=true` with a reason on a tripped one re-arms it and lifts its own throttle. `force` says that a wire
    /// is meant that is likely to stop everything by chance.
    pub async fn upsert_wire(
        &self,
        request: &PolicyUpsert,
        force: bool,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Loosened<RegressionPolicyUpserted>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(&request.domain)?;
        let mut tx = self.db.begin().await?;
        let head = self.db.history().lock(&mut tx, Stream::Kpi).await?;
        let now = head.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, now).await? {
            return answer.confirm(tx).await.map(Loosened::Done);
        }
        let existing = store::read_policy(&mut tx, &request.domain, &request.metric).await?;
        match &existing {
            Some(existing) => require_reach(origin, existing)?,
            None => require_room("wires", store::count_policies(&mut tx).await?, self.wires_max, "WIRES_MAX")?,
        }
        let mut state = store::read_state(&mut tx, &request.domain, &request.metric).await?;
        let (policy, changes) = model::upsert(existing.as_ref(), request, origin.actor.as_ref(), reason, now.at)?;
        require_reach(origin, &policy)?;
        refuse_system(existing.as_ref(), &policy)?;
        // A wire that only would have tripped does not stand in the way of one that shall.
        let enforces = state.is_shadow_tripped() && policy.mode == Mode::Enforce && !changes.is_empty();
        let rearms = state.trip_id.filter(|_| request.enabled == Some(true) || enforces);
        if let (Some(trip_id), None, true) = (rearms, reason, state.triggered) {
            return Err(wire_tripped(request, trip_id));
        }
        // Another frozen baseline is a reset, whatever led to it.
        if model::rebases(existing.as_ref(), &policy) && rearms.is_none() {
            if let Some(trip_id) = state.trip_id {
                return Err(wire_tripped(request, trip_id));
            }
            if let Some(old) = existing.as_ref().filter(|_| !force) {
                refuse_worse(&mut tx, old, &state).await?;
            }
        }
        let profile = profile(&mut tx, &policy).await?;
        let mut warnings = advice::warnings(&policy, profile.as_ref());
        warnings.extend(stops_nothing(&mut tx, &policy).await?);
        if let (true, None, Some(policy)) = (changes.is_empty() && asked.approves.is_none(), rearms, &existing) {
            let policy = policy.clone();
            let unchanged = RegressionPolicyUpserted { ok: true, policy, changes: Vec::new(), rearmed: None, warnings };
            idempotency::keep(&mut tx, intent, now, &unchanged).await?;
            db::commit(tx).await?;
            return Ok(Loosened::Done(Once::Done(unchanged)));
        }
        if advice::needs_force(&policy, profile.as_ref()) && !force {
            let detail = "is required for a KILL_SWITCH by PLAIN on values, which chance trips: send force=true if it is meant, or \
                          detector=SEQUENTIAL";
            return Err(Error::invalid("force", detail));
        }
        let mut heads = Heads::lock(self.db.history(), &mut tx, rearms.is_some()).await?;
        let subject = trip::name(&policy);
        let wire = WireRequest { wire: request.clone(), force };
        let input = to_json(&WithChanges { request: &wire, changes: &changes });
        // The settings of a removed wire are not known any more.
        let renews = existing.is_none() && audit::was_done(&mut tx, remove::REMOVED, &subject).await?;
        let loosening =
            model::loosening(existing.as_ref(), &policy, rearms).or_else(|| renews.then_some(ApprovalAction::Wire));
        let wanted = Wanted { subject: Some(&subject), input: input.get(), reason };
        if let Gated::Wait(record) = self.gate(&mut tx, &mut heads.control, asked, loosening, wanted).await? {
            db::commit(tx).await?;
            return Ok(Loosened::Waiting(record));
        }
        store::upsert_policy(&mut tx, &policy).await?;
        warnings.extend(stale::warning(&mut tx, &policy, head.now()).await?.filter(|_| rearms.is_none()));
        if rearms.is_some() {
            trip::rearm(&mut tx, &mut heads.control, &policy, &mut state, Rebase::Keep, reason, origin).await?;
        }
        follow(&mut tx, existing.as_ref(), &policy, &mut state, origin.actor.as_ref(), now).await?;
        if policy.enabled {
            note_reading(&mut tx, &policy, &mut state, now).await?;
        } else if existing.is_some() || state.baseline_version > 0 {
            store::write_states(&mut tx, &[&state], now.at).await?;
        }
        let event = ControlEvent::new("REGRESSION_POLICY_UPSERT")
            .about(&subject)
            .because(reason)
            .detail(&PolicyDetail { changes: &changes, policy: &policy });
        event.append(&mut tx, &mut heads.control, origin).await?;
        let upserted = RegressionPolicyUpserted { ok: true, policy, changes: changes.0, rearmed: rearms, warnings };
        idempotency::keep(&mut tx, intent, now, &upserted).await?;
        db::commit(tx).await?;
        Ok(Loosened::Done(Once::Done(upserted)))
    }

    /// Whether a change may be done now, or waits for a second person.
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

    /// Waits for it to end, which it never should.
    pub async fn writer_ended(&self) {
        self.writer.ended().await;
    }

    /// Measurements that were refused because their sender had used their id for another one.
    #[must_use]
    pub const fn reused(&self) -> &Reused {
        &self.reused
    }

    /// Measurements that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.writer.waiting()
    }

    /// The database, for the lever's reads.
    #[must_use]
    pub const fn db(&self) -> &Database {
        &self.db
    }
}

/// Refuses a caller that does not reach both the domain of a wire and its engine, whatever its action is: one that may change the
/// wire may have it let go of that engine. A wire that has no engine is every engine's.
pub(crate) fn require_reach(origin: &Origin, wire: &RegressionPolicy) -> Result<()> {
    origin.authority.require_domain(&wire.domain)?;
    origin.authority.require_engine(&wire.throttled_engine().unwrap_or_else(Engine::global))
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

/// Has the state of a wire follow its policy: a SEQUENTIAL one freezes its baseline anew where its settings are others, and gathers no
/// evidence over events that it has not seen.
async fn follow(
    conn: &mut PgConnection,
    existing: Option<&RegressionPolicy>,
    policy: &RegressionPolicy,
    state: &mut WireState,
    actor: Option<&Actor>,
    now: Stamp,
) -> Result<()> {
    if policy.detector == Detector::Plain {
        state.frozen = None;
        return Ok(());
    }
    let end = store::read_end(&mut *conn, &policy.domain, &policy.metric).await?.map_or(0, |end| end.mark.events);
    if model::refreezes(existing, policy) || state.frozen.is_none() {
        let span = FrozenSpan::last(policy.baseline_events.get(), end, state.watermark);
        trip::set_baseline(conn, policy, state, span, "FROZEN", actor, now).await?;
        state.forget_evidence(end);
    } else if policy.enabled && existing.is_some_and(|old| !old.enabled) {
        state.forget_evidence(end);
    }
    Ok(())
}

/// The warning about a wire whose trip would turn off an engine that nothing reserves for.
async fn stops_nothing(conn: &mut PgConnection, policy: &RegressionPolicy) -> Result<Option<String>> {
    let Some(engine) = policy.throttled_engine().filter(|_| policy.action == Action::Throttle) else {
        return Ok(None);
    };
    let known = crate::risk::store::has_policy(conn, &engine).await?;
    Ok((!known).then(|| {
        format!("no risk policy is named {engine}, so a trip stops nothing that reserves: send engine with the name of the one that acts")
    }))
}

/// Refuses another baseline where the last events, those that would become it or the recent ones, are worse than the one in use by half
/// of what trips: it would hide a drop. Of the next events nobody knows yet, but where they begin.
async fn refuse_worse(conn: &mut PgConnection, policy: &RegressionPolicy, state: &WireState) -> Result<()> {
    let (wire, series) = load::wire(&mut *conn, policy, state.clone()).await?;
    let pair = (policy.domain.clone(), policy.metric.clone());
    let reading = wire.read(series.end, &series).map_err(|sum| trip::unknown(&pair, sum))?;
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
        // A few events say nothing of a rate.
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

/// Shows what the windows of a wire say now, and writes its state. Acting is left to the next measurement or evaluation.
async fn note_reading(
    conn: &mut PgConnection,
    policy: &RegressionPolicy,
    state: &mut WireState,
    now: Stamp,
) -> Result<()> {
    let (mut wire, series) = load::wire(&mut *conn, policy, state.clone()).await?;
    let pair = (policy.domain.clone(), policy.metric.clone());
    let reading = wire.read(series.end, &series).map_err(|sum| trip::unknown(&pair, sum))?;
    if wire.take(&reading) {
        wire.state.note = format!("PENDING drop={}", reading.drop.unwrap_or_default().short());
    }
    *state = wire.state;
    state.show(Some(policy), reading.verdict.is_early());
    store::write_states(conn, &[&*state], now.at).await
}
