//! A standby that lacks events that were answered: noticed by who knew them, after a restart as well, until it is accepted.

use crate::standby::{Nodes, Replication};
use crate::support::{Place, Server, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::fs;

/// Leads a server that was answered three reserves to a primary that has the first of them alone.
fn lose_two_events(place: &Place, nodes: &mut Nodes, server: &Server) {
    server.go_live();
    server.try_reserve().expect("an answer").ok();
    nodes.wait_until_caught_up();
    nodes.standby.kill();
    for _ in 0..2 {
        server.try_reserve().expect("an answer").ok();
    }
    wait_until("the marks are written", || marks(place).contains("risk 3 "));
    nodes.primary.kill();
    nodes.standby.start();
    nodes.standby.promote();
    nodes.point_at(&nodes.standby);
}

/// The marks that this machine remembers.
fn marks(place: &Place) -> String {
    let files = fs::read_dir(place.data().join("marks")).into_iter().flatten();
    let files = files.filter_map(|file| Some(file.ok()?.path()));
    files
        .filter(|file| file.extension().is_some_and(|name| name == "marks"))
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect()
}

#[track_caller]
fn check_that_it_has_noticed(server: &Server) {
    wait_until("it notices", || {
        let ready = server.get_root("/readyz");
        ready.status == 503 && ready.json["reason"].as_str().is_some_and(|reason| reason.contains("accept-rewind"))
    });
    assert_eq!(server.get_root("/api/deals").unavailable(), "STATE_REWOUND");
    assert_eq!(server.try_reserve().expect("an answer").unavailable(), "STATE_REWOUND");
    let event = json!({"domain": "D", "metric": "m", "success": true});
    assert_eq!(server.post("/regression/kpi", &event).unavailable(), "STATE_REWOUND");
}

#[test]
fn a_promoted_standby_that_lacks_answered_events_is_noticed_also_after_a_restart_until_it_is_accepted() {
    let place = Place::new();
    let mut nodes = Nodes::start(&place, Replication::Asynchronous);
    let url = nodes.url();
    let env = [("DATABASE_URL", &*url)];
    let server = place.serve_with(&[], &env);
    lose_two_events(&place, &mut nodes, &server);
    check_that_it_has_noticed(&server);
    let events = || nodes.standby.session("holdfast").sql("SELECT count(*)::text FROM risk_event");
    assert_eq!(events(), ["1"], "event 2 was not written again");
    // Stopping everything always works.
    server.post("/go-live/kill-switch/engage", &json!({"actor": "test"})).ok();
    server.stop(Signal::TERM);
    let again = place.launch(&[], &env);
    wait_until("it answers", || again.try_get("/livez").is_ok());
    check_that_it_has_noticed(&again);
    again.kill();
    let again = place.launch(&[], &env);
    wait_until("it answers", || again.try_get("/livez").is_ok());
    check_that_it_has_noticed(&again);
    assert_eq!(events(), ["1"]);

    let accepted = place.run(&["db", "accept-rewind", "--actor", "bryan", "--reason", "failover"], &env);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    assert!(accepted.out.contains("risk: events 2 to 3 lost"), "{accepted:?}");
    let detail = nodes
        .standby
        .session("holdfast")
        .sql("SELECT detail FROM control_event WHERE action = 'GO_LIVE_REWIND_ACCEPT'");
    // Event 1 is proven to be there if a checkpoint was made in time.
    assert!(detail[0].contains(r#""stream":"risk","kept":"#), "{detail:?}");
    assert!(detail[0].contains(r#""head":1,"known":3"#), "{detail:?}");
    again.wait_until_ready();
    again.post("/go-live/kill-switch/release", &json!({"actor": "test"})).ok();
    again.try_reserve().expect("an answer").ok();
    assert_eq!(events(), ["2"]);
    // The accepted history is remembered.
    again.stop(Signal::TERM);
    let again = place.serve_with(&[], &env);
    again.try_reserve().expect("an answer").ok();
    again.stop(Signal::TERM);
}

#[test]
fn a_server_that_stands_still_through_a_failover_that_loses_events_writes_none_of_their_numbers() {
    let place = Place::new();
    let mut nodes = Nodes::start(&place, Replication::Asynchronous);
    let url = nodes.url();
    let server = place.serve_with(&[], &[("DATABASE_URL", &url)]);
    server.go_live();
    server.try_reserve().expect("an answer").ok();
    nodes.wait_until_caught_up();
    nodes.standby.kill();
    server.try_reserve().expect("an answer").ok();
    crate::support::signal(server.pid(), Signal::STOP);
    nodes.primary.kill();
    nodes.standby.start();
    nodes.standby.promote();
    nodes.point_at(&nodes.standby);
    crate::support::signal(server.pid(), Signal::CONT);
    // The writer or the feed may be the first to notice.
    wait_until("it says so", || {
        let reply = server.try_reserve().expect("an answer");
        assert_eq!(reply.status, 503, "{}", reply.text);
        reply.json["error"] == "STATE_REWOUND"
    });
    let events = nodes.standby.session("holdfast").sql("SELECT count(*)::text FROM risk_event");
    assert_eq!(events, ["1"]);
    server.stop(Signal::TERM);
}

#[test]
fn no_checkpoint_is_signed_by_hand_of_a_trail_that_lacks_events_that_this_machine_knew() {
    let place = Place::new();
    let owner = place.serve();
    place.sql("postgres", "CREATE DATABASE other");
    let elsewhere = Place::new();
    let url = place.url("other");
    let env = [("DATABASE_URL", &*url)];
    let server = elsewhere.serve_with(&[], &env);
    server.go_live();
    server.try_reserve().expect("an answer").ok();
    server.stop(Signal::TERM);
    place.sql("postgres", "CREATE DATABASE older TEMPLATE other");
    let server = elsewhere.serve_with(&[], &env);
    server.try_reserve().expect("an answer").ok();
    server.stop(Signal::TERM);
    assert!(marks(&elsewhere).contains("risk 2 "), "{}", marks(&elsewhere));
    // The restore of a dump, in place; and nothing was signed before.
    place.sql("postgres", "DROP DATABASE other");
    place.sql("postgres", "ALTER DATABASE older RENAME TO other");
    fs::remove_dir_all(elsewhere.data().join("checkpoints")).expect("the server made it");
    let refused = elsewhere.run(&["audit", "checkpoint"], &env);
    let sentence = refused.refusal();
    assert!(sentence.contains("risk: event 2 lost") && sentence.contains("nothing is signed"), "{sentence}");
    let accepted = elsewhere.run(&["db", "accept-rewind", "--reason", "a restore"], &env);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    let signed = elsewhere.run(&["audit", "checkpoint"], &env);
    assert_eq!(signed.code, Some(0), "{signed:?}");
    assert!(signed.out.contains("\nrisk 1 "), "{signed:?}");
    owner.stop(Signal::TERM);
}

#[test]
fn a_database_that_took_the_place_of_another_is_not_used_and_marks_that_cannot_be_read_stop_the_start() {
    let place = Place::new();
    let owner = place.serve();
    place.sql("postgres", "CREATE DATABASE other");
    let elsewhere = Place::new();
    let url = place.url("other");
    let env = [("DATABASE_URL", &*url)];
    elsewhere.serve_with(&[], &env).stop(Signal::TERM);
    place.sql("postgres", "DROP DATABASE other");
    place.sql("postgres", "CREATE DATABASE other");
    let other = elsewhere.launch(&[], &env);
    wait_until("it answers", || other.try_get("/livez").is_ok());
    check_that_it_has_noticed(&other);
    let accepted = elsewhere.run(&["db", "accept-rewind", "--reason", "made anew"], &env);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    other.wait_until_ready();
    other.stop(Signal::TERM);
    // Another address of the same directory has marks of its own.
    let file =
        fs::read_dir(elsewhere.data().join("marks")).expect("marks").next().expect("a file").expect("a file").path();
    fs::write(&file, "half a fi").expect("it is ours");
    let refused = elsewhere.run(&["serve"], &env);
    assert!(refused.refusal().contains(&file.display().to_string()), "{refused:?}");
    owner.stop(Signal::TERM);
}
