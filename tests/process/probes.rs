//! The answers of an instance before it can serve.

use crate::support::{Place, Server, free_port, signal, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

const WAITS: &str = "migrations wait for a lock";

/// Alive, not ready for this reason, and closed to everything else.
#[track_caller]
fn starts(server: &Server, reason: &str) {
    wait_until(reason, || {
        server.try_get("/readyz").is_ok_and(|reply| {
            assert_eq!(reply.status, 503, "{}", reply.text);
            reply.json["ready"] == false && reply.json["reason"].as_str().is_some_and(|said| said.contains(reason))
        })
    });
    server.get_root("/livez").ok();
    server.get_root("/health").ok();
    assert_eq!(server.get_root("/metrics").status, 200);
    assert_eq!(server.get_root("/api/deals").unavailable(), "STATE_STALE");
    assert_eq!(server.get("/go-live/state").unavailable(), "ACCESS_UNKNOWN");
    assert_eq!(server.try_reserve().expect("an answer").unavailable(), "ACCESS_UNKNOWN");
    let engaged = server.post("/go-live/kill-switch/engage", &json!({"actor": "test"}));
    assert_eq!(engaged.unavailable(), "ACCESS_UNKNOWN");
    let request = "GET /api/governance/authz/nginx HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                   X-Original-URI: /api/deals\r\nX-Original-Method: GET\r\n\r\n";
    let refused = server.exchange(request.as_bytes()).expect("an answer");
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert_eq!(refused.header("x-governance-reason"), Some("access_unknown"));
}

fn sessions_that_wait(place: &Place) -> usize {
    place.sql("holdfast", "SELECT pid::text FROM pg_locks WHERE NOT granted").len()
}

#[test]
fn a_healthcheck_asks_as_http_1_1_does_of_the_host_and_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let asked = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("it asks");
        let (mut asked, mut piece) = (Vec::new(), [0; 1024]);
        while !asked.ends_with(b"\r\n\r\n") {
            let length = client.read(&mut piece).expect("it asks");
            asked.extend_from_slice(&piece[..length]);
        }
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").expect("it listens");
        String::from_utf8(asked).expect("text")
    });
    let ended = Place::new().run(&["healthcheck", "--bind-addr", &addr], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let expected = format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    assert_eq!(asked.join().expect("it was asked"), expected);
}

#[test]
fn a_healthcheck_reads_no_answer_without_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let answers = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("it asks");
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("it listens");
        // Until it has read enough.
        while client.write_all(&[0xff; 16 * 1024]).is_ok() {}
    });
    let ended = Place::new().run(&["healthcheck", "--bind-addr", &addr], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    answers.join().expect("it ended the connection");
}

#[test]
fn probes_answer_while_a_migration_waits_and_its_session_ends_with_the_process() {
    let place = Place::new();
    let owner = place.serve();
    owner.go_live();
    let applied = "SELECT concat_ws(' ', version, success, execution_time) FROM _sqlx_migrations ORDER BY version";
    let before = place.sql("holdfast", applied);
    let other = Place::new();
    let metrics = free_port();
    let start = || {
        let addr = format!("127.0.0.1:{metrics}");
        other.launch(&[], &[("DATABASE_URL", &place.url("holdfast")), ("METRICS_ADDR", &addr)])
    };
    for lock in [
        "LOCK TABLE _sqlx_migrations",
        "SELECT pg_advisory_xact_lock(objid::bigint | (classid::bigint << 32))::text FROM held",
    ] {
        for end in [Signal::TERM, Signal::KILL] {
            let mut holder = place.session("holdfast");
            if lock.contains("held") {
                // The migration tool shows which lock it takes while it waits for the table.
                let mut table = place.session("holdfast");
                table.sql("BEGIN");
                table.sql("LOCK TABLE _sqlx_migrations");
                let asker = start();
                starts(&asker, WAITS);
                holder.sql("CREATE TEMP TABLE held AS SELECT * FROM pg_locks WHERE locktype = 'advisory' AND granted");
                asker.kill();
                wait_until("its session has ended", || sessions_that_wait(&place) == 0);
            }
            holder.sql("BEGIN");
            holder.sql(lock);
            let server = start();
            starts(&server, WAITS);
            signal(server.pid(), end);
            let ended = server.ended();
            if end == Signal::TERM {
                assert_eq!(ended.code, Some(0), "{ended:?}");
            }
            assert!(ended.err.contains("the migrations wait for a lock"), "{ended:?}");
            wait_until("its session has ended", || sessions_that_wait(&place) == 0);
        }
    }
    assert_eq!(place.sql("holdfast", applied), before);
    // Nothing is half done: the next start finds it as it was, and waits only for as long as it has to.
    let mut holder = place.session("holdfast");
    holder.sql("BEGIN");
    holder.sql("LOCK TABLE _sqlx_migrations");
    let server = start();
    starts(&server, WAITS);
    holder.sql("COMMIT");
    server.wait_until_ready();
    assert_eq!(server.try_reserve().expect("an answer").ok()["ok"], true);
    server.stop(Signal::TERM);
}

#[test]
fn probes_answer_from_the_first_second_while_postgresql_starts() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    server.stop(Signal::TERM);
    let options = fs::read_to_string(place.data().join("pg/postmaster.opts")).expect("the command line of PostgreSQL");
    let programs = options.split_once("/postgres ").expect("a program and its arguments").0;
    // PostgreSQL's programs, but that the server waits for as long as there is this file.
    let (slow, held) = (place.path("slow"), place.path("held"));
    fs::create_dir(&slow).expect("a directory");
    fs::write(&held, "").expect("a file");
    let wait = format!("[ \"$1\" = --version ] || while [ -e '{}' ]; do sleep 0.05; done", held.display());
    for (name, wait) in [("postgres", wait.as_str()), ("initdb", "")] {
        let script = format!("#!/bin/sh\n{wait}\nexec '{programs}/{name}' \"$@\"\n");
        fs::write(slow.join(name), script).expect("a script");
        fs::set_permissions(slow.join(name), Permissions::from_mode(0o755)).expect("an executable");
    }
    let server = place.launch(&[], &[("PG_BIN_DIR", &slow.display().to_string())]);
    starts(&server, "the database is being opened");
    fs::remove_file(&held).expect("the file");
    server.wait_until_ready();
    assert_eq!(server.try_reserve().expect("an answer").ok()["ok"], true);
    server.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn a_start_waits_for_a_database_that_is_away_and_for_no_other_mistake() {
    let place = Place::new();
    place.serve().stop(Signal::TERM);
    let (other, url) = (Place::new(), place.url("holdfast"));
    let waiting = [("DATABASE_URL", url.as_str()), ("DATABASE_WAIT_SECONDS", "600")];
    let server = other.launch(&[], &waiting);
    starts(&server, "the database is away");
    let log = server.stop(Signal::TERM);
    assert!(log.contains("waiting up to 600 s for it"), "{log}");
    assert!(log.contains("stopped before the database was ready"), "{log}");

    let server = other.launch(&[], &waiting);
    starts(&server, "the database is away");
    let owner = place.serve();
    server.wait_until_ready();
    server.go_live();
    assert_eq!(server.try_reserve().expect("an answer").ok()["ok"], true);
    server.stop(Signal::TERM);

    for wrong in [place.url("nobodys"), url.replace("holdfast@", "nobody@")] {
        let ended = other.launch(&[], &[("DATABASE_URL", &wrong), ("DATABASE_WAIT_SECONDS", "600")]).ended();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("does not exist"), "{ended:?}");
    }
    owner.stop(Signal::TERM);
    let ended = other.launch(&[], &[("DATABASE_URL", &url), ("DATABASE_WAIT_SECONDS", "1")]).ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("check DATABASE_URL"), "{ended:?}");
}
