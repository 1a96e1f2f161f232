//! Starting, stopping, starting again.

use crate::support::{Place, Reply, Server, signal, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};

/// Everything that a server knows.
fn everything(server: &Server) -> Value {
    [
        "/go-live/state",
        "/go-live/packs",
        "/go-live/events",
        "/risk/policies",
        "/risk/ledger/today",
        "/risk/reservations",
        "/risk/events",
        "/heimdall/policies",
        "/heimdall/scorecard/today",
        "/heimdall/events",
        "/regression/policies",
        "/regression/state",
        "/regression/kpi",
    ]
    .iter()
    .map(|path| (path.to_string(), server.get(path).ok()))
    .chain([("heads".to_owned(), server.get("/review").ok()["audit"].clone())])
    .collect::<serde_json::Map<_, _>>()
    .into()
}

#[test]
fn a_stop_by_signal_is_orderly_and_the_next_start_finds_everything_as_it_was() {
    let place = Place::new();
    let server = place.serve();
    let ready = server.get_root("/readyz").ok();
    assert_eq!(ready["enforcement"], "all");
    server.go_live();
    server.try_reserve().expect("an answer").ok();
    server.post("/heimdall/sandbox/trial", &json!({"domain": "BUYER_MATCH", "confidence": 0.95, "success": true})).ok();
    server.post("/regression/kpi", &json!({"domain": "WHOLESALE", "metric": "contract_rate", "success": true})).ok();
    let before = everything(&server);
    assert_eq!(before["/go-live/state"]["go_live_enabled"], true);
    assert_eq!(before["/risk/reservations"]["items"].as_array().map(Vec::len), Some(1));
    assert!(before["heads"].is_array(), "{before}");

    let mut server = server;
    for by in [Signal::TERM, Signal::INT] {
        let log = server.stop(by);
        assert!(log.lines().last().unwrap().contains("stopped"), "{log}");
        place.check_nothing_runs();
        server = place.serve();
        assert_eq!(everything(&server), before, "after {by:?}");
    }
    server.try_reserve().expect("an answer").ok();
}

#[test]
fn a_request_in_flight_at_a_stop_is_answered_and_new_ones_are_not_taken() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let mut stream = server.connect().unwrap();
    let body = r#"{"engine":"WHOLESALE","amount":1,"actor":"test"}"#;
    write!(stream, "POST /api/governance/risk/check-and-reserve HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    let mut waiting = [0; 25];
    // Sent when the handler asks for the body: the request is in flight.
    stream.read_exact(&mut waiting).unwrap();
    assert_eq!(&waiting, b"HTTP/1.1 100 Continue\r\n\r\n");
    signal(server.pid(), Signal::TERM);
    wait_until("no connection is taken", || server.connect().is_err());
    stream.write_all(body.as_bytes()).unwrap();
    let reply = Reply::read(&mut stream).expect("an answer");
    assert_eq!(reply.ok()["ok"], true);
    let ended = server.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    place.check_nothing_runs();
}

#[test]
fn a_stop_during_the_start_is_orderly() {
    for stage in ["data/owner.lock", "data/pg", "data/pg/postmaster.pid"] {
        let place = Place::new();
        let server = place.launch(&[], &[]);
        wait_until(stage, || place.path(stage).exists());
        signal(server.pid(), Signal::TERM);
        let ended = server.ended();
        assert_eq!(ended.code, Some(0), "{stage}: {ended:?}");
        place.check_nothing_runs();
        place.serve().stop(Signal::TERM);
    }
}
