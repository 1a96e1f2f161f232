//! Checks that a token reaches the subject of a request: a token that is bounded to engines or domains can neither
//! reject nor approve requests about others.
//!
//! For an approval, the lever that does the change checks the bounds. A rejection does no change, so it is checked
//! here.

use crate::approval::model::{ApprovalAction, ApprovalRecord};
use crate::audit::Origin;
use crate::error::Result;
use crate::heimdall::PromoteRequest;
use crate::heimdall::model::Setting;
use crate::regression::{self, BaselineRequest, RearmRequest, WireRequest};
use crate::risk::operation::CorrectionAsked;
use crate::types::{Domain, Engine, Metric};
use crate::{heimdall, risk};
use sqlx::PgConnection;

/// Refuses a caller whose token does not reach the subject of the request.
pub(super) async fn require(conn: &mut PgConnection, record: &ApprovalRecord, origin: &Origin) -> Result<()> {
    let authority = &origin.authority;
    if !authority.is_bounded() {
        // An unbounded token reaches every request, even an unreadable one.
        return Ok(());
    }
    match record.action {
        // The whole system has no bounds.
        ApprovalAction::Enable | ApprovalAction::Release => Ok(()),
        ApprovalAction::RaiseCap => {
            let request: risk::model::policy::PolicyUpsert = record.parsed()?;
            authority.require_engine(&request.engine)
        }
        ApprovalAction::Correct => {
            let request: CorrectionAsked = record.parsed()?;
            authority.require_engine(&request.engine)
        }
        ApprovalAction::Charter => {
            let request: heimdall::model::PolicyUpsert = record.parsed()?;
            if let Setting::Set(engine) = &request.engine {
                authority.require_engine(engine)?;
            }
            require_charter(conn, &request.domain, origin).await
        }
        ApprovalAction::Promote => {
            let PromoteRequest { domain } = record.parsed()?;
            require_charter(conn, &domain, origin).await
        }
        ApprovalAction::Wire => {
            let WireRequest { wire, .. } = record.parsed()?;
            let named = wire.engine.as_ref();
            require_wire(conn, (&wire.domain, &wire.metric), named, origin).await
        }
        ApprovalAction::Rearm => {
            let RearmRequest { domain, metric, .. } = record.parsed()?;
            require_wire(conn, (&domain, &metric), None, origin).await
        }
        ApprovalAction::Rebase => {
            let BaselineRequest { domain, metric, .. } = record.parsed()?;
            require_wire(conn, (&domain, &metric), None, origin).await
        }
    }
}

async fn require_charter(conn: &mut PgConnection, domain: &Domain, origin: &Origin) -> Result<()> {
    origin.authority.require_domain(domain)?;
    let policy = heimdall::store::read_policy(conn, domain).await?;
    let engine = policy.as_ref().and_then(|policy| policy.engine.as_ref());
    engine.map_or(Ok(()), |engine| origin.authority.require_engine(engine))
}

/// A wire belongs to its domain and its engine: both the current ones and the requested ones must be within the bounds.
async fn require_wire(
    conn: &mut PgConnection,
    (domain, metric): (&Domain, &Metric),
    named: Option<&Engine>,
    origin: &Origin,
) -> Result<()> {
    origin.authority.require_domain(domain)?;
    let engine = match regression::store::read_policy(conn, domain, metric).await? {
        Some(policy) => {
            policy.require_reach(&origin.authority)?;
            named.cloned()
        }
        None => Some(named.cloned().or_else(|| domain.as_str().parse().ok()).unwrap_or_else(Engine::global)),
    };
    engine.map_or(Ok(()), |engine| origin.authority.require_engine(&engine))
}
