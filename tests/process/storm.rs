//! Keyed changes from many clients, what each was told, and whether the book holds exactly that.
//!
//! Every change carries its key as its correlation id, too, so that its events can be counted.

use crate::support::{Place, Reply, Server, post, wait_until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A change with its key: sent again, it is the same change.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: String,
    action: &'static str,
    path: &'static str,
    body: Value,
}

impl Change {
    /// A reserve of 1.
    pub(crate) fn reserve(key: &str) -> Self {
        let body = json!({"engine": "WHOLESALE", "amount": 1, "actor": "test", "correlation_id": key,
                          "idempotency_key": key});
        Self { key: key.to_owned(), action: "RESERVE", path: "/risk/check-and-reserve", body }
    }

    /// The settle of a reservation, with a loss of 1.
    pub(crate) fn settle(key: &str, reservation_id: &str) -> Self {
        let body = json!({"reservation_id": reservation_id, "realized_loss": 1, "actor": "test", "correlation_id": key,
                          "idempotency_key": key});
        Self { key: key.to_owned(), action: "SETTLE", path: "/risk/settle", body }
    }

    /// The bytes of the request: its head and its body.
    pub(crate) fn request(&self) -> (String, String) {
        post(self.path, &self.body)
    }

    pub(crate) fn send(&self, server: &Server) -> io::Result<Reply> {
        server.try_post(self.path, &self.body)
    }

    /// Sends it with the same key until it is answered. Until then every answer is a 503 that says to do so.
    #[track_caller]
    pub(crate) fn insist(&self, server: &Server) -> Reply {
        self.insist_counting(server, &AtomicUsize::new(0))
    }

    #[track_caller]
    fn insist_counting(&self, server: &Server, refused: &AtomicUsize) -> Reply {
        let mut answer = None;
        wait_until(&format!("{} is answered", self.key), || {
            let reply = self.send(server).expect("a change is answered, or refused");
            if reply.status == 200 {
                answer = Some(reply);
            } else {
                check_refusal(&reply);
                refused.fetch_add(1, Ordering::SeqCst);
            }
            answer.is_some()
        });
        answer.expect("it was waited for")
    }
}

/// A 503 that says when to come again, and that the same key is the way.
#[track_caller]
pub(crate) fn check_refusal(reply: &Reply) {
    reply.unavailable();
    assert_eq!(reply.json["retry_same_key"], true, "{}", reply.text);
}

/// Whether an answer is an earlier one.
pub(crate) fn is_replay(reply: &Reply) -> bool {
    reply.header("idempotent-replayed") == Some("true")
}

/// The client's reaction to an answer that does not come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Client {
    /// Gives up for good, and does not know what came of it.
    LosesAnswers,
    /// Sends it again with its key until it is answered. It is always answered, if only by a 503.
    Insists,
}

/// The requests of several clients, with the answer of each change; none if it was lost.
#[derive(Default)]
pub(crate) struct Told {
    sent: Mutex<Vec<(Change, Option<Value>)>>,
    pub(crate) refused: AtomicUsize,
    stop: AtomicBool,
    lives: AtomicUsize,
}

impl Told {
    fn note(&self, change: Change, answer: Option<Value>) {
        self.sent.lock().expect("no client panicked").push((change, answer));
    }

    /// How many changes were answered.
    pub(crate) fn answered(&self) -> usize {
        self.sent.lock().expect("no client panicked").iter().filter(|(_, answer)| answer.is_some()).count()
    }

    /// How many were not.
    pub(crate) fn lost(&self) -> usize {
        self.sent.lock().expect("no client panicked").iter().filter(|(_, answer)| answer.is_none()).count()
    }

    /// Waits until so many more were answered.
    #[track_caller]
    pub(crate) fn wait_for(&self, more: usize) {
        let wanted = self.answered() + more;
        wait_until(&format!("{wanted} were answered"), || self.answered() >= wanted);
    }

    /// Reserves, and settles two of three, until told to stop: from so many clients, each of which takes the next server.
    /// They stop when `meanwhile` ends, also by a panic.
    pub(crate) fn storm<T>(
        &self,
        servers: &[&Server],
        clients: usize,
        client: Client,
        meanwhile: impl FnOnce() -> T,
    ) -> T {
        self.stop.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let _stop = StopClients(self);
            for number in 0..clients {
                scope.spawn(move || self.live(servers[number % servers.len()], client));
            }
            meanwhile()
        })
    }

    /// A client's life.
    fn live(&self, server: &Server, client: Client) {
        let number = self.lives.fetch_add(1, Ordering::SeqCst);
        for round in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let reserve = Change::reserve(&format!("{number}-{round}-reserve"));
            let Some(answer) = self.tell(server, client, reserve) else { return };
            assert_eq!(answer["ok"], true, "{answer}");
            if round % 3 == 0 {
                continue;
            }
            let id = answer["reservation_id"].as_str().expect("an id");
            let settle = Change::settle(&format!("{number}-{round}-settle"), id);
            let Some(answer) = self.tell(server, client, settle) else { return };
            assert_eq!((&answer["ok"], &answer["late"]), (&json!(true), &json!(false)), "{answer}");
        }
    }

    /// Sends a change and notes what came of it.
    pub(crate) fn tell(&self, server: &Server, client: Client, change: Change) -> Option<Value> {
        let answer = match client {
            Client::Insists => Some(change.insist_counting(server, &self.refused).json),
            Client::LosesAnswers => match change.send(server) {
                Ok(reply) if reply.status == 200 => Some(reply.json),
                Ok(reply) => {
                    check_refusal(&reply);
                    None
                }
                Err(_) => None,
            },
        };
        self.note(change, answer.clone());
        answer
    }

    /// Each answered change is found exactly once, with the reservation that was answered; each lost one once or not at all;
    /// and nothing else.
    #[track_caller]
    pub(crate) fn check_found(&self, server: &Server) {
        let mut found = events(server);
        for (change, answer) in self.sent.lock().expect("no client panicked").iter() {
            let events = found.remove(&change.key).unwrap_or_default();
            assert!(events.len() <= 1, "done more than once: {events:?}");
            let Some(answer) = answer else { continue };
            let [event] = &events[..] else { panic!("answered {answer} and not there") };
            assert_eq!(event["action"], change.action, "{event}");
            let id = match change.action {
                "RESERVE" => &answer["reservation_id"],
                _ => &answer["reservations"][0]["reservation_id"],
            };
            assert!(id.is_string() && *id == event["reservation_id"], "{answer} and {event}");
        }
        assert!(found.is_empty(), "nobody asked for {found:?}");
        check_balanced(server);
    }

    /// Sends every change whose answer was lost again, with its key: it is done if it was not, and says which.
    #[track_caller]
    pub(crate) fn send_lost_again(&self, server: &Server) {
        let done = events(server);
        for (change, answer) in self.sent.lock().expect("no client panicked").iter_mut() {
            if answer.is_none() {
                let reply = change.insist(server);
                assert_eq!(is_replay(&reply), done.contains_key(&change.key), "{}: {}", change.key, reply.text);
                *answer = Some(reply.json);
            }
        }
    }

    /// Sends the last changes again, with their keys: the same answers, and nothing is done.
    #[track_caller]
    pub(crate) fn check_replays(&self, server: &Server, last: usize) {
        for (change, answer) in self.sent.lock().expect("no client panicked").iter().rev().take(last) {
            let reply = change.insist(server);
            assert!(is_replay(&reply), "{}: {}", change.key, reply.text);
            let first = answer.as_ref().expect("it was answered");
            assert_eq!(as_done(first, &reply.json), as_done(&reply.json, first), "{}", change.key);
        }
    }
}

/// The part of an answer about a change that `other` reports as well: everything but the values at the time of the
/// answer. Those are the state of the hold, and, if it has ended, whether the action may be done.
pub(crate) fn as_done(answer: &Value, other: &Value) -> Value {
    let mut done = answer.clone();
    let fields = done.as_object_mut().expect("an object");
    for now in ["replayed", "status", "expires_in_seconds", "hint"] {
        fields.remove(now);
    }
    if [answer, other].iter().any(|told| told["reason"] == "hold_ended") {
        for decision in ["ok", "reserved", "message", "reason", "scope", "failures"] {
            fields.remove(decision);
        }
    }
    done
}

/// Sets it when the thread that holds it ends, also by a panic: the clients must not run for ever.
struct StopClients<'a>(&'a Told);

impl Drop for StopClients<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// Everything of a list, page by page.
#[track_caller]
fn everything(server: &Server, path: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut next = format!("{path}?limit=1000");
    loop {
        let mut page = server.get(&next).ok();
        all.append(page["items"].as_array_mut().expect("a page has items"));
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}?limit=1000&cursor={cursor}"),
            None => return all,
        }
    }
}

/// The events of the ledger by the key of the change.
#[track_caller]
pub(crate) fn events(server: &Server) -> BTreeMap<String, Vec<Value>> {
    let mut by_key: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in everything(server, "/risk/events") {
        let key = event["correlation_id"].as_str().unwrap_or("none").to_owned();
        by_key.entry(key).or_default().push(event);
    }
    by_key
}

/// The book balances; and where all holds are of 1, as many are open as were reserved and not ended.
#[track_caller]
pub(crate) fn check_balanced(server: &Server) {
    let found = server.get("/risk/reconciliation").ok();
    assert_eq!((&found["balanced"], &found["halted_at"]), (&json!(true), &Value::Null), "{found}");
    let of = |action| events(server).into_values().flatten().filter(|event| event["action"] == action).count();
    let reservations = everything(server, "/risk/reservations");
    let ids: BTreeSet<_> = reservations.iter().map(|one| one["reservation_id"].as_str()).collect();
    assert_eq!((ids.len(), reservations.len()), (of("RESERVE"), of("RESERVE")), "a reserve is one reservation");
    let open = reservations.iter().filter(|one| one["status"] == "OPEN").count();
    assert_eq!(reservations.len() - open, of("SETTLE") + of("EXPIRE") + of("RELEASE"), "a hold ends once");
    let ledger = server.get("/risk/ledger/today").ok();
    let global = ledger.as_array().expect("a list").iter().find(|row| row["engine"] == "GLOBAL");
    #[expect(clippy::cast_precision_loss, reason = "a test has few of them")]
    let stock = open as f64;
    assert_eq!(global.expect("GLOBAL has a row")["open_risk_reserved"].as_f64(), Some(stock), "{ledger}");
}

/// The process of PostgreSQL that holds the head of the risk stream now.
#[track_caller]
pub(crate) fn writing_backend(place: &Place) -> u32 {
    let mut session = place.session("holdfast");
    let holders = "SELECT pid::text FROM pg_locks
                   WHERE relation = 'audit_head'::regclass AND mode = 'RowShareLock' AND pid <> pg_backend_pid()";
    let mut found = None;
    wait_until("somebody holds the head", || {
        found = session.sql(holders).into_iter().next();
        found.is_some()
    });
    found.expect("it was waited for").parse().expect("a process id")
}
