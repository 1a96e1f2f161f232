//! SQL of the requests for a second person.

use super::end::End;
use super::model::{ApprovalAction, ApprovalRecord, Standing};
use super::shown;
use crate::db::stored_json;
use crate::error::{Error, Result};
use chrono::{DateTime, TimeDelta, Utc};
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

/// Whether the database asks for a second person, and goes on to until this transaction ends.
pub async fn hold_required_by_database(conn: &mut PgConnection) -> Result<bool> {
    let value =
        sqlx::query_scalar!("SELECT value FROM setting WHERE key = $1 FOR SHARE", SETTING).fetch_optional(conn).await?;
    Ok(value.as_deref() != Some("off"))
}

/// The requests of the last day at most, as they stand at an instant, newest first.
pub(super) async fn list(conn: &mut PgConnection, at: DateTime<Utc>) -> Result<Vec<ApprovalRecord>> {
    read(conn, at, Wanted::OfTheLastDay).await
}

/// The requests that wait at an instant, newest first.
pub async fn waiting(conn: &mut PgConnection, at: DateTime<Utc>) -> Result<Vec<ApprovalRecord>> {
    let records = read(conn, at, Wanted::Open).await?;
    Ok(records.into_iter().filter(|record| record.standing == Standing::Waiting).collect())
}

/// Which requests are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// This one, however old.
    One(i64),
    /// Those that can still be approved, unless something has cancelled them.
    Open,
    /// Those that expired a day ago at most, the latest first.
    OfTheLastDay,
}

/// How many requests a list holds.
const LIST_MAX: i64 = 500;

/// One request, however old, as it stands at an instant.
pub(super) async fn find(conn: &mut PgConnection, id: i64, at: DateTime<Utc>) -> Result<ApprovalRecord> {
    let found = read(&mut *conn, at, Wanted::One(id)).await?.into_iter().next();
    let mut record = found.ok_or_else(|| Error::NotFound { what: "approval", id: id.to_string() })?;
    if record.standing == Standing::Cancelled {
        record.cancelled_by = cancelled_by(conn, id, at).await?;
    }
    Ok(record)
}

/// What cancelled a request first.
async fn cancelled_by(conn: &mut PgConnection, id: i64, now: DateTime<Utc>) -> Result<Option<End>> {
    let row = sqlx::query!(
        r#"SELECT newer.seq AS "newer_seq?",
                  newer.action AS "newer_action?",
                  newer.subject AS "newer_subject?",
                  newer.at AS "newer_at?",
                  newer.principal AS "newer_principal?",
                  newer.actor AS "newer_actor?",
                  other.id AS "other_id?",
                  other.approved_at AS "other_at?",
                  other.approved_by AS "other_by?",
                  token.id AS "token_id?",
                  token.revoked_at AS "revoked_at?",
                  token.revoked_by AS "revoked_by?",
                  token.expires_at AS "token_expires_at?"
           FROM approval
           -- One for each question that `read` asks, the first of them all.
           LEFT JOIN LATERAL (
               (SELECT seq, event.action, event.subject, at, principal, event.actor
                FROM control_event AS event
                WHERE event.ok AND event.seq > approval.id AND event.action IN ('GO_LIVE_DISABLE', 'KILL_SWITCH_ENGAGE')
                ORDER BY seq
                LIMIT 1)
               UNION ALL
               (SELECT seq, event.action, event.subject, at, principal, event.actor
                FROM control_event AS event
                WHERE approval.action NOT IN ('GO_LIVE_ENABLE', 'KILL_SWITCH_RELEASE')
                  AND event.ok AND event.seq > approval.id AND event.action = 'REGRESSION_TRIP'
                ORDER BY seq
                LIMIT 1)
               UNION ALL
               (SELECT seq, event.action, event.subject, at, principal, event.actor
                FROM control_event AS event
                WHERE approval.action NOT IN ('GO_LIVE_ENABLE', 'KILL_SWITCH_RELEASE')
                  AND event.ok AND event.seq > approval.id
                  AND event.subject = coalesce(approval.subject, approval.input::json ->> 'engine')
                  AND split_part(event.action, '_', 1) = split_part(approval.action, '_', 1)
                  AND event.action <> 'REGRESSION_ACKNOWLEDGE'
                ORDER BY seq
                LIMIT 1)
               ORDER BY seq
               LIMIT 1) AS newer ON true
           LEFT JOIN LATERAL (
               SELECT twin.id, twin.approved_at, twin.approved_by
               FROM approval AS twin
               WHERE approval.action = 'RISK_ADJUST' AND twin.action = 'RISK_ADJUST'
                 AND twin.subject = approval.subject AND twin.approved_at > approval.requested_at
               ORDER BY twin.approved_at
               LIMIT 1) AS other ON true
           LEFT JOIN access_token AS token
               ON token.id = substring(approval.requested_by FROM '[^:]*$')
                  AND concat(token.name, ':', token.id) = approval.requested_by
           WHERE approval.id = $1"#,
        id
    )
    .fetch_one(conn)
    .await?;
    let event = row.newer_seq.zip(row.newer_at).map(|(seq, at)| End::Event {
        seq,
        at,
        action: row.newer_action.unwrap_or_default(),
        subject: row.newer_subject,
        principal: row.newer_principal.unwrap_or_default(),
        actor: row.newer_actor,
    });
    let correction = row.other_id.zip(row.other_at).map(|(id, at)| End::Correction { id, at, by: row.other_by });
    let revoked = row.revoked_at.zip(row.revoked_by);
    let token = End::of_token(row.token_id.is_some(), revoked, row.token_expires_at, now);
    Ok([event, correction, token].into_iter().flatten().min_by_key(End::at))
}

#[expect(clippy::too_many_lines, reason = "one statement, one line a column")]
async fn read(conn: &mut PgConnection, at: DateTime<Utc>, wanted: Wanted) -> Result<Vec<ApprovalRecord>> {
    let id = if let Wanted::One(id) = wanted { Some(id) } else { None };
    let since = match wanted {
        Wanted::One(_) => DateTime::UNIX_EPOCH,
        Wanted::Open => at,
        Wanted::OfTheLastDay => at - TimeDelta::days(1),
    };
    let rows = sqlx::query!(
        r#"SELECT id,
                  action,
                  coalesce(subject, CASE action WHEN 'RISK_POLICY_UPSERT' THEN input::json ->> 'engine' END) AS subject,
                  input,
                  actor,
                  reason,
                  requested_by,
                  owner,
                  requested_at,
                  expires_at,
                  approved_at,
                  approved_by,
                  rejected_at,
                  rejected_by,
                  EXISTS (SELECT FROM control_event AS event
                          WHERE event.ok AND event.seq > approval.id
                            AND event.action IN ('GO_LIVE_DISABLE', 'KILL_SWITCH_ENGAGE'))
                      OR (approval.action NOT IN ('GO_LIVE_ENABLE', 'KILL_SWITCH_RELEASE')
                          AND EXISTS (SELECT FROM control_event AS event
                                      WHERE event.ok AND event.seq > approval.id AND event.action = 'REGRESSION_TRIP'))
                      -- What its own lever did to the same thing; saying what a trip was is no change.
                      OR (approval.action NOT IN ('GO_LIVE_ENABLE', 'KILL_SWITCH_RELEASE')
                          AND EXISTS (SELECT FROM control_event AS event
                                      WHERE event.ok AND event.seq > approval.id
                                        AND event.subject = coalesce(approval.subject, approval.input::json ->> 'engine')
                                        AND split_part(event.action, '_', 1) = split_part(approval.action, '_', 1)
                                        AND event.action <> 'REGRESSION_ACKNOWLEDGE'))
                      -- The same event was corrected.
                      OR EXISTS (SELECT FROM approval AS other
                                 WHERE approval.action = 'RISK_ADJUST' AND other.action = 'RISK_ADJUST'
                                   AND other.subject = approval.subject AND other.approved_at > approval.requested_at)
                      AS "tightened!",
                  -- Its principal, as Principal::token writes it.
                  NOT EXISTS (SELECT FROM access_token AS token
                              WHERE token.id = substring(approval.requested_by FROM '[^:]*$')
                                AND concat(token.name, ':', token.id) = approval.requested_by
                                AND token.revoked_at IS NULL
                                AND (token.expires_at IS NULL OR token.expires_at > $1))
                      AS "orphaned!"
           FROM approval
           WHERE ($2::bigint IS NULL OR id = $2)
             AND expires_at > $3
             AND ($4 OR (approved_at IS NULL AND rejected_at IS NULL))
           ORDER BY id DESC
           LIMIT $5"#,
        at,
        id,
        since,
        wanted != Wanted::Open,
        LIST_MAX
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let unknown = || Error::Inconsistent(format!("an approval is of {}", row.action));
            let standing = match (row.approved_at, row.rejected_at, row.tightened || row.orphaned) {
                (Some(_), ..) => Standing::Approved,
                (None, Some(_), _) => Standing::Rejected,
                (None, None, true) => Standing::Cancelled,
                (None, None, false) if row.expires_at <= at => Standing::Expired,
                (None, None, false) => Standing::Waiting,
            };
            let input = stored_json(row.input)?;
            Ok(ApprovalRecord {
                id: row.id,
                action: ApprovalAction::named(&row.action).ok_or_else(unknown)?,
                subject: row.subject,
                changes: shown::changes(&input),
                input,
                actor: row.actor,
                reason: row.reason,
                requested_by: row.requested_by,
                owner: row.owner,
                requested_at: row.requested_at,
                expires_at: row.expires_at,
                approved_at: row.approved_at,
                approved_by: row.approved_by,
                rejected_at: row.rejected_at,
                rejected_by: row.rejected_by,
                cancelled_by: None,
                standing,
            })
        })
        .collect()
}

/// Whether one of these changes of this waits for a second person. A stop of it is then an event although it stands so already: by that
/// the request is cancelled.
pub async fn waits_for(
    conn: &mut PgConnection,
    actions: &[ApprovalAction],
    subject: &str,
    at: DateTime<Utc>,
) -> Result<bool> {
    let is_it =
        |record: &ApprovalRecord| actions.contains(&record.action) && record.subject.as_deref() == Some(subject);
    Ok(waiting(conn, at).await?.iter().any(is_it))
}

pub(super) async fn insert(conn: &mut PgConnection, record: &ApprovalRecord) -> Result<()> {
    sqlx::query!(
        "INSERT INTO approval (id, action, subject, input, actor, reason, requested_by, owner, requested_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        record.id,
        record.action.as_str(),
        record.subject,
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
         WHERE id = $1 AND approved_at IS NULL AND rejected_at IS NULL",
        id,
        at,
        by
    )
    .execute(conn)
    .await?;
    if approved.rows_affected() == 1 { Ok(()) } else { Err(ended_unseen(id)) }
}

pub(super) async fn reject(conn: &mut PgConnection, id: i64, at: DateTime<Utc>, by: &str) -> Result<()> {
    let rejected = sqlx::query!(
        "UPDATE approval
         SET rejected_at = $2, rejected_by = $3
         WHERE id = $1 AND approved_at IS NULL AND rejected_at IS NULL",
        id,
        at,
        by
    )
    .execute(conn)
    .await?;
    if rejected.rows_affected() == 1 { Ok(()) } else { Err(ended_unseen(id)) }
}

/// It was found waiting under the control head, which whoever ends it holds.
fn ended_unseen(id: i64) -> Error {
    Error::Inconsistent(format!("approval {id} ended without the control head"))
}
