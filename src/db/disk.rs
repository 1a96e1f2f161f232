//! The disk under the database: whether it said that it is full, and how much is free where that can be looked at.

use crate::error::database::is_disk_full;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// For how long it counts as full after the last statement that found no room. A write that fits into pages that are there goes
/// on meanwhile, so that a success says nothing.
const FULL_FOR: Duration = Duration::from_mins(1);

/// The disk as it is known.
#[derive(Debug, Default)]
pub struct Disk {
    full_at: Mutex<Option<Instant>>,
    /// Where the private PostgreSQL keeps its data.
    dir: OnceLock<PathBuf>,
}

impl Disk {
    /// Takes note of where the data is. The first place counts.
    pub fn look_at(&self, dir: PathBuf) {
        let _ = self.dir.set(dir);
    }

    /// Takes note of an error of the database, if it says that there is no room.
    pub(crate) fn note(&self, error: &sqlx::Error) {
        if is_disk_full(error) {
            self.note_full();
        }
    }

    /// Takes note that there is no room.
    pub(crate) fn note_full(&self) {
        if !self.is_full() {
            let free_bytes = self.free_bytes();
            tracing::error!(
                free_bytes,
                "the disk of the database is full: what needs room is not recorded until there is some"
            );
        }
        *self.full_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the database said so within the last minute.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full_at = *self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        full_at.is_some_and(|at| at.elapsed() < FULL_FOR)
    }

    /// Bytes that are free for the private PostgreSQL; none where there is none.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.dir.get()?).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
