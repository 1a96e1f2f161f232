//! Sets the kind of a series: before its first event, or after events of a wrong kind were recorded.

use super::Regression;
use super::answers::KindAnswer;
use super::operate::HeldSeries;
use crate::audit::{ControlEvent, Stream};
use crate::db;
use crate::error::{Error, Result, require_room};
use crate::idempotency::{self, Asked, Once};
use crate::regression::model::{Kind, series_name};
use crate::regression::store;
use crate::types::{ControlAction, Domain, Metric, Reason};
use serde::Serialize;

/// The change of the kind, for the audit trail.
#[derive(Serialize)]
struct KindDetail {
    from: Option<Kind>,
    to: Kind,
    since: i64,
}

impl Regression {
    /// Sets the kind of the next events of a series. Existing events stay, but never count again for a wire. That is
    /// another baseline, so no enabled wire may watch the series: disabling the wire is a loosening of its own.
    pub async fn set_kind(
        &self,
        (domain, metric): (&Domain, &Metric),
        kind: Kind,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Once<KindAnswer>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let HeldSeries { mut tx, now, policy, mut state } = match self.hold_series((domain, metric), asked).await? {
            Once::Replayed(answer) => return Ok(Once::Replayed(answer)),
            Once::Done(held) => held,
        };
        let end = store::read_end(&mut tx, domain, metric).await?;
        let (from, since) = (end.map(|end| end.kind), end.map_or(0, |end| end.mark.events));
        let mut answer =
            KindAnswer { ok: true, domain: domain.clone(), metric: metric.clone(), kind, since, changed: true };
        if from == Some(kind) {
            (answer.since, answer.changed) = (end.map_or(0, |end| end.since), false);
            idempotency::keep(&mut tx, intent, now, &answer).await?;
            db::commit(tx).await?;
            return Ok(Once::Done(answer));
        }
        if since > 0 {
            if policy.is_some_and(|policy| policy.enabled) {
                let detail = format!(
                    "cannot be another one while a wire watches {domain}.{metric}: set the wire's enabled to false, set the kind, and set it to true again"
                );
                return Err(Error::invalid("kind", detail));
            }
            if let Some(trip_id) = state.trip_id {
                return Err(Error::WireTripped { domain: domain.to_string(), metric: metric.to_string(), trip_id });
            }
        }
        if end.is_none() {
            let declared = store::count_kinds(&mut tx).await?;
            require_room("series with a declared kind", declared, self.metrics_max, "METRICS_MAX")?;
        }
        let mut control_head = self.db.history().lock(&mut tx, Stream::Control).await?;
        store::set_kind(&mut tx, (domain, metric), kind, since).await?;
        if since > 0 {
            state.begin_anew(since);
            store::write_states(&mut tx, &[&state], now.at).await?;
        }
        let subject = series_name(domain, metric);
        let event = ControlEvent::new(ControlAction::RegressionKind)
            .about(&subject)
            .because(reason)
            .detail(&KindDetail { from, to: kind, since });
        event.append(&mut tx, &mut control_head, origin).await?;
        idempotency::keep(&mut tx, intent, now, &answer).await?;
        db::commit(tx).await?;
        Ok(Once::Done(answer))
    }
}
