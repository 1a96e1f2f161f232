//! kill -9, of everything.

use crate::support::{Place, Running, Server, signal, wait_until};
use rustix::process::Signal;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const CLIENTS: usize = 4;

/// The answers that several clients got while they reserved.
#[derive(Default)]
struct Told {
    ids: Mutex<Vec<String>>,
    refused: AtomicUsize,
    cut: AtomicUsize,
    stop: AtomicBool,
}

impl Told {
    /// Reserves until told to stop: an answer is an approval that names its reservation, or an orderly 503.
    fn reserve_on(&self, server: &Server) {
        while !self.stop.load(Ordering::SeqCst) {
            match server.try_reserve() {
                Ok(reply) if reply.status == 200 => {
                    assert_eq!(reply.json["ok"], true, "{}", reply.text);
                    let id = reply.json["reservation_id"].as_str().expect("an id");
                    self.ids.lock().expect("no client panicked").push(id.to_owned());
                }
                Ok(reply) => {
                    reply.unavailable();
                    self.refused.fetch_add(1, Ordering::SeqCst);
                }
                Err(_) => {
                    self.cut.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }

    fn answered(&self) -> usize {
        self.ids.lock().expect("no client panicked").len()
    }
}

/// Sets it when the thread that holds it ends, also by a panic: the clients must not run for ever.
struct StopClients<'a>(&'a Told);

impl Drop for StopClients<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// Each answered reservation is there; beyond them, only such whose answer was lost; and the ledger agrees.
#[track_caller]
fn check_nothing_was_lost(server: &Server, told: &Told) {
    let ids = told.ids.lock().expect("no client panicked");
    for id in ids.iter() {
        let reservation = server.get(&format!("/risk/reservations/{id}")).ok();
        assert_eq!(reservation["status"], "OPEN", "{reservation}");
    }
    let (all, open) = server.reservations();
    let all: HashSet<_> = all.into_iter().collect();
    assert_eq!(all.len() as u64, open, "the ledger and the reservations differ");
    assert!(ids.iter().all(|id| all.contains(id)));
    let unanswered = told.refused.load(Ordering::SeqCst) + told.cut.load(Ordering::SeqCst);
    assert!(all.len() <= ids.len() + unanswered);
}

#[test]
fn kill_9_of_the_server_under_writes_loses_nothing_that_was_answered() {
    let place = Place::new();
    let mut server = place.serve();
    server.go_live();
    let told = Told::default();
    for ends_first in [true, false] {
        let wanted = told.answered() + 100;
        told.stop.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let _stop = StopClients(&told);
            for _ in 0..CLIENTS {
                scope.spawn(|| told.reserve_on(&server));
            }
            wait_until("enough was answered", || told.answered() >= wanted);
            signal(server.pid(), Signal::KILL);
        });
        server.kill();
        if ends_first {
            wait_until("PostgreSQL ends by itself", || place.postgres().is_empty() && place.watcher().is_none());
        }
        // Otherwise the next start has to wait for the old PostgreSQL.
        server = place.serve();
        check_nothing_was_lost(&server, &told);
    }
    server.stop(Signal::TERM);
}

#[test]
fn kill_9_of_postgresql_is_answered_503_until_the_server_has_restarted_it() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let told = Told::default();
    std::thread::scope(|scope| {
        let _stop = StopClients(&told);
        for _ in 0..CLIENTS {
            scope.spawn(|| told.reserve_on(&server));
        }
        for round in 1..=2 {
            let wanted = told.answered() + 50;
            wait_until("enough was answered", || told.answered() >= wanted);
            let refused = told.refused.load(Ordering::SeqCst);
            let all = place.postgres();
            let first = place.postmaster().expect("it runs");
            assert_eq!(all[0], first);
            // The first time the postmaster alone, the second time every process of it.
            for pid in all.iter().take(if round == 1 { 1 } else { all.len() }) {
                signal(*pid, Signal::KILL);
            }
            wait_until("requests are refused", || told.refused.load(Ordering::SeqCst) > refused);
            wait_until("another PostgreSQL runs", || place.postmaster().is_some_and(|pid| pid != first));
            let wanted = told.answered() + 50;
            wait_until("reserves work again", || told.answered() >= wanted);
        }
    });
    assert_eq!(told.cut.load(Ordering::SeqCst), 0, "a request was not answered at all");
    server.wait_until_ready();
    check_nothing_was_lost(&server, &told);
    assert!(server.log().contains("PostgreSQL has ended unexpectedly"));
    server.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn kill_9_of_a_backend_is_a_503_and_not_an_outage() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let told = Told::default();
    std::thread::scope(|scope| {
        let _stop = StopClients(&told);
        for _ in 0..CLIENTS {
            scope.spawn(|| told.reserve_on(&server));
        }
        wait_until("enough was answered", || told.answered() >= 50);
        let pids = place.sql("holdfast", "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'holdfast' AND state <> 'idle' UNION ALL SELECT pid::text FROM pg_stat_activity WHERE application_name = 'holdfast' LIMIT 1");
        let first = place.postmaster();
        signal(pids[0].parse().unwrap(), Signal::KILL);
        let wanted = told.answered() + 50;
        wait_until("reserves work again", || told.answered() >= wanted);
        assert_eq!(place.postmaster(), first, "PostgreSQL recovers by itself");
    });
    assert_eq!(told.cut.load(Ordering::SeqCst), 0, "a request was not answered at all");
    check_nothing_was_lost(&server, &told);
}

#[test]
fn a_killed_watcher_is_replaced_and_postgresql_still_ends_with_its_server() {
    let place = Place::new();
    let server = place.serve();
    let first = place.watcher().expect("there is one");
    signal(first, Signal::KILL);
    wait_until("there is another watcher", || place.watcher().is_some_and(|pid| pid != first));
    // It knows what the first one knew when the log says so; a kill before that is the next test's.
    wait_until("the log says so", || server.log().contains("another was started"));
    server.kill();
    wait_until("PostgreSQL ends by itself", || place.postgres().is_empty());
}

#[test]
fn a_watcher_that_cannot_be_replaced_is_missed_in_the_log_once() {
    let place = Place::new();
    let server = place.serve();
    let log = place.data().join("postgres.log");
    let missed = || server.log().matches("PostgreSQL has no watcher").count();
    std::fs::remove_file(&log).expect("it is there");
    // The watcher must not write to a file of ours.
    std::os::unix::fs::symlink("/dev/null", &log).expect("a link");
    signal(place.watcher().expect("there is one"), Signal::KILL);
    wait_until("it is missed", || missed() > 0);
    // The lock is tried again ten times a second.
    let mut looks = 0;
    wait_until("it was tried again", || {
        looks += 1;
        looks > 30
    });
    std::fs::remove_file(&log).expect("the link");
    wait_until("there is another watcher", || server.log().contains("another was started"));
    assert_eq!(missed(), 1, "{}", server.log());
    server.stop(Signal::TERM);
    place.check_nothing_runs();
}

/// Passes on what clients say to PostgreSQL, and nothing any more from where they say this word on. Gives the port.
fn deaf_from(place: &Place, word: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let socket = place.data().join("run/.s.PGSQL.5432");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let mut server = UnixStream::connect(&socket).expect("PostgreSQL");
            let (mut to_client, mut from_server) =
                (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            std::thread::spawn(move || {
                let (mut piece, mut is_deaf) = (vec![0; 64 * 1024], false);
                while let Ok(length @ 1..) = client.read(&mut piece) {
                    is_deaf |= piece[..length].windows(word.len()).any(|said| said == word);
                    if !is_deaf && server.write_all(&piece[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn an_engage_that_was_recorded_is_not_called_a_failure_when_the_database_falls_silent_after_it() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let url = format!("postgres://holdfast@127.0.0.1:{}/holdfast", deaf_from(&place, b"FROM instance"));
    let killed = place.run(&["kill", "--actor", "bryan"], &[("DATABASE_URL", &url)]);
    assert_eq!(killed.code, Some(0), "{killed:?}");
    assert!(killed.out.contains("the kill switch is engaged (version 3)"), "{killed:?}");
    assert!(killed.out.contains("could not be read: see GET /instances"), "{killed:?}");
    assert_eq!(server.get("/go-live/state").ok()["kill_switch_engaged"], true);
    server.stop(Signal::TERM);
}

#[test]
fn an_engage_that_is_cut_off_in_the_middle_begins_once_more_with_a_new_way_to_the_database() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let (mut holder, mut other) = (place.session("holdfast"), place.session("holdfast"));
    holder.sql("BEGIN");
    holder.sql("SELECT stream FROM audit_head WHERE stream = 'control' FOR UPDATE");
    let mut killing = place.command(&["kill", "--actor", "bryan"]);
    let mut killing = Running(killing.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    // As often as one way to the database is tried, and once more.
    let mut cut = String::new();
    for attempt in 1..=4 {
        wait_until("the engage waits for the head", || {
            let waiting = other.sql("SELECT pid::text FROM pg_locks WHERE NOT granted");
            let next = waiting.into_iter().find(|pid| *pid != cut);
            next.inspect(|pid| cut.clone_from(pid)).is_some()
        });
        if attempt < 4 {
            other.sql(&format!("SELECT pg_terminate_backend({cut})::text"));
        }
    }
    holder.sql("ROLLBACK");
    assert_eq!(killing.code(), Some(0));
    assert_eq!(server.get("/go-live/state").ok()["kill_switch_engaged"], true);
    server.stop(Signal::TERM);
}

#[test]
fn where_the_watcher_died_with_the_server_the_next_start_takes_over() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let watcher = place.watcher().expect("there is one");
    signal(watcher, Signal::STOP);
    server.kill();
    signal(watcher, Signal::KILL);
    let orphan = place.postmaster().expect("nobody has stopped it");
    let server = place.serve();
    assert_ne!(place.postmaster(), Some(orphan));
    assert_eq!(server.get("/go-live/state").ok()["go_live_enabled"], true);
    server.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn a_kill_file_that_cannot_be_filled_stops_all_the_same_and_says_so() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let file = place.data().join("KILL");
    // No file may grow, as on a disk that is full, and nobody is ended by that.
    let mut command = std::process::Command::new("sh");
    let program = place.command(&[]);
    command.args(["-c", r#"trap "" XFSZ; ulimit -f 0; exec "$0" kill --actor bryan"#]).arg(program.get_program());
    command.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = command.stdin(std::process::Stdio::null()).output().expect("it runs");
    let said = String::from_utf8(ended.stdout).expect("sentences");
    assert!(said.contains("KILL (it is empty: "), "{said} {:?}", String::from_utf8(ended.stderr));
    assert!(said.contains("an instance with this kill file is stopped"), "{said}");
    assert_eq!(std::fs::metadata(&file).expect("it is there").len(), 0);
    crate::support::wait_until("it is stopped", || server.get_root("/readyz").json["kill_file"] == true);
}
