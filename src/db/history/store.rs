//! SQL of what a database says of its history.

use super::Found;
use crate::error::{Error, Result};
use crate::types::{Point, Stream};
use sqlx::{AssertSqlSafe, PgConnection};

/// Which history this is, and where every stream stands, in one statement and so at one instant.
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
    let first = rows.first().ok_or_else(|| Error::Inconsistent("there is no go-live state, or no head".into()))?;
    let (generation, follows) = (first.generation, first.follows);
    let heads = rows.into_iter().map(|row| read_point(&row.stream, row.seq, row.hash)).collect::<Result<_>>()?;
    Ok(Found { generation, follows, heads })
}

/// A head as a row says it.
pub fn read_point(stream: &str, seq: i64, hash: Vec<u8>) -> Result<(Stream, Point)> {
    let known = Stream::named(stream).ok_or_else(|| Error::Inconsistent(format!("{stream} is no stream")))?;
    Ok((known, Point { seq, hash: read_hash(known, hash)? }))
}

/// A hash as a row says it.
pub fn read_hash(stream: Stream, hash: Vec<u8>) -> Result<[u8; 32]> {
    hash.try_into().map_err(|_| Error::Inconsistent(format!("head {} has no SHA-256", stream.as_str())))
}

/// What stands where the hash of an event should, whatever it is; none where there is no such event.
pub(crate) async fn stored_hash(conn: &mut PgConnection, stream: Stream, seq: i64) -> Result<Option<Vec<u8>>> {
    let sql = AssertSqlSafe(format!("SELECT COALESCE(hash, '') FROM {} WHERE seq = $1", stream.table()));
    Ok(sqlx::query_scalar(sql).bind(seq).fetch_optional(conn).await?)
}
