//! Holds that nobody ends, and callers who do not wait for their answer.

use crate::storm::{Change, check_balanced, events, is_replay};
use crate::support::{Place, wait_until};
use serde_json::{Value, json};
use std::io::{Read, Write};

#[test]
fn a_hold_that_is_due_expires_without_any_other_request_and_its_settle_is_late() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let hold = json!({"engine": "WHOLESALE", "amount": 1, "ttl_seconds": 1, "actor": "test"});
    let made = server.post("/risk/check-and-reserve", &hold).ok();
    let path = format!("/risk/reservations/{}", made["reservation_id"].as_str().expect("an id"));
    assert!(made["expires_at"].is_string(), "{made}");
    // Reads decide nothing.
    wait_until("the ledger has expired it", || server.get(&path).ok()["closed_at"].is_string());
    let expired = server.get(&path).ok();
    assert_eq!(expired["status"], "EXPIRED", "{expired}");
    assert_eq!(expired["open_amount"].as_f64(), Some(0.0), "{expired}");
    assert!(expired["closed_at"].as_str() >= made["expires_at"].as_str(), "expired early: {expired}");
    check_balanced(&server);
    let GlobalToday { open, loss } = global_today(&server);
    assert_eq!((open, loss), (Some(0.0), Some(0.0)));

    let settle = json!({"realized_loss": 2, "actor": "test"});
    let settled = server.post(&format!("{path}/settle"), &settle).ok();
    assert_eq!((&settled["late"], settled["released"].as_f64()), (&json!(true), Some(0.0)), "{settled}");
    assert_eq!(server.get(&path).ok()["status"], "SETTLED");
    let GlobalToday { open, loss } = global_today(&server);
    assert_eq!((open, loss), (Some(0.0), Some(2.0)));
    let found = server.get("/risk/reconciliation").ok();
    assert_eq!(found["balanced"], true, "{found}");
    let actions = |events: &[Value]| events.iter().map(|event| event["action"].clone()).collect::<Vec<_>>();
    let events: Vec<_> = events(&server).into_values().flatten().collect();
    assert_eq!(actions(&events), ["SETTLE", "EXPIRE", "RESERVE"], "newest first");
}

/// The state of GLOBAL.
struct GlobalToday {
    open: Option<f64>,
    loss: Option<f64>,
}

#[track_caller]
fn global_today(server: &crate::support::Server) -> GlobalToday {
    let ledger = server.get("/risk/ledger/today").ok();
    let global = ledger.as_array().expect("a list").iter().find(|row| row["engine"] == "GLOBAL").expect("a row");
    GlobalToday { open: global["open_risk_reserved"].as_f64(), loss: global["realized_loss"].as_f64() }
}

#[test]
fn a_keyed_reserve_whose_client_leaves_in_the_middle_completes_and_the_key_has_its_answer() {
    const CLIENTS: usize = 40;
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let changes: Vec<_> = (0..CLIENTS).map(|number| Change::reserve(&format!("gone-{number}"))).collect();
    std::thread::scope(|scope| {
        for change in &changes {
            scope.spawn(|| {
                let mut stream = server.connect().expect("a connection");
                let (head, body) = change.request();
                stream.write_all(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes()).expect("it is sent");
                // Answered when the handler asks for the body: the request is in flight.
                stream.read_exact(&mut [0; 25]).expect("the server goes on");
                stream.write_all(body.as_bytes()).expect("it is sent");
                // Closed with the end of this block: nobody reads the answer.
            });
        }
    });
    wait_until("all were done", || events(&server).len() == CLIENTS);
    for change in &changes {
        let reply = change.send(&server).expect("an answer");
        assert!(is_replay(&reply), "{}", reply.text);
        let id = reply.ok()["reservation_id"].clone();
        let made = server.get(&format!("/risk/reservations/{}", id.as_str().expect("an id"))).ok();
        assert_eq!((&made["status"], &made["correlation_id"]), (&json!("OPEN"), &json!(change.key)));
    }
    assert_eq!(events(&server).values().map(Vec::len).sum::<usize>(), CLIENTS);
    check_balanced(&server);
}

#[test]
fn a_keyed_reserve_whose_client_leaves_at_once_is_done_once_when_it_is_sent_again() {
    const CLIENTS: usize = 40;
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let changes: Vec<_> = (0..CLIENTS).map(|number| Change::reserve(&format!("gone-{number}"))).collect();
    std::thread::scope(|scope| {
        for change in &changes {
            scope.spawn(|| {
                let mut stream = server.connect().expect("a connection");
                let (head, body) = change.request();
                // If the server sees the end together with the request, it has not begun the request, and drops it.
                stream.write_all(format!("{head}\r\n{body}").as_bytes()).expect("it is sent");
                drop(stream);
                assert_eq!(change.send(&server).expect("an answer").ok()["ok"], true);
            });
        }
    });
    for change in &changes {
        let reply = change.send(&server).expect("an answer");
        assert!(is_replay(&reply), "{}", reply.text);
    }
    let found = events(&server);
    assert_eq!((found.len(), found.values().map(Vec::len).sum::<usize>()), (CLIENTS, CLIENTS), "{found:?}");
    check_balanced(&server);
}
