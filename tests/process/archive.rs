//! The archive from the shell: made, verified with the database as one chain, and killed at any moment.

use crate::audit::verified;
use crate::support::{Ended, Place, Server, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const STREAMS: [&str; 2] = ["heimdall", "risk"];
const FILES: [&str; 4] =
    ["heimdall-1-10.ndjson.zst", "heimdall-11-20.ndjson.zst", "risk-1-10.ndjson.zst", "risk-11-20.ndjson.zst"];

/// Sets the database's clock so far back.
fn set_back(place: &Place, interval: &str) {
    place.sql(
        "holdfast",
        &format!(
            "CREATE OR REPLACE FUNCTION holdfast_now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS 'SELECT clock_timestamp() - interval ''{interval}'''"
        ),
    );
}

/// A reserve and a trial.
fn append(server: &Server) {
    server.post("/risk/check-and-reserve", &json!({"engine": "WHOLESALE", "amount": 1})).ok();
    server.post("/heimdall/sandbox/trial", &json!({"domain": "D", "confidence": 0.5, "success": true})).ok();
}

/// A server with 20 events of each stream of 40 days ago in two partitions, and 5 of today.
fn aged(place: &Place) -> Server {
    let server = place.serve();
    // At once, since the server makes partitions, too: the next ones behind these.
    place.sql(
        "holdfast",
        "DO $$
         DECLARE
             name text;
         BEGIN
             FOR name IN SELECT inhrelid::regclass::text FROM pg_inherits
                         WHERE inhparent IN ('heimdall_event'::regclass, 'risk_event'::regclass, 'risk_reservation_closed'::regclass)
                           AND inhrelid NOT IN ('heimdall_event_1'::regclass, 'risk_event_1'::regclass, 'risk_reservation_1'::regclass) LOOP
                 EXECUTE 'DROP TABLE ' || name;
             END LOOP;
             FOREACH name IN ARRAY ARRAY['heimdall_event', 'risk_event'] LOOP
                 EXECUTE format('ALTER TABLE %1$s DETACH PARTITION %1$s_1;
                                 ALTER TABLE %1$s ATTACH PARTITION %1$s_1 FOR VALUES FROM (MINVALUE) TO (11);
                                 ALTER TABLE %1$s_1 ENABLE ALWAYS TRIGGER guard;
                                 CREATE TABLE %1$s_11 PARTITION OF %1$s FOR VALUES FROM (11) TO (21);
                                 CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON %1$s_11
                                     FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
                                 ALTER TABLE %1$s_11 ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate', name);
             END LOOP;
             ALTER TABLE risk_reservation_closed DETACH PARTITION risk_reservation_1;
             ALTER TABLE risk_reservation_closed ATTACH PARTITION risk_reservation_1 FOR VALUES FROM (MINVALUE) TO (21);
         END
         $$",
    );
    server.go_live();
    set_back(place, "40 days");
    server.stop(Signal::TERM);
    let server = place.serve();
    for number in 0..20 {
        let hold = json!({"engine": "WHOLESALE", "amount": 1, "reason": "\"grün\" \\t \\N 7", "actor": format!("a{number}"), "metadata": {"a": "\u{e9}\\N"}});
        let made = server.post("/risk/check-and-reserve", &hold).ok();
        assert_eq!(made["ok"], true, "{made}");
        let advice = json!({"domain": "D", "confidence": 0.123_456_789, "recommendation": {"a": "\u{e9}\\N"}, "actor": format!("a{number}")});
        server.post("/heimdall/recommend", &advice).ok();
    }
    set_back(place, "0 days");
    server.stop(Signal::TERM);
    let server = place.serve();
    for _ in 0..5 {
        append(&server);
    }
    server
}

fn dir(place: &Place) -> PathBuf {
    let dir = place.path("archive");
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

/// Eight days ago.
fn day(place: &Place) -> String {
    place.sql("holdfast", "SELECT ((clock_timestamp() AT TIME ZONE 'UTC')::date - 8)::text").remove(0)
}

fn archive(place: &Place, day: &str, more: &[&str]) -> Ended {
    let dir = dir(place);
    place.run(&[&["archive", "--before", day, "--to", dir.to_str().expect("UTF-8")], more].concat(), &[])
}

fn verify(place: &Place) -> Ended {
    let dir = dir(place);
    place.run(&["audit", "verify", "--archive", dir.to_str().expect("UTF-8")], &[])
}

#[track_caller]
fn assert_whole(place: &Place) {
    let verified = verify(place);
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

/// The lines of a file of the archive.
fn lines(place: &Place, name: &str) -> String {
    let bytes = fs::read(dir(place).join(name)).expect("the file");
    String::from_utf8(zstd::decode_all(&bytes[..]).expect("zstd")).expect("UTF-8")
}

fn files(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(dir(place)).expect("the directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn old_months_move_into_files_that_verify_with_the_database_as_one_chain() {
    let place = Place::new();
    let server = aged(&place);
    let day = day(&place);
    let exported = STREAMS.map(|name| place.run(&["audit", "export", "--stream", name], &[]).out);
    let planned = archive(&place, &day, &["--dry-run"]);
    assert_eq!(planned.code, Some(0), "{planned:?}");
    for name in STREAMS {
        assert!(planned.out.contains(&format!("{name}: events 1 to 10 (until ")), "{planned:?}");
        let stays = format!("{name}: events 21 to 25 stay: their partition has room for events up to");
        assert!(planned.out.contains(&stays), "{planned:?}");
    }
    assert_eq!(files(&place), [""; 0]);
    let note = place.path("old.note");
    fs::write(&note, place.run(&["audit", "checkpoint"], &[]).out).expect("the note");
    let done = archive(&place, &day, &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let expected: Vec<_> = FILES.iter().flat_map(|file| [(*file).to_owned(), format!("{file}.note")]).collect();
    assert_eq!(files(&place), expected);
    assert_whole(&place);
    let plain = place.run(&["audit", "verify", "--checkpoint", note.to_str().expect("UTF-8")], &[]);
    assert_eq!(plain.code, Some(0), "{plain:?}");
    for (name, files) in STREAMS.iter().zip(FILES.chunks(2)) {
        let said = format!(
            "{name}: events 1 to 20 are archived in {} to {} (2 files): --archive DIR checks them, too",
            files[0], files[1]
        );
        assert!(plain.out.contains(&said), "{plain:?}");
    }
    // The files have exactly the lines of an export, and are verified like one.
    let of = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("\"principal\"")).map(str::to_owned).collect()
    };
    for ((name, files), exported) in STREAMS.iter().zip(FILES.chunks(2)).zip(exported) {
        let mut events = Vec::new();
        for file in files {
            let text = lines(&place, file);
            let (code, said) = verified(&text);
            assert_eq!(code, Some(0), "{said:?}");
            events.extend(of(&text));
        }
        let rest = place.run(&["audit", "export", "--stream", name], &[]);
        assert!(rest.err.contains(&format!("{name}: events up to 20 are archived")), "{rest:?}");
        assert_eq!(verified(&rest.out).0, Some(0));
        events.extend(of(&rest.out));
        assert_eq!(events, of(&exported));
    }
    // The server goes on, also after a restart, and remembers what it knew.
    append(&server);
    server.stop(Signal::TERM);
    let listed = place.run(&["archive", "list"], &[]);
    for name in STREAMS {
        assert!(listed.out.lines().any(|line| line.starts_with(&format!("{name} 1 to 10 (until "))), "{listed:?}");
    }
    assert_whole(&place);
    // A segment comes back, and leaves again, with nothing running.
    for (name, files) in STREAMS.iter().zip(FILES.chunks(2)) {
        let file = dir(&place).join(files[0]);
        let restored = place.run(&["archive", "restore", file.to_str().expect("UTF-8")], &[]);
        assert_eq!(restored.code, Some(0), "{restored:?}");
        assert_whole(&place);
        let part = place.run(&["audit", "verify", "--stream", name, "--to", "10"], &[]);
        assert_eq!(part.code, Some(0), "{part:?}");
    }
    assert_eq!(archive(&place, &day, &[]).code, Some(0));
    assert_whole(&place);
    let server = place.serve();
    append(&server);
    let script = ["docs/audit-bytes.sql", "docs/audit-chain.sql"]
        .map(|file| fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).expect(file));
    let mut psql = place.command(&["db", "psql"]);
    let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql");
    psql.stdin.take().expect("a pipe").write_all(script.concat().as_bytes()).expect("it is read");
    let said = String::from_utf8(psql.wait_with_output().expect("it ends").stdout).expect("UTF-8");
    for name in STREAMS {
        let line = said.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{said}"));
        assert!(line.ends_with("| t           | t"), "{said}");
    }
}

#[test]
fn an_archive_that_is_killed_at_any_moment_is_finished_by_the_next() {
    let place = Place::new();
    let server = aged(&place);
    let day = day(&place);
    let whole = archive(&place, &day, &["--dry-run"]);
    assert!(whole.out.contains("partitions: 4"), "{whole:?}");
    let dir = dir(&place);
    let mut killed = 0;
    for attempt in 0..60 {
        let mut child = place.command(&["archive", "--before", &day, "--to", dir.to_str().expect("UTF-8")]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(20 + attempt * 8));
        killed += usize::from(child.try_wait().expect("ours").is_none());
        child.kill().expect("ours");
        child.wait().expect("ours");
        let ended = verify(&place);
        assert_eq!(ended.code, Some(0), "after {attempt}: {ended:?}");
        if place.sql("holdfast", "SELECT count(*)::text FROM audit_archive") == ["4"] {
            break;
        }
    }
    assert!(killed > 0, "no attempt was killed");
    let last = archive(&place, &day, &[]);
    assert_eq!(last.code, Some(0), "{last:?}");
    assert_whole(&place);
    assert!(!files(&place).iter().any(|name| name.contains(".part")), "{:?}", files(&place));
    append(&server);
    assert_eq!(server.get("/audit/verify").ok()["ok"], true);
}

#[test]
fn a_disk_that_fills_up_in_the_middle_changes_nothing() {
    let place = Place::new();
    let _server = aged(&place);
    let day = day(&place);
    let dir = dir(&place);
    // A limit of a file's size fails like a full disk, and needs no disk of one's own.
    let script = format!(
        "trap '' XFSZ; (ulimit -f 0; exec {} archive --before {day} --to {}) 2>&1 | cat; exit 0",
        env!("CARGO_BIN_EXE_holdfast"),
        dir.display()
    );
    let ended = place.command(&[]);
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).env_clear().envs(ended.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let said = place.run_to_end(shell);
    assert!(said.out.contains("the events of this file stay where they are"), "{said:?} {script}");
    assert_eq!(files(&place), [""; 0]);
    assert_eq!(place.sql("holdfast", "SELECT count(*)::text FROM risk_event"), ["25"]);
    assert_eq!(place.sql("holdfast", "SELECT count(*)::text FROM heimdall_event"), ["25"]);
    assert_eq!(archive(&place, &day, &[]).code, Some(0));
    assert_whole(&place);
}

#[test]
fn a_day_that_is_none_and_a_missing_directory_are_refused_in_a_sentence() {
    let place = Place::new();
    assert_eq!(place.run(&["migrate"], &[]).code, Some(0));
    let refused = archive(&place, "yesterday", &[]);
    assert!(refused.refusal().contains("write it as 2026-10-01"), "{refused:?}");
    let refused = place.run(&["archive", "--to", "/tmp"], &[]);
    assert!(refused.refusal().contains("--before"), "{refused:?}");
    let missing = place.path("missing");
    let refused = place.run(&["archive", "--before", "2020-01-01", "--to", missing.to_str().expect("UTF-8")], &[]);
    assert!(refused.refusal().contains("does not exist: make the directory first"), "{refused:?}");
    let file = place.path("risk-1-2.ndjson.zst");
    let refused = place.run(&["archive", "restore", file.to_str().expect("UTF-8")], &[]);
    assert!(refused.sentences().join(" ").contains("its note risk-1-2.ndjson.zst.note: No such file"), "{refused:?}");
    assert_eq!(place.run(&["archive", "list"], &[]).out, "nothing is archived\n");
}

#[test]
fn a_server_archives_what_is_older_than_it_retains_and_says_when_it_cannot() {
    let place = Place::new();
    let server = aged(&place);
    let dir = dir(&place);
    server.stop(Signal::TERM);
    let missing = place.path("missing");
    let env = |dir: &str| [("RETAIN_EVENTS", "30".to_owned()), ("ARCHIVE_DIR", dir.to_owned())];
    let serve = |dir: &str| {
        let env = env(dir);
        place.serve_with(&[], &[(env[0].0, env[0].1.as_str()), (env[1].0, env[1].1.as_str())])
    };
    let server = serve(missing.to_str().expect("UTF-8"));
    wait_until("the review says it", || {
        server.get("/review").ok()["look_first"].to_string().contains("Old events could not be archived")
    });
    assert!(server.stop(Signal::TERM).contains("old events could not be archived"));
    let server = serve(dir.to_str().expect("UTF-8"));
    wait_until("all are archived", || place.sql("holdfast", "SELECT count(*)::text FROM audit_archive") == ["4"]);
    assert_whole(&place);
    for name in [FILES[0], FILES[2]] {
        let file = dir.join(name);
        assert_eq!(place.run(&["archive", "restore", file.to_str().expect("UTF-8")], &[]).code, Some(0));
    }
    server.stop(Signal::TERM);
    // A segment that somebody brought back stays.
    let server = serve(dir.to_str().expect("UTF-8"));
    append(&server);
    assert_eq!(place.sql("holdfast", "SELECT min(seq)::text FROM risk_event"), ["1"]);
    assert_eq!(place.sql("holdfast", "SELECT min(seq)::text FROM heimdall_event"), ["1"]);
    let refused = place.launch(&[], &[("RETAIN_EVENTS", "30")]).ended();
    assert!(refused.err.contains("archive-dir") || refused.err.contains("ARCHIVE_DIR"), "{refused:?}");
}
