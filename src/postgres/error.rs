//! The failures of the private PostgreSQL. Every message is one sentence with the fix: its reader typed one command and
//! expected a server.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::owned::OwnedBy;

/// A failure to find, create, start, reach or stop the private PostgreSQL.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum EmbeddedError {
    #[error("the data directory {} is already in use by Holdfast process {pid} ({by}); stop that one or choose another DATA_DIR", data_dir.display())]
    AlreadyOwned { data_dir: PathBuf, pid: String, by: OwnedBy },

    #[error(
        "PostgreSQL refuses root, and the user {user} that runs it instead cannot enter {}; \
         choose a DATA_DIR outside it, or run: chmod o+x {}", dir.display(), dir.display()
    )]
    NotTraversable { user: String, dir: PathBuf },

    #[error("{} belongs to root, and PostgreSQL refuses to run as root; give it to another user: chown -R postgres {}", cluster.display(), cluster.display())]
    ClusterOfRoot { cluster: PathBuf },

    #[error(
        "PostgreSQL refuses to run as root, and root cannot run it as the user {user} here: {reason}; start this as an ordinary user \
         (docker run --user, setpriv --reuid), or set DATABASE_URL"
    )]
    CannotBecome { user: String, reason: String },

    #[error(
        "the user id {uid} has no name here, and initdb needs one; add a line to /etc/passwd (holdfast:x:{uid}:{uid}::/:/bin/false), \
         start this as a user that has a name, or set DATABASE_URL; an existing database needs none"
    )]
    NoName { uid: u32 },

    #[error("{} is not a directory of user id {uid}; remove it or choose another DATA_DIR", dir.display())]
    NotOurs { dir: PathBuf, uid: u32 },

    #[error("{} is not empty, and a temporary data directory is deleted at the end; give a new or empty directory", data_dir.display())]
    NotEmpty { data_dir: PathBuf },

    #[error("cannot use {} ({source}); choose a DATA_DIR that this user may read and write", path.display())]
    NotUsable { path: PathBuf, source: io::Error },

    #[error("the disk that holds {} is full; free some space there and start again", path.display())]
    DiskFull { path: PathBuf },

    #[error(
        "the shared memory of this machine (/dev/shm) is too small for PostgreSQL; give it 64 MB or more, in a container with \
         --shm-size=128m"
    )]
    NoSharedMemory,

    #[error("PG_BIN_DIR={} cannot be used ({reason}); set it to the directory of initdb and postgres, or unset it", dir.display())]
    WrongBinDir { dir: PathBuf, reason: String },

    #[error("PostgreSQL {needed} or newer is needed, and only {found} was found; install a newer one with: {install}")]
    TooOld { needed: u32, found: String, install: String },

    #[error(
        "the data in {} was made by PostgreSQL {made_by}, which is not installed (found: {found}); \
         install PostgreSQL {made_by}, or set PG_BIN_DIR to its bin directory", cluster.display()
    )]
    WrongMajor { cluster: PathBuf, made_by: String, found: String },

    #[error(
        "PG_VERSION in {} names no PostgreSQL version, so the data is damaged; restore the directory from a backup, or \
         choose \
         another DATA_DIR", cluster.display()
    )]
    DamagedCluster { cluster: PathBuf },

    #[error(
        "no PostgreSQL was found and none could be fetched ({reason}); set DATABASE_URL, or install one with: {install}"
    )]
    NotInstalled { reason: String, install: String },

    #[error("cannot run {} ({source}); check that it is installed and executable", program.display())]
    CannotRun { program: PathBuf, source: io::Error },

    #[error("initdb could not create the database; correct the error and start again: {output}")]
    InitFailed { output: String },

    #[error("PostgreSQL did not start ({reason}); correct the error at the end of {}: {tail}", log.display())]
    StartFailed { reason: String, log: PathBuf, tail: String },

    #[error("an earlier PostgreSQL (process {pid}) still holds {} and does not stop; stop it with: kill -QUIT {pid}", cluster.display())]
    StillRunning { pid: i32, cluster: PathBuf },

    #[error("PostgreSQL (process {pid}) did not stop in time; stop it with: kill -QUIT {pid}")]
    NotStopped { pid: u32 },

    #[error("no private PostgreSQL is running in {}; start it with `holdfast serve`, or set DATA_DIR or DATABASE_URL", data_dir.display())]
    NotRunning { data_dir: PathBuf },

    #[error("cannot look into {} ({source}); run this as the user that runs the server", path.display())]
    NotReadable { path: PathBuf, source: io::Error },

    #[error("no psql was found in {} or on PATH; install the PostgreSQL client, or set PG_BIN_DIR to its directory", dir.display())]
    NoPsql { dir: PathBuf },
}

impl EmbeddedError {
    /// The error of a failed file operation; a full disk has its own.
    pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::NotUsable { path, source },
        }
    }
}

/// The error for PostgreSQL's output about a full disk: strerror of ENOSPC in the C locale, or its hint at a short
/// write.
pub(super) fn no_room(output: &str, data_dir: &Path) -> Option<EmbeddedError> {
    let mut lines = output.lines();
    let line = lines.find(|line| line.contains("No space left on device") || line.contains("Check free disk space"))?;
    if line.contains("shared memory segment") {
        return Some(EmbeddedError::NoSharedMemory);
    }
    Some(EmbeddedError::DiskFull { path: data_dir.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_shared_memory_is_told_from_a_full_disk() {
        let of = |output| no_room(output, Path::new("/d"));
        let memory =
            "FATAL:  could not resize shared memory segment \"/PostgreSQL.1\" to 8 bytes: No space left on device";
        assert!(matches!(of(memory), Some(EmbeddedError::NoSharedMemory)));
        let disk = "PANIC:  could not write to file \"pg_wal/xlogtemp.9\": No space left on device";
        assert!(matches!(of(disk), Some(EmbeddedError::DiskFull { .. })));
        assert!(of("LOG:  database system is ready").is_none());
    }

    #[test]
    fn a_full_disk_is_told_from_a_forbidden_one() {
        let full = EmbeddedError::at("/d")(io::ErrorKind::StorageFull.into());
        assert!(matches!(full, EmbeddedError::DiskFull { .. }));
        let forbidden = EmbeddedError::at("/d")(io::ErrorKind::PermissionDenied.into());
        assert!(matches!(forbidden, EmbeddedError::NotUsable { .. }));
    }
}
