//! An operator's acts on a wire: an evaluation, a verdict on a trip, a re-arm, another baseline.

use super::answers::{AcknowledgeAnswer, BaselineAnswer, EvaluateAnswer, RearmAnswer};
use super::trip::{self, Cause, Heads, Tripping};
use super::{BaselineRequest, RearmRequest, Regression, load, note_reading, refuse_worse};
use crate::approval::model::ApprovalAction;
use crate::approval::{Gated, Loosened, Wanted};
use crate::audit::{ControlEvent, Stamp, Stream};
use crate::db::{self, to_json};
use crate::error::{Error, Result};
use crate::idempotency::{self, Asked, Once};
use crate::regression::model::{Rebase, RegressionPolicy, TripVerdict, WireState, series_name};
use crate::regression::store::{self, Acknowledgement};
use crate::types::{ControlAction, Domain, Metric, Reason};
use serde::Serialize;
use sqlx::{PgConnection, Postgres, Transaction};

/// The verdict on a trip, for the audit trail.
#[derive(Serialize)]
struct AcknowledgeDetail {
    trip_id: i64,
    verdict: TripVerdict,
}

/// A reset, for the audit trail.
#[derive(Serialize)]
struct BaselineDetail {
    version: i64,
    watermark: i64,
    source: Rebase,
    forced: bool,
}

/// A series under the lock of the KPI head, with its wire if it has one.
pub(super) struct HeldSeries {
    pub(super) tx: Transaction<'static, Postgres>,
    pub(super) now: Stamp,
    pub(super) policy: Option<RegressionPolicy>,
    pub(super) state: WireState,
}

/// A wire under the lock of the KPI head.
struct Held {
    tx: Transaction<'static, Postgres>,
    now: Stamp,
    policy: RegressionPolicy,
    state: WireState,
}

impl Regression {
    /// Evaluates a wire as it is now: a read that acts if the wire trips.
    pub async fn evaluate(&self, domain: &Domain, metric: &Metric, asked: &Asked) -> Result<Once<EvaluateAnswer>> {
        let intent = asked.intent.as_ref();
        let HeldSeries { mut tx, now, policy, mut state } = match self.hold_series((domain, metric), asked).await? {
            Once::Replayed(answer) => return Ok(Once::Replayed(answer)),
            Once::Done(held) => held,
        };
        state.last_checked_at = Some(now.at);
        let Some(policy) = policy.filter(|policy| policy.enabled) else {
            // The wire does not exist. Only a key is written, so that an unwatched name leaves no row behind.
            let unwatched = EvaluateAnswer { ok: true, state };
            idempotency::keep(&mut tx, intent, now, &unwatched).await?;
            db::commit(tx).await?;
            return Ok(Once::Done(unwatched));
        };
        let (mut wire, series) = load::wire(&mut tx, &policy, state).await?;
        let pair = (domain.clone(), metric.clone());
        let reading = wire.read(series.end, &series).map_err(|sum| load::unknown(&pair, sum))?;
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

    /// Gives a verdict on a trip: the standing one, or an earlier one by its id. A later verdict replaces an earlier
    /// one.
    pub async fn acknowledge(
        &self,
        (domain, metric): (&Domain, &Metric),
        trip_id: Option<i64>,
        verdict: TripVerdict,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Once<AcknowledgeAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let HeldSeries { mut tx, now, mut state, .. } = match self.hold_series((domain, metric), asked).await? {
            Once::Replayed(answer) => return Ok(Once::Replayed(answer)),
            Once::Done(held) => held,
        };
        let mut control_head = self.db.history().lock(&mut tx, Stream::Control).await?;
        let at = control_head.next().at;
        let said = Acknowledgement { verdict, by: origin.actor.as_ref(), at };
        let found = store::acknowledge_trip(&mut tx, domain, metric, trip_id, &said).await?;
        let (trip_id, stands) = found.ok_or_else(|| match trip_id {
            Some(id) => Error::NotFound { what: "trip", id: id.to_string() },
            None => Error::NotTripped { domain: domain.to_string(), metric: metric.to_string() },
        })?;
        if stands {
            state.acknowledged = true;
            store::write_states(&mut tx, &[&state], state.last_checked_at.unwrap_or(now.at)).await?;
            state = store::read_state(&mut tx, domain, metric).await?;
        }
        let subject = series_name(domain, metric);
        let event = ControlEvent::new(ControlAction::RegressionAcknowledge)
            .about(&subject)
            .because(reason)
            .detail(&AcknowledgeDetail { trip_id, verdict });
        event.append(&mut tx, &mut control_head, origin).await?;
        let answer = AcknowledgeAnswer { ok: true, trip_id, verdict, state };
        idempotency::keep(&mut tx, intent, now, &answer).await?;
        db::commit(tx).await?;
        Ok(Once::Done(answer))
    }

    /// Re-arms a tripped wire: earlier events never count again, and its own throttle is lifted.
    pub async fn rearm(
        &self,
        (domain, metric): (&Domain, &Metric),
        baseline: Rebase,
        reason: &Reason,
        asked: &Asked,
    ) -> Result<Loosened<RearmAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let Held { mut tx, now, policy, mut state } = match self.hold((domain, metric), asked).await? {
            Once::Replayed(answer) => return Ok(Loosened::Done(Once::Replayed(answer))),
            Once::Done(held) => held,
        };
        if state.trip_id.is_none() {
            return Err(Error::NotTripped { domain: domain.to_string(), metric: metric.to_string() });
        }
        let there = there(&mut tx, &policy, &state).await?;
        let mut heads = Heads::lock(self.db.history(), &mut tx, true).await?;
        let subject = trip::name(&policy);
        let input = to_json(&RearmRequest { domain: domain.clone(), metric: metric.clone(), baseline });
        let wanted = Wanted { subject: Some(&subject), input: input.get(), reason: Some(reason) };
        if let Gated::Wait(record) =
            self.gate(&mut tx, &mut heads.control, asked, Some(ApprovalAction::Rearm), wanted).await?
        {
            db::commit(tx).await?;
            return Ok(Loosened::Waiting(record));
        }
        let trip_id =
            trip::rearm(&mut tx, &mut heads.control, &policy, &mut state, baseline, Some(reason), origin).await?;
        note_reading(&mut tx, &policy, &mut state, now).await?;
        let warnings = collecting(&policy, baseline, there);
        let answer = RearmAnswer { ok: true, trip_id, baseline, state, warnings };
        idempotency::keep(&mut tx, intent, now, &answer).await?;
        db::commit(tx).await?;
        Ok(Loosened::Done(Once::Done(answer)))
    }

    /// Gives a wire another baseline, as in the Friday procedure. Refused without `force` while the wire is tripped,
    /// and if the new baseline is worse than the old one by half of the tripping drop.
    pub async fn reset_baseline(
        &self,
        (domain, metric): (&Domain, &Metric),
        source: Rebase,
        force: bool,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Loosened<BaselineAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let Held { mut tx, now, policy, mut state } = match self.hold((domain, metric), asked).await? {
            Once::Replayed(answer) => return Ok(Loosened::Done(Once::Replayed(answer))),
            Once::Done(held) => held,
        };
        if let Some(trip_id) = state.trip_id.filter(|_| !force) {
            let (domain, metric) = (domain.to_string(), metric.to_string());
            return Err(Error::WireTripped { domain, metric, trip_id });
        }
        let there = there(&mut tx, &policy, &state).await?;
        if !force {
            if source == Rebase::ResetLastN && there == 0 {
                let detail = "is LAST_N, but no event has arrived since the last re-arm or reset: send NEXT_N, or record some first";
                return Err(Error::invalid("source", detail));
            }
            refuse_worse(&mut tx, &policy, &state).await?;
        }
        let mut control_head = self.db.history().lock(&mut tx, Stream::Control).await?;
        let subject = trip::name(&policy);
        let input = to_json(&BaselineRequest { domain: domain.clone(), metric: metric.clone(), source, force });
        let wanted = Wanted { subject: Some(&subject), input: input.get(), reason };
        if let Gated::Wait(record) =
            self.gate(&mut tx, &mut control_head, asked, Some(ApprovalAction::Rebase), wanted).await?
        {
            db::commit(tx).await?;
            return Ok(Loosened::Waiting(record));
        }
        trip::rebase_wire(&mut tx, &policy, &mut state, source, origin.actor.as_ref(), now).await?;
        note_reading(&mut tx, &policy, &mut state, now).await?;
        let version = state.baseline_version;
        let detail = BaselineDetail { version, watermark: state.watermark, source, forced: force };
        let event =
            ControlEvent::new(ControlAction::RegressionBaselineReset).about(&subject).because(reason).detail(&detail);
        event.append(&mut tx, &mut control_head, origin).await?;
        let warnings = collecting(&policy, source, there);
        let answer = BaselineAnswer { ok: true, version, source, state, warnings };
        idempotency::keep(&mut tx, intent, now, &answer).await?;
        db::commit(tx).await?;
        Ok(Loosened::Done(Once::Done(answer)))
    }

    /// Locks a series for a caller that reaches it and its wire, or returns the earlier answer to the same request.
    pub(super) async fn hold_series(
        &self,
        (domain, metric): (&Domain, &Metric),
        asked: &Asked,
    ) -> Result<Once<HeldSeries>> {
        asked.origin.authority.require_domain(domain)?;
        let mut tx = self.db.begin().await?;
        let now = self.db.history().lock(&mut tx, Stream::Kpi).await?.next();
        if let Some(answer) = idempotency::recall(&mut tx, asked.intent.as_ref(), now).await? {
            return answer.confirm(tx).await;
        }
        let policy = store::read_policy(&mut tx, domain, metric).await?;
        if let Some(policy) = &policy {
            policy.require_reach(&asked.origin.authority)?;
        }
        let state = store::read_state(&mut tx, domain, metric).await?;
        Ok(Once::Done(HeldSeries { tx, now, policy, state }))
    }

    /// Locks a wire that must exist.
    async fn hold(&self, (domain, metric): (&Domain, &Metric), asked: &Asked) -> Result<Once<Held>> {
        let HeldSeries { tx, now, policy, state } = match self.hold_series((domain, metric), asked).await? {
            Once::Replayed(answer) => return Ok(Once::Replayed(answer)),
            Once::Done(held) => held,
        };
        let missing = || Error::NotFound { what: "wire", id: series_name(domain, metric) };
        let policy = policy.ok_or_else(missing)?;
        Ok(Once::Done(Held { tx, now, policy, state }))
    }
}

/// The number of last events that may become the baseline.
async fn there(conn: &mut PgConnection, policy: &RegressionPolicy, state: &WireState) -> Result<i64> {
    let end = store::read_end(conn, &policy.domain, &policy.metric).await?.map_or(0, |end| end.mark.events);
    Ok((end - state.watermark).clamp(0, policy.baseline_events.get()))
}

/// The warning about a new baseline of which only `there` events exist.
fn collecting(policy: &RegressionPolicy, rebase: Rebase, there: i64) -> Vec<String> {
    let there = match rebase {
        Rebase::Keep => return Vec::new(),
        Rebase::ResetLastN => there,
        Rebase::ResetNextN => 0,
    };
    let wanted = policy.baseline_events;
    if there >= wanted.get() {
        return Vec::new();
    }
    vec![format!("the new baseline has {there} of {wanted} events: nothing is judged until enough have come")]
}
