//! The SQL of the switches and the components.

use super::model::{GoLiveState, Movement, Pack, PackReport, PackStatus, Stretch};
use crate::audit::{Origin, Stamp};
use crate::error::{Error, Result};
use crate::types::{Actor, ControlAction, Label, PackId};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::PgConnection;

/// The state, without a lock. Writers read it after they have locked the control head.
pub async fn read_state(conn: &mut PgConnection) -> Result<GoLiveState> {
    let row = sqlx::query!(
        "SELECT version,
                go_live_enabled,
                go_live_at,
                go_live_by,
                go_live_reason,
                kill_switch_engaged,
                kill_switch_at,
                kill_switch_by,
                kill_switch_reason,
                changed_by,
                reason,
                updated_at
         FROM go_live_state"
    )
    .fetch_one(conn)
    .await?;
    Ok(GoLiveState {
        go_live_enabled: row.go_live_enabled,
        kill_switch_engaged: row.kill_switch_engaged,
        changed_by: row.changed_by,
        reason: row.reason,
        updated_at: row.updated_at,
        version: row.version,
        go_live: Movement { at: row.go_live_at, by: row.go_live_by, reason: row.go_live_reason },
        kill_switch: Movement { at: row.kill_switch_at, by: row.kill_switch_by, reason: row.kill_switch_reason },
    })
}

/// Writes the state, which must follow the stored version.
pub async fn write_state(conn: &mut PgConnection, state: &GoLiveState) -> Result<()> {
    let written = sqlx::query!(
        "UPDATE go_live_state
         SET version = $1,
             go_live_enabled = $2,
             go_live_at = $3,
             go_live_by = $4,
             go_live_reason = $5,
             kill_switch_engaged = $6,
             kill_switch_at = $7,
             kill_switch_by = $8,
             kill_switch_reason = $9,
             changed_by = $10,
             reason = $11,
             updated_at = $12
         WHERE version = $13",
        state.version,
        state.go_live_enabled,
        state.go_live.at,
        state.go_live.by,
        state.go_live.reason,
        state.kill_switch_engaged,
        state.kill_switch.at,
        state.kill_switch.by,
        state.kill_switch.reason,
        state.changed_by,
        state.reason,
        state.updated_at,
        state.version - 1
    )
    .execute(conn)
    .await?;
    if written.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::Inconsistent(format!("go_live_state was not at version {}", state.version - 1)))
    }
}

/// Begins a new history of the state. Returns the state's version and the id of the history.
pub async fn begin_generation(conn: &mut PgConnection) -> Result<(i64, uuid::Uuid)> {
    let row = sqlx::query!(
        "UPDATE go_live_state
         SET version = version + 1, follows = generation, generation = gen_random_uuid()
         RETURNING version, generation"
    )
    .fetch_one(conn)
    .await?;
    Ok((row.version, row.generation))
}

/// A row of a component.
struct PackRow {
    id: String,
    name: String,
    version: String,
    status: String,
    changed_by: Option<String>,
    updated_at: DateTime<Utc>,
}

impl From<PackRow> for Pack {
    fn from(row: PackRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            version: row.version,
            // A CHECK allows two values; any other would not count as installed.
            status: if row.status == "installed" { PackStatus::Installed } else { PackStatus::Missing },
            changed_by: row.changed_by,
            updated_at: row.updated_at,
        }
    }
}

/// All reported components, by id.
pub async fn read_packs(conn: &mut PgConnection) -> Result<Vec<Pack>> {
    let rows = sqlx::query_as!(
        PackRow,
        "SELECT id,
                name,
                version,
                status,
                changed_by,
                updated_at
         FROM pack
         ORDER BY id"
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Pack::from).collect())
}

/// Whether a component has ever reported itself.
pub async fn has_pack(conn: &mut PgConnection, id: &PackId) -> Result<bool> {
    Ok(sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM pack WHERE id = $1) AS "known!""#, id.as_str())
        .fetch_one(conn)
        .await?)
}

/// The number of components.
pub async fn count_packs(conn: &mut PgConnection) -> Result<usize> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM pack"#).fetch_one(conn).await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Records a component's report of itself. Returns the component after it.
pub async fn upsert_pack(conn: &mut PgConnection, report: &PackReport, origin: &Origin, stamp: Stamp) -> Result<Pack> {
    let row = sqlx::query_as!(
        PackRow,
        "INSERT INTO pack (id, name, version, status, changed_by, updated_at)
         VALUES ($1, COALESCE($2, $1), COALESCE($3, 'unknown'), $4, $5, $6)
         ON CONFLICT (id) DO UPDATE
         SET name = COALESCE($2, pack.name),
             version = COALESCE($3, pack.version),
             status = excluded.status,
             changed_by = excluded.changed_by,
             updated_at = excluded.updated_at
         RETURNING id, name, version, status, changed_by, updated_at",
        report.id.as_str(),
        report.name.as_ref().map(Label::as_str),
        report.version.as_ref().map(Label::as_str),
        report.status.as_str(),
        origin.actor.as_ref().map(Actor::as_str),
        stamp.at
    )
    .fetch_one(conn)
    .await?;
    Ok(row.into())
}

/// The number of policies of the three other levers, for the checklist.
pub async fn count_policies(conn: &mut PgConnection) -> Result<[(&'static str, i64); 3]> {
    let row = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM risk_policy)       AS "risk!",
                  (SELECT count(*) FROM heimdall_policy)   AS "heimdall!",
                  (SELECT count(*) FROM regression_policy) AS "regression!""#
    )
    .fetch_one(conn)
    .await?;
    Ok([("risk", row.risk), ("heimdall", row.heimdall), ("regression", row.regression)])
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

/// The periods of the switches, from the last one before `since`, or from the first enable ever. An event that changes
/// nothing, such as a repeated engage, begins none and is not read, since there may be any number of them.
pub async fn stretches(conn: &mut PgConnection, since: DateTime<Utc>) -> Result<Vec<Stretch>> {
    let rows = sqlx::query!(
        r#"WITH said AS MATERIALIZED (
               SELECT seq, at, action, detail IS NOT NULL AS told
               FROM control_event
               -- An acceptance moves no switch.
               WHERE ok AND action IN ('GO_LIVE_ENABLE', 'GO_LIVE_DISABLE', 'KILL_SWITCH_ENGAGE', 'KILL_SWITCH_RELEASE')
                 AND seq >= (SELECT min(seq) FROM control_event WHERE action = 'GO_LIVE_ENABLE' AND ok)
                 AND seq >= COALESCE(
                         (SELECT max(seq)
                          FROM control_event
                          WHERE ok AND at < $1
                            AND action IN ('GO_LIVE_ENABLE', 'GO_LIVE_DISABLE', 'KILL_SWITCH_ENGAGE', 'KILL_SWITCH_RELEASE')),
                         0)
           ), ordered AS (
               SELECT seq, at, action,
                      lag(action) OVER (PARTITION BY starts_with(action, 'GO_LIVE_') ORDER BY seq) AS before,
                      min(seq) FILTER (WHERE told) OVER () AS first_told
               FROM said
           )
           SELECT at     AS "at!",
                  action AS "action!",
                  -- Of both switches a detail tells, and after the first one the actions do.
                  CASE WHEN before IS NULL OR seq = first_told
                       THEN (SELECT detail FROM control_event AS event WHERE event.seq = ordered.seq) END AS detail
           FROM ordered
           WHERE before IS DISTINCT FROM action OR seq = first_told
           ORDER BY seq"#,
        since
    )
    .fetch_all(conn)
    .await?;
    // If the detail was not read or was erased, the action still tells which switch was moved, and how.
    let (mut enabled, mut engaged) = (None, None);
    let mut stretches = Vec::with_capacity(rows.len());
    for row in rows {
        match (row.detail, ControlAction::read(&row.action)) {
            (Some(detail), _) => {
                let After { after } = serde_json::from_str(&detail)
                    .map_err(|error| Error::Inconsistent(format!("a change of the switches has no after: {error}")))?;
                (enabled, engaged) = (Some(after.go_live_enabled), Some(after.kill_switch_engaged));
            }
            (None, Some(ControlAction::GoLiveEnable)) => enabled = Some(true),
            (None, Some(ControlAction::GoLiveDisable)) => enabled = Some(false),
            (None, action) => engaged = Some(action == Some(ControlAction::KillSwitchEngage)),
        }
        // An unknown switch counts as down.
        stretches.push(Stretch { from: row.at, live: enabled == Some(true) && engaged == Some(false) });
    }
    Ok(stretches)
}

/// Whether reserves can pass on GLOBAL; none if it has no policy.
pub async fn is_global_active(conn: &mut PgConnection) -> Result<Option<bool>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT enabled AND NOT EXISTS (SELECT FROM risk_throttle WHERE risk_throttle.engine = risk_policy.engine) AS "active!"
           FROM risk_policy
           WHERE engine = 'GLOBAL'"#
    )
    .fetch_optional(conn)
    .await?)
}

/// The wires with a standing trip that acted, as `DOMAIN.metric`.
pub async fn standing_trips(conn: &mut PgConnection) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT domain || '.' || metric AS "wire!" FROM regression_trip WHERE rearmed_at IS NULL AND NOT shadow ORDER BY 1"#
    )
    .fetch_all(conn)
    .await?)
}
