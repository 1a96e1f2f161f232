//! The kill file: while it exists, this instance blocks, whatever the database says.
//!
//! For the hour in which the database is away and everything has to stop: `touch` is enough, and so is an engage that could
//! not be recorded. It is removed by hand, by somebody who has looked; releasing the kill switch does not remove it.

use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// Where an instance looks.
#[derive(Debug, Clone)]
pub struct KillFile(PathBuf);

impl KillFile {
    /// At this path.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether there is one. A place that cannot be looked at counts as a file that is there: not knowing is not allowing.
    pub async fn exists(&self) -> bool {
        match tokio::fs::symlink_metadata(&self.0).await {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Writes it, durably. What it says is for people; one that is there already is left as it is.
    pub async fn write(&self, text: &str) -> io::Result<()> {
        if let Some(dir) = self.0.parent() {
            tokio::fs::create_dir_all(dir).await?;
        }
        let mut file = match tokio::fs::File::create_new(&self.0).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error),
        };
        file.write_all(text.as_bytes()).await?;
        file.sync_all().await
    }
}
