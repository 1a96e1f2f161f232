//! What the owner of a data directory is: a server, which stays, or a command, which ends, and PostgreSQL with it.

use std::{fmt, fs, path::Path};

use super::layout::OWNER_LOCK;

/// Who owns a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedBy {
    /// A server: whoever comes uses its PostgreSQL.
    Server,
    /// A command, by its name: whoever comes waits for its end.
    Command(String),
}

impl OwnedBy {
    /// The text of the lock file. The watcher goes by its first line.
    pub(super) fn text(&self, pid: u32) -> String {
        format!("{pid}\n{self}\n")
    }

    /// The process id in such a text, and what that process is.
    pub(super) fn read(text: &str) -> (String, Self) {
        let mut lines = text.lines();
        let pid = lines.next().unwrap_or_default().trim().to_owned();
        let name = lines.next().and_then(|line| line.strip_prefix("holdfast ")).filter(|name| *name != "serve");
        (pid, name.map_or(Self::Server, |name| Self::Command(name.to_owned())))
    }

    /// Whether a command was the last to own a data directory. Where that cannot be read it was not.
    #[must_use]
    pub fn is_command(data_dir: &Path) -> bool {
        let text = fs::read_to_string(data_dir.join(OWNER_LOCK)).unwrap_or_default();
        matches!(Self::read(&text).1, Self::Command(_))
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
            assert_eq!(OwnedBy::read(&by.text(412)), ("412".to_owned(), by));
        }
        assert_eq!(OwnedBy::read("412\n"), ("412".to_owned(), OwnedBy::Server));
    }
}
