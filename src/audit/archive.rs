//! The archive: old events in files, with a signed note each, and no longer in the database.
//!
//! A segment is a whole partition of a stream. Its file `<stream>-<first>-<last>.ndjson.zst` has the lines that
//! [`super::export`] writes, compressed; the note beside it, `<file>.note`, has its numbers, hashes and digest, and is
//! signed by the key of checkpoints.
//!
//! Invariants:
//! - Nothing leaves the database before its file is on the disk, was read back, and gives the hashes of the chain.
//! - The row of `audit_archive`, the control event and the drop of the tables commit together. An interruption before
//!   that leaves at most a file, which the next attempt replaces.
//! - A row keeps both ends of its part of the chain, so the rest of the stream still verifies, and so does the archive
//!   together with the database ([`check`]).
//! - One archive or restore at a time: it holds a lock of `audit_archive` on a connection of its own.
//!
//! Locks: that lock, then the control head, then the tables, each for a moment only.

pub mod check;
mod make;
mod manifest;
mod plan;
mod removal;
pub mod restore;
pub mod schedule;
mod segment;
mod store;

pub use make::{Directory, archive};
pub use plan::{Part, Plan, Selection, Staying, plan};

use super::export::ExportError;
use super::verify::Finding;
use crate::db::Database;
use crate::error::Error;
use crate::types::Stream;
use sqlx::{Executor, PgConnection};
use std::io;
use std::path::{Path, PathBuf};

/// The fewest days after which an event may be archived: keys point to events of the last seven days.
pub const DAYS_MIN: u64 = 8;
/// The end of a segment's file name, and of its note's.
const SUFFIX: &str = ".ndjson.zst";
const NOTE: &str = ".note";
/// The end of an unfinished file's name.
const UNFINISHED: &str = ".part";

/// The reason why nothing, or nothing more, was archived or restored.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A fact forbids it. The sentence has the next step.
    #[error("{0}")]
    Refused(String),
    /// Another process is at it.
    #[error("{0} archives or restores events of this database now: wait for its end, and try again")]
    Busy(String),
    /// The trail is damaged, so nothing of it is archived.
    #[error("the trail is damaged, and nothing of it is archived: {0}; see holdfast audit verify")]
    Damaged(Box<Finding>),
    /// The database failed.
    #[error(transparent)]
    Database(Error),
    /// A file cannot be read or written.
    #[error("{}: {error}: the events of this file stay where they are", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A file is not what its note says.
    #[error("{}: {why}", .path.display())]
    Bad {
        /// Its path.
        path: PathBuf,
        /// The fault.
        why: String,
    },
}

impl From<Error> for ArchiveError {
    fn from(error: Error) -> Self {
        match error {
            Error::TrailDamaged(finding) => Self::Damaged(finding),
            error => Self::Database(error),
        }
    }
}

impl From<sqlx::Error> for ArchiveError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

type Result<T, E = ArchiveError> = std::result::Result<T, E>;

fn refused<T>(sentence: impl Into<String>) -> Result<T> {
    Err(ArchiveError::Refused(sentence.into()))
}

/// The error of a file at this path.
fn at(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |error| ArchiveError::File { path, error }
}

fn of_export(path: &Path) -> impl FnOnce(ExportError) -> ArchiveError {
    let path = path.to_owned();
    move |error| match error {
        ExportError::Database(error) => error.into(),
        ExportError::Output(error) => ArchiveError::File { path, error },
    }
}

/// The name of a segment's file.
#[must_use]
pub fn file_name(stream: Stream, first: i64, last: i64) -> String {
    format!("{}-{first}-{last}{SUFFIX}", stream.as_str())
}

/// The stream and the numbers of a file's name; none for the name of anything else.
fn numbers(name: &str) -> Option<(Stream, i64, i64)> {
    let mut words = name.strip_suffix(SUFFIX)?.split('-');
    let (stream, first, last) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let stream = Stream::named(stream)?;
    (words.next().is_none() && name == file_name(stream, first, last)).then_some((stream, first, last))
}

fn beside(dir: &Path, name: &str, end: &str) -> PathBuf {
    dir.join(format!("{name}{end}"))
}

/// Takes the lock of archives and restores, which is held until the connection is dropped.
async fn take_lock(db: &Database) -> Result<PgConnection> {
    let mut conn = db.connect_snapshot().await?;
    // The lock takes no snapshot, so it keeps nothing from being cleaned up.
    match conn.execute("LOCK TABLE audit_archive IN SHARE UPDATE EXCLUSIVE MODE").await {
        Ok(_) => Ok(conn),
        Err(error) if is_locked(&error) => Err(ArchiveError::Busy(store::archiving(&mut *db.work().await?).await?)),
        Err(error) => Err(error.into()),
    }
}

/// True if a lock was not granted in time.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| matches!(code.as_ref(), "55P03" | "40P01"))
}
