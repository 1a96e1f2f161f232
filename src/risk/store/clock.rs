//! A clock that is behind the ledger's last event, and was accepted.

use crate::error::Result;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Whether a clock that is behind the ledger's last event is the one that was accepted, and the event is one of those.
///
/// Neither a clock that jumped ahead once more nor one that went back once more is.
pub async fn clock_is_accepted(conn: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM risk_clock AS accepted, audit_head AS head
               WHERE head.stream = 'risk'
                 AND head.at <= accepted.up_to
                 AND holdfast_now() >= accepted.since - interval '1 hour') AS "accepted!""#
    )
    .fetch_one(conn)
    .await?)
}

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
