//! The messages of a misconfigured server, which leaves nothing running.

use crate::support::{Ended, Place, Server, free_port};
use rustix::process::Signal;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

const PASSWORD: &str = "s3cr3t-pw";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Tries to serve with these settings, which cannot work.
#[track_caller]
fn refused(place: &Place, env: &[(&str, &str)]) -> Ended {
    let bind = format!("127.0.0.1:{}", free_port());
    let mut all = vec![("BIND_ADDR", bind.as_str())];
    all.extend(env);
    let ended = place.run(&["serve"], &all);
    assert_eq!(ended.code, Some(1), "{env:?}: {ended:?}");
    place.check_nothing_runs();
    assert!(!ended.err.contains("panicked"), "{env:?}: {ended:?}");
    ended
}

/// These settings are refused by a text that names the variable.
#[track_caller]
fn names_the_variable(variable: &str, values: &[&str]) {
    let place = Place::new();
    for value in values {
        let ended = refused(&place, &[(variable, value)]);
        assert!(!place.data().exists(), "{variable}={value} touched DATA_DIR");
        assert!(ended.err.contains(variable), "{variable}={value} is refused without naming {variable}: {}", ended.err);
    }
}

#[test]
fn an_unparseable_bind_addr_is_named() {
    names_the_variable("BIND_ADDR", &["nonsense", "127.0.0.1", "127.0.0.1:70000", ":8000"]);
}

#[test]
fn an_unparseable_go_live_enforce_is_named() {
    names_the_variable("GO_LIVE_ENFORCE", &["maybe", "2", "-1"]);
}

#[test]
fn unparseable_drain_seconds_are_named() {
    names_the_variable("DRAIN_SECONDS", &["", "601", "-1", "5s", "0.5"]);
}

#[test]
fn an_unparseable_enforcement_scope_is_named() {
    names_the_variable("ENFORCEMENT_SCOPE", &["x", "prod"]);
}

#[test]
fn an_unparseable_log_format_is_named() {
    names_the_variable("LOG_FORMAT", &["x"]);
}

#[test]
fn an_unparseable_rust_log_is_named() {
    names_the_variable("RUST_LOG", &["a=b=c", "holdfast=loud", "!!!"]);
}

#[test]
fn an_unparseable_required_pack_is_named() {
    names_the_variable("REQUIRED_PACKS", &["a b", "ok,Ümlaut", "a,../b"]);
}

#[test]
fn an_unparseable_database_url_is_named() {
    names_the_variable(
        "DATABASE_URL",
        &["nonsense", "postgres://h:99999/x", "postgres://h:x/y", "postgres://h/x?sslmode=maybe"],
    );
}

#[test]
fn a_password_that_ends_the_url_is_told_apart_from_a_bad_port() {
    let place = Place::new();
    for password in ["qx/qx", "qx?qx", "qx#qx"] {
        let url = format!("postgres://u:{password}@127.0.0.1:1/x");
        let ended = refused(&place, &[("DATABASE_URL", &url)]);
        let sentence = ended.refusal();
        assert!(sentence.contains("%2F") && !sentence.contains("qx"), "{sentence}");
    }
    let ended = refused(&place, &[("DATABASE_URL", "postgres://u:x@127.0.0.1:99999/x")]);
    let sentence = ended.refusal();
    assert!(!sentence.contains("%2F"), "{sentence}");
}

#[test]
fn an_ipv6_address_of_the_database_is_asked_and_not_looked_up() {
    let place = Place::new();
    let url = format!("postgres://u@[::1]:{}/x", free_port());
    let ended = refused(&place, &[("DATABASE_URL", &url)]);
    let sentence = ended.refusal();
    assert!(!sentence.contains("lookup"), "{sentence}");
}

#[test]
fn localhost_is_an_address_to_listen_on() {
    let place = Place::new();
    let port = free_port();
    let mut child = place.command(&["serve", "--bind-addr", &format!("localhost:{port}")]).spawn().expect("it runs");
    crate::support::wait_until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let addr = format!("localhost:{port}");
    let asked = place.run(&["healthcheck", "--live", "--bind-addr", &addr], &[]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    crate::support::signal(child.id(), Signal::TERM);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_data_home_without_a_home_is_a_place_for_the_data() {
    let place = Place::new();
    let share = place.data().with_file_name("share");
    let mut command = place.command(&["review"]);
    command.env_remove("HOME").env_remove("DATA_DIR").env("XDG_DATA_HOME", &share);
    let said = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&said.stderr);
    // Root has a place of its own.
    let expected =
        if is_root() { "/var/lib/holdfast".to_owned() } else { share.join("holdfast").display().to_string() };
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn nothing_that_it_makes_is_for_others_to_write() {
    let place = Place::new();
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let server = place.serve();
    rustix::process::umask(before);
    let answer = server.post("/go-live/kill-switch/engage", &serde_json::json!({"actor": "test"}));
    assert_eq!(answer.status, 200);
    assert_eq!(place.run(&["audit", "checkpoint"], &[]).code, Some(0));
    server.stop(Signal::TERM);
    let mut left = vec![place.data().clone()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("it can be listed").map(|entry| entry.expect("an entry")) {
            let meta = entry.metadata().expect("it is there");
            assert_eq!(meta.permissions().mode() & 0o022, 0, "{}", entry.path().display());
            // The cluster is PostgreSQL's.
            if meta.is_dir() && entry.file_name() != "pg" && entry.file_name() != "run" {
                left.push(entry.path());
            }
        }
    }
}

#[test]
fn a_database_url_of_another_database_is_refused_for_its_scheme() {
    let place = Place::new();
    let ended = refused(&place, &[("DATABASE_URL", "mysql://root@127.0.0.1:1/x")]);
    let sentence = ended.refusal();
    assert!(sentence.contains("DATABASE_URL cannot be read"), "{sentence}");
}

#[test]
fn an_unreachable_database_is_one_sentence_that_says_why() {
    let place = Place::new();
    let nobody = format!("postgres://u@127.0.0.1:{}/x", free_port());
    for (url, why) in [
        ("postgres://u@nosuchhost.invalid/x", "lookup"),
        ("postgres://u@localhost/x?host=/nonexistent", "No such file"),
        (nobody.as_str(), "refused"),
    ] {
        let ended = refused(&place, &[("DATABASE_URL", url)]);
        let sentence = ended.refusal();
        assert!(sentence.contains("DATABASE_URL"), "{url}: {sentence}");
        assert!(sentence.contains(why), "{url}: the cause is missing: {sentence}");
    }
}

#[test]
fn the_password_of_the_database_url_is_never_printed() {
    let place = Place::new();
    let urls = [
        format!("postgres://u:{PASSWORD}@nosuchhost.invalid/x"),
        format!("postgres://u:{PASSWORD}@127.0.0.1:{}/x", free_port()),
        format!("postgres://u:{PASSWORD}@h:99999/x"),
        format!("postgres://u:{PASSWORD}@[::1/x"),
        format!("postgres://u@h/x?password={PASSWORD}&sslmode=maybe"),
        format!("mysql://u:{PASSWORD}@nosuchhost.invalid/x"),
        PASSWORD.to_owned(),
    ];
    std::thread::scope(|scope| {
        for url in &urls {
            let place = &place;
            scope.spawn(move || {
                for arguments in [&["serve"][..], &["migrate"], &["review"]] {
                    let env = [("DATABASE_URL", url.as_str()), ("RUST_LOG", "trace"), ("BIND_ADDR", "127.0.0.1:0")];
                    let ended = place.run(arguments, &env);
                    assert_ne!(ended.code, Some(0), "{url}: {ended:?}");
                    assert!(!format!("{ended:?}").contains(PASSWORD), "{ended:?}");
                }
            });
        }
        let help = place.run(&["--help"], &[("DATABASE_URL", &urls[0])]);
        assert!(!help.out.contains(PASSWORD), "{help:?}");
        let wrong = place.run(&["--nonsense"], &[("DATABASE_URL", &urls[0])]);
        assert!(!wrong.err.contains(PASSWORD), "{wrong:?}");
    });
}

#[test]
fn a_password_that_works_is_never_printed_either() {
    let place = Place::new();
    let owner = place.serve();
    let other = Place::new();
    // The private PostgreSQL asks nobody for a password, so any works.
    let url = place.url("holdfast").replace("holdfast@", &format!("holdfast:{PASSWORD}@"));
    let server = other.serve_with(&[], &[("DATABASE_URL", &url), ("RUST_LOG", "trace")]);
    server.get("/go-live/state").ok();
    // Lost under way: what is logged then names the connection.
    owner.kill();
    crate::support::wait_until("the loss is noticed", || server.get_root("/readyz").status == 503);
    let answer = server.get("/go-live/state");
    answer.unavailable();
    assert!(!answer.text.contains(PASSWORD));
    let log = server.stop(Signal::TERM);
    assert!(!log.contains(PASSWORD), "the password is in the log");
}

#[test]
fn a_port_that_is_taken_is_one_sentence_and_starts_no_postgresql() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let ended = refused(&place, &[("BIND_ADDR", &addr)]);
    let sentence = ended.refusal();
    assert!(sentence.contains("BIND_ADDR") && sentence.contains(&addr), "{sentence}");
    assert!(!place.data().exists(), "PostgreSQL was started before the port was taken");
}

#[test]
fn an_address_that_is_not_loopback_needs_a_token_or_insecure() {
    let place = Place::new();
    let port = free_port();
    for addr in [format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
        let ended = refused(&place, &[("BIND_ADDR", &addr)]);
        let sentence = ended.refusal();
        let told = ["BIND_ADDR", "holdfast token create", "--insecure"];
        assert!(told.iter().all(|word| sentence.contains(word)), "{sentence}");
    }
    let addr = format!("0.0.0.0:{port}");
    let mut command = place.command(&["serve", "--insecure"]);
    command.env("BIND_ADDR", &addr);
    let server = place.launch_as(command, port);
    server.wait_until_ready();
    let healthy = place.run(&["healthcheck"], &[("BIND_ADDR", &addr)]);
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
    assert!(server.log().contains("OPEN MODE"));
}

#[test]
fn a_data_dir_that_cannot_be_used_is_one_sentence() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    fs::create_dir(place.path("closed")).unwrap();
    // Not empty: an empty one of its own the server opens for itself.
    fs::write(place.path("closed/file"), "").unwrap();
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let mut dirs = vec![place.path("file/below"), place.path("file"), "/proc/holdfast".into()];
    if !is_root() {
        dirs.push(place.path("closed"));
        dirs.push(place.path("closed/below"));
    }
    for dir in dirs {
        let dir = dir.to_str().unwrap();
        let ended = refused(&place, &[("DATA_DIR", dir)]);
        let sentence = ended.refusal();
        assert!(sentence.contains("DATA_DIR") && sentence.contains(dir), "{sentence}");
    }
    // So that it can be removed.
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_data_dir_that_postgresql_cannot_reach_is_one_sentence() {
    if !is_root() {
        return; // PostgreSQL then runs as the same user.
    }
    let place = Place::new();
    fs::create_dir(place.path("private")).unwrap();
    fs::set_permissions(place.path("private"), fs::Permissions::from_mode(0o700)).unwrap();
    let dir = place.path("private/data");
    let ended = refused(&place, &[("DATA_DIR", dir.to_str().unwrap())]);
    let sentence = ended.refusal();
    assert!(sentence.contains("DATA_DIR") && sentence.contains("chmod"), "{sentence}");
}

#[test]
fn a_wrong_pg_bin_dir_is_one_sentence() {
    let place = Place::new();
    for dir in ["/nonexistent", "/etc", "/etc/passwd"] {
        let ended = refused(&place, &[("PG_BIN_DIR", dir)]);
        let sentence = ended.refusal();
        assert!(sentence.contains(&format!("PG_BIN_DIR={dir}")), "{sentence}");
    }
    let programs = |said: &str| {
        let dir = place.path("programs");
        fs::create_dir_all(&dir).unwrap();
        for name in ["initdb", "postgres"] {
            fs::write(dir.join(name), format!("#!/bin/sh\n{said}\n")).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let ended = refused(&place, &[("PG_BIN_DIR", dir.to_str().unwrap())]);
        ended.refusal().to_owned()
    };
    let old = programs("echo 'postgres (PostgreSQL) 13.4'");
    assert!(old.contains("PostgreSQL 14 or newer is needed") && old.contains("13.4"), "{old}");
    let broken = programs("echo 'no such library' >&2; exit 127");
    assert!(broken.contains("PG_BIN_DIR") && broken.contains("no such library"), "{broken}");
    let failing =
        programs("[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) 15.1' || { echo 'no room' >&2; exit 1; }");
    assert!(failing.contains("initdb") && failing.contains("no room"), "{failing}");
}

#[test]
fn a_second_server_on_one_data_dir_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let first: Server = place.serve();
    let postmaster = place.postmaster();
    let bind = format!("127.0.0.1:{}", free_port());
    let ended = place.run(&["serve"], &[("BIND_ADDR", &bind)]);
    let sentence = ended.refusal();
    assert!(
        sentence.contains("already in use")
            && sentence.contains(&first.pid().to_string())
            && sentence.contains("DATA_DIR"),
        "{sentence}"
    );
    assert_eq!(place.postmaster(), postmaster);
    first.get_root("/readyz").ok();
    first.get("/go-live/state").ok();
}

#[test]
fn an_unknown_flag_or_command_is_refused_and_help_and_version_are_not() {
    let place = Place::new();
    for arguments in
        [&["--nonsense"][..], &["nonsense"], &["serve", "extra"], &["db"], &["--bind-addr", "127.0.0.1:1", "migrate"]]
    {
        let ended = place.run(arguments, &[]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains("holdfast") || ended.err.contains("--help"), "{ended:?}");
    }
    for (arguments, said) in
        [(&["--help"][..], "migrate"), (&["serve", "--help"], "BIND_ADDR"), (&["--version"], env!("CARGO_PKG_VERSION"))]
    {
        let ended = place.run(arguments, &[]);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{arguments:?}: {ended:?}");
        assert!(ended.out.contains(said), "{ended:?}");
    }
    assert!(!place.data().exists());
}
