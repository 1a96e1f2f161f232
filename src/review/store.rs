//! SQL that only the review needs.

use crate::error::Result;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The database's time.
pub async fn now(conn: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar!(r#"SELECT holdfast_now() AS "now!""#).fetch_one(conn).await?)
}

/// Reserves since a time: accepted and denied.
pub async fn decisions_since(conn: &mut PgConnection, since: DateTime<Utc>) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE action = 'RESERVE') AS "reserved!",
                  count(*) FILTER (WHERE action = 'DENY')    AS "denied!"
           FROM risk_event
           WHERE at >= $1"#,
        since
    )
    .fetch_one(conn)
    .await?;
    Ok((row.reserved, row.denied))
}
