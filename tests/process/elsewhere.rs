//! Other users, containers and name spaces. Some of these environments only root can make.

use crate::support::{Place, Server, free_port, signal, wait_until};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Somebody who is neither root nor the owner of anything.
const NOBODY: u32 = 65_534;
/// A number without a name.
const NAMELESS: u32 = 54_321;

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

fn give_all(dir: &Path, uid: u32) {
    walk(dir, &mut |path| std::os::unix::fs::lchown(path, Some(uid), Some(uid)).expect("root may"));
}

/// Starts a server as this user, or as who runs the tests.
fn launch_as_user(place: &Place, uid: Option<u32>) -> Server {
    let port = free_port();
    let mut command = place.command(&[]);
    command.env("BIND_ADDR", format!("127.0.0.1:{port}"));
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    place.launch_as(command, port)
}

/// Starts a server by another program, which becomes it.
fn launch_by(place: &Place, program: &str, arguments: &[&str]) -> Server {
    let (port, ours) = (free_port(), place.command(&[]));
    let mut command = Command::new(program);
    command.args(arguments).arg(ours.get_program()).env_clear();
    for (name, value) in ours.get_envs() {
        command.env(name, value.expect("nothing is unset"));
    }
    command.env("BIND_ADDR", format!("127.0.0.1:{port}"));
    place.launch_as(command, port)
}

/// Processes whose parent this is, and their states.
fn children(parent: u32) -> Vec<(u32, char)> {
    let entries = fs::read_dir("/proc").expect("Linux has /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which is in parentheses and may hold some.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        (fields.next()?.parse() == Ok(parent)).then_some((pid, state))
    })
    .collect()
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

#[test]
fn a_stale_number_that_is_now_of_a_thread_keeps_no_postgresql_from_starting() {
    let (place, other) = (Place::new(), Place::new());
    let user = is_root().then_some(NOBODY);
    for place in [&place, &other] {
        fs::create_dir(place.data()).unwrap();
        if user.is_some() {
            chown(place.data(), user, user).unwrap();
        }
    }
    // Another program of the same user, with threads.
    let running = launch_as_user(&other, user);
    running.wait_until_ready();
    let threads = fs::read_dir(format!("/proc/{}/task", running.pid())).unwrap();
    let thread = threads.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok()).max().unwrap();
    assert_ne!(thread, running.pid());

    let server = launch_as_user(&place, user);
    server.wait_until_ready();
    let file = place.data().join("pg/postmaster.pid");
    let left = fs::read_to_string(&file).unwrap();
    server.stop(Signal::TERM);
    for number in [thread, running.pid()] {
        let (_, rest) = left.split_once('\n').unwrap();
        fs::write(&file, format!("{number}\n{rest}")).unwrap();
        if user.is_some() {
            chown(&file, user, user).unwrap();
        }
        let server = launch_as_user(&place, user);
        server.wait_until_ready();
        server.stop(Signal::TERM);
    }
    running.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn the_first_process_of_a_container_reaps_orphans_and_ends_postgresql_in_order() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for by in [Signal::TERM, Signal::KILL] {
        let server = launch_by(&place, "unshare", &["--pid", "--fork", "--kill-child", "--mount-proc"]);
        server.wait_until_ready();
        server.go_live();
        let [(first, _)] = children(server.pid())[..] else { panic!("unshare has one child") };
        // The postmaster is the oldest; its children are then nobody's.
        let postmaster = place.postgres().into_iter().min().expect("PostgreSQL runs");
        assert!(children(postmaster).len() > 3, "{:?}", children(postmaster));
        signal(postmaster, Signal::KILL);
        wait_until("PostgreSQL is running again", || {
            !place.postgres().contains(&postmaster) && server.try_reserve().is_ok_and(|reply| reply.status == 200)
        });
        wait_until("nothing is unreaped", || children(first).iter().all(|(_, state)| *state != 'Z'));
        let [(serving, _)] = children(first)[..] else { panic!("it has one child: {:?}", children(first)) };
        let expected = if by == Signal::TERM {
            signal(first, Signal::TERM);
            0
        } else {
            signal(serving, Signal::KILL);
            137
        };
        let ended = server.ended();
        assert_eq!(ended.code, Some(expected), "{ended:?}");
        place.check_nothing_runs();
        assert!(!place.data().join("pg/postmaster.pid").exists(), "PostgreSQL did not end in order");
    }
}

#[test]
fn the_first_process_of_a_container_lets_postgresql_end_in_order_also_where_the_start_has_failed() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let server = place.serve();
    place.sql("postgres", "ALTER DATABASE holdfast ALLOW_CONNECTIONS false");
    server.stop(Signal::TERM);
    let ended = launch_by(&place, "unshare", &["--pid", "--fork", "--kill-child", "--mount-proc"]).ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("PostgreSQL did not start"), "{ended:?}");
    place.check_nothing_runs();
    assert!(!place.data().join("pg/postmaster.pid").exists(), "PostgreSQL did not end in order");
}

#[test]
fn the_database_ends_with_its_owner_also_without_proc_and_coreutils() {
    if !is_root() {
        return;
    }
    let tools = "for tool in tr sleep ps; do mount --bind /dev/null \"$(command -v $tool)\" || exit 9; done; ";
    let proc = "mount -t tmpfs none /proc || exit 9; ";
    for hidden in [format!("{tools}{proc}"), tools.to_owned(), proc.to_owned()] {
        let place = Place::new();
        let server = launch_by(&place, "unshare", &["--mount", "sh", "-c", &format!("{hidden}exec \"$0\"")]);
        server.wait_until_ready();
        server.go_live();
        server.kill();
        wait_until(&format!("nothing runs: {hidden}"), || place.watcher().is_none() && place.postgres().is_empty());
        let log = fs::read_to_string(place.data().join("postgres.log")).unwrap();
        assert!(log.contains("database system is shut down"), "{hidden}: {log}");
    }
}

#[test]
fn root_that_cannot_run_postgresql_as_another_user_is_told_why_and_nothing_is_fetched() {
    let place = Place::new();
    let mut ways = vec![(vec!["unshare", "--map-root-user"], "user namespace")];
    if is_root() {
        ways.push((vec!["setpriv", "--bounding-set", "-all"], "CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID"));
        ways.push((vec!["setpriv", "--bounding-set", "-setuid"], "capabilities, SETUID are missing"));
    }
    for (way, why) in ways {
        let server = launch_by(&place, way[0], &way[1..]);
        let ended = server.ended();
        let sentence = ended.refusal();
        assert!(
            sentence.contains("PostgreSQL refuses to run as root") && sentence.contains(why),
            "{way:?}: {sentence}"
        );
        assert!(!ended.err.contains("fetching"), "{ended:?}");
        place.check_nothing_runs();
    }
}

#[test]
fn a_user_without_a_name_is_told_what_initdb_needs_and_is_served_where_there_is_a_database() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    chown(place.data(), Some(NAMELESS), Some(NAMELESS)).unwrap();
    for user in [Some(NAMELESS), None] {
        let ended = launch_as_user(&place, user).ended();
        let sentence = ended.refusal();
        assert!(sentence.contains("holdfast:x:54321:") && sentence.contains("/etc/passwd"), "{sentence}");
        place.check_nothing_runs();
    }
    give_all(&place.data(), NOBODY);
    place.serve().stop(Signal::TERM);
    give_all(&place.data(), NAMELESS);
    for user in [Some(NAMELESS), None] {
        let server = launch_as_user(&place, user);
        server.wait_until_ready();
        server.go_live();
        server.stop(Signal::TERM);
    }
    place.check_nothing_runs();
}
