//! Commands and servers beside a running server.

use crate::support::{Ended, Place, free_port, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;

/// The number of migrations that this binary brings.
fn migrations() -> usize {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let files = std::fs::read_dir(dir).map(|entries| {
        entries
            .filter(|entry| {
                let name = entry.as_ref().expect("a file").file_name();
                name.to_string_lossy().ends_with(".sql")
            })
            .count()
    });
    // The test may run without the sources.
    files.unwrap_or(5)
}

#[track_caller]
fn all_applied(shown: &Ended) {
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert_eq!(shown.out.lines().count(), migrations(), "{shown:?}");
    assert!(shown.out.lines().all(|line| line.ends_with(" applied")), "{shown:?}");
}

#[test]
fn migrate_beside_nothing_runs_postgresql_for_as_long_as_it_takes() {
    let place = Place::new();
    // A look at a directory without a database makes none.
    let nowhere = place.run(&["migrate", "--status"], &[]);
    assert_eq!((nowhere.code, nowhere.out.as_str()), (Some(1), ""), "{nowhere:?}");
    place.check_nothing_runs();
    for arguments in [&["migrate"][..], &["migrate"], &["migrate", "--status"]] {
        all_applied(&place.run(arguments, &[]));
        place.check_nothing_runs();
    }
    // Migrated and never served: go-live is off, so somebody should look.
    let review = place.run(&["review"], &[]);
    assert_eq!(review.code, Some(1), "{review:?}");
    place.check_nothing_runs();
}

#[test]
fn a_review_of_an_empty_directory_cannot_know_and_says_what_to_do() {
    let place = Place::new();
    let review = place.run(&["review"], &[]);
    assert_eq!((review.code, review.out.as_str()), (Some(2), ""), "{review:?}");
    place.check_nothing_runs();
    let [sentence] = review.sentences()[..] else {
        panic!("not one sentence: {review:?}");
    };
    assert!(sentence.contains("migrate"), "{sentence}");
}

#[test]
fn a_review_from_the_shell_says_that_this_machine_is_stopped_by_its_kill_file() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    std::fs::write(place.path("data/KILL"), "by hand").unwrap();
    let review = place.run(&["review"], &[]);
    assert_eq!(review.code, Some(1), "{review:?}");
    let first = review.out.split("## Look at this first").nth(1).unwrap().trim_start();
    assert!(first.starts_with("- This machine's instance is STOPPED by its kill file"), "{review:?}");
    // Named by hand, where the server has it elsewhere.
    let elsewhere = place.run(&["review", "--kill-file", "/nonexistent/KILL"], &[]);
    assert!(!elsewhere.out.contains("This machine's instance is STOPPED"), "{elsewhere:?}");
    server.stop(Signal::TERM);
}

#[test]
fn commands_work_beside_a_server_and_leave_its_postgresql_alone() {
    let place = Place::new();
    let server = place.serve();
    let postmaster = place.postmaster();

    for arguments in [&["migrate", "--status"][..], &["migrate"], &["migrate"]] {
        all_applied(&place.run(arguments, &[]));
    }

    let fresh = place.run(&["review"], &[]);
    assert_eq!(fresh.code, Some(1), "go-live is off: {fresh:?}");
    assert!(fresh.out.contains("Go-live is off"), "{fresh:?}");
    server.post("/go-live/enable", &json!({"actor": "test"})).ok();
    let live = place.run(&["review"], &[]);
    let document = server.get("/review").ok();
    assert_eq!(document["look_first"], json!([]), "nothing needs attention");
    assert_eq!(live.code, Some(0), "{live:?}");
    server.post("/go-live/kill-switch/engage", &json!({"actor": "test", "reason": "drill"})).ok();
    let engaged = place.run(&["review"], &[]);
    assert_eq!(engaged.code, Some(1), "{engaged:?}");
    assert!(engaged.out.contains("drill"), "{engaged:?}");

    let mut psql = place.command(&["db", "psql"]);
    // A pipe, as in `echo 'SELECT 1' | holdfast db psql`.
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut psql = psql.spawn().unwrap();
    psql.stdin.take().unwrap().write_all(b"SELECT 20 + 22 AS answer, current_user;\n").unwrap();
    let said = psql.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(said.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("42") && out.contains("holdfast"), "{out}{err}");

    let printed = place.run(&["openapi"], &[]);
    assert_eq!(printed.code, Some(0));
    assert_eq!(printed.out, server.get_root("/openapi.json").text);
    assert_eq!(serde_json::from_str::<Value>(&printed.out).unwrap()["openapi"], "3.1.0");

    let bind = format!("127.0.0.1:{}", server.port);
    let healthy = place.run(&["healthcheck"], &[("BIND_ADDR", &bind)]);
    assert_eq!((healthy.code, healthy.err.as_str()), (Some(0), ""), "{healthy:?}");

    assert_eq!(place.postmaster(), postmaster);
    server.get_root("/readyz").ok();
    server.stop(Signal::TERM);
    let unhealthy = place.run(&["healthcheck", "--bind-addr", &bind], &[]);
    assert!(unhealthy.refusal().contains(&bind), "{unhealthy:?}");
}

#[test]
fn commands_that_need_a_server_say_so_where_none_runs() {
    let place = Place::new();
    let psql = place.run(&["db", "psql"], &[]);
    assert!(psql.refusal().contains("holdfast serve"), "{psql:?}");
    assert!(!place.data().exists());
    let nobody = format!("127.0.0.1:{}", free_port());
    let unhealthy = place.run(&["healthcheck"], &[("BIND_ADDR", &nobody)]);
    assert!(unhealthy.refusal().contains(&nobody), "{unhealthy:?}");
}

#[test]
fn a_review_that_cannot_be_made_exits_2() {
    let place = Place::new();
    let review = place.run(&["review"], &[("DATABASE_URL", "postgres://u@localhost/x?host=/nonexistent")]);
    assert_eq!((review.code, review.out.as_str()), (Some(2), ""), "{review:?}");
    assert_eq!(review.sentences().len(), 1, "{review:?}");
    let review = place.run(&["review"], &[("DATABASE_URL", "nonsense")]);
    assert_eq!(review.code, Some(2), "{review:?}");
}

#[test]
fn a_misconfigured_review_exits_2_since_1_would_say_that_it_was_made() {
    let place = Place::new();
    for (name, value) in [("LOG_FORMAT", "x"), ("RUST_LOG", "a=b=c"), ("GO_LIVE_ENFORCE", "maybe")] {
        let review = place.run(&["review"], &[(name, value)]);
        assert_eq!(review.code, Some(2), "{name}={value}: {review:?}");
    }
    let review = place.run(&["review", "--nonsense"], &[]);
    assert_eq!(review.code, Some(2), "{review:?}");
}

#[test]
fn two_servers_on_one_database_are_one_control_plane() {
    let place = Place::new();
    let first = place.serve();
    let other = Place::new();
    let url = place.url("holdfast");
    let second = other.serve_with(&[], &[("DATABASE_URL", &url)]);
    assert!(!other.data().join("pg").exists(), "a private PostgreSQL was made beside DATABASE_URL");

    first.go_live();
    let same = |path: &str| assert_eq!(first.get(path).ok(), second.get(path).ok(), "{path}");
    same("/go-live/state");
    same("/risk/policies");
    wait_until("the second's gate opens", || second.get_root("/api/deals").status == 404);
    let id = second.try_reserve().expect("an answer").ok()["reservation_id"].clone();
    let id = id.as_str().expect("an id");
    same(&format!("/risk/reservations/{id}"));
    same("/risk/ledger/today");

    second.post("/go-live/kill-switch/engage", &json!({"actor": "test"})).ok();
    assert_eq!(second.get_root("/api/deals").status, 403, "its own gate closes at once");
    let denied = first.try_reserve().expect("an answer").ok();
    assert_eq!((&denied["ok"], &denied["reason"]), (&json!(false), &json!("kill_switch_engaged")));
    wait_until("the first's gate closes", || first.get_root("/api/deals").json["error"] == "KILL_SWITCH_ENGAGED");
    first.post("/go-live/kill-switch/release", &json!({"actor": "test"})).ok();
    wait_until("the second's gate opens", || second.get_root("/api/deals").status == 404);

    // The owner of PostgreSQL stops and starts again: the other refuses meanwhile, and recovers.
    first.stop(Signal::TERM);
    wait_until("the second is not ready", || second.get_root("/readyz").status == 503);
    second.try_reserve().expect("an answer").unavailable();
    let bind = format!("127.0.0.1:{}", second.port);
    let check = |more: &[&str]| place.run(&[&["healthcheck", "--bind-addr", &*bind], more].concat(), &[]);
    assert_eq!(check(&["--live"]).code, Some(0), "a restart would not help it");
    assert!(check(&[]).refusal().contains("/readyz"));
    let first = place.serve();
    second.wait_until_ready();
    wait_until("the second reserves again", || {
        second.try_reserve().is_ok_and(|reply| reply.status == 200 && reply.json["ok"] == true)
    });
    second.stop(Signal::TERM);
    first.get_root("/readyz").ok();
}

#[test]
fn the_trail_is_verified_beside_a_server_and_where_nothing_runs() {
    let place = Place::new();
    let nothing = place.run(&["audit", "verify"], &[]);
    assert_eq!((nothing.code, nothing.out.as_str()), (Some(2), ""), "{nothing:?}");
    let server = place.serve();
    server.go_live();
    let whole = place.run(&["audit", "verify"], &[]);
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert!(whole.out.contains("the trail is whole"), "{whole:?}");
    // Its output, kept elsewhere, is the standard for a later one.
    let kept = place.path("heads.txt");
    std::fs::write(&kept, &whole.out).expect("a file");
    let kept = kept.display().to_string();
    assert_eq!(place.run(&["audit", "verify", "--checkpoint", &kept], &[]).code, Some(0));
    let mut session = place.session("holdfast");
    session.sql("ALTER TABLE control_event DISABLE TRIGGER guard");
    session.sql("UPDATE control_event SET actor = 'nobody' WHERE seq = 1");
    let damaged = place.run(&["audit", "verify"], &[]);
    assert_eq!(damaged.code, Some(1), "{damaged:?}");
    assert!(damaged.out.contains("DAMAGED control 1: edited"), "{damaged:?}");
    // An owner who makes every hash anew is found out by what was kept, and by nothing else.
    session.sql("UPDATE control_event SET actor = 'test' WHERE seq = 1");
    session.sql("ALTER TABLE control_event ENABLE ALWAYS TRIGGER guard");
    let forged = format!("control 1 {}\n", "0".repeat(64));
    std::fs::write(&kept, forged).expect("a file");
    let rewritten = place.run(&["audit", "verify", "--checkpoint", &kept], &[]);
    assert_eq!(rewritten.code, Some(1), "{rewritten:?}");
    assert!(rewritten.out.contains("DAMAGED control 1: rewritten"), "{rewritten:?}");
    server.stop(Signal::TERM);
    let alone = place.run(&["audit", "verify", "--stream", "control", "--from", "2"], &[]);
    assert_eq!(alone.code, Some(0), "{alone:?}");
    assert!(alone.out.contains("\nthe verified part of the trail is whole, in "), "{alone:?}");
    for (from, to, said) in
        [("2", "1", "is 1, which is before from (2)"), ("999", "999", "there is no event control 999: the last is")]
    {
        let nothing = place.run(&["audit", "verify", "--stream", "control", "--from", from, "--to", to], &[]);
        assert_eq!((nothing.code, nothing.out.as_str()), (Some(2), ""), "{nothing:?}");
        assert!(nothing.err.contains(said), "{nothing:?}");
    }
    place.check_nothing_runs();
}
