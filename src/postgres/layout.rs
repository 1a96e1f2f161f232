//! The paths of the data directory, and their creation.
//!
//! ```text
//! <data_dir>/            of the owner; entered, not written, by the user PostgreSQL runs as
//!   owner.lock           locked (flock) by the one process that owns this directory; holds its process id and its command
//!   postgres.log         PostgreSQL's output
//!   pg/                  the cluster, 0700, of the user PostgreSQL runs as
//!   pg.new.<pid>/        a cluster being made; renamed to pg when it is whole
//!   run/                 the socket directory, 0700, of the user PostgreSQL runs as
//! ```
//!
//! Nothing is ever chowned or chmodded through a symbolic link: root would otherwise give away any file that the owner
//! of the directory links to.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::{
    error::EmbeddedError,
    owned::{OWNER_LOCK, OwnedBy},
    user::RunAs,
};
use crate::owner;

/// The port number in the socket's name. No TCP port is opened.
pub(super) const PORT: u16 = 5432;

/// The name of the cluster in the data directory.
pub(super) const CLUSTER: &str = "pg";

/// How long the owner's file may be empty before its owner counts as a server; the file is read repeatedly.
const OWNER_TIMEOUT: Duration = Duration::from_secs(1);
const OWNER_PAUSE: Duration = Duration::from_millis(5);

/// Longest path of a Unix socket: `sun_path` without its final NUL.
const SOCKET_PATH_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A log larger than this is renamed at the next start; one older log is kept.
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The paths of one data directory. `data_dir` is absolute and free of symbolic links.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) data_dir: PathBuf,
    pub(super) cluster: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) log: PathBuf,
}

impl Layout {
    /// Creates the data directory if it is missing.
    pub(super) fn create(data_dir: &Path) -> Result<Self, EmbeddedError> {
        Self::make(data_dir).map_err(EmbeddedError::at(data_dir))?;
        Self::of(data_dir)
    }

    fn make(data_dir: &Path) -> io::Result<()> {
        let is_root = rustix::process::geteuid().is_root();
        let dir = match owner::make_dir_now(data_dir)? {
            Some(new) => Some(new),
            None if is_root => owner::open_dir(data_dir)?.filter(|dir| is_own(dir) && holds_nothing(dir)),
            None => None,
        };
        // For root, PostgreSQL runs as another user, who must reach the cluster here but needs no listing.
        let mode = if is_root { 0o711 } else { 0o700 };
        dir.map_or(Ok(()), |dir| dir.set_permissions(fs::Permissions::from_mode(mode)))
    }

    /// The paths of an existing data directory.
    pub(super) fn of(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let data_dir = data_dir.canonicalize().map_err(EmbeddedError::at(data_dir))?;
        Ok(Self {
            cluster: data_dir.join(CLUSTER),
            socket_dir: socket_dir(&data_dir),
            log: data_dir.join("postgres.log"),
            data_dir,
        })
    }

    /// Takes the lock that makes this process the owner. It is held as long as the file is open.
    pub(super) async fn own(&self, by: &OwnedBy) -> Result<File, EmbeddedError> {
        let path = self.data_dir.join(OWNER_LOCK);
        let mut file = open_regular(&path, OpenOptions::new().read(true).write(true).create(true))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let (pid, by) = read_owner(&mut file).await.map_err(EmbeddedError::at(&path))?;
                return Err(EmbeddedError::AlreadyOwned { data_dir: self.data_dir.clone(), pid, by });
            }
            Err(TryLockError::Error(error)) => return Err(EmbeddedError::at(path)(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            // In one write: a reader finds both lines or none.
            .and_then(|()| file.write_all(by.text(std::process::id()).as_bytes()))
            .map_err(EmbeddedError::at(path))?;
        Ok(file)
    }

    /// Removes a socket directory outside the data directory. A directory in use is not empty, and stays.
    pub(super) fn remove_socket_dir(&self) {
        if !self.socket_dir.starts_with(&self.data_dir)
            && let Err(error) = fs::remove_dir(&self.socket_dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %self.socket_dir.display(), "the directory of PostgreSQL's socket could not be removed");
        }
    }

    /// Refuses a data directory with content, because it will be deleted.
    pub(super) fn check_empty(data_dir: &Path) -> Result<(), EmbeddedError> {
        if data_dir.exists() && !is_empty(data_dir) {
            return Err(EmbeddedError::NotEmpty { data_dir: data_dir.to_owned() });
        }
        Ok(())
    }

    /// Opens the log for appending, and returns the offset of new text.
    pub(super) fn open_log(&self) -> Result<(File, u64), EmbeddedError> {
        if fs::symlink_metadata(&self.log).is_ok_and(|meta| meta.len() > LOG_MAX_BYTES) {
            fs::rename(&self.log, self.log.with_extension("log.1")).map_err(EmbeddedError::at(&self.log))?;
        }
        let file = open_regular(&self.log, OpenOptions::new().append(true).create(true))?;
        let end = file.metadata().map_err(EmbeddedError::at(&self.log))?.len();
        Ok((file, end))
    }

    /// The text of the log after `from`.
    pub(super) fn log_since(&self, from: u64) -> Vec<u8> {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(io::SeekFrom::Start(from))?;
            // More than any printed tail. A runaway log must not fill the memory.
            file.take(1024 * 1024).read_to_end(&mut text)
        });
        if let Err(error) = read {
            tracing::warn!(%error, log = %self.log.display(), "cannot read the log of PostgreSQL");
        }
        text
    }

    /// The major version that created the cluster; `None` if there is no cluster yet.
    pub(super) fn cluster_major(&self) -> Result<Option<String>, EmbeddedError> {
        let path = self.cluster.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().bytes().all(|byte| byte.is_ascii_digit()) && !text.trim().is_empty() => {
                Ok(Some(text.trim().to_owned()))
            }
            Ok(_) => Err(EmbeddedError::DamagedCluster { cluster: self.cluster.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EmbeddedError::at(path)(error)),
        }
    }

    /// Removes the unfinished clusters of a crash. Only the owner may call it.
    pub(super) fn remove_unfinished(&self) -> io::Result<()> {
        let prefix = format!("{CLUSTER}.new.");
        for entry in fs::read_dir(&self.data_dir)? {
            let entry = entry?;
            if entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Creates (or takes over) a directory that only the user of PostgreSQL can enter.
pub(super) fn private_dir(path: &Path, run_as: Option<&RunAs>) -> Result<(), EmbeddedError> {
    let is_new = match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(EmbeddedError::at(path)(error)),
    };
    let us = rustix::process::geteuid().as_raw();
    let uid = run_as.map_or(us, |user| user.uid);
    let dir = open_with(path, OpenOptions::new().read(true), OFlags::DIRECTORY | OFlags::NOFOLLOW)
        .map_err(|_| EmbeddedError::NotOurs { dir: path.to_owned(), uid })?;
    let owner = dir.metadata().map_err(EmbeddedError::at(path))?.uid();
    // In /tmp, anybody could have created it first, to read along. If the path leads elsewhere by a link, it may be one
    // of root's own directories, such as /run; a directory that an earlier root has just created is empty.
    let is_taken = owner == us && owner != uid && !is_new && !holds_nothing(&dir);
    if (owner != uid && owner != us) || is_taken {
        return Err(EmbeddedError::NotOurs { dir: path.to_owned(), uid });
    }
    if let Some(user) = run_as.filter(|user| user.uid != owner) {
        fchown(&dir, Some(user.uid), Some(user.gid)).map_err(EmbeddedError::at(path))?;
    }
    dir.set_permissions(fs::Permissions::from_mode(0o700)).map_err(EmbeddedError::at(path))
}

/// `<data_dir>/run`, or a short private directory under `/tmp` if that path cannot be a socket's: it is too long, or
/// has a character that separates or quotes in PostgreSQL's list of socket directories.
fn socket_dir(data_dir: &Path) -> PathBuf {
    let usual = data_dir.join("run");
    let length = usual.as_os_str().len() + format!("/.s.PGSQL.{PORT}").len();
    let special = usual.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b',' | b'"' | b'\''));
    if length <= SOCKET_PATH_MAX && !special {
        return usual;
    }
    let name = sha256_hex(data_dir.as_os_str().as_bytes());
    // 64 bits: two directories of one machine do not collide, and the path is short enough for a socket.
    Path::new("/tmp").join(format!("holdfast-{name:.16}"))
}

/// The SHA-256 as sha256sum prints it.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let nibbles = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    nibbles.filter_map(|nibble| char::from_digit(nibble.into(), 16)).collect()
}

/// Reads the owner's file. An owner writes it just after it has taken the lock, so an empty file is read again.
async fn read_owner(file: &mut File) -> io::Result<(String, OwnedBy)> {
    let began = Instant::now();
    loop {
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        match OwnedBy::read(&text) {
            Some(owner) => return Ok(owner),
            None if began.elapsed() < OWNER_TIMEOUT => tokio::time::sleep(OWNER_PAUSE).await,
            None => return Ok(("of an unknown number".to_owned(), OwnedBy::Server)),
        }
    }
}

fn open_regular(path: &Path, options: &mut OpenOptions) -> Result<File, EmbeddedError> {
    let mut open = || {
        let file = open_with(path, options.mode(0o600), OFlags::NOFOLLOW)?;
        owner::refuse_planted(&file, path)?;
        owner::give(&file, path);
        Ok(file)
    };
    open().map_err(EmbeddedError::at(path))
}

fn open_with(path: &Path, options: &mut OpenOptions, flags: OFlags) -> io::Result<File> {
    options.custom_flags(flags.bits().cast_signed()).open(path)
}

fn is_own(dir: &File) -> bool {
    dir.metadata().is_ok_and(|meta| meta.uid() == rustix::process::geteuid().as_raw())
}

/// True if an open directory has no entries except itself and its parent.
fn holds_nothing(dir: &File) -> bool {
    let entries = rustix::fs::Dir::read_from(dir).and_then(|entries| entries.take(3).collect::<Result<Vec<_>, _>>());
    entries.is_ok_and(|entries| entries.len() <= 2)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_that_is_too_long_moves_to_tmp() {
        let fits = SOCKET_PATH_MAX - "/run/.s.PGSQL.5432".len();
        let longest = PathBuf::from(format!("/{}", "d".repeat(fits - 1)));
        assert_eq!(socket_dir(&longest), longest.join("run"));
        let longer = PathBuf::from(format!("/{}", "d".repeat(fits)));
        let moved = socket_dir(&longer);
        assert!(moved.starts_with("/tmp"), "{}", moved.display());
        assert_eq!(moved, socket_dir(&longer), "it must be found again");
        assert!(socket_dir(Path::new("/a,b")).starts_with("/tmp"));
    }

    #[tokio::test]
    async fn a_second_owner_is_told_who_the_first_is() {
        let dir = std::env::temp_dir().join(format!("holdfast-layout-{}", std::process::id()));
        let layout = Layout::create(&dir).expect("a new directory");
        let _lock = layout.own(&OwnedBy::Server).await.expect("the first owner");
        let second = OwnedBy::Command("token list".to_owned());
        let refused = layout.own(&second).await.expect_err("the second owner").to_string();
        assert!(refused.contains(&format!("already in use by Holdfast process {}", std::process::id())), "{refused}");
        assert!(refused.contains("(holdfast serve)"), "{refused}");
        Layout::check_empty(&dir).expect_err("it holds a lock file");
        fs::remove_dir_all(dir).expect("ours");
    }

    #[tokio::test]
    async fn an_owner_that_has_not_written_its_file_yet_is_looked_at_again() {
        let dir = std::env::temp_dir().join(format!("holdfast-layout-empty-{}", std::process::id()));
        let layout = Layout::create(&dir).expect("a new directory");
        let path = dir.join(OWNER_LOCK);
        let lock = File::create(&path).expect("a file");
        lock.try_lock().expect("nobody has it");
        let second = layout.own(&OwnedBy::Server);
        let writes = async {
            tokio::time::sleep(OWNER_PAUSE * 3).await;
            fs::write(&path, OwnedBy::Command("migrate".to_owned()).text(412)).expect("a file");
        };
        let (refused, ()) = tokio::join!(second, writes);
        let refused = refused.expect_err("the second owner").to_string();
        assert!(refused.contains("process 412 (holdfast migrate)"), "{refused}");
        fs::remove_dir_all(dir).expect("ours");
    }

    /// A directory of user nobody, a file of root with a text in it, and their parent; none if this is not root.
    fn somebody_elses(name: &str) -> Option<(PathBuf, Layout, PathBuf)> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let place = std::env::temp_dir().join(format!("holdfast-layout-{name}-{}", std::process::id()));
        let data_dir = place.join("data");
        fs::create_dir_all(&data_dir).expect("a new directory");
        std::os::unix::fs::chown(&data_dir, Some(65_534), Some(65_534)).expect("root may");
        let precious = place.join("precious");
        fs::write(&precious, "precious").expect("a file");
        Some((place, Layout::of(&data_dir).expect("it is there"), precious))
    }

    #[tokio::test]
    async fn root_writes_to_no_file_that_the_owner_of_the_directory_has_linked_there() {
        let Some((place, layout, precious)) = somebody_elses("links") else { return };
        for name in ["owner.lock", "postgres.log"] {
            let path = layout.data_dir.join(name);
            fs::hard_link(&precious, &path).expect("root may");
            let refused = if name == "owner.lock" {
                layout.own(&OwnedBy::Server).await.map(drop)
            } else {
                layout.open_log().map(drop)
            };
            let refused = refused.expect_err("it is root's").to_string();
            assert!(refused.contains(name) && refused.contains("another name"), "{refused}");
            assert_eq!(fs::read_to_string(&precious).expect("it is there"), "precious");
            assert_eq!(fs::metadata(&precious).expect("it is there").uid(), 0);
            fs::remove_file(&path).expect("a name");
        }
        // A file of the directory's owner may have any number of names: the directory may be copied by links.
        fs::write(layout.data_dir.join("owner.lock"), "").expect("a file");
        std::os::unix::fs::chown(layout.data_dir.join("owner.lock"), Some(65_534), None).expect("root may");
        fs::hard_link(layout.data_dir.join("owner.lock"), place.join("copy")).expect("a second name");
        layout.own(&OwnedBy::Server).await.expect("it is the owner's");
        fs::remove_dir_all(place).expect("ours");
    }

    #[test]
    fn root_gives_away_no_directory_of_its_own_that_is_in_use() {
        let Some((place, layout, precious)) = somebody_elses("dirs") else { return };
        let nobody = RunAs { uid: 65_534, gid: 65_534, name: "nobody".to_owned() };
        let of_root = place.join("run");
        fs::create_dir(&of_root).expect("a new directory");
        fs::rename(&precious, of_root.join("precious")).expect("it moves");
        // As if DATA_DIR were a link to the parent directory.
        let refused = private_dir(&of_root, Some(&nobody)).expect_err("it is root's");
        assert!(matches!(refused, EmbeddedError::NotOurs { .. }), "{refused}");
        assert_eq!(fs::metadata(&of_root).expect("it is there").uid(), 0);
        // A directory that an earlier root created and did not give away before it was killed.
        fs::create_dir(&layout.socket_dir).expect("a new directory");
        private_dir(&layout.socket_dir, Some(&nobody)).expect("it is empty");
        assert_eq!(fs::metadata(&layout.socket_dir).expect("it is there").uid(), 65_534);
        // A link is not a directory that may be opened to others.
        let (link, hidden) = (place.join("link"), place.join("hidden"));
        fs::create_dir(&hidden).expect("a new directory");
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).expect("ours");
        std::os::unix::fs::symlink(&hidden, &link).expect("a link");
        for path in [link.clone(), link.join("")] {
            Layout::create(&path).expect("it is a directory");
            assert_eq!(fs::metadata(&hidden).expect("it is there").mode() & 0o777, 0o700);
        }
        fs::remove_dir_all(place).expect("ours");
    }
}
