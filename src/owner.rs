//! A file or directory of this program belongs to the owner of the directory that it is made in: a command of root's, such as the
//! one for the first token, must not be in the way of a service that runs as another user.
//!
//! That user may put links where root is about to write. So:
//!
//! - Root opens a directory in another user's only if it is no link, and makes, renames and removes files by that open directory.
//! - Root follows no link below a directory that it makes.
//! - Root gives away only files that it made and holds open.
//! - A file is made under a name that cannot be known beforehand.

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

/// For a directory that is only gone through: it need not be readable.
#[cfg(target_os = "linux")]
const THROUGH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const THROUGH: OFlags = OFlags::RDONLY;
/// For a directory that was just made, or that another user could have replaced by a link.
const UNLINKED: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The end of the name of an unfinished file: `.<name>.<16 hex digits>.new`.
const UNFINISHED: &str = ".new";
/// An unfinished file of this age is abandoned: its process was killed.
const ABANDONED_AFTER: Duration = Duration::from_hours(1);

/// Gives the file that root has made at this path to the owner of the directory. Also one that an earlier root has left there.
pub(crate) fn give(made: impl AsFd, path: &Path) {
    if let Some(heir) = heir_of(place_of(path)) {
        heir.take_file(made, path);
    }
}

/// Refuses to write to a file that has a second name and belongs to somebody else than the directory's owner: that user may have
/// linked it to this path, for root to write to.
pub(crate) fn refuse_planted(file: impl AsFd, path: &Path) -> io::Result<()> {
    let Some(heir) = heir_of(place_of(path)) else { return Ok(()) };
    let found = fstat(file)?;
    if found.st_nlink > 1 && found.st_uid != heir.uid {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is somebody else's, and has another name elsewhere: remove it",
        ));
    }
    Ok(())
}

/// Makes a directory and those above it that are missing. Each belongs to the owner of the one above.
pub(crate) async fn make_dir(dir: &Path) -> io::Result<()> {
    let dir = dir.to_owned();
    at_files(move || make_dir_now(&dir).map(drop)).await
}

/// The same, at once. Gives the directory where it was not there.
pub(crate) fn make_dir_now(dir: &Path) -> io::Result<Option<File>> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    let Some(first) = missing.last() else {
        // An entry that is there is a directory, or that is the error.
        return fs::create_dir_all(dir).map(|()| None);
    };
    let mut above = open_place(place_of(first), THROUGH)?;
    for dir in missing.into_iter().rev() {
        above = make_dir_in(&above, dir)?;
    }
    Ok(Some(above))
}

/// Makes this directory in the one above, which is open, and opens it. A directory that somebody else has put there meanwhile is not
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

/// Opens a directory that is no link; none where it is one.
pub(crate) fn open_dir(dir: &Path) -> io::Result<Option<File>> {
    // With a slash behind it, a link would be followed.
    let dir: PathBuf = dir.components().collect();
    match rustix::fs::open(&dir, UNLINKED | OFlags::RDONLY, Mode::empty()) {
        Ok(opened) => Ok(Some(File::from(opened))),
        Err(Errno::LOOP | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes a file in the place of one that may be there, for its owner alone, and to the disk. Nobody finds half of it.
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

/// Writes a file that is not there yet, likewise. Of two who write one at once, one wins; says whether it was this one.
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

/// Removes files of a directory that were never finished. One that cannot be removed is in nobody's way.
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

/// The names in an open directory that are one of these and have not been written to for so long. A link is as old as itself.
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

/// Whether a file of this name is one that [`Unfinished`] makes.
fn is_unfinished(name: &[u8]) -> bool {
    let inner = name.strip_prefix(b".").and_then(|name| name.strip_suffix(UNFINISHED.as_bytes()));
    inner.and_then(|inner| inner.split_last_chunk::<17>()).is_some_and(|(name, [dot, digits @ ..])| {
        !name.is_empty() && *dot == b'.' && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Makes a new name last over a power cut.
pub(crate) async fn keep_name(path: &Path) -> io::Result<()> {
    let dir = place_of(path).to_owned();
    at_files(move || sync(&File::open(dir)?)).await
}

fn sync(dir: &File) -> io::Result<()> {
    match dir.sync_all() {
        // Some file systems have nothing to do for that, and say so.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// The directory that a file is in.
fn place_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn name_of(path: &Path) -> io::Result<&OsStr> {
    path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))
}

/// Opens the directory that something is made in. Root refuses a link in another user's directory.
fn open_place(dir: &Path, how: OFlags) -> io::Result<File> {
    let follows = heir_of(place_of(dir)).is_none();
    let link = if follows { OFlags::empty() } else { OFlags::NOFOLLOW };
    // With a slash behind it, a link would be followed.
    let bare: PathBuf = dir.components().collect();
    match rustix::fs::open(&bare, how | link | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::LOOP | Errno::NOTDIR) if !follows => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is a link in another user's directory, which root does not follow: remove it", dir.display()),
        )),
        opened => Ok(File::from(opened?)),
    }
}

/// Operations on files may wait for a disk.
async fn at_files<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A file of a directory under a name that nobody knew beforehand. That name is gone with this.
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
        // After a rename there is none.
        let _ = unlinkat(self.dir, &self.name, AtFlags::empty());
    }
}

/// The user that root gives its files to.
#[derive(Clone, Copy)]
struct Heir {
    uid: u32,
    gid: u32,
}

impl Heir {
    /// None where they stay root's, or are not root's to begin with.
    fn of(uid: u32, gid: u32) -> Option<Self> {
        (rustix::process::geteuid().is_root() && uid != 0).then_some(Self { uid, gid })
    }

    /// Takes a file of root's alone: one with a second name may be another of root's own.
    fn take_file(self, made: impl AsFd, path: &Path) {
        if fstat(&made).is_ok_and(|made| made.st_uid == 0 && made.st_nlink == 1) {
            note(path, self.take(made));
        }
    }

    fn take(self, made: impl AsFd) -> io::Result<()> {
        Ok(fchown(made, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?)
    }
}

/// The user that root's files in this directory go to.
fn heir_of(dir: &Path) -> Option<Heir> {
    let owner = fs::metadata(dir).ok()?;
    Heir::of(owner.uid(), owner.gid())
}

fn note(path: &Path, given: io::Result<()>) {
    if let Err(error) = given {
        tracing::warn!(path = %path.display(), %error, "a file that root made there cannot be given to the directory's owner");
    }
}

#[cfg(test)]
mod tests;
