//! A file or directory of this program belongs to the owner of the directory that it is made in: a command of root's, such as the
//! one for the first token, must not be in the way of a service that runs as somebody else.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, fchown};
use std::path::Path;

/// Gives what root has made to the owner of the directory that it is in. Also what an earlier root has left there.
pub(crate) fn give(made: impl AsFd, made_as: &Metadata, dir: &Path) {
    let Some((uid, gid)) = heir(dir) else { return };
    // A file with a second name may be one of root's own.
    if made_as.uid() == 0 && made_as.nlink() == 1 {
        note(dir, fchown(made, Some(uid), Some(gid)));
    }
}

/// The same for a file that was just made.
pub(crate) async fn give_file(made: &tokio::fs::File, path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent().filter(|_| rustix::process::geteuid().is_root()) {
        give(made, &made.metadata().await?, dir);
    }
    Ok(())
}

/// Makes a directory and those above it that are missing. Each belongs to the owner of the one above.
pub(crate) async fn make_dir(dir: &Path) -> io::Result<()> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || make_dir_now(&dir)).await.map_err(io::Error::other)?
}

/// The same, at once.
pub(crate) fn make_dir_now(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o755).create(dir) {
            Ok(()) => {
                if let Some((uid, gid)) = dir.parent().and_then(heir) {
                    note(dir, chown(dir, Some(uid), Some(gid)));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    // An entry that is there is a directory, or that is the error.
    fs::create_dir_all(dir)
}

/// To whom root's things in this directory go, if they do not stay root's.
fn heir(dir: &Path) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let owner = fs::metadata(dir).ok()?;
    (owner.uid() != 0).then(|| (owner.uid(), owner.gid()))
}

fn note(path: &Path, given: io::Result<()>) {
    if let Err(error) = given {
        tracing::warn!(path = %path.display(), %error, "what root makes there cannot be given to its owner");
    }
}
