//! SQL that reads a database's history.

use super::{Found, Heads, Lost};
use crate::db::archived;
use crate::error::{Error, Result};
use crate::types::{Point, Stream};
use sqlx::{AssertSqlSafe, PgConnection};

/// The identity of the history and the head of every stream, in one statement and so at one instant.
pub async fn found(conn: &mut PgConnection) -> Result<Found> {
    let rows = sqlx::query!(
        "SELECT state.generation,
                state.follows,
                head.stream,
                head.seq,
                head.hash
         FROM go_live_state AS state, audit_head AS head"
    )
    .fetch_all(conn)
    .await?;
    let first = rows.first().ok_or_else(|| Error::Inconsistent("the go-live state or a head is missing".into()))?;
    let (generation, follows) = (first.generation, first.follows);
    let heads = rows.into_iter().map(|row| read_point(&row.stream, row.seq, row.hash)).collect::<Result<_>>()?;
    Ok(Found { generation, follows, heads })
}

/// The stream and the point of a row.
pub fn read_point(stream: &str, seq: i64, hash: Vec<u8>) -> Result<(Stream, Point)> {
    let known = Stream::named(stream).ok_or_else(|| Error::Inconsistent(format!("{stream} is not a stream")))?;
    Ok((known, Point { seq, hash: read_hash(known, hash)? }))
}

/// The 32 bytes of a hash column.
pub fn read_hash(stream: Stream, hash: Vec<u8>) -> Result<[u8; 32]> {
    hash.try_into().map_err(|_| Error::Inconsistent(format!("head {} has no SHA-256", stream.as_str())))
}

/// The stored hash of an event, valid or not; none if there is no such event. Of archived events only the last one of a
/// file has one.
pub(crate) async fn stored_hash(conn: &mut PgConnection, stream: Stream, seq: i64) -> Result<Option<Vec<u8>>> {
    let sql = AssertSqlSafe(format!("SELECT COALESCE(hash, '') FROM {} WHERE seq = $1", stream.table()));
    let found: Option<Vec<u8>> = sqlx::query_scalar(sql).bind(seq).fetch_optional(&mut *conn).await?;
    if found.is_some() {
        return Ok(found);
    }
    let archived = archived::of(conn, stream, seq).await?;
    Ok(archived.filter(|one| one.last.seq == seq).map(|one| one.last.hash.to_vec()))
}

/// True if the database has exactly this event, or a file has its number: an event left only after its hash was verified.
pub(crate) async fn is_there(conn: &mut PgConnection, stream: Stream, point: Point) -> Result<bool> {
    match stored_hash(&mut *conn, stream, point.seq).await? {
        Some(hash) => Ok(hash == point.hash),
        None => Ok(archived::of(conn, stream, point.seq).await?.is_some()),
    }
}

/// The known events that a database lacks: known from marks, or from a checkpoint.
pub async fn losses(conn: &mut PgConnection, known: &[Heads]) -> Result<Vec<Lost>> {
    let found = found(&mut *conn).await?;
    let mut losses = Vec::new();
    for stream in Stream::ALL {
        let head = found.heads.get(&stream).map_or(0, |head| head.seq);
        let points = known.iter().filter_map(|heads| heads.get(&stream));
        let (mut kept, mut gone) = (0, None);
        for point in points.filter(|point| point.seq > 0) {
            if is_there(&mut *conn, stream, *point).await? {
                kept = kept.max(point.seq);
            } else {
                gone = gone.max(Some(point.seq));
            }
        }
        losses.extend(gone.map(|known| Lost { stream, kept, head, known }));
    }
    Ok(losses)
}
