//! SQL of the heads and of the control stream.

pub(crate) mod as_of;
pub(super) mod erase;
pub(crate) mod events;
pub(crate) mod policies;

use super::{ControlEvent, ControlRecord, Head, Origin, Stamp, Stream};
use crate::db;
use crate::db::history::{read_hash, read_point};
use crate::error::{Error, Result};
use crate::types::{Actor, ControlAction, CorrelationId, Point, Portion, Reason, RequestId};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Locks a stream's head until the transaction ends, and reads the time after the lock is held.
///
/// Waits for the current holder, at most `lock_timeout`. See the lock order in the module's documentation.
pub async fn lock(conn: &mut PgConnection, stream: Stream) -> Result<Head> {
    let mut head = lock_head(&mut *conn, stream).await?;
    // A statement of its own: it begins after the lock was granted, so the time is never older than the head.
    head.set_now(db::now(conn).await?);
    Ok(head)
}

/// True if a change of this kind was ever made to a subject of the control plane.
pub async fn was_done(conn: &mut PgConnection, action: ControlAction, subject: &str) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM control_event WHERE action = $1 AND ok AND subject = $2) AS "done!""#,
        action.as_str(),
        subject
    )
    .fetch_one(conn)
    .await?)
}

/// True if the clock, which is behind the ledger's last event, is the one that was accepted, and the event is one of
/// those.
///
/// False for a clock that jumped ahead or went back once more.
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

async fn lock_head(conn: &mut PgConnection, stream: Stream) -> Result<Head> {
    let row = sqlx::query!(
        "SELECT seq,
                hash,
                at,
                turn
         FROM audit_head
         WHERE stream = $1
         FOR UPDATE",
        stream.as_str()
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(Head { stream, seq: row.seq, hash: read_hash(stream, row.hash)?, at: row.at, revision: row.turn, now: row.at })
}

/// Prepares the statements of [`begin`] on a connection, once.
pub async fn prepare_to_begin(conn: &mut PgConnection, stream: Stream) -> Result<()> {
    let statement = format!(
        "PREPARE lock_{0}_head AS SELECT FROM audit_head WHERE stream = '{0}' FOR UPDATE;
         PREPARE read_{0}_head AS SELECT seq, hash, at, turn, holdfast_now() AS now FROM audit_head WHERE stream = '{0}'",
        stream.as_str()
    );
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(conn).await?;
    Ok(())
}

/// Begins a transaction, locks a head, and runs one more statement without parameters, in one round trip. Each
/// statement sees what the previous holder of the head wrote.
pub async fn begin_and(conn: &mut PgConnection, stream: Stream, statement: &str) -> Result<Vec<PgRow>> {
    let all = format!("BEGIN; EXECUTE lock_{}_head; {statement}", stream.as_str());
    let mut rows = sqlx::raw_sql(AssertSqlSafe(all)).fetch_all(conn).await?;
    // The first row is the lock's.
    rows.drain(..rows.len().min(1));
    Ok(rows)
}

/// Begins a transaction and locks a head, with the time read after the lock was granted.
pub async fn begin(conn: &mut PgConnection, stream: Stream) -> Result<Head> {
    let rows = begin_and(conn, stream, &format!("EXECUTE read_{}_head", stream.as_str())).await?;
    let row = rows.first().ok_or_else(|| Error::Inconsistent(format!("the head {} is missing", stream.as_str())))?;
    let hash = read_hash(stream, row.try_get("hash")?)?;
    let (seq, revision) = (row.try_get("seq")?, row.try_get("turn")?);
    Ok(Head { stream, seq, hash, at: row.try_get("at")?, revision, now: row.try_get("now")? })
}

/// A head that a statement read with other things, without the right to append. The caller must set its time before
/// use.
pub fn seen(stream: Stream, seq: i64, hash: Vec<u8>, at: DateTime<Utc>, revision: i64) -> Result<Head> {
    Ok(Head { stream, seq, hash: read_hash(stream, hash)?, at, revision, now: at })
}

/// Increments the revision of a locked head, so that a decision that was made without the lock is not written. Code
/// that changes a fact of a decision calls this; triggers do the same for manual changes and other programs.
pub async fn revise(conn: &mut PgConnection, stream: Stream) -> Result<()> {
    sqlx::query!("UPDATE audit_head SET turn = turn + 1 WHERE stream = $1", stream.as_str()).execute(conn).await?;
    Ok(())
}

impl Head {
    /// Writes the head. This is the last write on a stream before the commit.
    pub async fn store(&self, conn: &mut PgConnection) -> Result<()> {
        store_head(conn, self).await
    }
}

async fn store_head(conn: &mut PgConnection, head: &Head) -> Result<()> {
    let stored = sqlx::query!(
        "UPDATE audit_head
         SET seq = $2, hash = $3, at = $4
         WHERE stream = $1 AND seq < $2",
        head.stream.as_str(),
        head.seq,
        &head.hash[..],
        head.at
    )
    .execute(conn)
    .await?;
    if stored.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::Inconsistent(format!("head {} did not move forward to {}", head.stream.as_str(), head.seq)))
    }
}

impl ControlEvent<'_> {
    /// Appends the event and stores the head.
    pub async fn append(&self, conn: &mut PgConnection, head: &mut Head, origin: &Origin) -> Result<Stamp> {
        let stamp = head.next();
        let hash = head.seal(stamp, self.canonical(stamp, origin).bytes());
        insert_control_event(conn, stamp, origin, self, &hash).await?;
        head.store(conn).await?;
        Ok(stamp)
    }
}

async fn insert_control_event(
    conn: &mut PgConnection,
    stamp: Stamp,
    origin: &Origin,
    event: &ControlEvent<'_>,
    hash: &[u8],
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO control_event
             (seq, at, principal, actor, request_id, correlation_id, action, subject, ok, error, reason, detail, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        stamp.seq,
        stamp.at,
        origin.principal.as_str(),
        origin.actor.as_ref().map(Actor::as_str),
        origin.request_id.as_ref().map(RequestId::as_str),
        origin.correlation_id.as_ref().map(CorrelationId::as_str),
        event.action.as_str(),
        event.subject,
        event.error.is_none(),
        event.error,
        event.reason.map(Reason::as_str),
        event.detail,
        hash
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Control events, newest first; only those whose action begins with one of `prefixes` (all if empty), and not older than
/// `since`.
pub async fn control_events(
    conn: &mut PgConnection,
    prefixes: &[&str],
    since: Option<DateTime<Utc>>,
    portion: Portion,
) -> Result<Vec<ControlRecord>> {
    let prefixes: Vec<String> = prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
    let rows = sqlx::query!(
        r#"SELECT seq,
                  at,
                  principal,
                  actor,
                  request_id,
                  correlation_id,
                  action,
                  subject,
                  ok,
                  error,
                  reason,
                  detail,
                  encode(hash, 'hex') AS "hash!"
           FROM control_event
           WHERE seq < $1
             AND ($2::timestamptz IS NULL OR at >= $2)
             AND seq >= $5
             AND (cardinality($3::text[]) = 0 OR EXISTS (SELECT FROM unnest($3::text[]) AS prefix WHERE starts_with(action, prefix)))
           ORDER BY seq DESC
           LIMIT $4"#,
        portion.before,
        since,
        &prefixes,
        portion.limit,
        portion.first
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(ControlRecord {
                seq: row.seq,
                at: row.at,
                principal: row.principal,
                actor: row.actor,
                request_id: row.request_id,
                correlation_id: row.correlation_id,
                action: row.action,
                subject: row.subject,
                ok: row.ok,
                error: row.error,
                reason: row.reason,
                detail: row.detail.map(crate::db::stored_json).transpose()?,
                hash: row.hash,
            })
        })
        .collect()
}

/// The last event of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeadRecord {
    /// The stream's name.
    pub stream: String,
    /// The last sequence number; 0 before the first event.
    pub seq: i64,
    /// The last hash, lower-case hex.
    pub hash: String,
    /// The time of the last event; 1970 before the first.
    pub at: DateTime<Utc>,
}

/// The last sequence number of a stream, without a lock.
pub async fn head_seq(conn: &mut PgConnection, stream: Stream) -> Result<i64> {
    Ok(sqlx::query_scalar!("SELECT seq FROM audit_head WHERE stream = $1", stream.as_str()).fetch_one(conn).await?)
}

/// A committed change, with the fields of its log line.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) seq: i64,
    pub(super) action: String,
    pub(super) subject: Option<String>,
    pub(super) principal: String,
    pub(super) actor: Option<String>,
    pub(super) request_id: Option<String>,
    /// Only trips have it.
    pub(super) detail: Option<String>,
}

/// The changes of the control stream after one place and up to another.
pub(super) async fn read_told(conn: &mut PgConnection, after: i64, up_to: i64) -> Result<Vec<Told>> {
    let trips = [ControlAction::RegressionTrip, ControlAction::RegressionShadowTrip].map(ControlAction::as_str);
    Ok(sqlx::query_as!(
        Told,
        "SELECT seq,
                action,
                subject,
                principal,
                actor,
                request_id,
                CASE WHEN action = ANY($3) THEN detail END AS detail
         FROM control_event
         WHERE ok AND seq > $1 AND seq <= $2
         ORDER BY seq",
        after,
        up_to,
        &trips as &[&str]
    )
    .fetch_all(conn)
    .await?)
}

/// The last event of every stream, without a lock.
pub async fn heads(conn: &mut PgConnection) -> Result<Vec<HeadRecord>> {
    Ok(sqlx::query_as!(
        HeadRecord,
        r#"SELECT stream,
                  seq,
                  encode(hash, 'hex') AS "hash!",
                  at
           FROM audit_head
           ORDER BY stream"#
    )
    .fetch_all(conn)
    .await?)
}

/// The last event of every stream and the time, in one statement and so at one instant.
pub(super) async fn points(conn: &mut PgConnection) -> Result<(DateTime<Utc>, BTreeMap<Stream, Point>)> {
    let rows = sqlx::query!(
        r#"SELECT stream,
                  seq,
                  hash,
                  holdfast_now() AS "now!"
           FROM audit_head"#
    )
    .fetch_all(conn)
    .await?;
    let now = rows.iter().map(|row| row.now).min();
    let now = now.ok_or_else(|| Error::Inconsistent("the heads are missing".into()))?;
    let points = rows.into_iter().map(|row| read_point(&row.stream, row.seq, row.hash));
    Ok((now, points.collect::<Result<_>>()?))
}
