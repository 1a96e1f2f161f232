//! The events that are in files and no longer in the database. `audit::archive` writes these rows.

use crate::db::Database;
use crate::db::history::read_hash;
use crate::error::{Error, Result};
use crate::types::{Point, Stream};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, Postgres, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

/// Neighbouring events of a stream in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The stream of the events.
    pub stream: Stream,
    /// The event before the first one.
    pub before: Point,
    /// The last event.
    pub last: Point,
    /// The time of the last event.
    pub last_at: DateTime<Utc>,
    /// The file's name, without its directory.
    pub file: String,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// The size of the file.
    pub bytes: i64,
    /// The time at which the events left the database.
    pub archived_at: DateTime<Utc>,
    /// The time at which they came back; none while only the file has them.
    pub restored_at: Option<DateTime<Utc>>,
}

impl Segment {
    /// The number of the first event.
    #[must_use]
    pub const fn first(&self) -> i64 {
        self.before.seq + 1
    }

    /// True if it has this event, and the database does not.
    #[must_use]
    pub fn has(&self, stream: Stream, seq: i64) -> bool {
        self.restored_at.is_none() && self.holds(stream, seq)
    }

    /// True if the file has this event, whether or not it was restored.
    fn holds(&self, stream: Stream, seq: i64) -> bool {
        self.stream == stream && (self.first()..=self.last.seq).contains(&seq)
    }

    /// The refusal of a request that needs an event of the file.
    #[must_use]
    pub fn refusal(&self, what: impl Into<String>) -> Error {
        let (first, last, file) = (self.first(), self.last.seq, self.file.clone());
        Error::Archived { what: what.into(), stream: self.stream, first, last, file }
    }
}

/// Every segment, restored ones too, in the order of the events of each stream.
pub async fn all(conn: &mut PgConnection) -> Result<Vec<Segment>> {
    let rows = sqlx::query!(
        "SELECT stream,
                first_seq,
                last_seq,
                hash_before,
                last_hash,
                last_at,
                file,
                sha256,
                bytes,
                archived_at,
                restored_at
         FROM audit_archive
         ORDER BY stream, first_seq"
    )
    .fetch_all(conn)
    .await?;
    let segment = |stream: &str| {
        Stream::named(stream).ok_or_else(|| Error::Inconsistent(format!("audit_archive names the stream {stream}")))
    };
    rows.into_iter()
        .map(|row| {
            let stream = segment(&row.stream)?;
            Ok(Segment {
                stream,
                before: Point { seq: row.first_seq - 1, hash: read_hash(stream, row.hash_before)? },
                last: Point { seq: row.last_seq, hash: read_hash(stream, row.last_hash)? },
                last_at: row.last_at,
                file: row.file,
                sha256: row.sha256,
                bytes: row.bytes,
                archived_at: row.archived_at,
                restored_at: row.restored_at,
            })
        })
        .collect()
}

/// Keeps partitions from being dropped until the transaction ends: a snapshot alone does not. Must be its first statement.
pub async fn hold(conn: &mut PgConnection) -> Result<()> {
    sqlx::query!("LOCK TABLE heimdall_event, risk_event IN ACCESS SHARE MODE").execute(conn).await?;
    Ok(())
}

/// Begins a transaction that sees one instant of the database, and keeps partitions from being dropped until it ends:
/// its events and its rows of the archive fit together.
pub async fn snapshot(db: &Database) -> Result<Transaction<'static, Postgres>> {
    let mut tx = db.begin_snapshot().await?;
    hold(&mut tx).await?;
    Ok(tx)
}

/// The segments of a stream that only files have, in order.
pub async fn absent(conn: &mut PgConnection, stream: Stream) -> Result<Vec<Segment>> {
    let mut all = all(conn).await?;
    all.retain(|one| one.stream == stream && one.restored_at.is_none());
    Ok(all)
}

/// The segment that has this event, if the database does not.
pub async fn of(conn: &mut PgConnection, stream: Stream, seq: i64) -> Result<Option<Segment>> {
    Ok(all(conn).await?.into_iter().find(|one| one.has(stream, seq)))
}

/// The segment that has this event, also if it was restored a moment ago, after the database was asked for it.
pub async fn file_of(conn: &mut PgConnection, stream: Stream, seq: i64) -> Result<Option<Segment>> {
    Ok(all(conn).await?.into_iter().find(|one| one.holds(stream, seq)))
}

/// The refusal of a request that needs this event, which the database does not have.
pub async fn refusal(conn: &mut PgConnection, stream: Stream, seq: i64, what: &str) -> Result<Error> {
    Ok(match file_of(conn, stream, seq).await? {
        Some(segment) => segment.refusal(what),
        None => Error::Inconsistent(format!("event {seq} of {} cannot be read", stream.as_str())),
    })
}

/// The event from which on the database has every event of a stream: the last archived one, or the beginning.
pub async fn floor(conn: &mut PgConnection, stream: Stream) -> Result<Point> {
    Ok(absent(conn, stream).await?.last().map_or(Point::BEGINNING, |last| last.last))
}

/// The time at which an id was made, if the id has one.
#[must_use]
pub fn made_at(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

/// The segment of the time at which an id was made, if the id has one and the database no longer has all events of then:
/// the thing, if there was one, has ended since.
#[must_use]
pub fn of_id(segments: &[Segment], id: Uuid) -> Option<&Segment> {
    let made = made_at(id)?;
    segments.iter().find(|one| one.stream == Stream::Risk && one.restored_at.is_none() && made <= one.last_at)
}

/// The archived events of a stream that a list lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ArchivedEvents {
    /// The stream of the events.
    pub stream: Stream,
    /// The last archived event: those up to it are in files, unless they were restored.
    pub last: i64,
    /// The file that has the last one.
    pub file: String,
}

/// The archived events of a stream at or after a time; none if there are none.
pub async fn since(
    conn: &mut PgConnection,
    stream: Stream,
    from: Option<DateTime<Utc>>,
) -> Result<Option<ArchivedEvents>> {
    let last = absent(conn, stream).await?.pop();
    let last = last.filter(|last| from.is_none_or(|from| from <= last.last_at));
    Ok(last.map(|last| ArchivedEvents { stream, last: last.last.seq, file: last.file }))
}
