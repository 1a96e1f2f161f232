//! SQL of the archive.

use super::manifest::Manifest;
use crate::audit::{Stream, partitions};
use crate::db::archived::Segment;
use crate::error::Result;
use chrono::{DateTime, Days, NaiveDate, Utc};
use sqlx::{AssertSqlSafe, Executor, PgConnection};

/// The process that archives or restores now, as a subject of a sentence.
pub(super) async fn archiving(conn: &mut PgConnection) -> Result<String> {
    holders(conn, &["audit_archive".to_owned()], Some("ShareUpdateExclusiveLock")).await
}

/// The processes that hold a lock on one of these tables: of this mode, or of any if none is given.
pub(super) async fn holders(conn: &mut PgConnection, tables: &[String], mode: Option<&str>) -> Result<String> {
    let found = sqlx::query_scalar!(
        r#"SELECT string_agg(DISTINCT concat_ws(' ', 'the database session', activity.pid::text,
                             COALESCE('(' || NULLIF(activity.application_name, '') || ')', ''),
                             'since', to_char(activity.xact_start, 'YYYY-MM-DD HH24:MI:SS')), ', ')
           FROM pg_locks
           JOIN pg_stat_activity AS activity USING (pid)
           WHERE pg_locks.granted
             AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND pg_locks.relation IN (SELECT to_regclass(name) FROM unnest($1::text[]) AS name)
             AND ($2::text IS NULL OR pg_locks.mode = $2)
             AND activity.pid <> pg_backend_pid()"#,
        tables,
        mode
    )
    .fetch_one(conn)
    .await?;
    Ok(found.unwrap_or_else(|| "another process".to_owned()))
}

/// The time of an event; none if it is missing.
pub(super) async fn at(conn: &mut PgConnection, stream: Stream, seq: i64) -> Result<Option<DateTime<Utc>>> {
    let sql = AssertSqlSafe(format!("SELECT at FROM {} WHERE seq = $1", stream.table()));
    Ok(sqlx::query_scalar(sql).bind(seq).fetch_optional(conn).await?)
}

/// The last row of a stream, also beyond its head; 0 if there is none.
pub(super) async fn last_row(conn: &mut PgConnection, stream: Stream) -> Result<i64> {
    let sql = AssertSqlSafe(format!("SELECT COALESCE(max(seq), 0) FROM {}", stream.table()));
    Ok(sqlx::query_scalar(sql).fetch_one(conn).await?)
}

/// An event in this range to which a key points that has not expired.
pub(super) async fn keyed(
    conn: &mut PgConnection,
    stream: Stream,
    (first, last): (i64, i64),
    today: NaiveDate,
) -> Result<Option<i64>> {
    if stream != Stream::Risk {
        // Other answers are kept whole.
        return Ok(None);
    }
    let oldest = today.checked_sub_days(Days::new(super::DAYS_MIN - 1)).unwrap_or(NaiveDate::MIN);
    Ok(sqlx::query_scalar!(
        "SELECT min(risk_seq) FROM idempotency_key WHERE day >= $1 AND risk_seq BETWEEN $2 AND $3",
        oldest,
        first,
        last
    )
    .fetch_one(conn)
    .await?)
}

/// The number of erased texts in this range. Each erasure adds one under the control head.
pub(super) async fn erasures(conn: &mut PgConnection, stream: Stream, first: i64, last: i64) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM audit_erasure WHERE stream = $1 AND seq BETWEEN $2 AND $3"#,
        stream.as_str(),
        first,
        last
    )
    .fetch_one(conn)
    .await?)
}

/// The partitions of other tables of this stream that hold nothing later than an event.
pub(super) async fn partitions_up_to(conn: &mut PgConnection, stream: Stream, last: i64) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for table in partitions::ALL.iter().filter(|one| one.stream == stream && one.table != stream.table()) {
        let mut found = partitions::list(&mut *conn, table.table).await?;
        // The newest stays: the next one is made behind it.
        found.pop();
        names.extend(found.into_iter().filter(|one| one.to <= last + 1).map(|one| one.name));
    }
    Ok(names)
}

/// Records a segment. False if another process has recorded, restored or archived it since it was planned.
pub(super) async fn record(
    conn: &mut PgConnection,
    manifest: &Manifest,
    restored: Option<&Segment>,
    at: DateTime<Utc>,
) -> Result<bool> {
    if let Some(restored) = restored {
        let done = sqlx::query!(
            "UPDATE audit_archive
             SET file = $3, sha256 = $4, bytes = $5, archived_at = $6, restored_at = NULL
             WHERE stream = $1 AND first_seq = $2 AND restored_at IS NOT NULL",
            restored.stream.as_str(),
            restored.first(),
            manifest.file(),
            manifest.sha256,
            manifest.bytes,
            at
        );
        return Ok(done.execute(conn).await?.rows_affected() == 1);
    }
    let done = sqlx::query!(
        "INSERT INTO audit_archive
             (stream, first_seq, last_seq, hash_before, last_hash, last_at, file, sha256, bytes, archived_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT DO NOTHING",
        manifest.stream.as_str(),
        manifest.first(),
        manifest.last.seq,
        &manifest.before.hash[..],
        &manifest.last.hash[..],
        manifest.last_at,
        manifest.file(),
        manifest.sha256,
        manifest.bytes,
        at
    );
    Ok(done.execute(conn).await?.rows_affected() == 1)
}

/// Marks a segment as restored. False if it is no longer archived.
pub(super) async fn mark_restored(conn: &mut PgConnection, segment: &Segment, at: DateTime<Utc>) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE audit_archive SET restored_at = $3 WHERE stream = $1 AND first_seq = $2 AND restored_at IS NULL",
        segment.stream.as_str(),
        segment.first(),
        at
    );
    Ok(done.execute(conn).await?.rows_affected() == 1)
}

/// Locks the parents of the dropped tables against every other session, in the order in which a batch locks them.
pub(super) async fn lock_parents(conn: &mut PgConnection, stream: Stream) -> Result<(), sqlx::Error> {
    let parents =
        partitions::ALL.iter().rev().filter(|one| one.stream == stream).map(|one| format!("ONLY {}", one.table));
    let parents = parents.collect::<Vec<_>>().join(", ");
    conn.execute(AssertSqlSafe(format!("LOCK TABLE {parents} IN ACCESS EXCLUSIVE MODE"))).await.map(drop)
}

/// Drops tables, which the program named.
pub(super) async fn drop_tables(conn: &mut PgConnection, names: &[String]) -> Result<(), sqlx::Error> {
    conn.execute(AssertSqlSafe(format!("DROP TABLE {}", names.join(", ")))).await.map(drop)
}
