//! Verification of a stream: every event is as it was appended, none is missing, the order is right, and the head is at
//! the last one.
//!
//! It is one pass over the rows in the order of their sequence numbers, as `COPY` sends them, in one snapshot and with
//! constant memory. Each row's bytes are recomputed and chained to the *stored* hash of the row before, so that one bad
//! row is one finding. At the first bad row of a stream, the row after it shows the kind of tampering:
//!
//! | Found | Means |
//! |---|---|
//! | the row's bytes do not give its hash, and the next row follows it | edited |
//! | a number is missing; or the next row is right for the place after its own | deleted |
//! | a number is there twice; or the next row is right for the place before its own, behind the row before; or rows that nothing leads to stand behind the head | inserted |
//! | the row is not earlier than the one that follows it | reordered |
//! | the head stands behind the last row, at another hash | truncated |
//! | the head stands elsewhere, or at another hash or time than the last row's | head moved |
//!
//! The proof needs something outside the database, because its owner can recompute every hash.

mod kept;
mod parallel;
mod walk;

pub use kept::verify_kept;
pub use parallel::verify_in_parallel;
pub use walk::Asked;
pub(super) use walk::{Erased, Head};

pub use crate::types::{Finding, Tampering};

use super::{Stream, binary, store};
use crate::db::archived;
use crate::db::history::stored_hash;
use crate::error::{Error, Result};
use crate::types::Point;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use std::future::poll_fn;
use walk::Walk;

/// The result of the verification of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The number of verified events.
    pub events: i64,
    /// The last verified event.
    pub end: Point,
    /// The first damage; none if there is none.
    pub finding: Option<Finding>,
}

/// Verifies a stream. The connection must be in a transaction that sees one instant of the database.
///
/// If the future is dropped, the connection still holds the rest of the rows: it must not be used again.
pub async fn verify(conn: &mut PgConnection, stream: Stream, asked: Asked) -> Result<Verified> {
    let head = match read_head(&mut *conn, stream).await {
        Err(Error::TrailDamaged(finding)) => {
            return Ok(Verified { events: 0, end: asked.from, finding: Some(*finding) });
        }
        head => head?,
    };
    if let Some(finding) = base_finding(&mut *conn, stream, asked.from).await? {
        return Ok(Verified { events: 0, end: asked.from, finding: Some(finding) });
    }
    let erased = read_erased(&mut *conn, stream).await?;
    let mut walk = Walk::new(stream, asked, &head, &erased);
    let mut finding = None;
    // The columns and the hash.
    let width = stream.columns().len() + 1;
    {
        store::events::read_in_order(&mut *conn).await?;
        let mut rows = conn.copy_out_raw(&store::events::copy(stream, asked.from.seq, asked.to)).await?;
        while finding.is_none() {
            let message = match poll_fn(|context| rows.as_mut().poll_next(context)).await {
                Some(message) => message?,
                None => break,
            };
            let mut values = Vec::with_capacity(width);
            let more = binary::values(&message, &mut values).map_err(unreadable)?;
            if !more || values.is_empty() {
                continue;
            }
            finding = match walk.link(&values) {
                Ok(link) => walk.step(link),
                // A value that no event can hold was not appended: infinite times and numbers, a hash of another
                // length.
                Err(binary::Unreadable) => Some(walk.impossible(&values)),
            };
            if let Some(known) = asked.known.filter(|known| finding.is_none() && known.seq == walk.before.seq)
                && known.hash != walk.before.hash
            {
                finding = Some(walk.finding(
                    known.seq,
                    Tampering::Rewritten,
                    "its hash differs from the one that is known from outside",
                ));
            }
        }
        // The rest is not needed, but must be read before the connection can be used again.
        while let Some(message) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
            message?;
        }
    }
    let finding = match finding {
        Some(finding) => Some(finding),
        None => walk.end(asked, &head),
    };
    Ok(Verified { events: walk.events, end: walk.before, finding })
}

/// The damage of the event after which a verification begins: it is trusted, so it must exist.
pub(super) async fn base_finding(conn: &mut PgConnection, stream: Stream, from: Point) -> Result<Option<Finding>> {
    if from.seq == 0 {
        return Ok(None);
    }
    let (seq, kind, detail) = match stored_hash(&mut *conn, stream, from.seq).await? {
        Some(hash) if hash == from.hash => return Ok(None),
        Some(_) => {
            (from.seq, Tampering::Rewritten, "its hash differs from the one that is known from outside".to_owned())
        }
        // Only the file can tell.
        None if archived::of(&mut *conn, stream, from.seq).await?.is_some() => return Ok(None),
        None => {
            let detail = format!("event {} is known from outside and is missing", from.seq);
            let head = match read_head(conn, stream).await {
                Err(Error::TrailDamaged(finding)) => return Ok(Some(*finding)),
                head => head?,
            };
            ((head.point.seq + 1).min(from.seq), Tampering::Truncated, detail)
        }
    };
    Ok(Some(Finding { stream, seq, kind, detail }))
}

pub(super) fn unreadable(error: binary::Unreadable) -> Error {
    Error::Inconsistent(error.to_string())
}

/// Reads the head. A missing head, or one without a SHA-256, is damage.
pub(super) async fn read_head(conn: &mut PgConnection, stream: Stream) -> Result<Head> {
    let damaged = |seq, detail: &str| {
        let finding = Finding { stream, seq, kind: Tampering::HeadMoved, detail: detail.to_owned() };
        Error::TrailDamaged(Box::new(finding))
    };
    let row = sqlx::query("SELECT seq, COALESCE(hash, '') AS hash, at FROM audit_head WHERE stream = $1");
    let row = row.bind(stream.as_str()).fetch_optional(conn).await?;
    let row = row.ok_or_else(|| damaged(0, "the stream has no head"))?;
    let (seq, hash): (i64, Vec<u8>) = (row.try_get("seq")?, row.try_get("hash")?);
    let hash = hash.try_into().map_err(|_| damaged(seq, "the head's hash is not a SHA-256"))?;
    let at: DateTime<Utc> = row.try_get("at")?;
    Ok(Head { point: Point { seq, hash }, at: at.timestamp_micros() })
}

pub(super) async fn read_erased(conn: &mut PgConnection, stream: Stream) -> Result<Erased> {
    // Only erasures that an event records: a digest alone would let anybody remove a text.
    let rows = sqlx::query(
        "SELECT seq, field, digest
         FROM audit_erasure AS erased
         WHERE stream = $1
           AND EXISTS (SELECT FROM control_event AS event
                       WHERE event.action = 'AUDIT_ERASE' AND event.ok
                         AND event.subject = erased.stream || '/' || erased.seq || '/' || erased.field
                         AND strpos(event.detail, erased.digest) > 0)",
    )
    .bind(stream.as_str());
    let rows = rows.fetch_all(conn).await?;
    rows.iter().map(|row| Ok(((row.try_get("seq")?, row.try_get("field")?), row.try_get("digest")?))).collect()
}

/// The event after which the verification of a part begins; none at the beginning of the stream. An empty part is
/// refused, because it would be reported as intact.
pub async fn begin(
    conn: &mut PgConnection,
    stream: Stream,
    (from, to): (Option<i64>, Option<i64>),
) -> Result<Option<Point>> {
    for (name, seq) in [("from", from), ("to", to)] {
        if let Some(seq) = seq.filter(|seq| *seq < 1) {
            return Err(Error::invalid(name, format!("is {seq}: events are numbered from 1")));
        }
    }
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Error::invalid(
            "to",
            format!("is {to}, which is before from ({from}): no event lies between them"),
        ));
    }
    let before = from.filter(|from| *from > 1).map(|from| from - 1);
    match read_head(&mut *conn, stream).await {
        Ok(head) => {
            let last = head.point.seq;
            if let Some(beyond) = from.filter(|from| *from > last) {
                let id = format!("{} {beyond}: the last is {last}", stream.as_str());
                return Err(Error::NotFound { what: "event", id });
            }
        }
        // The verification itself reports this.
        Err(Error::TrailDamaged(_)) => {}
        Err(error) => return Err(error),
    }
    if let Some(to) = to
        && let Some(segment) = archived::of(&mut *conn, stream, to).await?
    {
        return Err(segment.refusal(format!("event {to} of {}", stream.as_str())));
    }
    let Some(before) = before else { return Ok(None) };
    if let Some(segment) = archived::of(&mut *conn, stream, before + 1).await? {
        return Err(segment.refusal(format!("event {} of {}", before + 1, stream.as_str())));
    }
    match point(conn, stream, before).await {
        Err(Error::NotFound { .. }) => {
            let detail = "the event is missing, and the head is beyond it".to_owned();
            let finding = Finding { stream, seq: before, kind: Tampering::Deleted, detail };
            Err(Error::TrailDamaged(Box::new(finding)))
        }
        point => point.map(Some),
    }
}

/// A stored event, for a verification that begins after it. A hash that is not a SHA-256 is damage.
pub async fn point(conn: &mut PgConnection, stream: Stream, seq: i64) -> Result<Point> {
    let hash = stored_hash(conn, stream, seq).await?;
    let hash = hash.ok_or_else(|| Error::NotFound { what: "event", id: format!("{} {seq}", stream.as_str()) })?;
    let hash = hash.try_into().map_err(|_| {
        let detail = "its hash is not a SHA-256".to_owned();
        Error::TrailDamaged(Box::new(Finding { stream, seq, kind: Tampering::Edited, detail }))
    })?;
    Ok(Point { seq, hash })
}
