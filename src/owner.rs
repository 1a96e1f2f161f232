//! Files and directories that belong to the owner of their directory: a command of root, such as the one for the first
//! token, must not obstruct a service that runs as another user.
//!
//! That user may put links where root is about to write. So:
//!
//! - Root opens a directory of another user only if it is not a link, and creates, renames and removes files relative
//!   to that open directory.
//! - Root follows no link below a directory that it creates.
//! - Root gives away only files that it created and holds open.
//! - A file is created under a name that nobody can predict.

use crate::types::hex;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fchown, fstat, linkat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Flags for a directory on the path, which need not be readable.
#[cfg(target_os = "linux")]
const THROUGH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const THROUGH: OFlags = OFlags::RDONLY;
/// Flags for a new directory, or for one that another user could have replaced by a link.
const UNLINKED: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The end of an unfinished file's name: `.<name>.<16 hex digits>.new`.
const UNFINISHED: &str = ".new";
/// The age at which an unfinished file counts as abandoned: its process was killed.
const ABANDONED_AFTER: Duration = Duration::from_hours(1);

/// Gives a file that root created at this path, now or earlier, to the owner of the directory.
pub(crate) fn give(made: impl AsFd, path: &Path) {
    if let Some(heir) = heir_of(place_of(path)) {
        heir.take_file(made, path);
    }
}

/// Refuses to write to a file with a second name that belongs to another user than the directory's owner: the owner may
/// have linked it to this path so that root writes to it.
pub(crate) fn refuse_planted(file: impl AsFd, path: &Path) -> io::Result<()> {
    let Some(heir) = heir_of(place_of(path)) else { return Ok(()) };
    let found = fstat(file)?;
    if found.st_nlink > 1 && found.st_uid != heir.uid {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it belongs to another user and has another name elsewhere: remove it",
        ));
    }
    Ok(())
}

/// Creates a directory and its missing parents. Each belongs to the owner of its parent.
pub(crate) async fn make_dir(dir: &Path) -> io::Result<()> {
    let dir = dir.to_owned();
    at_files(move || make_dir_now(&dir).map(drop)).await
}

/// The same, blocking. Returns the directory if it was created.
pub(crate) fn make_dir_now(dir: &Path) -> io::Result<Option<File>> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    let Some(first) = missing.last() else {
        // An existing entry is a directory, or else the error.
        return fs::create_dir_all(dir).map(|()| None);
    };
    let mut above = open_place(place_of(first), THROUGH)?;
    for dir in missing.into_iter().rev() {
        above = make_dir_in(&above, dir)?;
    }
    Ok(Some(above))
}

/// Creates this directory in its open parent and opens it. A directory that another user has put there meanwhile is not
/// given away, and a link is an error.
fn make_dir_in(above: &File, dir: &Path) -> io::Result<File> {
    let name = dir.components().next_back().unwrap_or(Component::CurDir);
    let name: &Path = name.as_ref();
    let made = match mkdirat(above, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let opened = File::from(openat(above, name, UNLINKED | OFlags::RDONLY, Mode::empty())?);
    if made
        && let Some(heir) = Heir::of(fstat(above)?.st_uid, fstat(above)?.st_gid)
        && fstat(&opened)?.st_uid == 0
    {
        note(dir, heir.take(&opened));
    }
    Ok(opened)
}

/// Opens a directory; none if it is a link.
pub(crate) fn open_dir(dir: &Path) -> io::Result<Option<File>> {
    // With a trailing slash, a link would be followed.
    let dir: PathBuf = dir.components().collect();
    match rustix::fs::open(&dir, UNLINKED | OFlags::RDONLY, Mode::empty()) {
        Ok(opened) => Ok(Some(File::from(opened))),
        Err(Errno::LOOP | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes a file durably for its owner alone, replacing an existing one. Nobody reads half of it.
pub(crate) async fn replace(path: &Path, text: String) -> io::Result<()> {
    let path = path.to_owned();
    at_files(move || {
        let dir = open_place(place_of(&path), OFlags::RDONLY)?;
        let new = Unfinished::write(&dir, &path, &text)?;
        renameat(&dir, &new.name, &dir, name_of(&path)?)?;
        sync(&dir)
    })
    .await
}

/// Writes a new file in the same way. If two processes create one at once, one wins; returns true for the winner.
pub(crate) async fn create(path: &Path, text: String) -> io::Result<bool> {
    let path = path.to_owned();
    at_files(move || {
        let dir = open_place(place_of(&path), OFlags::RDONLY)?;
        let new = Unfinished::write(&dir, &path, &text)?;
        match linkat(&dir, &new.name, &dir, name_of(&path)?, AtFlags::empty()) {
            Err(Errno::EXIST) => return Ok(false),
            linked => linked?,
        }
        sync(&dir)?;
        Ok(true)
    })
    .await
}

/// Removes unfinished files from a directory. Failures are ignored: such a file obstructs nobody.
pub(crate) async fn remove_abandoned(dir: &Path) {
    let dir = dir.to_owned();
    let removed = at_files(move || {
        let dir = open_place(&dir, OFlags::RDONLY)?;
        for name in old_entries(&dir, ABANDONED_AFTER, is_unfinished)? {
            let _ = unlinkat(&dir, name, AtFlags::empty());
        }
        Ok(())
    });
    let _ = removed.await;
}

/// The names in an open directory that `is_one` accepts and that were last written at least this long ago. A link has
/// its own age.
pub(crate) fn old_entries(dir: &File, age: Duration, is_one: impl Fn(&[u8]) -> bool) -> io::Result<Vec<OsString>> {
    let is_old = |name: &OsStr| {
        let entry = openat(dir, name, THROUGH | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        let made = entry.ok().and_then(|entry| File::from(entry).metadata().and_then(|made| made.modified()).ok());
        made.and_then(|made| made.elapsed().ok()).is_some_and(|passed| passed > age)
    };
    let mut old = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if is_one(name.as_bytes()) && is_old(name) {
            old.push(name.to_owned());
        }
    }
    Ok(old)
}

/// True for the name of a file that [`Unfinished`] creates.
fn is_unfinished(name: &[u8]) -> bool {
    let inner = name.strip_prefix(b".").and_then(|name| name.strip_suffix(UNFINISHED.as_bytes()));
    inner.and_then(|inner| inner.split_last_chunk::<17>()).is_some_and(|(name, [dot, digits @ ..])| {
        !name.is_empty() && *dot == b'.' && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Makes a new name survive a power cut.
pub(crate) async fn keep_name(path: &Path) -> io::Result<()> {
    let dir = place_of(path).to_owned();
    at_files(move || sync(&File::open(dir)?)).await
}

fn sync(dir: &File) -> io::Result<()> {
    match dir.sync_all() {
        // Some file systems need nothing for that and return this error.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

fn place_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn name_of(path: &Path) -> io::Result<&OsStr> {
    path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))
}

/// Opens the directory of a new entry. Root refuses a link in another user's directory.
fn open_place(dir: &Path, how: OFlags) -> io::Result<File> {
    let follows = heir_of(place_of(dir)).is_none();
    let link = if follows { OFlags::empty() } else { OFlags::NOFOLLOW };
    // With a trailing slash, a link would be followed.
    let bare: PathBuf = dir.components().collect();
    match rustix::fs::open(&bare, how | link | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::LOOP | Errno::NOTDIR) if !follows => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is a link in another user's directory, which root does not follow: remove it", dir.display()),
        )),
        opened => Ok(File::from(opened?)),
    }
}

/// Runs file operations in a thread where they may wait for a disk.
async fn at_files<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A file of a directory under an unpredictable name, which is removed on drop.
struct Unfinished<'a> {
    dir: &'a File,
    name: String,
}

impl<'a> Unfinished<'a> {
    fn write(dir: &'a File, path: &Path, text: &str) -> io::Result<Self> {
        let mut attempt = [0; 8];
        getrandom::fill(&mut attempt).map_err(io::Error::other)?;
        let name = format!(".{}.{}{UNFINISHED}", name_of(path)?.to_string_lossy(), hex(&attempt));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(dir, &name, flags, Mode::from_raw_mode(0o600))?);
        let new = Self { dir, name };
        let owner = fstat(dir)?;
        if let Some(heir) = Heir::of(owner.st_uid, owner.st_gid) {
            heir.take_file(&file, path);
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(new)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // After a rename the name no longer exists.
        let _ = unlinkat(self.dir, &self.name, AtFlags::empty());
    }
}

/// The user that gets root's files.
#[derive(Clone, Copy)]
struct Heir {
    uid: u32,
    gid: u32,
}

impl Heir {
    /// None if they stay root's, or never were root's.
    fn of(uid: u32, gid: u32) -> Option<Self> {
        (rustix::process::geteuid().is_root() && uid != 0).then_some(Self { uid, gid })
    }

    /// Takes only a file of root: one with a second name may be another of root's own.
    fn take_file(self, made: impl AsFd, path: &Path) {
        if fstat(&made).is_ok_and(|made| made.st_uid == 0 && made.st_nlink == 1) {
            note(path, self.take(made));
        }
    }

    fn take(self, made: impl AsFd) -> io::Result<()> {
        Ok(fchown(made, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?)
    }
}

/// The user that gets root's files in this directory.
fn heir_of(dir: &Path) -> Option<Heir> {
    let owner = fs::metadata(dir).ok()?;
    Heir::of(owner.uid(), owner.gid())
}

fn note(path: &Path, given: io::Result<()>) {
    if let Err(error) = given {
        tracing::warn!(path = %path.display(), %error, "a file that root created could not be given to the directory's owner");
    }
}

#[cfg(test)]
mod tests;
