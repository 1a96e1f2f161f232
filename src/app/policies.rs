//! Reads the policies of the levers for flags and metrics.

use crate::enforcement::feed::{BoxFuture, Policies};
use crate::error::Result;
use crate::{heimdall, regression, risk};
use sqlx::PgConnection;

/// Reads the policies of all levers on one connection.
pub(super) fn read(conn: &mut PgConnection) -> BoxFuture<'_, Result<Policies>> {
    Box::pin(async move {
        let engines = risk::store::read_policies(&mut *conn).await?;
        let domains = heimdall::store::read_policies(&mut *conn).await?;
        Ok(Policies {
            engines: engines.iter().map(|policy| (policy.engine.to_string(), policy.is_active())).collect(),
            domains: domains.iter().map(|policy| (policy.domain.to_string(), policy.prod_use_enabled)).collect(),
            wires: regression::store::read_wires(conn).await?,
        })
    })
}
