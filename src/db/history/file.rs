//! Marks on disk, so that a restart remembers them: a small text file for each database address.
//!
//! ```text
//! holdfast marks
//! generation 2f1c…
//! control 12 <hash of event 12, hex>
//! heimdall 3 …
//! kpi 0 0000…
//! risk 999 …
//! ```
//! A file is written under another name and renamed, so that nobody reads half of one. Several processes may write one
//! file: each merges its marks into the content. If two do so at once, the older marks may remain, which are still
//! valid.

use super::known::Heads;
use crate::owner;
use crate::types::{Point, Stream, hex};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const ORIGIN: &str = "holdfast marks";
/// Largest file that is read, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// The identity of the history.
    pub generation: Uuid,
    /// The last known events.
    pub heads: Heads,
}

impl Marks {
    fn text(&self) -> String {
        let mut text = format!("{ORIGIN}\ngeneration {}\n", self.generation);
        for stream in Stream::ALL {
            let point = self.heads.get(&stream).copied().unwrap_or(Point::BEGINNING);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {} {}", stream.as_str(), point.seq, hex(&point.hash));
        }
        text
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        (lines.next()? == ORIGIN).then_some(())?;
        let generation = lines.next()?.strip_prefix("generation ")?.parse().ok()?;
        let heads: Heads = lines.map(Point::head_line).collect::<Option<_>>()?;
        (heads.len() == Stream::ALL.len()).then_some(Self { generation, heads })
    }

    /// These marks merged with those of another process for the same history.
    fn with(mut self, other: &Self) -> Self {
        if other.generation == self.generation {
            for (stream, point) in &other.heads {
                let own = self.heads.entry(*stream).or_insert(Point::BEGINNING);
                if own.seq < point.seq {
                    *own = *point;
                }
            }
        }
        self
    }
}

/// The path of the marks of one database.
#[derive(Debug, Clone)]
pub struct MarksFile(PathBuf);

impl MarksFile {
    /// The file below a data directory for the database with this address.
    #[must_use]
    pub fn new(data_dir: &Path, address: &str) -> Self {
        let name = hex(&Sha256::digest(address.as_bytes())[..8]);
        Self(data_dir.join("marks").join(format!("{name}.marks")))
    }

    /// The path, which need not exist yet.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The marks; none if there is no file. An unreadable file is an error: unknown marks must not allow anything.
    pub async fn load(&self) -> io::Result<Option<Marks>> {
        let found = match tokio::fs::metadata(&self.0).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        if found.len() > BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let text = tokio::fs::read_to_string(&self.0).await?;
        Marks::read(&text).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Removes the temporary files of processes that were killed.
    pub(super) async fn tidy(&self) {
        if let Some(dir) = self.0.parent() {
            owner::remove_abandoned(dir).await;
        }
    }

    /// Writes the marks durably, merged with those of another process for the same history.
    pub async fn save(&self, marks: &Marks) -> io::Result<()> {
        let dir = self.0.parent().unwrap_or(Path::new("."));
        owner::make_dir(dir).await?;
        let marks = match self.load().await {
            Ok(Some(there)) => marks.clone().with(&there),
            // An unreadable file is replaced.
            Ok(None) | Err(_) => marks.clone(),
        };
        owner::replace(&self.0, marks.text()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(generation: u128, risk: i64) -> Marks {
        let heads = Stream::ALL.into_iter().map(|stream| (stream, Point::BEGINNING));
        let mut heads: Heads = heads.collect();
        heads.insert(Stream::Risk, Point { seq: risk, hash: [7; 32] });
        Marks { generation: Uuid::from_u128(generation), heads }
    }

    #[test]
    fn marks_are_read_as_they_were_written() {
        let marks = marks(1, 3);
        let text = marks.text();
        assert_eq!(Marks::read(&text), Some(marks));
        for bad in [
            "",
            &text[..text.len() - 1],
            &text.replace(ORIGIN, "another"),
            &text.replace("risk", "kpi"),
            &text.replace("risk 3", "risk -3"),
            &format!("{text}more 1\n"),
        ] {
            assert_eq!(Marks::read(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn marks_are_written_through_no_link_that_somebody_has_planted_and_leave_nothing_beside_them() {
        let dir = std::env::temp_dir().join(format!("holdfast-planted-{}", std::process::id()));
        let file = MarksFile::new(&dir, "localhost:5432/holdfast/public");
        let beside = file.path().parent().unwrap();
        std::fs::create_dir_all(beside).unwrap();
        let precious = dir.join("precious");
        std::fs::write(&precious, "precious").unwrap();
        let guessed = file.path().with_extension(format!("{}.new", std::process::id()));
        std::os::unix::fs::symlink(&precious, &guessed).unwrap();
        std::os::unix::fs::symlink(&precious, file.path()).unwrap();
        file.save(&marks(1, 9)).await.unwrap();
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(file.load().await.unwrap(), Some(marks(1, 9)));
        std::fs::remove_file(guessed).unwrap();
        assert_eq!(std::fs::read_dir(beside).unwrap().count(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[tokio::test]
    async fn two_processes_on_one_file_keep_the_later_mark_and_another_history_replaces_it() {
        let dir = std::env::temp_dir().join(format!("holdfast-marks-{}", std::process::id()));
        let file = MarksFile::new(&dir, "localhost:5432/holdfast/public");
        assert_eq!(file.load().await.unwrap(), None);
        file.save(&marks(1, 9)).await.unwrap();
        file.save(&marks(1, 3)).await.unwrap();
        assert_eq!(file.load().await.unwrap(), Some(marks(1, 9)));
        file.save(&marks(2, 1)).await.unwrap();
        assert_eq!(file.load().await.unwrap(), Some(marks(2, 1)));
        std::fs::write(file.path(), "half a fi").unwrap();
        assert!(file.load().await.is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
