//! Verification of a directory of segments against the database: together they are one chain, from the first event to the
//! head.

use super::manifest::Manifest;
use super::segment::{self, Contents};
use super::{NOTE, Result, at, beside, numbers, refused};
use crate::audit::Stream;
use crate::audit::note::{Note, Verifier};
use crate::db::archived::Segment;
use crate::db::history::stored_hash;
use crate::types::Point;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The result.
#[derive(Debug, Default)]
pub struct Checked {
    /// The number of archived events of each stream that were verified.
    pub events: BTreeMap<Stream, i64>,
    /// The faults: a sentence each.
    pub faults: Vec<String>,
    /// Files that are no segment, and whose events the database has: left by an archive that was interrupted.
    pub ignored: Vec<String>,
    /// The known events that were found, with their hashes here.
    pub known: BTreeMap<Stream, Point>,
}

/// Verifies every segment that a row of `audit_archive` names or a file of the directory has, or `only` those of a stream. `known` are
/// events that are known from outside.
pub async fn check(
    conn: &mut PgConnection,
    dir: &Path,
    verifiers: &[Verifier],
    (segments, only): (&[Segment], Option<Stream>),
    known: &BTreeMap<Stream, Point>,
) -> Result<Checked> {
    if !dir.is_dir() {
        return refused(format!("{} is not a directory: name the one that holds the archive", dir.display()));
    }
    let mut checked = Checked::default();
    let mut named: Vec<(Stream, i64, i64, String)> = Vec::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let name = entry.map_err(at(dir))?.file_name().to_string_lossy().into_owned();
        named.extend(numbers(&name).map(|(stream, first, last)| (stream, first, last, name)));
    }
    named.retain(|(stream, ..)| only.is_none_or(|only| only == *stream));
    named.sort();
    for pair in named.windows(2) {
        let [(stream, _, last, name), (next, first, _, other)] = pair else { continue };
        if stream == next && first <= last {
            checked.faults.push(format!("{name} and {other} have the same events: one of them does not belong here"));
        }
    }
    for (stream, _, last, name) in &named {
        let wanted = known.get(stream).copied();
        match verify(&dir.join(name), verifiers, wanted, &mut checked.known) {
            Ok(found) => match belongs(&mut *conn, &found, segments).await? {
                Ok(()) => *checked.events.entry(*stream).or_default() += found.last.seq - found.before.seq,
                Err(why) => checked.faults.push(format!("{name}: {why}")),
            },
            Err(why) => {
                let is_only_there = segments.iter().any(|one| one.has(*stream, *last));
                let is_here = !is_only_there && stored_hash(&mut *conn, *stream, *last).await?.is_some();
                let list = if is_here { &mut checked.ignored } else { &mut checked.faults };
                list.push(format!("{name}: {why}"));
            }
        }
    }
    for segment in segments.iter().filter(|one| one.restored_at.is_none()) {
        if !named.iter().any(|(.., name)| *name == segment.file) {
            let (first, last, stream) = (segment.first(), segment.last.seq, segment.stream.as_str());
            checked
                .faults
                .push(format!("{} is missing: events {first} to {last} of {stream} are only there", segment.file));
        }
    }
    Ok(checked)
}

/// Verifies a file and its note by themselves.
pub(super) fn verify(
    path: &Path,
    verifiers: &[Verifier],
    wanted: Option<Point>,
    known: &mut BTreeMap<Stream, Point>,
) -> Result<Contents, String> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let note =
        segment::read_note(&beside(dir, &name, NOTE)).map_err(|error| format!("its note {name}{NOTE}: {error}"))?;
    let manifest = manifest(&note, verifiers)?;
    if manifest.file() != name {
        return Err(format!("its note is that of {}", manifest.file()));
    }
    let contents = segment::read(path, |event| {
        if wanted.is_some_and(|wanted| wanted.seq == event.point.seq) {
            known.insert(manifest.stream, event.point);
        }
    });
    let contents = contents.map_err(|error| error.to_string())?;
    if (contents.sha256.as_str(), contents.bytes) != (manifest.sha256.as_str(), manifest.bytes) {
        return Err(format!("it has {} bytes and SHA-256 {}, not those of its note", contents.bytes, contents.sha256));
    }
    let said = (manifest.stream, manifest.before, manifest.last, manifest.last_at.timestamp_micros());
    if (contents.stream, contents.before, contents.last, contents.last_at) != said {
        return Err("it has other events than its note says".to_owned());
    }
    Ok(contents)
}

/// The manifest of a note that one of these keys signed.
pub(super) fn manifest(note: &str, verifiers: &[Verifier]) -> Result<Manifest, String> {
    let note = Note::read(note).map_err(|error| format!("its note: {error}"))?;
    let mut why = None;
    for verifier in verifiers {
        match note.verify(verifier) {
            Ok(text) => return Manifest::read(text).ok_or_else(|| "its note is not that of a segment".to_owned()),
            Err(error) => why = Some(error),
        }
    }
    let names: Vec<_> = note.names().collect();
    let why = why.map_or_else(|| "there is no key to check it with".to_owned(), |why| why.to_string());
    Err(format!("its note, signed by {}: {why}; --key gives another key", names.join(", ")))
}

/// Whether a verified file is the one that the database knows; the reason if not.
async fn belongs(conn: &mut PgConnection, found: &Contents, segments: &[Segment]) -> Result<Result<(), String>> {
    let own = segments.iter().find(|one| one.stream == found.stream && one.first() == found.before.seq + 1);
    if let Some(own) = own {
        return Ok(if (own.before, own.last) != (found.before, found.last) {
            Err("it has other events than those that were archived here: it is of another installation".to_owned())
        } else if own.sha256 != found.sha256 {
            Err(format!("it is another copy than the recorded one, whose SHA-256 is {}", own.sha256))
        } else {
            Ok(())
        });
    }
    // A file that was finished, while its events are still in the database.
    let here = stored_hash(conn, found.stream, found.last.seq).await?;
    Ok(if here.is_some_and(|here| here == found.last.hash) {
        Ok(())
    } else {
        Err("its events are not those of this database: it is of another installation".to_owned())
    })
}
