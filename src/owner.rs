//! A file or directory of this program belongs to the owner of the directory that it is made in: a command of root's, such as the
//! one for the first token, must not be in the way of a service that runs as somebody else.
//!
//! That owner may put links where root is about to write. So root follows none below the directory that was there before, gives
//! nothing away but what it holds open and has made, and makes files under names that nobody can know beforehand.

use crate::types::hex;
use rustix::fs::{Mode, OFlags, fchown, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// For a directory that is only gone through: it need not be readable.
#[cfg(target_os = "linux")]
const THROUGH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const THROUGH: OFlags = OFlags::RDONLY;
/// For a directory that was just made, or whose owner could have put something else there.
const UNLINKED: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What the name of a file ends with that is not finished.
const UNFINISHED: &str = ".new";
/// A file that is not finished after so long never will be: its process was killed.
const ABANDONED_AFTER: Duration = Duration::from_hours(1);

/// Gives the file that root has made at this path to the owner of the directory. Also what an earlier root has left there.
pub(crate) fn give(made: impl AsFd, path: &Path) {
    let Some(heir) = heir_of(place_of(path)) else { return };
    // A file with a second name may be one of root's own.
    if fstat(&made).is_ok_and(|made| made.st_uid == 0 && made.st_nlink == 1) {
        note(path, heir.take(made));
    }
}

/// Refuses to write to a file that is neither the directory's owner's nor alone: they may have linked somebody else's to this path,
/// for root to write to.
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
    let mut above =
        File::from(rustix::fs::open(place_of(first), THROUGH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
    for dir in missing.into_iter().rev() {
        above = make_dir_in(&above, dir)?;
    }
    Ok(Some(above))
}

/// Makes this directory in the one above, which is open, and opens it. What somebody else has put there meanwhile is not given away,
/// and is no link.
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
        let new = Unfinished::write(&path, &text)?;
        fs::rename(&new.0, &path)?;
        sync_dir(place_of(&path))
    })
    .await
}

/// Writes a file that is not there yet, likewise. Of two who write one at once, one wins; says whether it was this one.
pub(crate) async fn create(path: &Path, text: String) -> io::Result<bool> {
    let path = path.to_owned();
    at_files(move || {
        let new = Unfinished::write(&path, &text)?;
        match fs::hard_link(&new.0, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            linked => linked?,
        }
        sync_dir(place_of(&path))?;
        Ok(true)
    })
    .await
}

/// Removes files of a directory that were never finished. One that cannot be removed is in nobody's way.
pub(crate) async fn remove_abandoned(dir: &Path) {
    let dir = dir.to_owned();
    let removed = at_files(move || {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let made = entry.metadata().and_then(|made| made.modified()).ok();
            let is_old = made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > ABANDONED_AFTER);
            if is_old && entry.file_name().as_encoded_bytes().ends_with(UNFINISHED.as_bytes()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    });
    let _ = removed.await;
}

/// Makes a new name last over a power cut.
pub(crate) async fn keep_name(path: &Path) -> io::Result<()> {
    let dir = place_of(path).to_owned();
    at_files(move || sync_dir(&dir)).await
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // Some file systems have nothing to do for that, and say so.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// The directory that a file is in.
fn place_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Operations on files may wait for a disk.
async fn at_files<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A file under a name that nobody knew beforehand; that name is gone with this.
struct Unfinished(PathBuf);

impl Unfinished {
    fn write(path: &Path, text: &str) -> io::Result<Self> {
        let mut attempt = [0; 8];
        getrandom::fill(&mut attempt).map_err(io::Error::other)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = path.with_file_name(format!(".{name}.{}{UNFINISHED}", hex(&attempt)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let new = Self(new);
        give(&file, path);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(new)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is none.
        let _ = fs::remove_file(&self.0);
    }
}

/// To whom things of root's go.
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

    fn take(self, made: impl AsFd) -> io::Result<()> {
        Ok(fchown(made, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?)
    }
}

/// To whom root's things in this directory go.
fn heir_of(dir: &Path) -> Option<Heir> {
    let owner = fs::metadata(dir).ok()?;
    Heir::of(owner.uid(), owner.gid())
}

fn note(path: &Path, given: io::Result<()>) {
    if let Err(error) = given {
        tracing::warn!(path = %path.display(), %error, "what root makes there cannot be given to its owner");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    const NOBODY: u32 = 65_534;

    fn new_place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("holdfast-owner-{name}-{}", std::process::id()));
        fs::create_dir(&place).unwrap();
        place
    }

    #[test]
    fn root_gives_nothing_away_through_a_link_that_takes_the_place_of_a_new_directory() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let place = new_place("race");
        let (theirs, precious) = (place.join("theirs"), place.join("precious"));
        for dir in [&theirs, &precious] {
            fs::create_dir(dir).unwrap();
        }
        chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
        let (new, moved) = (theirs.join("new"), theirs.join("moved"));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // The owner of the directory, who may move whatever is in it.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if fs::rename(&new, &moved).is_ok() {
                        let _ = symlink(&precious, &new);
                    }
                }
            });
            for _ in 0..2_000 {
                // Whether it is in time is left to chance.
                let _ = make_dir_now(&new);
                let _ = fs::remove_file(&new);
                let _ = fs::remove_dir(&new);
                let _ = fs::remove_dir(&moved);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_missing_directory_is_made_with_those_above_it_and_anything_else_at_its_place_is_an_error() {
        let place = new_place("dirs");
        for path in ["a/b/c", "a/x/../d/", "a/b"] {
            let dir = place.join(path);
            let is_new = !dir.exists();
            assert_eq!(make_dir_now(&dir).unwrap().is_some(), is_new, "{path}");
            assert!(dir.is_dir(), "{path}");
            assert!(make_dir_now(&dir).unwrap().is_none(), "{path}");
        }
        fs::write(place.join("file"), "").unwrap();
        symlink(place.join("nowhere"), place.join("link")).unwrap();
        for path in ["file", "file/below", "link"] {
            make_dir_now(&place.join(path)).unwrap_err();
        }
        assert!(!place.join("nowhere").exists());
        fs::remove_dir_all(place).unwrap();
    }

    #[tokio::test]
    async fn a_file_is_made_once_and_replaced_as_often_as_one_likes() {
        let place = new_place("files");
        let path = place.join("file");
        assert!(create(&path, "one".to_owned()).await.unwrap());
        assert!(!create(&path, "two".to_owned()).await.unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        replace(&path, "three".to_owned()).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        replace(&place.join("nowhere/file"), String::new()).await.unwrap_err();
        // What is being written by somebody else is left to them.
        let (now, before) = (place.join(".file.1.new"), place.join(".file.2.new"));
        for name in [&now, &before] {
            fs::write(name, "half").unwrap();
        }
        let old = fs::metadata(&before).unwrap().modified().unwrap() - ABANDONED_AFTER * 2;
        File::options().write(true).open(&before).unwrap().set_modified(old).unwrap();
        remove_abandoned(&place).await;
        assert_eq!((now.exists(), before.exists(), path.exists()), (true, false, true));
        fs::remove_dir_all(place).unwrap();
    }
}
