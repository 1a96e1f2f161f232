//! SQL of the requests for a second person.

use super::model::{ApprovalAction, ApprovalRecord, Standing};
use crate::db::stored_json;
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The setting's name.
pub(super) const SETTING: &str = "two_person_release";

/// Whether the database asks for a second person. A setting that is missing or unreadable asks for one.
pub async fn is_required_by_database(conn: &mut PgConnection) -> Result<bool> {
    let value = sqlx::query_scalar!("SELECT value FROM setting WHERE key = $1", SETTING).fetch_optional(conn).await?;
    Ok(value.as_deref() != Some("off"))
}

pub(super) async fn set_required(conn: &mut PgConnection, on: bool) -> Result<()> {
    let value = if on { "on" } else { "off" };
    sqlx::query!(
        "INSERT INTO setting (key, value)
         VALUES ($1, $2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        SETTING,
        value
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The database's time.
pub(super) async fn now(conn: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar!(r#"SELECT holdfast_now() AS "now!""#).fetch_one(conn).await?)
}

/// The requests of the last day, as they stand at an instant, newest first.
pub async fn list(conn: &mut PgConnection, at: DateTime<Utc>) -> Result<Vec<ApprovalRecord>> {
    let rows = sqlx::query!(
        r#"SELECT id,
                  action,
                  input,
                  actor,
                  reason,
                  requested_by,
                  owner,
                  requested_at,
                  expires_at,
                  approved_at,
                  approved_by,
                  EXISTS (SELECT FROM control_event AS event
                          WHERE event.ok AND event.seq > approval.id
                            AND (event.action IN ('GO_LIVE_DISABLE', 'KILL_SWITCH_ENGAGE')
                                 OR (approval.action = 'RISK_POLICY_UPSERT'
                                     AND (event.action = 'REGRESSION_TRIP'
                                          OR (event.action = 'RISK_POLICY_UPSERT' AND event.subject = approval.input::json ->> 'engine')))))
                      AS "tightened!",
                  -- Its principal, as Principal::token writes it.
                  NOT EXISTS (SELECT FROM access_token AS token
                              WHERE concat(token.name, ':', token.id) = approval.requested_by
                                AND token.revoked_at IS NULL
                                AND (token.expires_at IS NULL OR token.expires_at > $1))
                      AS "orphaned!"
           FROM approval
           WHERE expires_at > $1::timestamptz - interval '1 day'
           ORDER BY id DESC"#,
        at
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let unknown = || Error::Inconsistent(format!("an approval is of {}", row.action));
            let standing = match (row.approved_at, row.tightened || row.orphaned) {
                (Some(_), _) => Standing::Approved,
                (None, true) => Standing::Cancelled,
                (None, false) if row.expires_at <= at => Standing::Expired,
                (None, false) => Standing::Waiting,
            };
            Ok(ApprovalRecord {
                id: row.id,
                action: ApprovalAction::named(&row.action).ok_or_else(unknown)?,
                input: stored_json(row.input)?,
                actor: row.actor,
                reason: row.reason,
                requested_by: row.requested_by,
                owner: row.owner,
                requested_at: row.requested_at,
                expires_at: row.expires_at,
                approved_at: row.approved_at,
                approved_by: row.approved_by,
                standing,
            })
        })
        .collect()
}

pub(super) async fn insert(conn: &mut PgConnection, record: &ApprovalRecord) -> Result<()> {
    sqlx::query!(
        "INSERT INTO approval (id, action, input, actor, reason, requested_by, owner, requested_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        record.id,
        record.action.as_str(),
        record.input.get(),
        record.actor,
        record.reason,
        record.requested_by,
        record.owner,
        record.requested_at,
        record.expires_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn approve(conn: &mut PgConnection, id: i64, at: DateTime<Utc>, by: &str) -> Result<()> {
    let approved = sqlx::query!(
        "UPDATE approval
         SET approved_at = $2, approved_by = $3
         WHERE id = $1 AND approved_at IS NULL",
        id,
        at,
        by
    )
    .execute(conn)
    .await?;
    if approved.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::ApprovalClosed { id, standing: Standing::Approved.as_str() })
    }
}
