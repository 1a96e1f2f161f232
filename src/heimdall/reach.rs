//! Whether a caller's token reaches the engine of a domain.

use super::model::HeimdallPolicy;
use super::store;
use crate::audit::Origin;
use crate::error::Result;
use crate::types::Domain;
use sqlx::PgConnection;

/// Refuses a caller whose token does not reach the engine that a domain's recommendations depend on.
pub(super) fn require_engine(origin: &Origin, policy: Option<&HeimdallPolicy>) -> Result<()> {
    let engine = policy.and_then(|policy| policy.engine.as_ref());
    engine.map_or(Ok(()), |engine| origin.authority.require_engine(engine))
}

/// The same check, by the domain. A caller with every engine costs no statement.
pub(super) async fn require_engine_of(conn: &mut PgConnection, origin: &Origin, domain: &Domain) -> Result<()> {
    if !origin.authority.is_bounded_to_engines() {
        return Ok(());
    }
    require_engine(origin, store::read_policy(conn, domain).await?.as_ref())
}
