//! The kill file: while it exists, this instance blocks, whatever the database says.
//!
//! For the hour in which the database is away and everything has to stop: `touch` is enough, and so is an engage that could
//! not be recorded. It is removed by hand, by somebody who has looked; releasing the kill switch does not remove it.

use crate::owner;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// Where an instance looks.
#[derive(Debug, Clone)]
pub struct KillFile(PathBuf);

/// The finding of a look for a kill file. A place that cannot be looked at counts as a file that is there: not knowing is not
/// allowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There is one.
    Present,
    /// There is none.
    Absent,
    /// It cannot be known.
    Unknown(io::ErrorKind),
}

/// The result of writing one. With either, an instance that looks there stops.
#[derive(Debug)]
pub enum Written {
    /// It is there, as it should be.
    Whole,
    /// It is there, and what it should say is not, as on a disk that is full.
    Empty(io::Error),
}

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

    /// Whether there is one.
    pub async fn look(&self) -> Found {
        match tokio::fs::symlink_metadata(&self.0).await {
            Ok(_) => Found::Present,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Absent,
            Err(error) => Found::Unknown(error.kind()),
        }
    }

    /// Writes it, durably. Its text is for people; one that is there already is left as it is.
    pub async fn write(&self, text: &str) -> io::Result<Written> {
        if let Some(dir) = self.0.parent() {
            owner::make_dir(dir).await?;
        }
        let mut file = match tokio::fs::File::create_new(&self.0).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Written::Whole),
            Err(error) => return Err(error),
        };
        let text = async {
            owner::give(&file, &self.0);
            file.write_all(text.as_bytes()).await?;
            // The text is buffered: an error of the disk would be lost.
            file.flush().await?;
            file.sync_all().await
        };
        // The file stops by being there: also without its text, its name has to last.
        let text = text.await;
        let name = owner::keep_name(&self.0).await;
        Ok(text.and(name).map_or_else(Written::Empty, |()| Written::Whole))
    }
}
