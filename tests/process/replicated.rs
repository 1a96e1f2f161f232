//! Answered changes survive the primary: while a synchronous standby is away, no client gets an answer for a change
//! that the standby lacks.

use crate::standby::{Nodes, Replication};
use crate::storm::{Change, check_refusal, is_replay};
use crate::support::{Place, Reply, Server, signal, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::path::Path;
use std::thread::scope;

/// How a wait for the standby ends without it.
#[derive(Debug, Clone, Copy)]
enum Ended {
    /// `kill -9` of the session: PostgreSQL ends all of them and recovers.
    Killed,
    /// `pg_terminate_backend`.
    Terminated,
    /// `pg_cancel_backend`: the commit answers as if the standby had confirmed it, with a warning beside it.
    Cancelled,
}

/// A service on a primary whose synchronous standby can be taken away.
struct Replicated {
    server: Server,
    nodes: Nodes,
    place: Place,
}

impl Replicated {
    fn start() -> Self {
        let place = Place::new();
        let nodes = Nodes::start(&place, Replication::Synchronous);
        let server = place.serve_with(&[], &[("DATABASE_URL", &nodes.url())]);
        server.go_live();
        // The writer has its connection, and has kept a key on it.
        Change::reserve("before").insist(&server);
        Self { server, nodes, place }
    }

    /// Sends something that waits for the standby at its commit, and ends the wait.
    fn while_waiting(&self, how: Ended, send: impl FnOnce() -> Reply + Send) -> Reply {
        scope(|scope| {
            let sent = scope.spawn(send);
            let mut waiting = String::new();
            wait_until("a commit waits for the standby", || {
                // The ledger's statement commits by itself while nobody else writes.
                let found = self.nodes.primary.session("postgres").sql(
                    "SELECT pid::text FROM pg_stat_activity
                     WHERE wait_event = 'SyncRep' AND (query = 'COMMIT' OR query LIKE 'WITH%UPDATE audit_head%')",
                );
                waiting = found.into_iter().next().unwrap_or_default();
                !waiting.is_empty()
            });
            match how {
                Ended::Killed => {
                    signal(waiting.parse().expect("a process id"), Signal::KILL);
                    // Once it is reaped, PostgreSQL has begun to end every session.
                    wait_until("it is gone", || !Path::new(&format!("/proc/{waiting}")).exists());
                    self.nodes.primary.wait_until_up();
                }
                Ended::Terminated => self.end(&format!("pg_terminate_backend({waiting})")),
                Ended::Cancelled => self.end(&format!("pg_cancel_backend({waiting})")),
            }
            sent.join().expect("it is answered")
        })
    }

    fn end(&self, call: &str) {
        self.nodes.primary.session("postgres").sql(&format!("SELECT {call}::text"));
    }

    /// How many reservations the primary shows, whether or not the standby has them.
    fn visible(&self) -> String {
        self.nodes.primary.session("holdfast").sql("SELECT count(*)::text FROM risk_reservation").remove(0)
    }

    /// Loses the primary, and goes on with what the standby has.
    fn fail_over(self) -> Self {
        let Self { server, mut nodes, place } = self;
        server.kill();
        nodes.primary.kill();
        nodes.standby.start();
        nodes.standby.promote();
        let server = place.serve_with(&[], &[("DATABASE_URL", &nodes.standby.url())]);
        Self { server, nodes, place }
    }
}

#[test]
fn a_reserve_that_the_standby_never_had_is_answered_by_nobody() {
    for how in [Ended::Killed, Ended::Terminated, Ended::Cancelled] {
        let mut on = Replicated::start();
        let change = Change::reserve("lost");
        on.nodes.standby.kill();
        check_refusal(&on.while_waiting(how, || change.send(&on.server).expect("an answer")));
        assert_eq!(on.visible(), "2", "{how:?}: the primary shows what the standby has not");
        for _ in 0..3 {
            check_refusal(&change.send(&on.server).expect("an answer"));
        }
        let after = on.fail_over();
        assert_eq!(after.server.reservations().1, 1, "{how:?}: what was answered, and nothing else");
        assert!(!is_replay(&change.insist(&after.server)), "{how:?}");
    }
}

#[test]
fn a_reserve_that_waited_is_told_once_the_standby_has_it() {
    let mut on = Replicated::start();
    let change = Change::reserve("late");
    on.nodes.standby.kill();
    check_refusal(&on.while_waiting(Ended::Terminated, || change.send(&on.server).expect("an answer")));
    on.nodes.standby.start();
    assert!(is_replay(&change.insist(&on.server)));
    on.nodes.standby.kill();
    let after = on.fail_over();
    assert!(is_replay(&change.insist(&after.server)));
    assert_eq!(after.server.reservations().1, 2);
}

#[test]
fn another_instance_does_not_tell_what_the_standby_has_not_either() {
    let mut on = Replicated::start();
    let elsewhere = Place::new();
    let beside = elsewhere.serve_with(&[], &[("DATABASE_URL", &on.nodes.url())]);
    // On a connection that stands since before the standby went away.
    Change::reserve("beside").insist(&beside);
    let change = Change::reserve("lost");
    on.nodes.standby.kill();
    check_refusal(&on.while_waiting(Ended::Terminated, || change.send(&on.server).expect("an answer")));
    check_refusal(&change.send(&beside).expect("an answer"));
}

#[test]
fn a_change_of_a_policy_that_the_standby_never_had_is_answered_by_nobody() {
    for how in [Ended::Terminated, Ended::Cancelled] {
        let mut on = Replicated::start();
        let cap = json!({"engine": "WHOLESALE", "max_open_risk": 777, "actor": "test", "reason": "a tight cap",
                         "idempotency_key": "cap"});
        let server = &on.server;
        let send = || server.post("/risk/policies/upsert", &cap);
        on.nodes.standby.kill();
        check_refusal(&on.while_waiting(how, send));
        let again = on.server.post("/risk/policies/upsert", &cap);
        assert_eq!(again.status, 503, "{how:?}: {}", again.text);
        let after = on.fail_over();
        let policies = after.server.get("/risk/policies").text;
        assert!(!policies.contains("\"max_open_risk\":777"), "{how:?}: {policies}");
    }
}
