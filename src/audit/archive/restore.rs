//! The way back: a segment becomes a partition again, with the guards of one, in one transaction.

use super::segment::{Event, Reader};
use super::{ArchiveError, Result, at, check, refused, store, take_lock};
use crate::audit::layout::{Column, Kind};
use crate::audit::note::Verifier;
use crate::audit::verify::{self, Asked};
use crate::audit::{ControlEvent, Stream, partitions};
use crate::db::archived::{self, Segment};
use crate::db::{self, Database};
use crate::identity::Origin;
use crate::types::ControlAction;
use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use sqlx::{Executor, PgConnection};
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes that are sent to the database at once.
const CHUNK: usize = 256 * 1024;

/// The detail of the control event.
#[derive(Serialize)]
struct Detail<'a> {
    file: &'a str,
    sha256: &'a str,
}

/// Restores the segment of a file. Returns what is now in the database again.
pub async fn restore(
    db: &Database,
    path: &Path,
    verifiers: &[Verifier],
    tell: &mut impl FnMut(&str),
) -> Result<Segment> {
    let shown = path.display();
    let _lock = take_lock(db).await?;
    tell(&format!("verifying {shown}"));
    let contents = check::verify(path, verifiers, None, &mut BTreeMap::new())
        .map_err(|why| ArchiveError::Bad { path: path.to_owned(), why })?;
    let segments = archived::all(&mut *db.work().await?).await?;
    let own = segments
        .into_iter()
        .find(|one| (one.stream, one.before, one.last) == (contents.stream, contents.before, contents.last));
    let Some(segment) = own else {
        return refused(format!(
            "{shown} has no events that were archived from this database: it is of another installation"
        ));
    };
    let (first, last, name) = (segment.first(), segment.last.seq, segment.stream.as_str());
    if segment.sha256 != contents.sha256 {
        return refused(format!(
            "{shown} is another copy than the recorded one, whose SHA-256 is {}: restore that",
            segment.sha256
        ));
    }
    if segment.restored_at.is_some() {
        return refused(format!(
            "events {first} to {last} of {name} are in the database already: see holdfast archive list"
        ));
    }
    tell(&format!("{name}: restoring events {first} to {last}"));
    let mut tx = db.begin().await?;
    tx.execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    fill(&mut tx, path, &segment).await?;
    let asked = Asked { from: segment.before, to: Some(last), known: None };
    let verified = verify::verify(&mut tx, segment.stream, asked).await?;
    if let Some(finding) = verified.finding {
        return Err(ArchiveError::Damaged(Box::new(finding)));
    }
    if verified.end != segment.last {
        return Err(ArchiveError::Bad {
            path: path.to_owned(),
            why: "the restored events are not those that were archived".to_owned(),
        });
    }
    let mut head = db.history().lock(&mut tx, Stream::Control).await?;
    if !store::mark_restored(&mut tx, &segment, head.next().at).await? {
        return refused(format!("events {first} to {last} of {name} were restored by another process meanwhile"));
    }
    let subject = format!("{name}/{first}-{last}");
    let event = ControlEvent::new(ControlAction::AuditRestore).about(&subject);
    let event = event.detail(&Detail { file: &segment.file, sha256: &segment.sha256 });
    event.append(&mut tx, &mut head, &Origin::system(None)).await?;
    db::commit(tx).await?;
    Ok(segment)
}

/// Makes a partition, fills it with the events of a file, and attaches it.
async fn fill(conn: &mut PgConnection, path: &Path, segment: &Segment) -> Result<()> {
    let stream = segment.stream;
    let parent = partitions::ALL.iter().find(|one| one.table == stream.table());
    let Some(parent) = parent else {
        return refused(format!("the events of {} are not in partitions, so none can be restored", stream.as_str()));
    };
    let (first, end) = (segment.first(), segment.last.seq + 1);
    let name = parent.name(first);
    parent.create(&mut *conn, &name).await?;
    let columns: Vec<_> = stream.columns().iter().map(|column| column.name).collect();
    let statement = format!("COPY {name} ({}, hash) FROM STDIN", columns.join(", "));
    let mut rows = conn.copy_in_raw(&statement).await?;
    let mut reader = Reader::open(path).map_err(at(path))?;
    let mut chunk = Vec::with_capacity(2 * CHUNK);
    while let Some(event) = reader.next_event().map_err(at(path))? {
        append(&mut chunk, stream.columns(), &event);
        if chunk.len() >= CHUNK {
            rows.send(&chunk[..]).await?;
            chunk.clear();
        }
    }
    rows.send(&chunk[..]).await?;
    rows.finish().await?;
    let contents = reader.end().map_err(at(path))?;
    if contents.sha256 != segment.sha256 {
        return Err(ArchiveError::Bad {
            path: path.to_owned(),
            why: "it has changed since it was verified".to_owned(),
        });
    }
    parent.attach(conn, &name, (first, end)).await?;
    Ok(())
}

/// Appends a row in COPY's text form.
fn append(row: &mut Vec<u8>, columns: &[Column], event: &Event<'_>) {
    for (column, value) in columns.iter().zip(&event.values) {
        match (column.kind, value) {
            (_, None) => row.extend_from_slice(b"\\N"),
            (Kind::Time, Some(_)) => {
                let at =
                    DateTime::from_timestamp_micros(event.at).map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true));
                row.extend_from_slice(at.unwrap_or_default().as_bytes());
            }
            (_, Some(text)) => {
                for byte in text.bytes() {
                    match byte {
                        b'\\' => row.extend_from_slice(b"\\\\"),
                        b'\t' => row.extend_from_slice(b"\\t"),
                        b'\n' => row.extend_from_slice(b"\\n"),
                        b'\r' => row.extend_from_slice(b"\\r"),
                        byte => row.push(byte),
                    }
                }
            }
        }
        row.push(b'\t');
    }
    row.extend_from_slice(b"\\\\x");
    crate::types::append_hex(row, &event.point.hash);
    row.push(b'\n');
}
