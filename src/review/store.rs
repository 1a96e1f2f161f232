//! SQL that only the review needs.

use super::slo::Stretch;
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use serde::Deserialize;
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

#[derive(Deserialize)]
struct After {
    after: Switches,
}

#[derive(Deserialize)]
struct Switches {
    go_live_enabled: bool,
    kill_switch_engaged: bool,
}

/// The stretches of the switches from the last one before `since`, or from the first enable ever.
pub async fn stretches(conn: &mut PgConnection, since: DateTime<Utc>) -> Result<Vec<Stretch>> {
    let rows = sqlx::query!(
        "SELECT at,
                  action,
                  detail
           FROM control_event
           -- An acceptance moves no switch.
           WHERE ok AND action <> 'GO_LIVE_REWIND_ACCEPT'
             AND (starts_with(action, 'GO_LIVE_') OR starts_with(action, 'KILL_SWITCH_'))
             AND seq >= (SELECT min(seq) FROM control_event WHERE action = 'GO_LIVE_ENABLE' AND ok)
             AND seq >= COALESCE(
                     (SELECT max(seq)
                      FROM control_event
                      WHERE ok AND action <> 'GO_LIVE_REWIND_ACCEPT'
                        AND (starts_with(action, 'GO_LIVE_') OR starts_with(action, 'KILL_SWITCH_'))
                        AND at < $1),
                     0)
           ORDER BY seq",
        since
    )
    .fetch_all(conn)
    .await?;
    // Where a detail was erased, the action still says which of the two was moved, and how.
    let (mut enabled, mut engaged) = (None, None);
    let mut stretches = Vec::with_capacity(rows.len());
    for row in rows {
        match (row.detail, row.action.as_str()) {
            (Some(detail), _) => {
                let After { after } = serde_json::from_str(&detail)
                    .map_err(|error| Error::Inconsistent(format!("a change of the switches has no after: {error}")))?;
                (enabled, engaged) = (Some(after.go_live_enabled), Some(after.kill_switch_engaged));
            }
            (None, "GO_LIVE_ENABLE" | "GO_LIVE_DISABLE") => enabled = Some(row.action == "GO_LIVE_ENABLE"),
            (None, _) => engaged = Some(row.action == "KILL_SWITCH_ENGAGE"),
        }
        // What is not known counts as down.
        stretches.push(Stretch { from: row.at, live: enabled == Some(true) && engaged == Some(false) });
    }
    Ok(stretches)
}
