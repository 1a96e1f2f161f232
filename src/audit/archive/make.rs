//! Writing of segments: verify, write, read back, sign, and only then drop.

use super::manifest::Manifest;
use super::plan::{Part, Plan, Selection, plan};
use super::segment::{self, Contents};
use super::{
    ArchiveError, NOTE, Result, UNFINISHED, at, beside, numbers, of_export, refused, removal, store, take_lock,
};
use crate::audit::checkpoint::Notary;
use crate::audit::export::{self, Closing, Opening, Place};
use crate::audit::note::Note;
use crate::audit::verify::{self, Asked, read_erased, read_head};
use crate::db::history::stored_hash;
use crate::db::{Database, now, to_json};
use crate::owner;
use crate::types::Point;
use chrono::{SecondsFormat, TimeDelta};
use rustix::fs::{Access, access};
use sqlx::{Connection, PgConnection};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Events that are read in one snapshot: a longer one would keep every version of the ledger's hottest rows alive.
const PORTION: i64 = 50_000;
/// The level of compression: the default of zstd.
const LEVEL: i32 = 3;
/// The interval of the lines about a long partition.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The directory of the archive.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Its path.
    pub path: PathBuf,
    /// The data directory, whose database files must not mix with; none if the database is elsewhere.
    pub data_dir: Option<PathBuf>,
}

impl Directory {
    /// Refuses a directory that cannot hold an archive.
    fn check(&self) -> Result<()> {
        let shown = self.path.display();
        let found = match fs::canonicalize(&self.path) {
            Ok(found) if found.is_dir() => found,
            Ok(_) => return refused(format!("{shown} is not a directory: name one for the archive")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return refused(format!("{shown} does not exist: make the directory first (mkdir -p {shown})"));
            }
            Err(error) => return Err(ArchiveError::File { path: self.path.clone(), error }),
        };
        for name in ["pg", "run"] {
            let own = self.data_dir.as_ref().and_then(|dir| fs::canonicalize(dir.join(name)).ok());
            if own.is_some_and(|own| found.starts_with(own)) {
                return refused(format!("{shown} is inside of the database's own files: name a directory outside"));
            }
        }
        if let Err(error) = access(&found, Access::WRITE_OK | Access::EXEC_OK) {
            return refused(format!(
                "{shown} is not writable for this user ({error}): change its mode, or name another"
            ));
        }
        Ok(())
    }
}

/// Archives the partitions of a plan, oldest first. `tell` gets a sentence per partition, and more about a long one.
/// Returns the plan.
pub async fn archive(
    db: &Database,
    notary: &Notary,
    directory: &Directory,
    selection: Selection,
    tell: &mut impl FnMut(&str),
) -> Result<Plan> {
    directory.check()?;
    let dir = &directory.path;
    let mut lock = take_lock(db).await?;
    let plan = plan(db, selection).await?;
    same_book(db, dir).await?;
    for part in &plan.parts {
        // All refusals come before the first file.
        refuse_other(dir, part)?;
    }
    for part in &plan.parts {
        archive_part(db, notary, dir, (part, &mut lock), tell).await?;
    }
    Ok(plan)
}

/// Refuses a directory with segments of another book: their hashes are not those of this one.
async fn same_book(db: &Database, dir: &Path) -> Result<()> {
    let mut conn = db.work().await?;
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(NOTE).filter(|name| numbers(name).is_some()) else { continue };
        let Ok(note) = segment::read_note(&path) else { continue };
        let Some(manifest) = Note::read(&note).ok().and_then(|note| Manifest::read(note.claimed())) else { continue };
        let hash = stored_hash(&mut conn, manifest.stream, manifest.last.seq).await?;
        if hash.is_none_or(|hash| hash != manifest.last.hash) {
            return refused(format!(
                "{} holds {name}, which is of another installation: name another directory for this one",
                dir.display()
            ));
        }
    }
    Ok(())
}

/// Refuses a finished file of this name that has other events.
fn refuse_other(dir: &Path, part: &Part) -> Result<()> {
    let path = dir.join(part.file());
    if !path.try_exists().map_err(at(&path))? {
        return Ok(());
    }
    let shown = path.display();
    match segment::read(&path, |_| {}) {
        Ok(found) if (found.stream, found.before, found.last.seq) == (part.stream, part.before, part.last) => Ok(()),
        Ok(_) => refused(format!("{shown} exists and has other events: move it away, or name another directory")),
        Err(error) => refused(format!("{shown} exists and is not the segment ({error}): move it away, and try again")),
    }
}

async fn archive_part(
    db: &Database,
    notary: &Notary,
    dir: &Path,
    (part, lock): (&Part, &mut PgConnection),
    tell: &mut impl FnMut(&str),
) -> Result<()> {
    let (first, last, name) = (part.first(), part.last, part.stream.as_str());
    tell(&format!("{name}: archiving events {first} to {last} ({})", part.file()));
    let erasures = store::erasures(&mut *db.work().await?, part.stream, first, last).await?;
    let end = verify_part(db, part, tell).await?;
    if let Some(restored) =
        part.restored.as_ref().filter(|restored| restored.last != end || restored.before != part.before)
    {
        return refused(format!(
            "events {first} to {last} of {name} are not those that were archived in {}: run holdfast audit verify",
            restored.file
        ));
    }
    let unfinished = Unfinished(beside(dir, &part.file(), UNFINISHED));
    write(db, part, &unfinished.0, tell).await?;
    tell(&format!("{name}: reading {} back", part.file()));
    let contents = segment::read(&unfinished.0, |_| {}).map_err(at(&unfinished.0))?;
    if (contents.stream, contents.before, contents.last) != (part.stream, part.before, end) {
        return Err(ArchiveError::Bad {
            path: unfinished.0.clone(),
            why: "it was not read back as it was written".to_owned(),
        });
    }
    // Without the lock, another archive of the same directory may have finished this file.
    lock.ping().await?;
    let manifest = sign(db, notary, dir, contents).await?;
    let path = dir.join(part.file());
    fs::rename(&unfinished.0, &path).map_err(at(&path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))?;
    removal::remove(db, part, &manifest, erasures, tell).await?;
    let bytes = manifest.bytes;
    tell(&format!("{name}: events {first} to {last} are archived: {} ({bytes} bytes)", path.display()));
    Ok(())
}

/// A file that is removed, unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Verifies the events of a partition. Returns the last one.
async fn verify_part(db: &Database, part: &Part, tell: &mut impl FnMut(&str)) -> Result<Point> {
    let (mut done, mut progress) = (part.before, Progress::new(part, "verified"));
    while done.seq < part.last {
        let mut conn = db.connect_snapshot().await?;
        let asked = Asked { from: done, to: Some((done.seq + PORTION).min(part.last)), known: None };
        let verified = verify::verify(&mut conn, part.stream, asked).await?;
        if let Some(finding) = verified.finding {
            return Err(ArchiveError::Damaged(Box::new(finding)));
        }
        done = verified.end;
        progress.tell(done.seq, tell);
    }
    Ok(done)
}

async fn write(db: &Database, part: &Part, path: &Path, tell: &mut impl FnMut(&str)) -> Result<()> {
    let Part { stream, before, last, .. } = part;
    // Nobody waits for a file that was never finished.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(path)(error)),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
    owner::give(&file, path);
    let mut out = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(at(path))?;
    let opening = Opening { stream: *stream, before: Place::of(*before, None), streams: vec![*stream] };
    writeln!(out, "{}", to_json(&opening)).map_err(at(path))?;
    let (mut done, mut progress) = (*before, Progress::new(part, "written"));
    while done.seq < *last {
        let mut conn = db.connect_snapshot().await?;
        let erased = read_erased(&mut conn, *stream).await?;
        let end = (done.seq + PORTION).min(*last);
        done = export::events(&mut conn, *stream, done, Some(end), &erased, &mut out).await.map_err(of_export(path))?;
        if done.seq != end {
            return refused(format!("event {} of {} has vanished: run holdfast audit verify", end, stream.as_str()));
        }
        progress.tell(done.seq, tell);
    }
    let head = read_head(&mut *db.work().await?, *stream).await?;
    let to = part.last_at + TimeDelta::microseconds(1);
    let closing = Closing {
        stream: *stream,
        last: Place::of(done, None),
        head: Place::of(head.point, Some(head.at)),
        to: Some(to.to_rfc3339_opts(SecondsFormat::Micros, true)),
    };
    writeln!(out, "{}", to_json(&closing)).map_err(at(path))?;
    let file =
        out.finish().and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error)).map_err(at(path))?;
    file.sync_all().map_err(at(path))
}

/// Writes the note of a file, before the file has its name: a file without a note would be no segment.
async fn sign(db: &Database, notary: &Notary, dir: &Path, contents: Contents) -> Result<Manifest> {
    let Contents { stream, before, last, last_at, bytes, sha256 } = contents;
    let last_at = chrono::DateTime::from_timestamp_micros(last_at)
        .ok_or_else(|| ArchiveError::Refused(format!("event {} has no time", last.seq)))?;
    let at_now = now(&mut *db.work().await?).await?;
    let manifest = Manifest { at: at_now, stream, before, last, last_at, bytes, sha256 };
    let path = beside(dir, &manifest.file(), NOTE);
    owner::replace(&path, notary.sign_text(&manifest.text())).await.map_err(at(&path))?;
    Ok(manifest)
}

/// The lines about a long partition.
struct Progress<'a> {
    part: &'a Part,
    verb: &'static str,
    told: Instant,
}

impl<'a> Progress<'a> {
    fn new(part: &'a Part, verb: &'static str) -> Self {
        Self { part, verb, told: Instant::now() }
    }

    fn tell(&mut self, done: i64, tell: &mut impl FnMut(&str)) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        let (part, events) = (self.part, self.part.last - self.part.before.seq);
        let percent = (done - part.before.seq) * 100 / events.max(1);
        tell(&format!("{}: {percent} % of {events} events {}", part.stream.as_str(), self.verb));
    }
}
