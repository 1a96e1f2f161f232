//! `holdfast risk reconcile`: what it says, what it does, and its exit code.

use crate::storm::{Change, check_balanced};
use crate::support::{Ended, Place};
use rustix::process::Signal;
use serde_json::json;

const RECONCILE: [&str; 2] = ["risk", "reconcile"];
const REPAIR: [&str; 7] = ["risk", "reconcile", "--repair", "--actor", "maria", "--reason", "counted the rows by hand"];

#[track_caller]
fn reconcile(place: &Place, exit_code: i32, says: &str) -> Ended {
    said(place.run(&RECONCILE, &[]), exit_code, says)
}

#[track_caller]
fn said(ended: Ended, exit_code: i32, says: &str) -> Ended {
    assert_eq!(ended.code, Some(exit_code), "{ended:?}");
    assert!(ended.out.contains(says), "{ended:?}");
    ended
}

/// Makes the ledger say that 5 more are outstanding.
fn corrupt(place: &Place) {
    place.sql("holdfast", "UPDATE risk_open SET open_amount = open_amount + 5 WHERE engine = 'WHOLESALE'");
}

#[test]
fn a_balanced_book_exits_0_beside_a_server_and_alone() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    for number in 0..5 {
        Change::reserve(&format!("hold-{number}")).insist(&server);
    }
    reconcile(&place, 0, "the book balances");
    // A repair of a book that balances changes nothing, and is no event.
    said(place.run(&REPAIR, &[]), 0, "the book balances");
    let postmaster = place.postmaster();
    server.post("/risk/settle", &json!({"engine": "WHOLESALE", "reserved_amount": 2, "realized_loss": 1})).ok();
    reconcile(&place, 0, "the book balances");
    assert_eq!(place.postmaster(), postmaster);
    server.stop(Signal::TERM);
    place.check_nothing_runs();
    reconcile(&place, 0, "the book balances");
    place.check_nothing_runs();
    let server = place.serve();
    let repairs = "SELECT action FROM control_event WHERE action IN ('RISK_REPAIR', 'RISK_HALT')";
    assert!(place.sql("holdfast", repairs).is_empty());
    server.stop(Signal::TERM);
}

#[test]
fn a_difference_exits_1_and_halts_reserves_until_somebody_repairs_it() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let held = Change::reserve("held").insist(&server).ok();
    let id = held["reservation_id"].as_str().expect("an id");
    corrupt(&place);

    let found = reconcile(&place, 1, "new reserves are halted");
    assert!(found.out.contains("WHOLESALE: open_risk_reserved is 6, its rows say 1"), "{found:?}");
    let refused = Change::reserve("meanwhile");
    let reply = refused.send(&server).expect("an answer");
    assert_eq!((reply.unavailable(), &reply.json["retry_same_key"]), ("LEDGER_HALTED", &json!(true)));
    // Positions must be closable.
    assert_eq!(Change::settle("settle", id).send(&server).expect("an answer").ok()["ok"], true);
    // Looking again neither repairs nor halts anew.
    reconcile(&place, 1, "new reserves are halted since");
    assert_eq!(server.get("/risk/reconciliation").ok()["balanced"], false);

    let repaired = said(place.run(&REPAIR, &[]), 0, "repaired: the book balances, and reserves continue");
    assert!(repaired.out.contains("WHOLESALE: open_risk_reserved was 5, its rows say 0"), "{repaired:?}");
    reconcile(&place, 0, "the book balances");
    let reply = refused.send(&server).expect("an answer");
    assert_eq!(reply.ok()["ok"], true, "what was refused was not kept for its key");
    check_balanced(&server);
    let recorded = "SELECT concat_ws('|', action, ok, actor, reason) FROM control_event
                    WHERE action IN ('RISK_HALT', 'RISK_REPAIR') ORDER BY seq";
    assert_eq!(
        place.sql("holdfast", recorded),
        ["RISK_HALT|t", "RISK_REPAIR|t|maria|counted the rows by hand"],
        "one of each"
    );
    let shown = place.run(&["review"], &[]);
    assert!(shown.out.contains("RISK_REPAIR") && shown.out.contains("counted the rows by hand"), "{shown:?}");
}

#[test]
fn a_difference_is_found_and_repaired_where_nothing_runs() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    Change::reserve("held").insist(&server);
    corrupt(&place);
    server.stop(Signal::TERM);
    for _ in 0..2 {
        reconcile(&place, 1, "new reserves are halted");
        place.check_nothing_runs();
    }
    let server = place.serve();
    let reply = Change::reserve("meanwhile").send(&server).expect("an answer");
    assert_eq!(reply.unavailable(), "LEDGER_HALTED", "a halt outlives a restart");
    server.stop(Signal::TERM);
    said(place.run(&REPAIR, &[]), 0, "repaired");
    place.check_nothing_runs();
    let server = place.serve();
    Change::reserve("after").send(&server).expect("an answer").ok();
    check_balanced(&server);
    server.stop(Signal::TERM);
}

#[test]
fn a_repair_that_nobody_answers_for_is_a_usage_error_that_exits_2() {
    let place = Place::new();
    for arguments in [
        &["risk", "reconcile", "--repair"][..],
        &["risk", "reconcile", "--repair", "--actor", "maria"],
        &["risk", "reconcile", "--repair", "--reason", "counted"],
        &["risk", "reconcile", "--repair", "--actor", "maria", "--reason", ""],
        &["risk", "reconcile", "--nonsense"],
    ] {
        let ended = place.run(arguments, &[]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert_eq!(ended.sentences().len(), 1, "{arguments:?}: {ended:?}");
    }
    assert!(!place.data().exists(), "nothing was begun");
}

#[test]
fn a_reconciliation_that_cannot_be_made_exits_2() {
    let place = Place::new();
    for url in ["postgres://u@localhost/x?host=/nonexistent", "nonsense"] {
        for arguments in [&RECONCILE[..], &REPAIR] {
            let ended = place.run(arguments, &[("DATABASE_URL", url)]);
            assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{url}: {ended:?}");
            assert_eq!(ended.sentences().len(), 1, "{url}: {ended:?}");
        }
    }
    // A directory without a book: there is nothing that could balance.
    let ended = place.run(&RECONCILE, &[]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{ended:?}");
    assert!(ended.sentences()[0].contains("holds no database"), "{ended:?}");
    assert!(!place.data().join("pg").exists(), "and none is made");
    place.check_nothing_runs();
}
