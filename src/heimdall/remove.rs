//! Removes the policy of a domain that has never had a trial or a recommendation.

use super::{Heimdall, charter, reach, store};
use crate::audit::{ControlEvent, Stream};
use crate::db;
use crate::error::{Error, Result};
use crate::idempotency::{self, Asked, Once};
use crate::types::{ControlAction, Domain, Reason};
use serde::Serialize;
use utoipa::ToSchema;

/// The domain whose policy was removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeimdallPolicyRemoved {
    /// Always true; a failure is an error instead.
    pub ok: bool,
    /// The domain.
    pub domain: Domain,
}

impl Heimdall {
    /// Removes the policy of a domain that is off and was never used.
    pub async fn remove_policy(
        &self,
        domain: &Domain,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Once<HeimdallPolicyRemoved>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_domain(domain)?;
        let mut tx = self.db.begin().await?;
        // Lock order: heimdall, control. The heimdall head keeps trials and recommendations out during this.
        let now = self.db.history().lock(&mut tx, Stream::Heimdall).await?.next();
        if let Some(answer) = idempotency::recall(&mut tx, intent, now).await? {
            return answer.confirm(tx).await;
        }
        let policy = store::read_policy(&mut tx, domain).await?.ok_or_else(|| charter::no_policy(domain))?;
        reach::require_engine(origin, Some(&policy))?;
        let mut uses = Vec::new();
        if policy.prod_use_enabled {
            uses.push("production may act on it: demote it first".to_owned());
        }
        if store::was_used(&mut tx, domain).await? {
            uses.push("trials or recommendations were recorded in it".to_owned());
        }
        if !uses.is_empty() {
            return Err(Error::StillUsed { what: "domain", name: domain.to_string(), uses });
        }
        let mut control_head = self.db.history().lock(&mut tx, Stream::Control).await?;
        store::remove_policy(&mut tx, domain).await?;
        let event = ControlEvent::new(ControlAction::HeimdallPolicyRemove)
            .about(domain.as_str())
            .because(reason)
            .detail(&policy);
        event.append(&mut tx, &mut control_head, origin).await?;
        let removed = HeimdallPolicyRemoved { ok: true, domain: domain.clone() };
        idempotency::keep(&mut tx, intent, now, &removed).await?;
        db::commit(tx).await?;
        Ok(Once::Done(removed))
    }
}
