//! Sets up a wire.

use super::trip::{self, Heads};
use super::{Regression, RegressionPolicyUpserted, advice, model, note_reading, profile, refuse_worse, stale, store};
use crate::approval::model::ApprovalAction;
use crate::approval::{Gated, Loosened, Wanted, WithChanges};
use crate::audit::{self, Changes, ControlEvent, Stamp, Stream};
use crate::db::{self, to_json};
use crate::error::{Error, Result, require_room};
use crate::idempotency::{self, Asked, Once};
use crate::regression::model::{Action, Detector, FrozenSpan, Mode, PolicyUpsert, Rebase, RegressionPolicy, WireState};
use crate::types::{Actor, ControlAction, Engine, Reason};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// A requested wire, as a request for a second person stores it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireRequest {
    pub(crate) wire: PolicyUpsert,
    pub(crate) force: bool,
}

/// An upsert, for the audit trail.
#[derive(Serialize)]
struct PolicyDetail<'a> {
    changes: &'a Changes,
    policy: &'a RegressionPolicy,
}

impl Regression {
    /// Sets up a wire. On a tripped wire, `enabled=true` with a reason re-arms it and lifts its own throttle. `force`
    /// accepts a wire that is likely to stop everything by chance.
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
            Some(existing) => existing.require_reach(&origin.authority)?,
            None => require_room("wires", store::count_policies(&mut tx).await?, self.wires_max, "WIRES_MAX")?,
        }
        let mut state = store::read_state(&mut tx, &request.domain, &request.metric).await?;
        let (policy, changes) = model::upsert(existing.as_ref(), request, origin.actor.as_ref(), reason, now.at)?;
        policy.require_reach(&origin.authority)?;
        refuse_system(existing.as_ref(), &policy)?;
        // A trip in SHADOW mode does not prevent a change to ENFORCE.
        let enforces = state.is_shadow_tripped() && policy.mode == Mode::Enforce && !changes.is_empty();
        let rearms = state.trip_id.filter(|_| request.enabled == Some(true) || enforces);
        if let (Some(trip_id), None, true) = (rearms, reason, state.triggered) {
            return Err(wire_tripped(request, trip_id));
        }
        // Another frozen baseline is a reset, whatever its cause.
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
        // The settings of a removed wire are no longer known.
        let renews =
            existing.is_none() && audit::was_done(&mut tx, ControlAction::RegressionPolicyRemove, &subject).await?;
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
        let event = ControlEvent::new(ControlAction::RegressionPolicyUpsert)
            .about(&subject)
            .because(reason)
            .detail(&PolicyDetail { changes: &changes, policy: &policy });
        event.append(&mut tx, &mut heads.control, origin).await?;
        let upserted = RegressionPolicyUpserted { ok: true, policy, changes: changes.0, rearmed: rearms, warnings };
        idempotency::keep(&mut tx, intent, now, &upserted).await?;
        db::commit(tx).await?;
        Ok(Loosened::Done(Once::Done(upserted)))
    }
}

/// Refuses a wire that would throttle the engine SYSTEM, Holdfast's own name, unless it already does.
fn refuse_system(existing: Option<&RegressionPolicy>, policy: &RegressionPolicy) -> Result<()> {
    let engine = policy.throttled_engine();
    if engine.as_ref().is_some_and(Engine::is_system) && existing.and_then(RegressionPolicy::throttled_engine) != engine
    {
        return Err(Error::invalid("engine", "is SYSTEM, the name of Holdfast itself in events: name another one"));
    }
    Ok(())
}

fn wire_tripped(request: &PolicyUpsert, trip_id: i64) -> Error {
    Error::WireTripped { domain: request.domain.to_string(), metric: request.metric.to_string(), trip_id }
}

/// Adapts the state of a wire to its policy: a SEQUENTIAL wire freezes its baseline again if its settings differ, and
/// gathers no evidence over events that it has not seen.
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

/// The warning about a wire whose trip would throttle an engine without reserves.
async fn stops_nothing(conn: &mut PgConnection, policy: &RegressionPolicy) -> Result<Option<String>> {
    let Some(engine) = policy.throttled_engine().filter(|_| policy.action == Action::Throttle) else {
        return Ok(None);
    };
    let known = crate::risk::store::has_policy(conn, &engine).await?;
    Ok((!known).then(|| {
        format!("no risk policy is named {engine}, so a trip stops nothing that reserves: send engine with the name of the one that acts")
    }))
}
