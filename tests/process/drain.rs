//! A stop that a balancer hears of before anybody is refused.

use crate::support::{Place, Reply, Server, free_port, post, signal, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};

/// A balancer as simple as they come: the next request goes to the next instance that was ready when it last looked. It does not
/// retry.
struct Balancer<'a> {
    servers: [&'a Server; 2],
    ready: [bool; 2],
    next: usize,
}

impl Balancer<'_> {
    fn look(&mut self) {
        self.ready = self.servers.map(|server| server.try_get("/readyz").is_ok_and(|reply| reply.status == 200));
    }

    #[track_caller]
    fn post(&mut self) {
        loop {
            self.next = (self.next + 1) % 2;
            if self.ready[self.next] {
                break;
            }
        }
        let reserved = self.servers[self.next].try_reserve().expect("no connection is refused");
        assert_eq!(reserved.ok()["ok"], true);
    }
}

#[test]
fn no_post_is_refused_while_a_stop_is_announced_and_the_second_signal_ends_that() {
    let place = Place::new();
    let owner = place.serve();
    owner.go_live();
    let elsewhere = Place::new();
    let metrics = free_port();
    let env = [
        ("DATABASE_URL", place.url("holdfast")),
        ("DRAIN_SECONDS", "600".to_owned()),
        ("METRICS_ADDR", format!("127.0.0.1:{metrics}")),
    ];
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let beside = elsewhere.serve_with(&[], &env);
    let mut balancer = Balancer { servers: [&owner, &beside], ready: [false; 2], next: 0 };
    balancer.look();
    assert_eq!(balancer.ready, [true; 2]);
    for _ in 0..20 {
        balancer.post();
    }
    // Connections that are kept: one that is used once more, and ends with that answer, and one with a request in flight.
    let mut kept = BufReader::new(beside.connect().expect("a connection"));
    let (head, body) = post("/risk/check-and-reserve", &json!({"engine": "WHOLESALE", "amount": 1, "actor": "test"}));
    let request = format!("{head}\r\n{body}").replace("Connection: close\r\n", "");
    kept.get_mut().write_all(request.as_bytes()).expect("it takes it");
    let mut first = String::new();
    while first.lines().last().is_none_or(|line| !line.is_empty()) {
        assert!(kept.read_line(&mut first).expect("an answer") > 0, "{first}");
    }
    assert!(!first.to_ascii_lowercase().contains("connection: close"), "{first}");
    let length = first.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    kept.read_exact(&mut body).expect("the body");

    signal(beside.pid(), Signal::TERM);
    wait_until("the stop is announced", || beside.get_root("/readyz").status == 503);
    let announced = beside.get_root("/readyz");
    assert_eq!(announced.json["reason"], "shutting down", "{}", announced.text);
    beside.get_root("/livez").ok();
    // The balancer has not looked yet.
    for _ in 0..20 {
        balancer.post();
    }
    kept.get_mut().write_all(request.as_bytes()).expect("it still takes it");
    let last = Reply::read(kept.get_mut()).expect("an answer, and the end of the connection");
    assert_eq!(last.header("connection"), Some("close"), "{}", last.head);
    assert_eq!(last.ok()["ok"], true);
    balancer.look();
    assert_eq!(balancer.ready, [true, false]);
    for _ in 0..20 {
        balancer.post();
    }
    let log = beside.stop(Signal::INT);
    assert!(log.contains("still serving for 600 s"), "{log}");
    let (ids, open) = owner.reservations();
    assert_eq!((ids.len(), open), (62, 62));
    owner.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn an_announced_stop_begins_by_itself() {
    let place = Place::new();
    let server = place.serve_with(&[], &[("DRAIN_SECONDS", "1")]);
    let log = server.stop(Signal::TERM);
    let order = ["still serving for 1 s", "finishing the requests in flight", "stopped"].map(|line| log.find(line));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{log}");
    place.check_nothing_runs();
}

#[test]
fn a_stop_during_the_start_is_not_announced_since_nobody_was_told_to_come() {
    let place = Place::new();
    let server = place.launch(&[], &[("DRAIN_SECONDS", "600")]);
    wait_until("it starts", || place.path("data/owner.lock").exists());
    let log = server.stop(Signal::TERM);
    assert!(!log.contains("still serving"), "{log}");
    place.check_nothing_runs();
}
