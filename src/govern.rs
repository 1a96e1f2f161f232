//! What changes two levers in one transaction: a measurement that trips a wire throttles an engine or pulls the kill switch,
//! and re-arming a wire lifts its throttle.
//!
//! **Locks**: kpi, then risk, then control, forward only. A measurement that trips nothing takes the KPI head alone, so
//! measurements do not wait for the ledger.

mod answers;

pub use answers::{EvaluateAnswer, KpiAnswer, RegressionPolicyUpserted, Tripped};

use crate::access::scope::Scope;
use crate::audit::{self, Changes, ControlEvent, Head, Origin, Stream};
use crate::db::{self, Database, to_json};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result};
use crate::go_live::model::{Change, GoLiveState};
use crate::idempotency::{self, Asked, Once};
use crate::regression::model::{
    self, Action, KpiEvent, Mark, PolicyUpsert, RegressionPolicy, Verdict, Window, WireState, WireStatus,
};
use crate::regression::store::{self, NewTrip};
use crate::regression::{self, Reading};
use crate::types::{Actor, Detail, Domain, Engine, Metric, Ratio, Reason};
use crate::{go_live, risk};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;

/// The flows across levers.
#[derive(Debug, Clone)]
pub struct Govern {
    db: Database,
    feed: Feed,
}

/// Numbers of a trip, for the audit trail.
#[derive(Serialize)]
struct TripDetail<'a> {
    policy: &'a RegressionPolicy,
    kpi_seq: i64,
    series_seq: i64,
    baseline_events: i64,
    baseline_sum: crate::types::Total,
    current_events: i64,
    current_sum: crate::types::Total,
    drop_fraction: Option<Ratio>,
    engine: Option<&'a Engine>,
}

/// What an upsert did, for the audit trail.
#[derive(Serialize)]
struct PolicyDetail<'a> {
    changes: &'a Changes,
    policy: &'a RegressionPolicy,
}

/// What a re-arm did, for the audit trail.
#[derive(Serialize)]
struct RearmDetail {
    trip_id: i64,
    watermark: i64,
}

/// An evaluation that is about to be recorded: the wire, what it read, and where its series stands.
struct Evaluated<'a> {
    policy: &'a RegressionPolicy,
    reading: Reading,
    end: Mark,
    kpi_seq: i64,
    /// Whether that measurement has just arrived.
    by_event: bool,
}

impl Govern {
    /// The flows on this database; a kill switch pulled here reaches this instance's gate through `feed` at once.
    #[must_use]
    pub const fn new(db: Database, feed: Feed) -> Self {
        Self { db, feed }
    }

    /// Records a measurement and acts on it.
    pub async fn record_kpi(&self, event: &KpiEvent, asked: &Asked) -> Result<Once<KpiAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(&event.domain)?;
        let mut tx = self.db.begin().await?;
        let mut head = audit::lock(&mut tx, Stream::Kpi).await?;
        let now = head.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, now).await? {
            return Ok(Once::Replayed(answer));
        }
        let policy = store::read_policy(&mut tx, &event.domain, &event.metric).await?;
        let watched = policy.as_ref().is_some_and(|policy| policy.enabled);
        if let Some(id) = find_duplicate(&mut tx, event).await? {
            // A retry after a lost answer learns what the first one did.
            let tripped = store::find_trip(&mut tx, id).await?.map(Tripped::of);
            let known = KpiAnswer { ok: true, id, tripped, watched, duplicate: true };
            idempotency::keep(&mut tx, intent, now, &known).await?;
            db::commit(tx).await?;
            return Ok(Once::Done(known));
        }
        let recorded = regression::record_in_tx(&mut tx, &mut head, event, origin).await?;
        let mut acted = None;
        if let Some(policy) = policy.filter(|policy| policy.enabled) {
            let mut state = store::read_state(&mut tx, &event.domain, &event.metric).await?;
            let reading = regression::read_in_tx(&mut tx, &policy, &state, recorded.mark).await?;
            let evaluated =
                Evaluated { policy: &policy, reading, end: recorded.mark, kpi_seq: recorded.stamp.seq, by_event: true };
            acted = act(&mut tx, &mut state, &evaluated, origin).await?;
            store::write_state(&mut tx, &state, recorded.stamp.at).await?;
        }
        let tripped = acted.as_ref().map(|(tripped, _)| tripped.clone());
        let answer = KpiAnswer { ok: true, id: recorded.stamp.seq, tripped, watched, duplicate: false };
        idempotency::keep(&mut tx, intent, now, &answer).await?;
        db::commit(tx).await?;
        self.publish(acted);
        Ok(Once::Done(answer))
    }

    /// Evaluates a wire as it stands; a read that also acts.
    pub async fn evaluate(&self, domain: &Domain, metric: &Metric, asked: &Asked) -> Result<Once<EvaluateAnswer>> {
        let intent = asked.intent.as_ref();
        asked.origin.authority.require_domain(domain)?;
        let mut tx = self.db.begin().await?;
        let now = audit::lock(&mut tx, Stream::Kpi).await?.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, now).await? {
            return Ok(Once::Replayed(answer));
        }
        let mut state = store::read_state(&mut tx, domain, metric).await?;
        state.last_checked_at = Some(now.at);
        let policy = store::read_policy(&mut tx, domain, metric).await?.filter(|policy| policy.enabled);
        let Some(policy) = policy else {
            // Nothing to judge by: nothing but a key is written, so that a name nobody watches leaves no row behind.
            let unwatched = EvaluateAnswer { ok: true, state };
            idempotency::keep(&mut tx, intent, now, &unwatched).await?;
            db::commit(tx).await?;
            return Ok(Once::Done(unwatched));
        };
        let end = store::read_end(&mut tx, domain, metric).await?;
        let mark = end.map(|end| end.mark).unwrap_or_default();
        let reading = regression::read_in_tx(&mut tx, &policy, &state, mark).await?;
        let kpi_seq = end.map_or(0, |end| end.seq);
        let evaluated = Evaluated { policy: &policy, reading, end: mark, kpi_seq, by_event: false };
        let acted = act(&mut tx, &mut state, &evaluated, &asked.origin).await?;
        store::write_state(&mut tx, &state, now.at).await?;
        let answer = EvaluateAnswer { ok: true, state };
        idempotency::keep(&mut tx, intent, now, &answer).await?;
        db::commit(tx).await?;
        self.publish(acted);
        Ok(Once::Done(answer))
    }

    /// Sets up a wire. `enabled=true` with a reason on a tripped one re-arms it and lifts its own throttle.
    pub async fn upsert_wire(
        &self,
        request: &PolicyUpsert,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Once<RegressionPolicyUpserted>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(&request.domain)?;
        let mut tx = self.db.begin().await?;
        let now = audit::lock(&mut tx, Stream::Kpi).await?.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, now).await? {
            return Ok(Once::Replayed(answer));
        }
        let existing = store::read_policy(&mut tx, &request.domain, &request.metric).await?;
        let mut state = store::read_state(&mut tx, &request.domain, &request.metric).await?;
        let (policy, changes) = model::upsert(existing.as_ref(), request, origin.actor.as_ref(), reason, now.at)?;
        let rearms = state.trip_id.filter(|_| request.enabled == Some(true));
        if let (Some(trip_id), None) = (rearms, reason) {
            let (domain, metric) = (request.domain.to_string(), request.metric.to_string());
            return Err(Error::WireTripped { domain, metric, trip_id });
        }
        if rearms.is_some() || model::loosens(existing.as_ref(), &policy) {
            origin.authority.require(Scope::Release, "a wire that is re-armed, off, or less sensitive")?;
        }
        if let Some(engine) = policy.throttled_engine().filter(|_| !changes.is_empty()) {
            origin.authority.require_engine(&engine)?;
        }
        if let (true, None, Some(policy)) = (changes.is_empty(), rearms, existing) {
            let unchanged = RegressionPolicyUpserted { ok: true, policy, changes: Vec::new(), rearmed: None };
            idempotency::keep(&mut tx, intent, now, &unchanged).await?;
            db::commit(tx).await?;
            return Ok(Once::Done(unchanged));
        }
        store::upsert_policy(&mut tx, &policy).await?;
        if policy.enabled && rearms.is_none() {
            note_reading(&mut tx, &policy, &mut state, now.at).await?;
        }
        let subject = wire_name(&policy);
        let risk_head = match rearms {
            Some(_) => Some(audit::lock(&mut tx, Stream::Risk).await?),
            None => None,
        };
        let mut control_head = audit::lock(&mut tx, Stream::Control).await?;
        if let (Some(trip_id), Some(_)) = (rearms, &risk_head) {
            rearm(&mut tx, &mut control_head, &mut state, trip_id, reason, origin).await?;
        }
        let detail = Some(to_json(&PolicyDetail { changes: &changes, policy: &policy }).get().to_owned());
        let event =
            ControlEvent { action: "REGRESSION_POLICY_UPSERT", subject: Some(&subject), error: None, reason, detail };
        event.append(&mut tx, &mut control_head, origin).await?;
        let upserted = RegressionPolicyUpserted { ok: true, policy, changes: changes.0, rearmed: rearms };
        idempotency::keep(&mut tx, intent, now, &upserted).await?;
        db::commit(tx).await?;
        Ok(Once::Done(upserted))
    }

    /// Counts a trip, and hands a kill switch that it pulled to this instance's gate.
    fn publish(&self, acted: Option<(Tripped, Option<GoLiveState>)>) {
        let Some((tripped, killed)) = acted else {
            return;
        };
        if let Some(state) = killed {
            self.feed.publish(&self.db, Change::Engage, &state);
        }
        metrics::counter!("holdfast_wire_trips_total", "action" => tripped.action.as_str()).increment(1);
    }

    /// The database, for the lever's reads.
    #[must_use]
    pub const fn db(&self) -> &Database {
        &self.db
    }
}

/// Shows what the windows of a wire that was set up say now. Acting is left to the next measurement or evaluation.
async fn note_reading(
    conn: &mut PgConnection,
    policy: &RegressionPolicy,
    state: &mut WireState,
    at: DateTime<Utc>,
) -> Result<()> {
    let end = store::read_end(&mut *conn, &policy.domain, &policy.metric).await?;
    let end = end.map(|end| end.mark).unwrap_or_default();
    let evaluation = regression::read_in_tx(&mut *conn, policy, state, end).await?.evaluation;
    (state.baseline, state.current, state.drop_fraction) =
        (evaluation.baseline, evaluation.current, evaluation.drop_fraction);
    if !state.triggered {
        state.note = match evaluation.verdict {
            Verdict::Trips => format!("PENDING drop={}", evaluation.drop_fraction.unwrap_or_default().short()),
            _ => evaluation.note(policy.action),
        };
    }
    store::write_state(conn, state, at).await
}

fn wire_name(policy: &RegressionPolicy) -> String {
    format!("{}.{}", policy.domain, policy.metric)
}

/// The measurement that already carries this id; another one under the same id is refused.
async fn find_duplicate(conn: &mut PgConnection, event: &KpiEvent) -> Result<Option<i64>> {
    let Some(event_id) = &event.event_id else {
        return Ok(None);
    };
    let Some((id, measurement, detail)) = store::find_event_id(conn, &event.domain, &event.metric, event_id).await?
    else {
        return Ok(None);
    };
    let mut fields = Vec::new();
    if measurement != event.measurement {
        fields.push(event.measurement.kind().1);
    }
    if detail.as_deref() != event.detail.as_ref().map(Detail::as_str) {
        fields.push("detail");
    }
    if fields.is_empty() { Ok(Some(id)) } else { Err(Error::EventIdReused { event_id: event_id.to_string(), fields }) }
}

/// Takes an evaluation into the state of its wire and, if it trips an armed wire, acts.
async fn act(
    conn: &mut PgConnection,
    state: &mut WireState,
    evaluated: &Evaluated<'_>,
    origin: &Origin,
) -> Result<Option<(Tripped, Option<GoLiveState>)>> {
    let evaluation = evaluated.reading.evaluation;
    (state.baseline, state.current, state.drop_fraction) =
        (evaluation.baseline, evaluation.current, evaluation.drop_fraction);
    // Latched: the note of the trip stays, the numbers beside it go on.
    if state.triggered {
        return Ok(None);
    }
    state.note = evaluation.note(evaluated.policy.action);
    state.status = state.status_under(Some(evaluated.policy));
    if evaluation.verdict != Verdict::Trips {
        return Ok(None);
    }
    trip(conn, state, evaluated, origin).await.map(Some)
}

async fn trip(
    conn: &mut PgConnection,
    state: &mut WireState,
    evaluated: &Evaluated<'_>,
    origin: &Origin,
) -> Result<(Tripped, Option<GoLiveState>)> {
    let policy = evaluated.policy;
    // Lock order: kpi is held; risk for the throttle, then control.
    let _risk_head: Option<Head> = match policy.action {
        Action::Throttle => Some(audit::lock(&mut *conn, Stream::Risk).await?),
        Action::KillSwitch => None,
    };
    let mut control_head = audit::lock(&mut *conn, Stream::Control).await?;
    let engine = match policy.action {
        Action::Throttle => policy.throttled_engine(),
        Action::KillSwitch => None,
    };
    let stamp = control_head.next();
    let Window { events: baseline_events, sum: baseline_sum } = evaluated.reading.baseline;
    let Window { events: current_events, sum: current_sum } = evaluated.reading.recent;
    let drop_fraction = evaluated.reading.evaluation.drop_fraction;
    let detail = to_json(&TripDetail {
        policy,
        kpi_seq: evaluated.kpi_seq,
        series_seq: evaluated.end.events,
        baseline_events,
        baseline_sum,
        current_events,
        current_sum,
        drop_fraction,
        engine: engine.as_ref(),
    });
    let new = NewTrip {
        id: stamp.seq,
        policy,
        kpi_seq: evaluated.kpi_seq,
        series_seq: evaluated.end.events,
        baseline: evaluated.reading.baseline,
        recent: evaluated.reading.recent,
        drop_fraction: drop_fraction.unwrap_or_default(),
        engine: engine.as_ref(),
        actor: origin.actor.as_ref(),
        at: stamp.at,
        by_event: evaluated.by_event,
    };
    store::insert_trip(&mut *conn, &new).await?;
    let subject = wire_name(policy);
    let event = ControlEvent {
        action: "REGRESSION_TRIP",
        subject: Some(&subject),
        error: None,
        reason: None,
        detail: Some(RawValue::get(&detail).to_owned()),
    };
    event.append(&mut *conn, &mut control_head, origin).await?;

    let why = format!("Regression tripwire: {subject} drop={}", drop_fraction.unwrap_or_default().short());
    // As in the original: whoever sent the measurement, else the system itself.
    let origin = origin.clone().or_actor("system");
    let killed = if let Some(engine) = &engine {
        risk::throttle_in_tx(&mut *conn, engine, stamp.seq, &why, origin.actor.as_ref(), stamp.at).await?;
        None
    } else {
        let reason: Reason = why.parse().map_err(|_| Error::Inconsistent(format!("{why} is not a reason")))?;
        Some(go_live::change_in_tx(conn, &mut control_head, Change::Engage, Some(&reason), &origin).await?)
    };
    state.triggered = true;
    state.status = WireStatus::Tripped;
    state.trip_id = Some(stamp.seq);
    state.last_triggered_at = Some(stamp.at);
    let tripped =
        Tripped { trip_id: stamp.seq, action: policy.action, engine, drop_fraction, note: state.note.clone() };
    Ok((tripped, killed))
}

/// Ends a trip: what lies behind never counts again, the baseline of the trip is kept until there is a new one, and the
/// trip's own throttle is lifted. A kill switch that it pulled stays out: releasing it is a separate act.
async fn rearm(
    conn: &mut PgConnection,
    control_head: &mut Head,
    state: &mut WireState,
    trip_id: i64,
    reason: Option<&Reason>,
    origin: &Origin,
) -> Result<()> {
    let at = control_head.next().at;
    let actor: Option<&Actor> = origin.actor.as_ref();
    let baseline = store::rearm_trip(&mut *conn, trip_id, actor, reason, at).await?;
    let end = store::read_end(&mut *conn, &state.domain, &state.metric).await?;
    let end = end.map(|end| end.mark).unwrap_or_default();
    let subject = format!("{}.{}", state.domain, state.metric);
    let why = match reason {
        Some(reason) => reason.to_string(),
        None => format!("Re-armed: {subject}"),
    };
    risk::lift_throttle_in_tx(&mut *conn, trip_id, &origin.authority, &why, actor, at).await?;
    state.triggered = false;
    state.trip_id = None;
    state.watermark = end.events;
    state.pinned = Some(baseline);
    state.note = format!("insufficient_events(recent=0, baseline={})", baseline.events);
    (state.current, state.drop_fraction) = (None, None);
    store::write_state(&mut *conn, state, at).await?;
    let detail = Some(to_json(&RearmDetail { trip_id, watermark: end.events }).get().to_owned());
    let event = ControlEvent { action: "REGRESSION_REARM", subject: Some(&subject), error: None, reason, detail };
    event.append(conn, control_head, origin).await?;
    Ok(())
}
