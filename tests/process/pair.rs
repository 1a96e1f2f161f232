//! Two instances on one database: one set of caps, one meaning of a key, and neither held up by the other for long.

use crate::storm::{Change, Client, Told, as_done, check_balanced, check_refusal, events, is_replay, writing_backend};
use crate::support::{Place, Reply, Server, Session, signal, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread::scope;

/// A private PostgreSQL with a server of its own and another one beside it. Its parts are taken out in the opposite
/// order: variables are dropped last first, and a server that outlives its place writes to it again.
struct Pair {
    beside: Server,
    owner: Server,
    _elsewhere: Place,
    place: Place,
}

impl Pair {
    fn start() -> Self {
        let place = Place::new();
        let owner = place.serve();
        owner.go_live();
        let elsewhere = Place::new();
        let url = place.url("holdfast");
        let beside = elsewhere.serve_with(&[], &[("DATABASE_URL", &url)]);
        Self { beside, owner, _elsewhere: elsewhere, place }
    }
}

/// Lets so many reserves of 1 fit, and no more.
#[track_caller]
fn make_room(server: &Server, holds: usize) {
    let cap = json!({"engine": "WHOLESALE", "max_open_risk": holds, "actor": "test", "reason": "a tight cap"});
    server.post("/risk/policies/upsert", &cap).ok();
}

/// The ids that were allowed, and how many were denied.
#[track_caller]
fn allowed(replies: &[Reply]) -> (BTreeSet<String>, usize) {
    let ids: Vec<_> = replies
        .iter()
        .filter(|reply| reply.json["ok"] == true)
        .map(|reply| reply.json["reservation_id"].as_str().expect("an id").to_owned())
        .collect();
    let distinct: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(distinct.len(), ids.len(), "two changes were answered with one reservation");
    (distinct, replies.len() - ids.len())
}

#[test]
fn reserves_through_both_fit_exactly_and_a_retry_at_the_other_is_the_same_change() {
    const ASKED: usize = 60;
    const FIT: usize = 37;
    let Pair { _elsewhere, place, owner, beside } = Pair::start();
    make_room(&beside, FIT);
    let servers = [&owner, &beside];
    let start = Barrier::new(ASKED);
    let start = &start;
    let replies: Vec<Reply> = scope(|scope| {
        let ask = |number: usize| {
            let change = Change::reserve(&format!("race-{number}"));
            start.wait();
            let reply = change.insist(servers[number % 2]);
            let again = change.insist(servers[(number + 1) % 2]);
            assert!(!is_replay(&reply) && is_replay(&again), "{} and {}", reply.text, again.text);
            assert_eq!(as_done(&reply.json, &again.json), as_done(&again.json, &reply.json));
            reply
        };
        let asked: Vec<_> = (0..ASKED).map(|number| scope.spawn(move || ask(number))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let (ids, denied) = allowed(&replies);
    assert_eq!((ids.len(), denied), (FIT, ASKED - FIT));
    assert!(events(&owner).iter().filter(|(key, _)| key.starts_with("race-")).all(|(_, events)| events.len() == 1));
    check_balanced(&owner);
    beside.stop(Signal::TERM);
    owner.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn one_change_sent_to_both_at_once_is_done_by_one_of_them() {
    const ASKED: usize = 30;
    const FIT: usize = 11;
    let Pair { _elsewhere, place: _place, owner, beside } = Pair::start();
    make_room(&owner, FIT);
    let start = Barrier::new(2 * ASKED);
    let start = &start;
    let pairs: Vec<[Reply; 2]> = scope(|scope| {
        let ask = |number: usize, server| {
            let change = Change::reserve(&format!("twin-{number}"));
            start.wait();
            change.insist(server)
        };
        let twins = |number| [&owner, &beside].map(|server| scope.spawn(move || ask(number, server)));
        let asked: Vec<_> = (0..ASKED).map(twins).collect();
        asked.into_iter().map(|twins| twins.map(|asked| asked.join().unwrap())).collect()
    });
    for [one, other] in &pairs {
        assert_eq!(as_done(&one.json, &other.json), as_done(&other.json, &one.json));
        assert_ne!(is_replay(one), is_replay(other), "{} and {}", one.text, other.text);
    }
    let firsts: Vec<Reply> = pairs.into_iter().map(|[one, _]| one).collect();
    let (ids, denied) = allowed(&firsts);
    assert_eq!((ids.len(), denied), (FIT, ASKED - FIT));
    check_balanced(&beside);
}

/// Whether a process is stopped.
fn is_stopped(server: &Server) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    status.lines().any(|line| line.starts_with("State:\tT"))
}

/// Lets it go on when the test ends, also by a panic: its clients wait for it.
struct GoesOn<'a>(&'a Server);

impl Drop for GoesOn<'_> {
    fn drop(&mut self) {
        signal(self.0.pid(), Signal::CONT);
    }
}

/// Stops a server and waits until it is.
#[track_caller]
fn stop(server: &Server) -> GoesOn<'_> {
    signal(server.pid(), Signal::STOP);
    let paused = GoesOn(server);
    wait_until("it is stopped", || is_stopped(server));
    paused
}

/// Whether this process of PostgreSQL still has a session.
fn is_there(session: &mut Session, backend: u32) -> bool {
    let count = format!("SELECT count(*)::text FROM pg_stat_activity WHERE pid = {backend}");
    session.sql(&count) == ["1"]
}

/// Has the next batches of `beside` lock the head before they read, as they do for a while after another instance's
/// write. Three events.
fn take_turns(beside: &Server, owner: &Server) {
    for (number, server) in [beside, owner, beside].into_iter().enumerate() {
        Change::reserve(&format!("turn-{number}")).insist(server);
    }
}

/// A session in a transaction that keeps everybody else from a table.
fn locked_away(place: &Place, table: &str) -> Session {
    let mut holding = place.session("holdfast");
    holding.sql("BEGIN");
    holding.sql(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
    holding
}

/// Waits until the holder of the risk head waits for something itself, and gives its process.
#[track_caller]
fn holder_that_waits(place: &Place, watching: &mut Session) -> u32 {
    let holder = writing_backend(place);
    wait_until("the holder of the head waits", || {
        let waits = format!("SELECT pid::text FROM pg_stat_activity WHERE pid = {holder} AND wait_event_type = 'Lock'");
        !watching.sql(&waits).is_empty()
    });
    holder
}

#[test]
fn an_instance_that_is_stopped_in_a_batch_holds_up_the_other_no_longer_than_its_session_may_idle() {
    let Pair { _elsewhere, place, owner, beside } = Pair::start();
    take_turns(&beside, &owner);
    let mut watching = place.session("holdfast");
    // The batch has locked the head when it comes to the stocks.
    let mut holding = locked_away(&place, "risk_open");
    let change = Change::reserve("caught");
    scope(|scope| {
        let caught = scope.spawn(|| change.send(&beside).expect("an answer"));
        let backend = holder_that_waits(&place, &mut watching);
        let paused = stop(&beside);
        holding.sql("COMMIT");
        for number in 0..3 {
            let reply = Change::reserve(&format!("meanwhile-{number}")).send(&owner).expect("an answer");
            assert_eq!(reply.ok()["ok"], true);
        }
        wait_until("PostgreSQL has ended the session that held the head", || !is_there(&mut watching, backend));
        assert!(is_stopped(&beside));
        assert!(!events(&owner).contains_key("caught"), "nothing of its batch was committed");
        drop(paused);
        let reply = caught.join().unwrap();
        if reply.status != 200 {
            check_refusal(&reply);
        }
        let again = change.insist(&owner);
        assert_eq!(again.json["ok"], true, "{}", again.text);
        assert_eq!(is_replay(&again), reply.status == 200, "{} and {}", reply.text, again.text);
        assert!(reply.status != 200 || as_done(&reply.json, &again.json) == as_done(&again.json, &reply.json));
    });
    Change::reserve("after").insist(&beside);
    let found = events(&beside);
    assert!(found.values().all(|events| events.len() == 1), "{found:?}");
    assert_eq!(found.len(), 8);
    check_balanced(&beside);
}

#[test]
fn a_switch_that_is_pulled_while_a_batch_is_decided_under_the_head_binds_it() {
    let Pair { _elsewhere, place, owner, beside } = Pair::start();
    take_turns(&beside, &owner);
    let mut watching = place.session("holdfast");
    // The batch has read the switches when it comes to the keys.
    let mut holding = locked_away(&place, "idempotency_key");
    scope(|scope| {
        let caught = scope.spawn(|| Change::reserve("caught").send(&beside).expect("an answer").ok());
        holder_that_waits(&place, &mut watching);
        let engaged = owner.post("/go-live/kill-switch/engage", &json!({"actor": "test"})).ok();
        assert_eq!(engaged["kill_switch_engaged"], true);
        holding.sql("COMMIT");
        assert_eq!(caught.join().unwrap()["reason"], "kill_switch_engaged");
    });
    check_balanced(&beside);
}

#[test]
fn an_instance_that_is_stopped_in_an_upsert_holds_up_neither_reserves_nor_the_kill_switch() {
    let Pair { _elsewhere, place, owner, beside } = Pair::start();
    let mut watching = place.session("holdfast");
    let mut holding = place.session("holdfast");
    // The upsert has locked the risk head when it comes to the control head.
    holding.sql("BEGIN");
    holding.sql("SELECT stream FROM audit_head WHERE stream = 'control' FOR NO KEY UPDATE");
    let cap = json!({"engine": "WHOLESALE", "max_open_risk": 7, "actor": "test", "reason": "caught",
                     "idempotency_key": "caught"});
    scope(|scope| {
        let caught = scope.spawn(|| beside.try_post("/risk/policies/upsert", &cap).expect("an answer"));
        let waits = "SELECT pid::text FROM pg_stat_activity
                     WHERE wait_event_type = 'Lock' AND application_name = 'holdfast'";
        wait_until("the upsert waits", || !watching.sql(waits).is_empty());
        let backend: u32 = watching.sql(waits)[0].parse().expect("a process id");
        let paused = stop(&beside);
        holding.sql("COMMIT");
        let engaged = owner.post("/go-live/kill-switch/engage", &json!({"actor": "test"})).ok();
        assert_eq!(engaged["kill_switch_engaged"], true);
        let denied = Change::reserve("meanwhile").send(&owner).expect("an answer").ok();
        assert_eq!(denied["reason"], "kill_switch_engaged");
        wait_until("PostgreSQL has ended the session that held the heads", || !is_there(&mut watching, backend));
        assert!(is_stopped(&beside));
        drop(paused);
        let reply = caught.join().unwrap();
        check_refusal(&reply);
        let again = beside.post("/risk/policies/upsert", &cap).ok();
        assert_eq!(again["max_open_risk"].as_f64(), Some(7.0), "{again}");
    });
    check_balanced(&owner);
}

#[test]
fn an_instance_that_is_stopped_at_any_moment_leaves_the_other_able_to_reserve() {
    let Pair { _elsewhere, place: _place, owner, beside } = Pair::start();
    let told = Told::default();
    told.storm(&[&owner, &beside], 16, Client::Insists, || {
        for round in 0..4 {
            told.wait_for(40);
            let paused = stop(&beside);
            for number in 0..3 {
                told.tell(&owner, Client::Insists, Change::reserve(&format!("{round}-meanwhile-{number}")));
            }
            assert!(is_stopped(&beside));
            drop(paused);
        }
    });
    told.check_found(&owner);
    told.check_replays(&owner, 40);
    told.check_replays(&beside, 40);
    told.check_found(&beside);
}
