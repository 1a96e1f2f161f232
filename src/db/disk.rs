//! The disk under the database: whether the database reported it as full, and the free space where it can be measured.

use crate::error::database::is_disk_full;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long the disk counts as full after the last statement that found no space. A successful write says nothing,
/// because it may have fitted into existing pages.
const FULL_FOR: Duration = Duration::from_mins(1);

/// The state of the disk as this process knows it.
#[derive(Debug, Default)]
pub struct Disk {
    full_at: Mutex<Option<Instant>>,
    /// The data directory of the private PostgreSQL.
    dir: OnceLock<PathBuf>,
}

impl Disk {
    /// Sets the data directory. Only the first call counts.
    pub fn look_at(&self, dir: PathBuf) {
        let _ = self.dir.set(dir);
    }

    /// Notes an error of the database, if it says that the disk is full.
    pub(crate) fn note(&self, error: &sqlx::Error) {
        if is_disk_full(error) {
            self.note_full();
        }
    }

    pub(crate) fn note_full(&self) {
        if !self.is_full() {
            let free_bytes = self.free_bytes();
            tracing::error!(
                free_bytes,
                "the disk of the database is full: nothing that needs space is recorded until some is freed"
            );
        }
        *self.full_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// True if the database reported a full disk within the last minute.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full_at = *self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        full_at.is_some_and(|at| at.elapsed() < FULL_FOR)
    }

    /// Free bytes on the disk of the private PostgreSQL; none for any other server.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.dir.get()?).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
