//! The effects of a trip, and of its end.

use super::answers::Tripped;
use crate::audit::{ControlEvent, Head, Origin, Stamp, Stream};
use crate::db::Database;
use crate::db::history::History;
use crate::enforcement::feed::Feed;
use crate::enforcement::feed::renewal::News;
use crate::error::{Error, Result};
use crate::go_live::model::{GoLiveState, Switch};
use crate::regression::model::{
    Action, Detector, FrozenSpan, Mark, Mode, Reading, Rebase, RegressionPolicy, WireState, WireStatus, series_name,
};
use crate::regression::store::{self, NewBaseline, NewTrip, Rearmed};
use crate::types::{Actor, ControlAction, Engine, Ratio, Reason, Total};
use crate::{go_live, risk};
use serde::Serialize;
use sqlx::PgConnection;

/// The cause of a trip.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    /// The series is worse. `began` is the event at which SEQUENTIAL estimates that the change began.
    Drop {
        /// The number of that event in the series.
        began: i64,
    },
    /// The series has been silent for this many seconds.
    Stale {
        /// The silence in seconds.
        seconds: i64,
    },
}

impl Cause {
    /// The name in the database.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Drop { .. } => "DROP",
            Self::Stale { .. } => "STALE",
        }
    }
}

/// A wire that is about to trip: its reading, and the end of its series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tripping {
    pub(super) reading: Reading,
    pub(super) end: Mark,
    pub(super) kpi_seq: i64,
    pub(super) cause: Cause,
    /// Whether that measurement has just arrived.
    pub(super) by_event: bool,
}

/// Numbers of a trip, for the audit trail.
#[derive(Serialize)]
struct TripDetail<'a> {
    policy: &'a RegressionPolicy,
    kpi_seq: i64,
    series_seq: i64,
    baseline_events: i64,
    baseline_sum: Total,
    current_events: i64,
    current_sum: Total,
    drop_fraction: Option<Ratio>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    began_at_event: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    silent_seconds: Option<i64>,
    engine: Option<&'a Engine>,
    shadow: bool,
}

/// A re-arm, for the audit trail.
#[derive(Serialize)]
struct RearmDetail {
    trip_id: i64,
    watermark: i64,
    baseline: Rebase,
    shadow: bool,
}

/// The name of a series and its wire in texts.
pub(super) fn name(policy: &RegressionPolicy) -> String {
    series_name(&policy.domain, &policy.metric)
}

/// Begins the counters of trips.
pub(super) fn begin_counting() {
    for action in Action::ALL {
        for mode in Mode::ALL {
            trips(action, mode).increment(0);
        }
    }
}

fn trips(action: Action, mode: Mode) -> metrics::Counter {
    metrics::counter!("holdfast_wire_trips_total", "action" => action.as_str(), "mode" => mode.as_str())
}

/// Counts a trip, and passes a kill switch that it engaged to this instance's gate.
pub(super) fn publish(feed: &Feed, db: &Database, tripped: &Tripped, killed: Option<&GoLiveState>) {
    if let Some(state) = killed {
        feed.publish(db, News::Engaged, state.for_gate());
    }
    let mode = if tripped.shadow { Mode::Shadow } else { Mode::Enforce };
    trips(tripped.action, mode).increment(1);
}

/// The heads after kpi that a trip or its end needs. They are locked in order and once for all trips of a transaction:
/// locking risk for a second trip, with control already held, could deadlock with another transaction.
#[derive(Debug)]
pub(super) struct Heads {
    _risk: Option<Head>,
    pub(super) control: Head,
}

impl Heads {
    /// Locks control, and before it risk if a throttle is lifted.
    pub(super) async fn lock(history: &History, conn: &mut PgConnection, with_risk: bool) -> Result<Self> {
        let risk = if with_risk { Some(history.lock(&mut *conn, Stream::Risk).await?) } else { None };
        Ok(Self { _risk: risk, control: history.lock(conn, Stream::Control).await? })
    }

    /// The same for a trip, which only tightens; with risk if it makes a throttle.
    pub(super) async fn lock_to_trip(history: &History, conn: &mut PgConnection, with_risk: bool) -> Result<Self> {
        let risk = if with_risk { Some(history.lock_to_tighten(&mut *conn, Stream::Risk).await?) } else { None };
        Ok(Self { _risk: risk, control: history.lock_to_tighten(conn, Stream::Control).await? })
    }
}

/// Whether a trip of this wire makes a throttle, for which the risk head must be held.
pub(super) fn throttles(policy: &RegressionPolicy) -> bool {
    policy.action == Action::Throttle && policy.mode == Mode::Enforce
}

/// Records a trip and applies the wire's action, in a transaction that holds the KPI head and these.
pub(super) async fn act(
    conn: &mut PgConnection,
    heads: &mut Heads,
    policy: &RegressionPolicy,
    state: &mut WireState,
    tripping: &Tripping,
    origin: &Origin,
) -> Result<(Tripped, Option<GoLiveState>)> {
    let shadow = policy.mode == Mode::Shadow;
    let engine = if policy.action == Action::Throttle { policy.throttled_engine() } else { None };
    let stamp = heads.control.next();
    let subject = name(policy);
    let reading = tripping.reading;
    let (evidence, silent_seconds) = match tripping.cause {
        Cause::Drop { began } => (reading.evidence.map(|evidence| (evidence, began)), None),
        Cause::Stale { seconds } => (None, Some(seconds)),
    };
    let new = NewTrip {
        id: stamp.seq,
        policy,
        kpi_seq: tripping.kpi_seq,
        series_seq: tripping.end.events,
        baseline: reading.baseline,
        recent: reading.recent,
        drop: reading.drop,
        evidence,
        cause: tripping.cause.as_str(),
        engine: engine.as_ref(),
        actor: origin.actor.as_ref(),
        at: stamp.at,
        by_event: tripping.by_event,
    };
    store::insert_trip(&mut *conn, &new).await?;
    let detail = TripDetail {
        policy,
        kpi_seq: tripping.kpi_seq,
        series_seq: tripping.end.events,
        baseline_events: reading.baseline.events,
        baseline_sum: reading.baseline.sum,
        current_events: reading.recent.events,
        current_sum: reading.recent.sum,
        drop_fraction: reading.drop,
        evidence: evidence.map(|(evidence, _)| evidence),
        began_at_event: evidence.map(|(_, began)| began),
        silent_seconds,
        engine: engine.as_ref(),
        shadow,
    };
    let action = if shadow { ControlAction::RegressionShadowTrip } else { ControlAction::RegressionTrip };
    let event = ControlEvent::new(action).about(&subject).detail(&detail);
    event.append(&mut *conn, &mut heads.control, origin).await?;

    if let Some(seconds) = silent_seconds {
        state.note = format!("TRIGGERED stale={seconds}s action={}", policy.action.as_str());
    }
    let why = match silent_seconds {
        Some(seconds) => format!("Regression tripwire: {subject} silent for {seconds} s"),
        None => format!("Regression tripwire: {subject} drop={}", reading.drop.unwrap_or_default().short()),
    };
    let killed = if shadow { None } else { stop(conn, heads, engine.as_ref(), &why, stamp, origin).await? };
    if shadow {
        state.note = format!("SHADOW_{}", state.note);
    }
    state.triggered = !shadow;
    state.acknowledged = false;
    state.status = if shadow { WireStatus::ShadowTripped } else { WireStatus::Tripped };
    state.trip_id = Some(stamp.seq);
    state.last_triggered_at = Some(stamp.at);
    let tripped = Tripped {
        trip_id: stamp.seq,
        action: policy.action,
        engine,
        drop_fraction: reading.drop,
        shadow,
        note: state.note.clone(),
    };
    Ok((tripped, killed))
}

/// Throttles the engine, or engages the kill switch if there is none.
async fn stop(
    conn: &mut PgConnection,
    heads: &mut Heads,
    engine: Option<&Engine>,
    why: &str,
    trip: Stamp,
    origin: &Origin,
) -> Result<Option<GoLiveState>> {
    // As in the original, the actor is the sender of the measurement, else the system itself.
    let origin = origin.clone().or_actor("system");
    if let Some(engine) = engine {
        risk::throttle_in_tx(conn, engine, trip.seq, why, origin.actor.as_ref(), trip.at).await?;
        return Ok(None);
    }
    let reason: Reason = why.parse().map_err(|_| Error::Inconsistent(format!("{why} is not a reason")))?;
    go_live::change_in_tx(conn, &mut heads.control, Switch::Engage, Some(&reason), &origin).await.map(Some)
}

/// Ends a trip, in a transaction that holds the heads of kpi, of risk if the trip acted, and of control. Earlier events
/// never count again, and the trip's own throttle is lifted. A kill switch that it engaged stays engaged: its release
/// is a separate act. The caller writes the state.
pub(super) async fn rearm(
    conn: &mut PgConnection,
    control_head: &mut Head,
    policy: &RegressionPolicy,
    state: &mut WireState,
    rebase: Rebase,
    reason: Option<&Reason>,
    origin: &Origin,
) -> Result<i64> {
    let trip_id = state.trip_id.ok_or_else(|| Error::Inconsistent("a wire is re-armed that has not tripped".into()))?;
    let stamp = control_head.next();
    let actor: Option<&Actor> = origin.actor.as_ref();
    let rearmed = Rearmed { baseline: rebase, by: actor, reason, at: stamp.at };
    let baseline = store::rearm_trip(&mut *conn, trip_id, &rearmed).await?;
    let subject = name(policy);
    let shadow = state.is_shadow_tripped();
    if !shadow {
        let why = match reason {
            Some(reason) => reason.to_string(),
            None => format!("Re-armed: {subject}"),
        };
        risk::lift_throttle_in_tx(&mut *conn, trip_id, &origin.authority, &why, actor, stamp.at).await?;
    }
    (state.triggered, state.acknowledged, state.trip_id) = (false, false, None);
    let end = rebase_wire(&mut *conn, policy, state, rebase, actor, stamp).await?;
    if rebase == Rebase::Keep {
        state.rearm(policy, baseline, end.events);
    }
    let detail = RearmDetail { trip_id, watermark: end.events, baseline: rebase, shadow };
    let event = ControlEvent::new(ControlAction::RegressionRearm).about(&subject).because(reason).detail(&detail);
    event.append(conn, control_head, origin).await?;
    Ok(trip_id)
}

/// Excludes all events up to here, and gives the wire the requested baseline. Returns the end of its series.
pub(super) async fn rebase_wire(
    conn: &mut PgConnection,
    policy: &RegressionPolicy,
    state: &mut WireState,
    rebase: Rebase,
    actor: Option<&Actor>,
    stamp: Stamp,
) -> Result<Mark> {
    let end = store::read_end(&mut *conn, &policy.domain, &policy.metric).await?;
    let end = end.map(|end| end.mark).unwrap_or_default();
    let floor = state.watermark;
    state.watermark = end.events;
    state.forget_evidence(end.events);
    let wanted = policy.baseline_events.get();
    let source = match rebase {
        Rebase::Keep => return Ok(end),
        Rebase::ResetLastN => "LAST_N",
        Rebase::ResetNextN => "NEXT_N",
    };
    let span = match rebase {
        Rebase::ResetLastN => FrozenSpan::last(wanted, end.events, floor),
        _ => FrozenSpan { after: end.events, events: wanted, sum: None },
    };
    set_baseline(conn, policy, state, span, source, actor, stamp).await?;
    Ok(end)
}

/// Gives a wire another baseline, and records its version.
pub(super) async fn set_baseline(
    conn: &mut PgConnection,
    policy: &RegressionPolicy,
    state: &mut WireState,
    span: FrozenSpan,
    source: &'static str,
    actor: Option<&Actor>,
    stamp: Stamp,
) -> Result<()> {
    let new = NewBaseline {
        domain: &policy.domain,
        metric: &policy.metric,
        source,
        after_event: span.after,
        events: span.events,
        actor,
    };
    state.baseline_version = store::insert_baseline(&mut *conn, &new, stamp).await?;
    if policy.detector == Detector::Plain {
        // The baseline is used until a whole window and baseline have followed the watermark.
        state.frozen = None;
        state.pinned = super::load::window(conn, policy, span).await?;
    } else {
        state.pinned = None;
        state.frozen = Some(span);
    }
    Ok(())
}
