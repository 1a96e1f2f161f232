//! The SQL of the requests for a second person.

use super::end::End;
use super::model::{ApprovalAction, ApprovalRecord, Standing};
use super::shown;
use crate::db::stored_json;
use crate::error::{Error, Result};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

/// The key of the setting.
pub(super) const SETTING: &str = "two_person_release";

/// Whether the database's setting requires a second person. A missing or unreadable setting requires one.
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

/// Whether the database's setting requires a second person. The setting cannot change until this transaction ends.
pub async fn hold_required_by_database(conn: &mut PgConnection) -> Result<bool> {
    let value =
        sqlx::query_scalar!("SELECT value FROM setting WHERE key = $1 FOR SHARE", SETTING).fetch_optional(conn).await?;
    Ok(value.as_deref() != Some("off"))
}

/// The requests of the last day, in their state at an instant, newest first.
pub(crate) async fn list(conn: &mut PgConnection, at: DateTime<Utc>) -> Result<Vec<ApprovalRecord>> {
    read(conn, at, Wanted::OfTheLastDay).await
}

/// The requests that wait at an instant, newest first.
pub async fn waiting(conn: &mut PgConnection, at: DateTime<Utc>) -> Result<Vec<ApprovalRecord>> {
    read(conn, at, Wanted::Open).await
}

/// The requests to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The request with this id, however old.
    One(i64),
    /// The requests that wait.
    Open,
    /// The requests that expired less than a day ago.
    OfTheLastDay,
}

/// The most requests in a list.
const LIST_MAX: i64 = 500;

/// One request, however old, in its state at an instant.
pub(crate) async fn find(conn: &mut PgConnection, id: i64, at: DateTime<Utc>) -> Result<ApprovalRecord> {
    let found = read(conn, at, Wanted::One(id)).await?.into_iter().next();
    found.ok_or_else(|| Error::NotFound { what: "approval", id: id.to_string() })
}

/// The number of a principal's requests that have not expired, in whatever state.
pub(super) async fn asked_by(conn: &mut PgConnection, principal: &str, at: DateTime<Utc>) -> Result<usize> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM approval WHERE expires_at > $1 AND requested_by = $2"#,
        at,
        principal
    )
    .fetch_one(conn)
    .await?;
    usize::try_from(count).map_err(|_| Error::Inconsistent(format!("{count} requests were made")))
}

/// Reads requests, each with the first event that cancelled it before it expired. Each kind of event has its own
/// subquery, so that an index answers it: refusals are events too, and their number has no bound.
#[expect(clippy::too_many_lines, reason = "one statement, one line a column")]
async fn read(conn: &mut PgConnection, at: DateTime<Utc>, wanted: Wanted) -> Result<Vec<ApprovalRecord>> {
    let id = if let Wanted::One(id) = wanted { Some(id) } else { None };
    let (since, limit) = match wanted {
        Wanted::One(_) => (DateTime::UNIX_EPOCH, 1),
        Wanted::Open => (at, i64::MAX),
        Wanted::OfTheLastDay => (at - TimeDelta::days(1), LIST_MAX),
    };
    let rows = sqlx::query!(
        r#"SELECT approval.id,
                  approval.action,
                  coalesce(approval.subject, CASE approval.action WHEN 'RISK_POLICY_UPSERT' THEN approval.input::json ->> 'engine' END)
                      AS subject,
                  approval.input,
                  approval.actor,
                  approval.reason,
                  approval.requested_by,
                  approval.owner,
                  approval.requested_at,
                  approval.expires_at,
                  approval.approved_at,
                  approval.approved_by,
                  approval.rejected_at,
                  approval.rejected_by,
                  newer.seq AS "newer_seq?",
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
           LEFT JOIN LATERAL (
               SELECT first.*
               FROM unnest(CASE WHEN approval.action IN ('GO_LIVE_ENABLE', 'KILL_SWITCH_RELEASE')
                                THEN ARRAY['GO_LIVE_DISABLE', 'KILL_SWITCH_ENGAGE']
                                ELSE ARRAY['GO_LIVE_DISABLE', 'KILL_SWITCH_ENGAGE', 'REGRESSION_TRIP'] END) AS tightens (action)
               CROSS JOIN LATERAL (
                   SELECT event.seq, event.action, event.subject, event.at, event.principal, event.actor
                   FROM control_event AS event
                   WHERE event.action = tightens.action AND event.ok AND event.seq > approval.id
                     AND event.at < approval.expires_at
                   ORDER BY event.action, event.seq
                   LIMIT 1) AS first
               UNION ALL
               -- What its own lever did to the same thing; saying what a trip was is no change.
               (SELECT event.seq, event.action, event.subject, event.at, event.principal, event.actor
                FROM control_event AS event
                WHERE approval.action NOT IN ('GO_LIVE_ENABLE', 'KILL_SWITCH_RELEASE')
                  AND event.subject = coalesce(approval.subject, approval.input::json ->> 'engine')
                  AND event.ok AND event.seq > approval.id AND event.at < approval.expires_at
                  AND split_part(event.action, '_', 1) = split_part(approval.action, '_', 1)
                  AND event.action <> 'REGRESSION_ACKNOWLEDGE'
                ORDER BY event.subject, event.seq
                LIMIT 1)
               ORDER BY seq
               LIMIT 1) AS newer ON true
           -- The same event was corrected.
           LEFT JOIN LATERAL (
               SELECT twin.id, twin.approved_at, twin.approved_by
               FROM approval AS twin
               WHERE approval.action = 'RISK_ADJUST' AND twin.action = 'RISK_ADJUST' AND twin.subject = approval.subject
                 AND twin.expires_at > approval.requested_at
                 AND twin.approved_at > approval.requested_at AND twin.approved_at < approval.expires_at
               ORDER BY twin.approved_at
               LIMIT 1) AS other ON true
           -- Its principal, as Principal::token writes it.
           LEFT JOIN access_token AS token
               ON token.id = substring(approval.requested_by FROM '[^:]*$')
                  AND concat(token.name, ':', token.id) = approval.requested_by
           WHERE ($2::bigint IS NULL OR approval.id = $2)
             AND approval.expires_at > $3
             AND ($4 OR (approval.approved_at IS NULL AND approval.rejected_at IS NULL
                         AND newer.seq IS NULL AND other.id IS NULL
                         AND token.id IS NOT NULL AND token.revoked_at IS NULL
                         AND (token.expires_at IS NULL OR token.expires_at > $1)))
           ORDER BY approval.id DESC
           LIMIT $5"#,
        at,
        id,
        since,
        wanted != Wanted::Open,
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let event = row.newer_seq.zip(row.newer_at).map(|(seq, at)| End::Event {
                seq,
                at,
                action: row.newer_action.unwrap_or_default(),
                subject: row.newer_subject,
                principal: row.newer_principal.unwrap_or_default(),
                actor: row.newer_actor,
            });
            let correction =
                row.other_id.zip(row.other_at).map(|(id, at)| End::Correction { id, at, by: row.other_by });
            let revoked = row.revoked_at.zip(row.revoked_by);
            let token = End::of_token(row.token_id.is_some(), revoked, row.token_expires_at, at.min(row.expires_at));
            let end = [event, correction, token].into_iter().flatten().min_by_key(End::at);
            let standing = match (row.approved_at, row.rejected_at, &end) {
                (Some(_), ..) => Standing::Approved,
                (None, Some(_), _) => Standing::Rejected,
                (None, None, Some(_)) => Standing::Cancelled,
                (None, None, None) if row.expires_at <= at => Standing::Expired,
                (None, None, None) => Standing::Waiting,
            };
            let unknown = || Error::Inconsistent(format!("an approval is of {}", row.action));
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
                cancelled_by: end.filter(|_| standing == Standing::Cancelled),
                standing,
            })
        })
        .collect()
}

/// Whether one of these changes of this subject waits for a second person. A stop of the subject is then an event even
/// if it changes nothing, since it cancels the request.
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

pub(crate) async fn reject(conn: &mut PgConnection, id: i64, at: DateTime<Utc>, by: &str) -> Result<()> {
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

/// The error for a request that ended unseen. It was found waiting under the control head, which every change that ends
/// it holds.
fn ended_unseen(id: i64) -> Error {
    Error::Inconsistent(format!("approval {id} ended without the control head"))
}
