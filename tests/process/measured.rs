//! Measurements through kill -9: each that was answered stands once.

use crate::support::{Place, Server, signal, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CLIENTS: u64 = 4;

/// Measurements under ids of their own, each insisted upon until it is answered.
#[derive(Default)]
struct Told {
    next: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Told {
    fn measure_on(&self, server: &Server) {
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            // Three in four succeed; single ones and small batches.
            let event = |part: u64| {
                let success = !(number + part).is_multiple_of(4);
                json!({"domain": "LAB", "metric": "rate", "success": success, "event_id": format!("{number}/{part}")})
            };
            let (path, body, events) = if number.is_multiple_of(5) {
                ("/regression/kpi/batch", json!({"events": [event(0), event(1), event(2)]}), 3)
            } else {
                ("/regression/kpi", event(0), 1)
            };
            loop {
                match server.try_post(path, &body) {
                    Ok(reply) if reply.status == 200 => break,
                    Ok(reply) => drop(reply.unavailable().to_owned()),
                    // The connection broke; what came of it is found by the ids.
                    Err(_) => {}
                }
                self.refused.fetch_add(1, Ordering::SeqCst);
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
            }
            self.answered.fetch_add(events, Ordering::SeqCst);
        }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

/// Tells the clients to stop when it is dropped, also by a panic.
struct StopClients<'a>(&'a Told);

impl Drop for StopClients<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// The chain is whole. A service that has just started may be verifying it itself, one at a time.
fn check_chain(server: &Server) {
    let mut verified = Value::Null;
    wait_until("the trail can be verified", || {
        let reply = server.get("/audit/verify");
        verified = reply.json.clone();
        reply.status == 200
    });
    assert_eq!(verified["ok"], true, "{verified}");
}

/// Everything that was answered is there, the chain is whole, and a replay of the events finds no more trips than the wire made.
fn check(server: &Server, told: &Told) {
    let newest = server.get("/regression/kpi?domain=LAB&metric=rate&limit=1").ok()["items"][0].clone();
    let stored = newest["series_seq"].as_u64().expect("there are events");
    // Beyond what was answered, only what clients were waiting for when they stopped.
    assert!((told.answered()..=told.answered() + CLIENTS * 3).contains(&stored), "{stored} of {}", told.answered());
    check_chain(server);
    let states = server.get("/regression/state").ok();
    let state = states
        .as_array()
        .expect("a list")
        .iter()
        .find(|row| row["domain"] == "LAB" && row["metric"] == "rate")
        .cloned();
    let replayed = server.post("/regression/backtest", &json!({"domain": "LAB", "metric": "rate", "shuffles": 0}));
    let replayed = replayed.ok();
    assert_eq!((&replayed["events"], &replayed["trips_count"]), (&json!(stored), &json!(0)));
    assert_eq!(state.map(|state| state["status"].clone()), Some(Value::from("ARMED")));
}

#[test]
fn through_kill_9_of_postgresql_and_of_the_server_every_measurement_is_recorded_once() {
    let place = Place::new();
    let mut server = place.serve();
    server.go_live();
    let wire = json!({"domain": "LAB", "metric": "rate", "detector": "SEQUENTIAL"});
    server.post("/regression/policies/upsert", &wire).ok();
    let told = Told::default();
    std::thread::scope(|scope| {
        let _stop = StopClients(&told);
        for _ in 0..CLIENTS {
            scope.spawn(|| told.measure_on(&server));
        }
        wait_until("enough was answered", || told.answered() >= 300);
        let refused = told.refused.load(Ordering::SeqCst);
        let first = place.postmaster().expect("it runs");
        for pid in place.postgres() {
            signal(pid, Signal::KILL);
        }
        wait_until("measurements are refused", || told.refused.load(Ordering::SeqCst) > refused);
        wait_until("another PostgreSQL runs", || place.postmaster().is_some_and(|pid| pid != first));
        let wanted = told.answered() + 200;
        wait_until("and measurements are answered", || told.answered() >= wanted);
    });
    server.wait_until_ready();
    check(&server, &told);

    told.stop.store(false, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let _stop = StopClients(&told);
        for _ in 0..CLIENTS {
            scope.spawn(|| told.measure_on(&server));
        }
        let wanted = told.answered() + 200;
        wait_until("enough was answered", || told.answered() >= wanted);
        signal(server.pid(), Signal::KILL);
    });
    server.kill();
    server = place.serve();
    server.wait_until_ready();
    // Up to three of each client were cut off twice now.
    let newest = server.get("/regression/kpi?domain=LAB&metric=rate&limit=1").ok()["items"][0].clone();
    let stored = newest["series_seq"].as_u64().expect("there are events");
    assert!((told.answered()..=told.answered() + 2 * CLIENTS * 3).contains(&stored), "{stored} of {}", told.answered());
    check_chain(&server);
    server.stop(Signal::TERM);
    place.check_nothing_runs();
}
