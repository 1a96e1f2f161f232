//! The owner of a data directory: a server, which stays, or a command, which ends its PostgreSQL with itself.

use std::{fmt, fs, path::Path};

/// The name of the lock file in the data directory.
pub(super) const OWNER_LOCK: &str = "owner.lock";

/// The owner of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedBy {
    /// A server: other commands use its PostgreSQL.
    Server,
    /// A command, by its name: all other processes wait for its end.
    Command(String),
}

impl OwnedBy {
    /// The text of the lock file. The watcher reads its first line.
    pub(super) fn text(&self, pid: u32) -> String {
        format!("{pid}\n{self}\n")
    }

    /// The process id in such a text, and the owner; none in a text that is still being written.
    pub(super) fn read(text: &str) -> Option<(String, Self)> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().to_owned();
        let name = lines.next().and_then(|line| line.strip_prefix("holdfast ")).filter(|name| *name != "serve");
        Some((pid, name.map_or(Self::Server, |name| Self::Command(name.to_owned()))))
    }

    /// True if the last owner of a data directory was a command, or may have been because its file is still being
    /// written. False if the file cannot be read.
    #[must_use]
    pub fn may_be_command(data_dir: &Path) -> bool {
        let text = fs::read_to_string(data_dir.join(OWNER_LOCK));
        text.is_ok_and(|text| !matches!(Self::read(&text), Some((_, Self::Server))))
    }
}

impl fmt::Display for OwnedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("holdfast serve"),
            Self::Command(name) => write!(f, "holdfast {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_says_of_a_process_what_it_is_and_an_old_one_means_a_server() {
        for by in [OwnedBy::Server, OwnedBy::Command("audit export".to_owned())] {
            assert_eq!(OwnedBy::read(&by.text(412)), Some(("412".to_owned(), by)));
        }
        assert_eq!(OwnedBy::read("412\n"), Some(("412".to_owned(), OwnedBy::Server)));
    }

    #[test]
    fn an_owner_whose_file_is_still_empty_is_unknown_and_taken_for_no_server() {
        let dir = std::env::temp_dir().join(format!("holdfast-owned-{}", std::process::id()));
        fs::create_dir(&dir).expect("a new directory");
        assert_eq!(OwnedBy::read(""), None);
        let command = OwnedBy::Command("migrate".to_owned()).text(412);
        for (text, may_be) in [("", true), (&*command, true), ("412\nholdfast serve\n", false)] {
            fs::write(dir.join(OWNER_LOCK), text).expect("a file");
            assert_eq!(OwnedBy::may_be_command(&dir), may_be, "{text:?}");
        }
        fs::remove_file(dir.join(OWNER_LOCK)).expect("it is there");
        assert!(!OwnedBy::may_be_command(&dir));
        fs::remove_dir(dir).expect("ours");
    }
}
