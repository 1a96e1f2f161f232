//! The kill file: while it exists, this instance blocks, whatever the database says.
//!
//! It is for the hour in which the database is away and everything has to stop. `touch` is enough, and an engage that
//! could not be recorded creates the file, too. An operator removes it by hand after a check; releasing the kill switch
//! does not remove it.

use crate::owner;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

/// The path of an instance's kill file.
#[derive(Debug, Clone)]
pub struct KillFile(PathBuf);

/// The result of a look for a kill file. A path that cannot be read counts as a file that exists, since an unknown
/// state admits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The file exists.
    Present,
    /// The file does not exist.
    Absent,
    /// It is unknown whether the file exists.
    Unknown(io::ErrorKind),
}

/// The result of writing a kill file. Both results stop the instances that look there.
#[derive(Debug)]
pub enum Written {
    /// The file exists with its text.
    Whole,
    /// The file exists without its text, as on a full disk.
    Empty(io::Error),
}

impl KillFile {
    /// A kill file at this path.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Looks whether the file exists.
    pub async fn look(&self) -> Found {
        match tokio::fs::symlink_metadata(&self.0).await {
            Ok(_) => Found::Present,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Absent,
            Err(error) => Found::Unknown(error.kind()),
        }
    }

    /// Writes the file durably. The text is for people; an existing file is left as it is.
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
            // The text is buffered, so without a flush an error of the disk would be lost.
            file.flush().await?;
            file.sync_all().await
        };
        // The file stops by its existence, so its name must be durable even without its text.
        let text = text.await;
        let name = owner::keep_name(&self.0).await;
        Ok(text.and(name).map_or_else(Written::Empty, |()| Written::Whole))
    }
}
