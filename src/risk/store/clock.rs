//! SQL of an accepted clock that is behind the ledger's last event.

use crate::error::Result;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Accepts the clock as it is now, for events up to a time.
pub async fn accept_clock(conn: &mut PgConnection, now: DateTime<Utc>, up_to: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO risk_clock (up_to, since)
         VALUES ($1, $2)
         ON CONFLICT (singleton) DO UPDATE SET up_to = excluded.up_to, since = excluded.since",
        up_to,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
