//! `holdfast risk reconcile`: 0 when the book balances, 1 when it does not, 2 when that cannot be known.

use crate::support::{Ended, Place, Server};
use rustix::process::Signal;
use serde_json::json;

const REPAIR: [&str; 7] =
    ["risk", "reconcile", "--repair", "--actor", "an operator", "--reason", "a hand in the database"];

#[track_caller]
fn said(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for word in words {
        assert!(ended.out.contains(word), "{word}: {ended:?}");
    }
}

/// A server whose book has one open reservation of 1.
fn with_a_hold(place: &Place) -> Server {
    let server = place.serve();
    server.go_live();
    assert_eq!(server.try_reserve().expect("an answer").ok()["ok"], true);
    server
}

fn damage(place: &Place) {
    place.sql("holdfast", "UPDATE risk_open SET open_amount = 5 WHERE engine = 'WHOLESALE'");
}

#[test]
fn a_book_is_compared_halted_and_repaired_beside_a_running_server() {
    let place = Place::new();
    let server = with_a_hold(&place);
    said(&place.run(&["risk", "reconcile"], &[]), 0, &["the book balances"]);
    // Nothing to repair is no reason to write.
    said(&place.run(&REPAIR, &[]), 0, &["the book balances"]);
    let repairs = "SELECT count(*)::text FROM control_event WHERE action = 'RISK_REPAIR'";
    assert_eq!(place.sql("holdfast", repairs), ["0"]);

    damage(&place);
    let found = place.run(&["risk", "reconcile"], &[]);
    said(&found, 1, &["WHOLESALE: open_risk_reserved is 5, its rows say 1", "halted since", "--repair"]);
    assert_eq!(server.try_reserve().expect("an answer").unavailable(), "LEDGER_HALTED");
    assert_eq!(server.get("/risk/reconciliation").ok()["balanced"], false);
    said(&place.run(&["risk", "reconcile"], &[]), 1, &["is 5, its rows say 1"]);

    said(&place.run(&REPAIR, &[]), 0, &["WHOLESALE: open_risk_reserved was 5, its rows say 1", "repaired"]);
    assert_eq!(server.try_reserve().expect("an answer").ok()["ok"], true);
    said(&place.run(&["risk", "reconcile"], &[]), 0, &["the book balances"]);
    let told = "SELECT actor || ': ' || reason FROM control_event WHERE action = 'RISK_REPAIR'";
    assert_eq!(place.sql("holdfast", told), ["an operator: a hand in the database"]);
    server.stop(Signal::TERM);
}

#[test]
fn a_book_is_compared_and_repaired_where_no_server_runs() {
    let place = Place::new();
    let server = with_a_hold(&place);
    damage(&place);
    server.stop(Signal::TERM);
    said(&place.run(&["risk", "reconcile"], &[]), 1, &["is 5, its rows say 1"]);
    place.check_nothing_runs();
    // The halt waits for the server, and ends with the repair.
    let server = place.serve();
    assert_eq!(server.try_reserve().expect("an answer").unavailable(), "LEDGER_HALTED");
    server.stop(Signal::TERM);
    said(&place.run(&REPAIR, &[]), 0, &["repaired"]);
    place.check_nothing_runs();
    let server = place.serve();
    assert_eq!(server.try_reserve().expect("an answer").ok()["ok"], true);
    server.stop(Signal::TERM);
}

#[test]
fn a_halt_that_stands_on_a_balanced_book_is_still_1() {
    let place = Place::new();
    let server = with_a_hold(&place);
    damage(&place);
    said(&place.run(&["risk", "reconcile"], &[]), 1, &[]);
    place.sql("holdfast", "UPDATE risk_open SET open_amount = 1 WHERE engine = 'WHOLESALE'");
    said(&place.run(&["risk", "reconcile"], &[]), 1, &["halted since"]);
    said(&place.run(&REPAIR, &[]), 0, &[]);
    said(&place.run(&["risk", "reconcile"], &[]), 0, &["the book balances"]);
    server.stop(Signal::TERM);
}

#[test]
fn a_reconciliation_that_cannot_be_made_exits_2_and_says_why() {
    let place = Place::new();
    let cannot = |ended: &Ended, word: &str| {
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{ended:?}");
        let [sentence] = ended.sentences()[..] else {
            panic!("not one sentence: {ended:?}");
        };
        assert!(sentence.contains(word), "{word}: {sentence}");
    };
    for (arguments, word) in [
        (&["risk", "reconcile", "--nonsense"][..], "--nonsense"),
        (&["risk", "reconcile", "--repair"], "--actor"),
        (&["risk", "reconcile", "--repair", "--actor", "a"], "--reason"),
        (&["risk", "reconcile", "--repair", "--reason", "r"], "--actor"),
        (&["risk", "reconcile", "--repair", "--reason", "", "--actor", "a"], "--reason"),
    ] {
        cannot(&place.run(arguments, &[]), word);
    }
    let nowhere = [("DATABASE_URL", "postgres://u@localhost/x?host=/nonexistent")];
    cannot(&place.run(&["risk", "reconcile"], &nowhere), "");
    // A directory without a schema is one where nothing can be compared.
    cannot(&place.run(&["risk", "reconcile"], &[]), "holdfast migrate");
    place.check_nothing_runs();
    assert_eq!(json!(place.run(&["migrate"], &[]).code), 0);
    said(&place.run(&["risk", "reconcile"], &[]), 0, &["the book balances"]);
}
