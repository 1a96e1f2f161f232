//! New connections lead to a standby for a while, and then to the primary again.

use crate::standby::{Nodes, Replication};
use crate::support::{Place, Server, wait_until};
use serde_json::json;
use std::thread;

/// Ends every session of the service with the primary.
fn end_sessions(nodes: &Nodes) {
    nodes.primary.session("postgres").sql(
        "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = 'holdfast' AND pid <> pg_backend_pid()",
    );
}

/// The caps of an engine, a little tighter than they are.
fn caps() -> serde_json::Value {
    json!({"engine": "WHOLESALE", "max_daily_loss": 900_000, "max_daily_exposure": 900_000, "max_open_risk": 900_000,
           "actor": "test", "reason": "another value"})
}

fn is_ready(server: &Server) -> bool {
    server.try_get("/readyz").is_ok_and(|reply| reply.status == 200)
}

#[test]
fn after_a_while_on_a_standby_everything_works_at_once_and_nothing_was_read_there() {
    let place = Place::new();
    let nodes = Nodes::start(&place, Replication::Asynchronous);
    let server = place.serve_with(&[], &[("DATABASE_URL", &nodes.url())]);
    server.go_live();
    let reserved = server.try_reserve().expect("an answer").ok();
    let path = format!("/risk/reservations/{}", reserved["reservation_id"].as_str().expect("an id"));
    nodes.wait_until_caught_up();

    nodes.point_at(&nodes.standby);
    end_sessions(&nodes);
    wait_until("it is not ready", || !is_ready(&server));
    // Everything that has a connection of its own, or one of a pool, asks for a new one now.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let reply = server.get(&path);
                assert_eq!(reply.unavailable(), "DATABASE_UNAVAILABLE");
                let detail = reply.json["detail"].as_str().unwrap_or_default();
                assert!(detail.contains("this server is a standby"), "{detail}");
            });
        }
        scope.spawn(|| server.post("/risk/policies/upsert", &caps()).unavailable().to_owned());
        scope.spawn(|| server.post("/go-live/disable", &json!({"actor": "test"})).unavailable().to_owned());
    });

    nodes.point_at(&nodes.primary);
    // Each at its first attempt. Without a pause: the switch is pulled while the way has only just been mended.
    server.post("/go-live/kill-switch/engage", &json!({"actor": "test"})).ok();
    assert!(!place.data().join("KILL").exists(), "a kill file beside a database that takes writes");
    server.get(&path).ok();
    server.post("/go-live/kill-switch/release", &json!({"actor": "test", "reason": "again"})).ok();
    server.post("/go-live/disable", &json!({"actor": "test"})).ok();
    server.post("/go-live/enable", &json!({"actor": "test"})).ok();
    server.post("/risk/policies/upsert", &caps()).ok();
    wait_until("it is ready", || is_ready(&server));
    let reserved = server.try_reserve().expect("an answer").ok();
    server.get(&format!("/risk/reservations/{}", reserved["reservation_id"].as_str().expect("an id"))).ok();
}

#[test]
fn a_switch_whose_sessions_were_ended_is_pulled_on_a_new_one() {
    let place = Place::new();
    let nodes = Nodes::start(&place, Replication::Asynchronous);
    let server = place.serve_with(&[], &[("DATABASE_URL", &nodes.url())]);
    server.go_live();
    for _ in 0..3 {
        // Its connection is in use, waiting for the head, when it breaks.
        let mut holder = nodes.primary.session("holdfast");
        holder.sql("BEGIN");
        holder.sql("SELECT stream FROM audit_head WHERE stream = 'control' FOR UPDATE");
        thread::scope(|scope| {
            let engaged = scope.spawn(|| server.post("/go-live/kill-switch/engage", &json!({"actor": "test"})).ok());
            let mut session = nodes.primary.session("holdfast");
            wait_until("the engage waits for the head", || {
                session.sql("SELECT 'waits' FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == ["waits"]
            });
            session.sql("SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
            holder.sql("ROLLBACK");
            assert_eq!(engaged.join().expect("the engage is answered")["kill_switch_engaged"], true);
        });
    }
    assert!(!place.data().join("KILL").exists(), "a kill file beside a database that takes writes");
}

#[test]
fn a_standby_is_refused_at_the_start() {
    let place = Place::new();
    let nodes = Nodes::start(&place, Replication::Asynchronous);
    nodes.point_at(&nodes.standby);
    let refused = place.run(&["serve"], &[("DATABASE_URL", &nodes.url()), ("BIND_ADDR", "127.0.0.1:0")]);
    let sentence = refused.refusal();
    assert!(sentence.contains("this server is a standby"), "{sentence}");
}
