//! Removes a wire and a declared kind of a series that has no measurement.

use super::Regression;
use super::answers::RegressionPolicyRemoved;
use super::operate::HeldSeries;
use crate::audit::{ControlEvent, Stream};
use crate::db;
use crate::error::{Error, Result};
use crate::idempotency::{self, Asked, Once};
use crate::regression::model::{Kind, RegressionPolicy, series_name};
use crate::regression::store;
use crate::types::{ControlAction, Domain, Metric, Reason};
use serde::Serialize;

/// The removed wire, for the audit trail.
#[derive(Serialize)]
struct RemovedDetail<'a> {
    policy: Option<&'a RegressionPolicy>,
    kind: Option<Kind>,
}

impl Regression {
    /// Removes a disabled wire with its state, and the declared kind, of a series without a measurement. Its baselines
    /// and trips stay on record.
    pub async fn remove_wire(
        &self,
        (domain, metric): (&Domain, &Metric),
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Once<RegressionPolicyRemoved>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        // The KPI head keeps measurements out during this.
        let HeldSeries { mut tx, now, policy, state } = match self.hold_series((domain, metric), asked).await? {
            Once::Replayed(answer) => return Ok(Once::Replayed(answer)),
            Once::Done(held) => held,
        };
        let subject = series_name(domain, metric);
        let end = store::read_end(&mut tx, domain, metric).await?;
        // The head is locked before the rows; a refusal rolls back the removal below.
        let mut control_head = self.db.history().lock(&mut tx, Stream::Control).await?;
        if !store::remove_policy(&mut tx, domain, metric).await? {
            return Err(Error::NotFound { what: "wire or declared kind of", id: subject });
        }
        let mut uses = Vec::new();
        if policy.as_ref().is_some_and(|policy| policy.enabled) {
            uses.push("it is enabled: set enabled to false first".to_owned());
        }
        if let Some(trip_id) = state.trip_id {
            uses.push(format!("trip {trip_id} stands: re-arm it first"));
        }
        if end.is_some_and(|end| end.mark.events > 0) {
            uses.push("its series has measurements".to_owned());
        }
        if !uses.is_empty() {
            return Err(Error::StillUsed { what: "wire", name: subject, uses });
        }
        let kind = end.map(|end| end.kind);
        let event = ControlEvent::new(ControlAction::RegressionPolicyRemove)
            .about(&subject)
            .because(reason)
            .detail(&RemovedDetail { policy: policy.as_ref(), kind });
        event.append(&mut tx, &mut control_head, origin).await?;
        let removed = RegressionPolicyRemoved { ok: true, domain: domain.clone(), metric: metric.clone() };
        idempotency::keep(&mut tx, intent, now, &removed).await?;
        db::commit(tx).await?;
        Ok(Once::Done(removed))
    }
}
