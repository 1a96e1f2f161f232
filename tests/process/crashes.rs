//! kill -9 under changes that have keys: what was answered stands, and what was not is done once when it is sent again.

use crate::storm::{Client, Told, writing_backend};
use crate::support::{Place, signal, wait_until};
use rustix::process::Signal;
use std::sync::atomic::Ordering;

const CLIENTS: usize = 24;

#[test]
fn after_kill_9_of_the_server_a_lost_change_sent_again_with_its_key_is_done_once() {
    let place = Place::new();
    let mut server = place.serve();
    server.go_live();
    let told = Told::default();
    for _ in 0..2 {
        told.storm(&[&server], CLIENTS, Client::LosesAnswers, || {
            told.wait_for(200);
            signal(server.pid(), Signal::KILL);
        });
        server.kill();
        assert!(told.lost() > 0, "nobody was cut off");
        server = place.serve();
        told.check_found(&server);
        told.send_lost_again(&server);
        assert_eq!(told.lost(), 0);
        told.check_found(&server);
    }
    told.check_replays(&server, 3 * CLIENTS);
    told.check_found(&server);
    server.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn through_kill_9_of_postgresql_retries_with_their_keys_are_done_once() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let told = Told::default();
    told.storm(&[&server], CLIENTS, Client::Insists, || {
        for postmaster_alone in [true, false] {
            told.wait_for(100);
            let refused = told.refused.load(Ordering::SeqCst);
            let all = place.postgres();
            let first = place.postmaster().expect("it runs");
            for pid in all.iter().take(if postmaster_alone { 1 } else { all.len() }) {
                signal(*pid, Signal::KILL);
            }
            wait_until("changes are refused", || told.refused.load(Ordering::SeqCst) > refused);
            wait_until("another PostgreSQL runs", || place.postmaster().is_some_and(|pid| pid != first));
            told.wait_for(100);
        }
    });
    server.wait_until_ready();
    told.check_found(&server);
    told.check_replays(&server, 2 * CLIENTS);
    told.check_found(&server);
    server.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn through_kill_9_of_the_writers_backend_retries_with_their_keys_are_done_once() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let postmaster = place.postmaster();
    let told = Told::default();
    told.storm(&[&server], CLIENTS, Client::Insists, || {
        for _ in 0..3 {
            told.wait_for(50);
            signal(writing_backend(&place), Signal::KILL);
            // PostgreSQL ends every session then, and recovers.
            told.wait_for(50);
        }
    });
    assert_eq!(place.postmaster(), postmaster);
    told.check_found(&server);
    told.check_replays(&server, 2 * CLIENTS);
    told.check_found(&server);
}

#[test]
fn a_writer_whose_session_is_ended_decides_anew_before_anybody_notices() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let told = Told::default();
    told.storm(&[&server], CLIENTS, Client::Insists, || {
        // A connection on which something was decided; where a new one ends as well, the callers are told.
        told.wait_for(2 * CLIENTS);
        for _ in 0..10 {
            let backend = writing_backend(&place);
            place.sql("holdfast", &format!("SELECT pg_terminate_backend({backend})::text"));
            told.wait_for(2 * CLIENTS);
        }
    });
    assert_eq!(told.refused.load(Ordering::SeqCst), 0, "{}", server.log());
    told.check_found(&server);
}
