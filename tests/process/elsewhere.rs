//! Other users, containers and name spaces. Some of these environments only root can make.

use crate::support::{Place, free_port, wait_until};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

/// Somebody who is neither root nor the owner of anything.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everything below a directory, itself included.
fn walk(dir: &Path, see: &mut impl FnMut(&Path)) {
    see(dir);
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            walk(&entry.path(), see);
        } else {
            see(&entry.path());
        }
    }
}

#[test]
fn whatever_roots_commands_make_belongs_to_the_owner_of_the_directory() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("home")).unwrap();
    chown(place.path("home"), Some(NOBODY), Some(NOBODY)).unwrap();
    for name in ["home/data", "home/deep/data"] {
        let data = place.path(name);
        let env = [("DATA_DIR", data.to_str().unwrap())];
        for arguments in [
            &["migrate"][..],
            &["token", "create", "--name", "admin", "--scopes", "admin,read"],
            &["audit", "checkpoint"],
            &["db", "accept-rewind", "--reason", "test"],
            &["kill"],
        ] {
            let ended = place.run(arguments, &env);
            assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        }
        let checkpoints = [env[0], ("CHECKPOINT_EVERY", "1s")];
        let server = place.serve_with(&[], &checkpoints);
        wait_until("a checkpoint is kept", || fs::read_dir(data.join("checkpoints")).is_ok_and(|dir| dir.count() > 0));
        server.stop(Signal::TERM);
        walk(&place.path("home"), &mut |path| {
            let owner = fs::symlink_metadata(path).expect("it is there");
            assert_eq!((owner.uid(), owner.gid() == 0), (NOBODY, false), "{}", path.display());
        });
        let mut theirs = place.command(&[]);
        let port = free_port();
        theirs.env("BIND_ADDR", format!("127.0.0.1:{port}")).env("DATA_DIR", &data).uid(NOBODY).gid(NOBODY);
        let server = place.launch_as(theirs, port);
        server.wait_until_ready();
        let log = server.stop(Signal::TERM);
        assert!(!log.contains("no checkpoints of the audit trail are signed"), "{log}");
    }
    place.check_nothing_runs();
}
