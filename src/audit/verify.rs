//! Verification: is every event of a stream what was appended, all of them, in order, and does the head stand at the last?
//!
//! One pass over the rows in the order of their sequence numbers, as `COPY` sends them, in one snapshot and with constant
//! memory. Each row's bytes are made anew and chained to the *stored* hash of the row before, so that one bad row is one finding.
//! At the first bad row of a stream, the row after it tells what was done:
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
//! What this proves needs something outside the database: whoever owns it can make every hash anew.

use super::layout::Kind;
use super::{Canonical, Stream, binary, chain, store};
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use utoipa::ToSchema;

/// What was done to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tampering {
    /// A row says something else than it did, or has another hash.
    Edited,
    /// A row is gone.
    Deleted,
    /// A row was put in.
    Inserted,
    /// Rows changed places.
    Reordered,
    /// The last rows are gone.
    Truncated,
    /// The head does not stand at the last row.
    HeadMoved,
    /// Every hash is right, and an event that is known from outside the database has another one.
    Rewritten,
}

impl Tampering {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Deleted => "deleted",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::HeadMoved => "head_moved",
            Self::Rewritten => "rewritten",
        }
    }
}

/// The first thing that is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// The stream.
    pub stream: Stream,
    /// Where: the first sequence number at which it is not what was appended.
    pub seq: i64,
    /// What was done.
    pub kind: Tampering,
    /// The same in words.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.stream.as_str(), self.seq, self.kind.as_str(), self.detail)
    }
}

/// An event that is known from outside: its number and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Its number; 0 for the beginning of a stream.
    pub seq: i64,
    /// Its hash; zeros at the beginning.
    pub hash: [u8; 32],
}

impl Point {
    /// The beginning of a stream.
    pub const BEGINNING: Self = Self { seq: 0, hash: [0; 32] };
}

/// What a verification is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The event behind which it begins, which is taken for right.
    pub from: Point,
    /// The last event that is looked at; none for all, which includes the head.
    pub to: Option<i64>,
    /// An event whose hash is known.
    pub known: Option<Point>,
}

impl Asked {
    /// All of a stream.
    pub const ALL: Self = Self { from: Point::BEGINNING, to: None, known: None };
}

/// What a verification of one stream found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many events were looked at.
    pub events: i64,
    /// Where it ended.
    pub end: Point,
    /// The first thing that is wrong; none if nothing is.
    pub finding: Option<Finding>,
}

/// A row, as far as it is needed once the next one is there.
#[derive(Debug, Clone)]
struct Link {
    seq: i64,
    at: i64,
    /// Its canonical bytes.
    bytes: Vec<u8>,
    /// Where the columns behind version, stream and number begin in them.
    tail: usize,
    hash: [u8; 32],
}

impl Link {
    /// Whether it is what follows this hash.
    fn follows(&self, before: &[u8; 32]) -> bool {
        chain(before, &self.bytes) == self.hash
    }

    /// Whether it would be, if it had this number.
    fn would_follow(&self, stream: Stream, before: &[u8; 32], seq: i64) -> bool {
        let mut bytes = Canonical::head(Vec::new(), stream, seq).into_bytes();
        bytes.extend_from_slice(&self.bytes[self.tail..]);
        chain(before, &bytes) == self.hash
    }
}

/// Verifies a stream. The connection must be in a transaction that sees one instant of the database.
pub async fn verify(conn: &mut PgConnection, stream: Stream, asked: Asked) -> Result<Verified> {
    let head = read_head(&mut *conn, stream).await?;
    if let Some(finding) = base_finding(&mut *conn, stream, asked.from, &head).await? {
        return Ok(Verified { events: 0, end: asked.from, finding: Some(finding) });
    }
    let erased = read_erased(&mut *conn, stream).await?;
    let mut walk = Walk {
        stream,
        erased: &erased,
        before: asked.from,
        last_at: i64::MIN,
        head_seq: asked.to.is_none().then_some(head.point.seq),
        bad: None,
        events: 0,
        bytes: Vec::new(),
    };
    let mut finding = None;
    {
        let mut rows = conn.copy_out_raw(&store::events::copy(stream, asked.from.seq, asked.to)).await?;
        while finding.is_none() {
            let message = match poll_fn(|context| rows.as_mut().poll_next(context)).await {
                Some(message) => message?,
                None => break,
            };
            let mut values = Vec::new();
            let more = binary::values(&message, &mut values).map_err(unreadable)?;
            if !more || values.is_empty() {
                continue;
            }
            finding = match walk.link(&values) {
                Ok(link) => walk.step(link),
                // What no event can hold was not appended: times and numbers without end, a hash of another length.
                Err(binary::Unreadable) => Some(walk.impossible(&values)),
            };
            if let Some(known) = asked.known.filter(|known| finding.is_none() && known.seq == walk.before.seq)
                && known.hash != walk.before.hash
            {
                finding = Some(walk.finding(
                    known.seq,
                    Tampering::Rewritten,
                    "its hash is not the one that is known from outside",
                ));
            }
        }
        // The rest is of no interest, and has to be read before the connection can be used.
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

/// What is wrong with the event behind which a verification begins: it is taken for right, so it has to be there.
async fn base_finding(conn: &mut PgConnection, stream: Stream, from: Point, head: &Head) -> Result<Option<Finding>> {
    if from.seq == 0 {
        return Ok(None);
    }
    let (seq, kind, detail) = match point(conn, stream, from.seq).await {
        Ok(stands) if stands == from => return Ok(None),
        Ok(_) => (from.seq, Tampering::Rewritten, "its hash is not the one that is known from outside".to_owned()),
        Err(Error::NotFound { .. }) => {
            let detail = format!("event {} is known from outside, and is not there", from.seq);
            ((head.point.seq + 1).min(from.seq), Tampering::Truncated, detail)
        }
        Err(error) => return Err(error),
    };
    Ok(Some(Finding { stream, seq, kind, detail }))
}

pub(super) fn unreadable(error: binary::Unreadable) -> Error {
    Error::Inconsistent(error.to_string())
}

/// Where the head stands.
pub(super) struct Head {
    pub(super) point: Point,
    pub(super) at: i64,
}

pub(super) async fn read_head(conn: &mut PgConnection, stream: Stream) -> Result<Head> {
    let row = sqlx::query("SELECT seq, hash, at FROM audit_head WHERE stream = $1").bind(stream.as_str());
    let row = row.fetch_optional(conn).await?;
    let row = row.ok_or_else(|| Error::Inconsistent(format!("the stream {} has no head", stream.as_str())))?;
    let hash: Vec<u8> = row.try_get("hash")?;
    let hash = hash.try_into().map_err(|_| Error::Inconsistent("a head has no SHA-256".into()))?;
    let at: DateTime<Utc> = row.try_get("at")?;
    Ok(Head { point: Point { seq: row.try_get("seq")?, hash }, at: at.timestamp_micros() })
}

/// Digests of the texts that were erased, by number and column. They are few, or this is not what erasure is for.
pub(super) type Erased = BTreeMap<(i64, String), String>;

pub(super) async fn read_erased(conn: &mut PgConnection, stream: Stream) -> Result<Erased> {
    // Only what an event says was erased: a digest alone would let anybody take a text out.
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

/// The pass over a stream.
struct Walk<'a> {
    stream: Stream,
    erased: &'a Erased,
    /// The last row that was right, or the place where the pass began.
    before: Point,
    last_at: i64,
    /// Where the head stands; none where only a part is looked at.
    head_seq: Option<i64>,
    /// A row whose hash is wrong, until the next one tells why.
    bad: Option<Link>,
    events: i64,
    bytes: Vec<u8>,
}

impl Walk<'_> {
    /// A row's values as a link.
    fn link(&mut self, values: &[Option<&[u8]>]) -> Result<Link, binary::Unreadable> {
        let columns = self.stream.columns();
        let (Some((hash, values)), true) = (values.split_last(), values.len() == columns.len() + 1) else {
            return Err(binary::Unreadable);
        };
        let hash = hash.and_then(|hash| <[u8; 32]>::try_from(hash).ok()).ok_or(binary::Unreadable)?;
        let seq = binary::integer(values[0].ok_or(binary::Unreadable)?)?;
        let at = binary::micros(values[1].ok_or(binary::Unreadable)?)?;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut bytes = Canonical::head(bytes, self.stream, seq).into_bytes();
        let tail = bytes.len();
        for (column, value) in columns.iter().zip(values).skip(1) {
            let digest = if column.kind == Kind::Free && value.is_none() && !self.erased.is_empty() {
                self.erased.get(&(seq, column.name.to_owned())).map(String::as_str)
            } else {
                None
            };
            binary::append(&mut bytes, *column, *value, digest)?;
        }
        Ok(Link { seq, at, bytes, tail, hash })
    }

    fn finding(&self, seq: i64, kind: Tampering, detail: impl Into<String>) -> Finding {
        Finding { stream: self.stream, seq, kind, detail: detail.into() }
    }

    /// A row with a value that no event can hold.
    fn impossible(&self, values: &[Option<&[u8]>]) -> Finding {
        let seq = values.first().copied().flatten().and_then(|seq| binary::integer(seq).ok());
        let seq = seq.unwrap_or(self.before.seq + 1);
        self.finding(seq, Tampering::Edited, "it holds a value that no event can hold")
    }

    /// Takes the next row; says what is wrong as soon as that is clear.
    fn step(&mut self, link: Link) -> Option<Finding> {
        self.events += 1;
        if let Some(bad) = self.bad.take() {
            return Some(self.explain(&bad, &link));
        }
        let expected = self.before.seq + 1;
        if self.head_seq.is_some_and(|head| link.seq > head)
            && (link.seq != expected || !link.follows(&self.before.hash))
        {
            let detail = "it stands behind the head, and nothing leads to it";
            return Some(self.finding(link.seq, Tampering::Inserted, detail));
        }
        if link.seq > expected {
            let detail = format!("the numbers from {expected} to {} are missing", link.seq - 1);
            return Some(self.finding(expected, Tampering::Deleted, detail));
        }
        if link.seq < expected {
            return Some(self.finding(link.seq, Tampering::Inserted, "the number is there twice"));
        }
        if !link.follows(&self.before.hash) {
            self.bad = Some(link);
            return None;
        }
        if link.at <= self.last_at {
            return Some(self.finding(
                link.seq,
                Tampering::Edited,
                "its time is not later than that of the event before",
            ));
        }
        self.before = Point { seq: link.seq, hash: link.hash };
        self.last_at = link.at;
        self.bytes = link.bytes;
        None
    }

    /// What was done to a row whose hash is wrong, as the row after it shows.
    fn explain(&self, bad: &Link, next: &Link) -> Finding {
        let (stream, seq) = (self.stream, bad.seq);
        if next.seq == seq {
            return self.finding(seq, Tampering::Inserted, "the number is there twice");
        }
        if next.follows(&bad.hash) {
            return self.finding(
                seq,
                Tampering::Edited,
                "what it says does not give its hash, and the next event follows it",
            );
        }
        if bad.at >= next.at {
            return self.finding(seq, Tampering::Reordered, format!("it is not earlier than event {}", next.seq));
        }
        if next.would_follow(stream, &self.before.hash, seq) {
            let detail = format!("what stands at {} is what was appended at {seq}", next.seq);
            return self.finding(seq, Tampering::Inserted, detail);
        }
        if next.would_follow(stream, &bad.hash, next.seq + 1) {
            let detail = format!("what stands at {} was appended after another event", next.seq);
            return self.finding(seq, Tampering::Deleted, detail);
        }
        self.finding(seq, Tampering::Edited, "what it says does not give its hash")
    }

    /// What the end of the rows and the head say.
    fn end(&self, asked: Asked, head: &Head) -> Option<Finding> {
        let last = self.before.seq;
        if let Some(bad) = &self.bad {
            let behind = bad.seq > head.point.seq && asked.to.is_none();
            let (kind, detail) = if behind {
                (Tampering::Inserted, "it stands behind the head, and nothing leads to it")
            } else {
                (Tampering::Edited, "what it says does not give its hash")
            };
            return Some(self.finding(bad.seq, kind, detail));
        }
        if let Some(to) = asked.to.filter(|to| *to <= head.point.seq) {
            let detail = format!("the numbers from {} to {to} are missing", last + 1);
            return (last < to).then(|| self.finding(last + 1, Tampering::Deleted, detail));
        }
        if head.point.seq > last && head.point.hash != self.before.hash {
            let detail = format!("the head stands at {}, and the last event is {last}", head.point.seq);
            return Some(self.finding(last + 1, Tampering::Truncated, detail));
        }
        // Before the first event a head stands at 1970.
        let at = match (self.last_at, last) {
            (i64::MIN, 0) => Some(0),
            (i64::MIN, _) => None,
            (at, _) => Some(at),
        };
        if head.point != self.before || at.is_some_and(|at| at != head.at) {
            let detail = format!("the head stands at {}, or at another hash or time than event {last}", head.point.seq);
            return Some(self.finding(last, Tampering::HeadMoved, detail));
        }
        asked.known.filter(|known| known.seq > last).map(|known| {
            let detail = format!("event {} is known from outside, and the last event is {last}", known.seq);
            self.finding(last + 1, Tampering::Truncated, detail)
        })
    }
}

/// An event of a stream as it is stored: for a verification that begins behind it.
pub async fn point(conn: &mut PgConnection, stream: Stream, seq: i64) -> Result<Point> {
    let sql = AssertSqlSafe(format!("SELECT hash FROM {} WHERE seq = $1", stream.table()));
    let hash: Option<Vec<u8>> = sqlx::query_scalar(sql).bind(seq).fetch_optional(conn).await?;
    let hash = hash.ok_or_else(|| Error::NotFound { what: "event", id: format!("{} {seq}", stream.as_str()) })?;
    let hash = hash.try_into().map_err(|_| Error::Inconsistent("an event has no SHA-256".into()))?;
    Ok(Point { seq, hash })
}
