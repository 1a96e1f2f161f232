//! Several instances on one database, and one switch: what was promised of the instant `guaranteed_by` holds through pauses,
//! freezes, kills and restarts. What is measured of it is in `cargo bench --bench enforcement`.

use crate::support::{Place, Running, Server, signal, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;
use std::time::{Duration, SystemTime};

const ENGAGE: &str = "/go-live/kill-switch/engage";
const RELEASE: &str = "/go-live/kill-switch/release";

/// A private PostgreSQL with a server of its own and two beside it.
struct Three {
    beside: [Server; 2],
    owner: Server,
    _elsewhere: [Place; 2],
    place: Place,
}

impl Three {
    fn start() -> Self {
        let place = Place::new();
        let owner = place.serve();
        owner.go_live();
        let url = place.url("holdfast");
        let elsewhere = [Place::new(), Place::new()];
        let beside = [&elsewhere[0], &elsewhere[1]].map(|place| place.serve_with(&[], &[("DATABASE_URL", &url)]));
        let three = Self { beside, owner, _elsewhere: elsewhere, place };
        for server in three.servers() {
            wait_until("it admits", || admits(server));
        }
        three
    }

    fn servers(&self) -> [&Server; 3] {
        [&self.owner, &self.beside[0], &self.beside[1]]
    }

    fn stop(self) {
        for server in self.beside {
            server.stop(Signal::TERM);
        }
        self.owner.stop(Signal::TERM);
        self.place.check_nothing_runs();
    }
}

/// Whether the instance admits production work: its own gate, and its answer to a proxy.
fn admits(server: &Server) -> bool {
    let gate = server.try_get("/api/deals").is_ok_and(|reply| reply.status == 404);
    let envoy = server.try_get("/api/governance/authz/envoy/api/deals").is_ok_and(|reply| reply.status == 200);
    gate || envoy
}

/// The instant that an answer names.
fn instant(answer: &serde_json::Value) -> SystemTime {
    let text = answer["guaranteed_by"].as_str().expect("a receipt");
    text.parse::<chrono::DateTime<chrono::Utc>>().expect("a time").into()
}

#[expect(clippy::disallowed_methods, reason = "a receipt names a time of the wall clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Ends the questions, however it is left.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Asks every server all the time while `fault` runs, which answers with a receipt; then goes on until a while after that. Counts
/// the requests that were sent after the receipt's instant and admitted.
fn admitted_after(servers: &[&Server], fault: impl FnOnce() -> SystemTime) -> usize {
    let (done, late) = (AtomicBool::new(false), AtomicUsize::new(0));
    let receipt = std::sync::OnceLock::new();
    let (done, late, receipt) = (&done, &late, &receipt);
    scope(|scope| {
        // Also when the fault fails: nobody would end who asks.
        let _done = Done(done);
        for server in servers {
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    // The asked instances share the cores with the clients and with other tests.
                    pause();
                    let sent = now();
                    // A receipt that is not there yet may still be of an instant before this; those are asked again below.
                    if admits(server) && receipt.get().is_some_and(|by| sent > *by) {
                        late.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        let by = fault();
        receipt.set(by).expect("one receipt");
        wait_until("the receipt's instant has passed for a while", || now() > by + Duration::from_secs(1));
    });
    late.load(Ordering::SeqCst)
}

#[test]
fn three_instances_block_when_one_is_told_to_and_admit_again_when_it_is_released() {
    let three = Three::start();
    for server in three.servers() {
        let late = admitted_after(&three.servers(), || instant(&server.post(ENGAGE, &json!({"actor": "test"})).ok()));
        assert_eq!(late, 0);
        server.post(RELEASE, &json!({"actor": "test"})).ok();
        for server in three.servers() {
            wait_until("it admits again", || admits(server));
        }
    }
    three.stop();
}

#[test]
fn an_instance_that_was_paused_across_an_engage_admits_nothing_when_it_goes_on() {
    let three = Three::start();
    let paused = &three.beside[0];
    let late = admitted_after(&[&three.owner, &three.beside[1]], || {
        signal(paused.pid(), Signal::STOP);
        let by = instant(&three.owner.post(ENGAGE, &json!({"actor": "test"})).ok());
        wait_until("the receipt's instant has passed", || now() > by);
        by
    });
    assert_eq!(late, 0);
    // Its answers wait in its sockets; the first thing that it does is to answer them.
    scope(|scope| {
        let asked: Vec<_> = (0..20).map(|_| scope.spawn(|| admits(paused))).collect();
        signal(paused.pid(), Signal::CONT);
        assert!(asked.into_iter().all(|asked| !asked.join().unwrap()));
    });
    wait_until("it knows", || paused.get_root("/api/deals").status == 403);
    three.stop();
}

#[test]
fn a_postgresql_that_freezes_right_after_an_engage_opens_no_gate() {
    let three = Three::start();
    let postgres = three.place.postgres();
    let late = admitted_after(&three.servers(), || {
        let by = instant(&three.owner.post(ENGAGE, &json!({"actor": "test"})).ok());
        for pid in &postgres {
            signal(*pid, Signal::STOP);
        }
        by
    });
    assert_eq!(late, 0);
    for pid in &postgres {
        signal(*pid, Signal::CONT);
    }
    for server in three.servers() {
        wait_until("it knows", || server.get_root("/api/deals").status == 403);
    }
    three.stop();
}

#[test]
fn an_instance_that_is_killed_and_started_during_a_kill_admits_nothing() {
    let Three { _elsewhere, place, owner, beside: [killed, other] } = Three::start();
    killed.kill();
    owner.post(ENGAGE, &json!({"actor": "test"})).ok();
    let again = Place::new();
    let url = place.url("holdfast");
    let started = again.launch(&[], &[("DATABASE_URL", &url)]);
    wait_until("it is ready", || {
        assert!(!admits(&started));
        started.try_get("/readyz").is_ok_and(|reply| reply.status == 200)
    });
    assert!(!admits(&started) && !admits(&other));
    started.stop(Signal::TERM);
    other.stop(Signal::TERM);
    owner.stop(Signal::TERM);
}

#[test]
fn instances_come_and_go_on_the_list() {
    let three = Three::start();
    let names = |server: &Server| {
        let list = server.get("/instances").ok();
        assert_eq!(list["drift"], json!([]), "{list}");
        list["instances"].as_array().expect("a list").len()
    };
    assert_eq!(three.servers().map(names), [3, 3, 3]);
    let Three { _elsewhere, place: _place, owner, beside: [left, other] } = three;
    left.stop(Signal::TERM);
    assert_eq!(names(&owner), 2, "who ends in order takes itself off");
    other.stop(Signal::TERM);
    owner.stop(Signal::TERM);
}

#[test]
fn holdfast_kill_stops_everybody_and_this_machine_until_its_file_is_gone() {
    let place = Place::new();
    let owner = place.serve();
    owner.go_live();
    let killed = place.run(&["kill", "--actor", "bryan", "--reason", "smoke"], &[]);
    assert_eq!(killed.code, Some(0), "{killed:?}");
    let file = place.data().join("KILL");
    assert!(killed.out.contains(&file.display().to_string()), "{killed:?}");
    wait_until("it is stopped", || owner.get_root("/api/deals").status == 403);
    let state = owner.get("/go-live/state").ok();
    assert_eq!((&state["kill_switch_engaged"], &state["kill_switch"]["by"]), (&json!(true), &json!("bryan")));
    wait_until("it sees its file", || owner.get_root("/readyz").json["kill_file"] == true);
    owner.post(RELEASE, &json!({"actor": "test"})).ok();
    assert!(!admits(&owner), "the file is still there");
    std::fs::remove_file(&file).expect("it was written");
    wait_until("it admits", || admits(&owner));
    owner.stop(Signal::TERM);
}

#[test]
fn holdfast_kill_stops_everybody_also_where_nobody_takes_what_it_says() {
    let place = Place::new();
    let owner = place.serve();
    owner.go_live();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
    let mut killing = Running(place.command(&["kill"]).stdout(full).stderr(Stdio::null()).spawn().expect("it starts"));
    assert_eq!(killing.code(), Some(1));
    assert_eq!(owner.get("/go-live/state").ok()["kill_switch_engaged"], true);
    assert!(place.data().join("KILL").exists());
    owner.stop(Signal::TERM);
}

#[test]
fn holdfast_kill_without_a_database_stops_this_machine_and_says_that_it_is_not_enough() {
    let place = Place::new();
    let nowhere = "postgres://nobody@127.0.0.1:1/none";
    let killed = place.run(&["kill"], &[("DATABASE_URL", nowhere)]);
    assert_eq!(killed.code, Some(1), "{killed:?}");
    assert!(killed.sentences()[0].contains("not stopped"), "{killed:?}");
    assert!(place.data().join("KILL").exists());
    // An instance that starts here is stopped.
    let owner = place.serve();
    owner.go_live();
    assert!(!admits(&owner));
    owner.stop(Signal::TERM);
}

#[test]
fn accept_rewind_lets_a_restored_state_in() {
    let place = Place::new();
    let owner = place.serve();
    owner.go_live();
    wait_until("it admits", || admits(&owner));
    place.sql("holdfast", "UPDATE go_live_state SET version = 1 RETURNING 'x'");
    wait_until("it notices", || owner.get_root("/api/deals").json["error"] == "STATE_REWOUND");
    let unexplained = place.run(&["db", "accept-rewind"], &[]);
    assert_eq!(unexplained.code, Some(1), "{unexplained:?}");
    let accepted = place.run(&["db", "accept-rewind", "--actor", "bryan", "--reason", "restored"], &[]);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    wait_until("it admits again", || admits(&owner));
    owner.stop(Signal::TERM);
}

#[test]
fn a_bad_file_of_rules_or_a_bad_lease_stops_the_start_and_says_where() {
    let place = Place::new();
    let file = place.path("classes.toml");
    std::fs::write(&file, "[[rule]]\npath = \"/x\"\nclass = \"LATER\"\n").expect("a file");
    let shown = file.display().to_string();
    let refused = place.run(&["serve"], &[("EXECUTION_CLASSES", &shown)]);
    let sentence = refused.refusal();
    assert!(sentence.contains("EXECUTION_CLASSES") && sentence.contains("line 3"), "{sentence}");
    for lease in ["3000", "0", "soon", "-1"] {
        let refused = place.run(&["serve"], &[("STATE_LEASE_MS", lease)]);
        let sentence = refused.refusal();
        assert!(sentence.contains("STATE_LEASE_MS") && sentence.contains("2000"), "{sentence}");
    }
    std::fs::write(&file, "[[rule]]\npath = \"/x\"\nclass = \"SANDBOX_EXEC\"\n").expect("a file");
    let server = place.serve_with(&[], &[("EXECUTION_CLASSES", &shown), ("STATE_LEASE_MS", "500")]);
    assert_eq!(server.get_root("/readyz").json["state_lease_ms"], 500);
    assert_eq!(server.get_root("/x").json["exec_class"], "SANDBOX_EXEC");
    server.stop(Signal::TERM);
}
