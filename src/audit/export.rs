//! Events as lines of JSON that can be verified without Holdfast: `docs/audit-verify.py` does it with Python alone.
//!
//! A stream is exported as a first line, its events in order, and a last line:
//!
//! ```text
//! {"stream":"risk","before":{"seq":"0","hash":"00…"},"streams":["control","heimdall","kpi","risk"]}
//! {"stream":"risk","seq":"1","at":"1768262400000001","time":"2026-01-13T00:00:00.000001Z","principal":…,"hash":"29…"}
//! {"stream":"risk","last":{"seq":"1","hash":"29…"},"head":{"seq":"1","hash":"29…","at":"1768262400000001"},"to":null}
//! ```
//! Every column is in the order in which the chain covers it. Its value is a string of exactly its canonical text
//! ([`super::canonical`]), or null. Free text is exported as it is, although its digest is hashed; an erased text is
//! null, and `erased` has its digest. `streams` are all streams of the export, so that a missing one is noticed. `time`
//! is `at` in readable form. `to` is the time before which the export ends, null if it ends at the head.
//!
//! The export is one pass with constant memory over the rows as `COPY` sends them.

use super::layout::{Column, Kind};
use super::verify::{Erased, Head, point, read_erased, read_head, unreadable};
use super::{Stream, binary, store};
use crate::db::{archived, to_json};
use crate::error::Error;
use crate::types::{Point, hex};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::future::poll_fn;
use std::io::{self, Write};

/// The reason why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Error),
    /// The reader of the export failed.
    #[error("the export cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl From<sqlx::Error> for ExportError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// A place in a stream.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) seq: String,
    pub(super) hash: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) at: Option<String>,
}

impl Place {
    pub(super) fn of(point: Point, at: Option<i64>) -> Self {
        Self { seq: point.seq.to_string(), hash: hex(&point.hash), at: at.map(|at| at.to_string()) }
    }
}

/// The first line of a stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Opening {
    pub(super) stream: Stream,
    pub(super) before: Place,
    pub(super) streams: Vec<Stream>,
}

/// The last line of a stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Closing {
    pub(super) stream: Stream,
    pub(super) last: Place,
    pub(super) head: Place,
    pub(super) to: Option<String>,
}

/// Writes the events of a stream that are at or after `from` and before `to`, and not archived; `streams` are all streams of
/// the export.
/// The connection must be in a transaction that sees one instant of the database.
pub async fn export(
    conn: &mut PgConnection,
    (stream, streams): (Stream, &[Stream]),
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let head = read_head(&mut *conn, stream).await?;
    let erased = read_erased(&mut *conn, stream).await?;
    let floor = archived::floor(&mut *conn, stream).await?;
    let before = match from {
        Some(from) => store::events::first_at(&mut *conn, stream, head.point.seq, from).await? - 1,
        None => 0,
    };
    let end = match to {
        Some(to) => Some(store::events::first_at(&mut *conn, stream, head.point.seq, to).await? - 1),
        None => None,
    };
    let before = if before <= floor.seq { floor } else { point(&mut *conn, stream, before).await? };
    writeln!(out, "{}", to_json(&Opening { stream, before: Place::of(before, None), streams: streams.to_vec() }))?;
    let last = events(&mut *conn, stream, before, end, &erased, out).await?;
    let to = to.map(|to| to.to_rfc3339_opts(SecondsFormat::Micros, true));
    let Head { point, at } = head;
    let end = Closing { stream, last: Place::of(last, None), head: Place::of(point, Some(at)), to };
    writeln!(out, "{}", to_json(&end))?;
    Ok(())
}

/// Writes the lines of the events after `before`, up to `end`. Returns the last one.
pub(super) async fn events(
    conn: &mut PgConnection,
    stream: Stream,
    before: Point,
    end: Option<i64>,
    erased: &Erased,
    out: &mut impl Write,
) -> Result<Point, ExportError> {
    let mut last = before;
    let mut rows = conn.copy_out_raw(&store::events::copy(stream, before.seq, end)).await?;
    let mut line = Vec::new();
    while let Some(message) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
        let message = message?;
        let mut values = Vec::new();
        if binary::values(&message, &mut values).map_err(unreadable)? && !values.is_empty() {
            line.clear();
            last = event(&mut line, stream, &values, erased).map_err(unreadable)?;
            out.write_all(&line)?;
        }
    }
    Ok(last)
}

/// Writes an event's line and returns its place.
fn event(
    line: &mut Vec<u8>,
    stream: Stream,
    values: &[Option<&[u8]>],
    erased: &Erased,
) -> Result<Point, binary::Unreadable> {
    let columns = stream.columns();
    let (Some((hash, values)), true) = (values.split_last(), values.len() == columns.len() + 1) else {
        return Err(binary::Unreadable);
    };
    let hash = hash.and_then(|hash| <[u8; 32]>::try_from(hash).ok()).ok_or(binary::Unreadable)?;
    let seq = binary::integer(values[0].ok_or(binary::Unreadable)?)?;
    let mut digests = serde_json::Map::new();
    member(line, b'{', "stream", stream.as_str())?;
    for (column, value) in columns.iter().zip(values) {
        let Some(value) = value else {
            line.extend_from_slice(format!(",\"{}\":null", column.name).as_bytes());
            if let Some(digest) = erased.get(&(seq, column.name.to_owned())) {
                digests.insert(column.name.to_owned(), digest.as_str().into());
            }
            continue;
        };
        member(line, b',', column.name, &canonical(*column, value)?)?;
        if column.kind == Kind::Time {
            let time = DateTime::from_timestamp_micros(binary::micros(value)?).ok_or(binary::Unreadable)?;
            member(line, b',', "time", &time.to_rfc3339_opts(SecondsFormat::Micros, true))?;
        }
    }
    if !digests.is_empty() {
        line.extend_from_slice(format!(",\"erased\":{}", serde_json::Value::Object(digests)).as_bytes());
    }
    member(line, b',', "hash", &hex(&hash))?;
    line.extend_from_slice(b"}\n");
    Ok(Point { seq, hash })
}

fn canonical(column: Column, value: &[u8]) -> Result<String, binary::Unreadable> {
    let mut bytes = Vec::new();
    binary::text(&mut bytes, column.kind, value)?;
    String::from_utf8(bytes).map_err(|_| binary::Unreadable)
}

/// Writes a member of an object, with the byte before it.
fn member(line: &mut Vec<u8>, before: u8, name: &str, value: &str) -> Result<(), binary::Unreadable> {
    line.push(before);
    line.push(b'"');
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    serde_json::to_writer(line, value).map_err(|_| binary::Unreadable)
}
