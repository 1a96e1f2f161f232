//! The removal of the policy of an engine that never had a reservation. An engine that moved the ledger keeps its
//! policy, because settles by amount, the reconciliation and the reports use it.

use super::Risk;
use super::store;
use crate::audit::{self, ControlEvent, Stream};
use crate::db;
use crate::error::{Error, Result};
use crate::idempotency::{self, Asked, Once};
use crate::types::{ControlAction, Engine, Reason};
use serde::Serialize;
use utoipa::ToSchema;

/// The engine whose policy was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RiskPolicyRemoved {
    /// Always true; a refused removal is an error.
    pub ok: bool,
    /// The name of the engine.
    pub engine: Engine,
}

impl Risk {
    /// Removes the policy of a disabled engine that never had a reservation.
    pub async fn remove_policy(
        &self,
        engine: &Engine,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Once<RiskPolicyRemoved>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_engine(engine)?;
        let mut tx = self.0.db.begin().await?;
        // Lock order: risk, control. Under the risk head, nothing is reserved meanwhile.
        let risk_head = self.0.db.history().lock(&mut tx, Stream::Risk).await?;
        if let Some(answer) = idempotency::recall(&mut tx, intent, risk_head.next()).await? {
            return answer.confirm(tx).await;
        }
        let policies = store::read_policies(&mut tx).await?;
        let existing = policies.into_iter().find(|policy| policy.engine == *engine);
        let policy = existing.ok_or_else(|| Error::NotFound { what: "engine", id: engine.to_string() })?;
        let mut uses = Vec::new();
        if *engine == Engine::global() {
            uses.push("every reserve is checked against it".to_owned());
        }
        if policy.enabled_by_hand {
            uses.push("it is enabled: set enabled to false first".to_owned());
        }
        if !policy.throttled_by.is_empty() {
            let trips: Vec<_> = policy.throttled_by.iter().map(i64::to_string).collect();
            uses.push(format!("trip {} throttles it: re-arm the wire first", trips.join(", ")));
        }
        if store::was_used(&mut tx, engine).await? {
            uses.push("reserves were made on it, and the ledger uses its policy".to_owned());
        }
        if !uses.is_empty() {
            return Err(Error::StillUsed { what: "engine", name: engine.to_string(), uses });
        }
        let mut control_head = self.0.db.history().lock(&mut tx, Stream::Control).await?;
        audit::revise(&mut tx, Stream::Risk).await?;
        store::remove_policy(&mut tx, engine).await?;
        let event =
            ControlEvent::new(ControlAction::RiskPolicyRemove).about(engine.as_str()).because(reason).detail(&policy);
        event.append(&mut tx, &mut control_head, origin).await?;
        let removed = RiskPolicyRemoved { ok: true, engine: engine.clone() };
        idempotency::keep(&mut tx, intent, risk_head.next(), &removed).await?;
        db::commit(tx).await?;
        Ok(Once::Done(removed))
    }
}
