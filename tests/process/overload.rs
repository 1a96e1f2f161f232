//! More than can be decided in time: some are refused at once, the others are answered, and nothing in between.

use crate::storm::{Change, check_refusal, is_replay};
use crate::support::{Place, Reply, Server, wait_until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Three times what the queue holds.
const BURSTS: usize = 24;
const OPERATIONS: usize = 1_000;
/// Most memory that the process may ever have used, KiB.
const MEMORY_MAX_KIB: u64 = 512 * 1024;

/// A thousand reserves of 1 under one key, which is their thread, too.
fn send(server: &Server, burst: usize) -> Reply {
    let key = format!("burst-{burst}");
    let reserve = json!({"op": "reserve", "engine": "WHOLESALE", "amount": 1, "actor": "test", "correlation_id": key});
    let body = json!({"operations": vec![reserve; OPERATIONS], "idempotency_key": key});
    server.try_post("/risk/batch", &body).expect("an answer, if only a refusal")
}

/// The reservations that a burst was told of: all of it was allowed.
#[track_caller]
fn ids(reply: &Reply) -> Vec<String> {
    let results = reply.json["results"].as_array().unwrap_or_else(|| panic!("no results: {}", reply.text));
    assert_eq!(results.len(), OPERATIONS);
    let id = |result: &Value| {
        assert_eq!((&result["status"], &result["answer"]["ok"]), (&json!(200), &json!(true)), "{result}");
        result["answer"]["reservation_id"].as_str().expect("an id").to_owned()
    };
    results.iter().map(id).collect()
}

/// How many events each thread has.
fn events_by_thread(place: &Place) -> BTreeMap<String, usize> {
    let sql =
        "SELECT correlation_id || ' ' || count(*) FROM risk_event WHERE action = 'RESERVE' GROUP BY correlation_id";
    let read = |row: &String| {
        let (thread, count) = row.rsplit_once(' ').expect("two words");
        (thread.to_owned(), count.parse().expect("a number"))
    };
    place.sql("holdfast", sql).iter().map(read).collect()
}

/// The most memory that a process has used so far, KiB.
fn peak_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.expect("Linux says it").trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_flood_is_refused_or_done_in_full_in_bounded_memory() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    Change::reserve("warm").insist(&server);
    // The ledger stands still until the queue has refused somebody, so that the machine's speed does not matter.
    let mut holding = place.session("holdfast");
    holding.sql("BEGIN");
    holding.sql("SELECT stream FROM audit_head WHERE stream = 'risk' FOR UPDATE");
    let overloaded = AtomicUsize::new(0);
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let flood = |burst| {
            let reply = send(&server, burst);
            if reply.status != 200 {
                check_refusal(&reply);
                if reply.unavailable() == "OVERLOADED" {
                    overloaded.fetch_add(1, Ordering::SeqCst);
                }
            }
            reply
        };
        let asked: Vec<_> = (0..BURSTS).map(|burst| scope.spawn(move || flood(burst))).collect();
        wait_until("the queue is full", || overloaded.load(Ordering::SeqCst) > 0);
        holding.sql("COMMIT");
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let memory = peak_memory(&server);
    assert!(memory < MEMORY_MAX_KIB, "{memory} KiB");

    let done: Vec<usize> = (0..BURSTS).filter(|burst| replies[*burst].status == 200).collect();
    let mut found = events_by_thread(&place);
    let total: usize = found.values().sum();
    for (burst, reply) in replies.iter().enumerate() {
        let events = found.remove(&format!("burst-{burst}")).unwrap_or_default();
        match reply.json["error"].as_str() {
            None => assert_eq!(events, OPERATIONS, "what was allowed is there"),
            // On a machine so slow that the caller is not kept waiting any longer: the one refusal that does not know.
            Some("DEADLINE_EXCEEDED") => assert!([0, OPERATIONS].contains(&events)),
            Some(refusal) => assert_eq!(events, 0, "{refusal}: nothing was decided"),
        }
    }
    assert_eq!(found, BTreeMap::from([("warm".to_owned(), 1)]));
    let told: Vec<_> = done.iter().flat_map(|burst| ids(&replies[*burst])).collect();
    let rows: BTreeSet<_> = place.sql("holdfast", "SELECT id::text FROM risk_reservation").into_iter().collect();
    assert_eq!(rows.len(), total);
    let told: BTreeSet<_> = told.into_iter().collect();
    assert_eq!(told.len(), done.len() * OPERATIONS, "two operations were told of one reservation");
    assert!(told.is_subset(&rows));

    // Afterwards it works as before; what was refused can be sent again, and what was done is.
    Change::reserve("single").insist(&server);
    let refused = replies.iter().position(|reply| reply.json["error"] == "OVERLOADED").expect("somebody was refused");
    let again = send(&server, refused);
    assert!(!is_replay(&again));
    let late = ids(&again);
    assert!(late.iter().all(|id| !rows.contains(id)));
    for (burst, first) in done.iter().map(|burst| (*burst, ids(&replies[*burst]))).take(2).chain([(refused, late)]) {
        let replayed = send(&server, burst);
        assert!(is_replay(&replayed));
        assert_eq!(ids(&replayed), first);
    }
    let found = server.get("/risk/reconciliation").ok();
    assert_eq!(found["balanced"], true, "{found}");
    assert!(peak_memory(&server) < MEMORY_MAX_KIB);
}
