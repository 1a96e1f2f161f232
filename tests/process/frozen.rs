//! A PostgreSQL that is there and does not answer: the outage that no error reports.

use crate::support::{Place, signal, wait_until};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_disable_that_cannot_be_recorded_says_what_stops_everything_all_the_same() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let frozen = place.postgres();
    for pid in &frozen {
        signal(*pid, Signal::STOP);
    }
    let disabled = server.post("/go-live/disable", &json!({"actor": "test"}));
    assert_eq!(disabled.unavailable(), "DATABASE_UNAVAILABLE");
    let detail = disabled.json["detail"].as_str().expect("a sentence");
    for way in ["POST /api/governance/go-live/kill-switch/engage", "holdfast kill"] {
        assert!(detail.contains(way), "{detail}");
    }
    assert_eq!(disabled.json["retry_same_key"], true, "{}", disabled.text);
    for pid in &frozen {
        signal(*pid, Signal::CONT);
    }
    server.stop(Signal::TERM);
}

#[test]
fn a_frozen_postgresql_blocks_everything_until_it_thaws() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    assert_eq!(server.try_reserve().expect("an answer").ok()["ok"], true);
    assert_eq!(server.get_root("/api/deals").status, 404, "the gate is open");

    let frozen = place.postgres();
    for pid in &frozen {
        signal(*pid, Signal::STOP);
    }
    wait_until("the gate closes", || server.get_root("/api/deals").status == 503);
    std::thread::scope(|scope| {
        let reserve = || server.try_reserve().expect("an answer within the deadline");
        let engage = || server.post("/go-live/kill-switch/engage", &json!({"actor": "test"}));
        let read = || server.get("/go-live/state");
        let answers = [scope.spawn(reserve), scope.spawn(reserve), scope.spawn(engage), scope.spawn(read)];
        // Meanwhile:
        let blocked = server.get_root("/api/deals");
        assert_eq!(blocked.unavailable(), "STATE_STALE");
        let ready = server.get_root("/readyz");
        assert_eq!(ready.status, 503);
        assert_eq!(ready.json["ready"], false);
        assert!(ready.json["reason"].is_string(), "{}", ready.text);
        server.get_root("/health").ok();
        server.get_root("/livez").ok();
        server.get_root("/metrics");
        for answer in answers {
            answer.join().unwrap().unavailable();
        }
    });
    assert_eq!(
        server.get_root("/api/deals").status,
        403,
        "the engage that could not be recorded stopped this instance"
    );

    for pid in &frozen {
        signal(*pid, Signal::CONT);
    }
    server.wait_until_ready();
    // The engage that could not be recorded still stops this instance, until its kill file is removed.
    assert_eq!(server.get_root("/api/deals").status, 403, "the kill file is there");
    assert_eq!(server.try_reserve().expect("an answer").ok()["reason"], "kill_switch_engaged");
    std::fs::remove_file(place.data().join("KILL")).expect("the engage wrote it");
    wait_until("the gate is open", || server.get_root("/api/deals").status == 404);
    wait_until("reserves work again", || server.try_reserve().is_ok_and(|reply| reply.json["ok"] == true));
    let (ids, open) = server.reservations();
    assert_eq!(ids.len() as u64, open);
    assert_eq!(open, 2, "what was answered 503 has reserved nothing");
    let state = server.get("/go-live/state").ok();
    assert_eq!(state["kill_switch_engaged"], false, "it was answered 503");
    assert_eq!(server.get_root("/api/deals").status, 404, "the gate is open");
    server.stop(Signal::TERM);
}
