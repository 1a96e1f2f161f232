//! A book that does not balance stops itself, says exactly what differs, and goes on when it was repaired.

use super::{by_hand, hold, hold_for, leaves_no_trace, level, tell};
use crate::support::{Service, Setup};
use holdfast::audit::Origin;
use holdfast::db::Database;
use holdfast::risk::reconcile::{self, Reconciliation};
use holdfast::types::{Principal, Reason};
use serde_json::{Value, json};
use sqlx::Executor;

/// A book on which everything has happened, today: WHOLESALE [95, 50, 12, 3], CAPITAL [30, 30, 0, 1].
async fn busy() -> Service {
    let service = Service::live().await;
    let yesterdays = hold(&service, "WHOLESALE", "50").await;
    service.set_skew("1 day").await;
    let lost = hold(&service, "WHOLESALE", "60").await;
    tell(&service, &lost, "settle", &json!({"settled_amount": 70, "realized_loss": 10})).await.ok();
    let released = hold(&service, "WHOLESALE", "20").await;
    tell(&service, &released, "release", &json!({})).await.ok();
    hold_for(&service, "WHOLESALE", "25", 60).await;
    hold(&service, "CAPITAL", "30").await;
    service.reserve("WHOLESALE", "5000").await.ok();
    service.post("/risk/adjustments", &json!({"corrects_seq": 3, "loss_delta": 2, "reason": "r"})).await.ok();
    let day_and_a_bit = "1 day 61 seconds";
    service.set_skew(day_and_a_bit).await;
    super::expire_due(&service).await;
    let open = super::status(&service, &yesterdays).await;
    assert_eq!(open, "OPEN");
    assert_eq!(level(&service, "WHOLESALE").await, json!([95, 50, 12, 3]));
    assert_eq!(level(&service, "GLOBAL").await, json!([125, 80, 12, 4]));
    service
}

async fn reconciliation(service: &Service) -> Value {
    service.get("/risk/reconciliation").await.ok()
}

async fn repair(service: &Service, why: &str) -> Reconciliation {
    let reason: Reason = why.parse().unwrap();
    let actor = Some("an operator".parse().unwrap());
    let origin = Origin::system(actor);
    reconcile::repair(&service.db, &reason, &origin).await.unwrap()
}

/// Control events of an action.
async fn control(service: &Service, action: &str) -> Vec<Value> {
    let sql =
        "SELECT to_jsonb(e) || jsonb_build_object('detail', detail::jsonb) FROM control_event e WHERE action = $1";
    let rows: Vec<Value> = sqlx::query_scalar(sql).bind(action).fetch_all(&service.pool).await.unwrap();
    rows
}

#[tokio::test]
async fn a_book_on_which_everything_has_happened_balances_and_looking_leaves_no_trace() {
    let service = busy().await;
    let seq = service.count("SELECT seq FROM audit_head WHERE stream = 'risk'").await;
    let found = leaves_no_trace!(service, reconciliation(&service).await);
    assert_eq!(
        json!([found["balanced"], found["differences"], found["halted_at"], found["seq"]]),
        json!([true, [], null, seq])
    );
    let fresh = Service::fresh().await;
    assert_eq!(reconciliation(&fresh).await["balanced"], true);
}

/// The manual change, the finding, and whether a second engine is concerned.
const DAMAGE: [(&str, &str); 9] = [
    (
        "UPDATE risk_open SET open_amount = 51 WHERE engine = 'WHOLESALE'",
        r#"[["WHOLESALE","open_risk_reserved",51,50]]"#,
    ),
    (
        "UPDATE risk_open SET open_amount = 0.000001 WHERE engine = 'GLOBAL'",
        r#"[["GLOBAL","open_risk_reserved",0.000001,80]]"#,
    ),
    (
        "UPDATE risk_ledger_day SET exposure_used = 96 WHERE engine = 'WHOLESALE' AND exposure_used = 95",
        r#"[["WHOLESALE","exposure_used",96,95]]"#,
    ),
    (
        "UPDATE risk_ledger_day SET realized_loss = 0 WHERE engine = 'GLOBAL' AND exposure_used = 125",
        r#"[["GLOBAL","realized_loss",0,12]]"#,
    ),
    ("UPDATE risk_ledger_day SET actions_count = 5 WHERE engine = 'CAPITAL'", r#"[["CAPITAL","actions_count",5,1]]"#),
    ("DELETE FROM risk_open WHERE engine = 'CAPITAL'", r#"[["CAPITAL","open_risk_reserved",0,30]]"#),
    (
        "DELETE FROM risk_ledger_day WHERE engine = 'WHOLESALE' AND exposure_used = 95",
        r#"[["WHOLESALE","exposure_used",0,95],["WHOLESALE","realized_loss",0,12],["WHOLESALE","actions_count",0,3]]"#,
    ),
    ("INSERT INTO risk_open SELECT 'NOTIFY', 7, now()", r#"[["NOTIFY","open_risk_reserved",7,0]]"#),
    (
        "UPDATE risk_ledger_day SET exposure_used = exposure_used + 1, realized_loss = 3, actions_count = 9
         WHERE engine IN ('GLOBAL', 'CAPITAL') AND exposure_used IN (125, 30)",
        r#"[["CAPITAL","exposure_used",31,30],["CAPITAL","realized_loss",3,0],["CAPITAL","actions_count",9,1],
            ["GLOBAL","exposure_used",126,125],["GLOBAL","realized_loss",3,12],["GLOBAL","actions_count",9,4]]"#,
    ),
];

fn seen(differences: &Value) -> Value {
    let each = |one: &Value| json!([one["engine"], one["counter"], one["recorded"], one["computed"]]);
    differences.as_array().unwrap().iter().map(each).collect()
}

#[tokio::test]
async fn every_counter_that_was_changed_by_hand_is_found_exactly_halts_the_book_and_is_repaired() {
    for (damage, expected) in DAMAGE {
        let expected: Value = serde_json::from_str(expected).unwrap();
        let service = busy().await;
        let before = service.everything().await;
        by_hand(&service, damage).await;
        let found = reconciliation(&service).await;
        assert_eq!(found["balanced"], false, "{damage}");
        assert_eq!(seen(&found["differences"]), expected, "{damage}");
        assert!(found["halted_at"].is_string(), "{damage}");
        service.reserve("CAPITAL", "1").await.refused(503, "LEDGER_HALTED");
        let halts = control(&service, "RISK_HALT").await;
        assert_eq!(halts.len(), 1);
        assert_eq!(seen(&halts[0]["detail"]), expected);
        assert_eq!(halts[0]["principal"], "SYSTEM");
        let repaired = repair(&service, "a hand in the database").await;
        assert_eq!((repaired.differences.len(), repaired.halted_at), (expected.as_array().unwrap().len(), None));
        assert_eq!(reconciliation(&service).await["balanced"], true, "{damage}");
        // The counters are what they were, to the digit.
        let after = "SELECT count(*) FROM risk_open WHERE (engine, open_amount) IN (('WHOLESALE', 50), ('CAPITAL', 30), ('GLOBAL', 80))";
        assert_eq!(service.count(after).await, 3, "{damage}");
        assert_eq!(level(&service, "WHOLESALE").await, json!([95, 50, 12, 3]));
        assert_eq!(level(&service, "CAPITAL").await, json!([30, 30, 0, 1]));
        assert_eq!(level(&service, "GLOBAL").await, json!([125, 80, 12, 4]));
        for table in ["risk_event", "risk_reservation", "risk_halt"] {
            assert_eq!(service.everything().await[table], before[table], "{table}: {damage}");
        }
        assert_eq!(service.reserve("CAPITAL", "1").await.ok()["ok"], true);
    }
}

#[tokio::test]
async fn a_repair_is_one_event_with_who_why_before_and_after() {
    let service = busy().await;
    by_hand(&service, DAMAGE[1].0).await;
    reconciliation(&service).await;
    repair(&service, "the restore of Sunday").await;
    let repairs = control(&service, "RISK_REPAIR").await;
    assert_eq!(repairs.len(), 1);
    let event = &repairs[0];
    assert_eq!(
        json!([event["reason"], event["actor"], event["ok"]]),
        json!(["the restore of Sunday", "an operator", true])
    );
    assert_eq!(seen(&event["detail"]), json!([["GLOBAL", "open_risk_reserved", 0.000_001, 80]]));
}

#[tokio::test]
async fn a_halted_book_takes_settles_and_releases_and_nothing_new() {
    let service = busy().await;
    let due = hold_for(&service, "WHOLESALE", "1", 60).await;
    let (settled, released, extended) = (
        hold(&service, "CAPITAL", "5").await,
        hold(&service, "CAPITAL", "6").await,
        hold_for(&service, "CAPITAL", "7", 3600).await,
    );
    by_hand(&service, "UPDATE risk_ledger_day SET realized_loss = 13 WHERE engine = 'GLOBAL' AND realized_loss = 12")
        .await;
    reconciliation(&service).await;
    for path in ["/risk/check-and-reserve", "/risk/reservations"] {
        for dry_run in [true, false] {
            let body = json!({"engine": "CAPITAL", "amount": 1, "dry_run": dry_run});
            let answer = leaves_no_trace!(service, service.post(path, &body).await);
            assert!(answer.headers.contains_key("retry-after"));
            assert_eq!(answer.refused(503, "LEDGER_HALTED")["retry_same_key"], true);
        }
    }
    let answer = leaves_no_trace!(service, tell(&service, &extended, "extend", &json!({"ttl_seconds": 7200})).await);
    answer.refused(503, "LEDGER_HALTED");
    tell(&service, &settled, "settle", &json!({"realized_loss": 1})).await.ok();
    tell(&service, &released, "release", &json!({})).await.ok();
    service.post("/risk/settle", &json!({"engine": "WHOLESALE", "reserved_amount": 50})).await.ok();
    service.post("/risk/adjustments", &json!({"corrects_seq": 1, "loss_delta": 1, "reason": "r"})).await.ok();
    service.set_skew("1 day 200 seconds").await;
    super::expire_due(&service).await;
    assert_eq!(super::status(&service, &due).await, "EXPIRED");
    // The difference is still the same one, and is repaired on top of what came since.
    let found = reconciliation(&service).await;
    assert_eq!(seen(&found["differences"]), json!([["GLOBAL", "realized_loss", 15, 14]]));
    repair(&service, "r").await;
    assert_eq!(service.reserve("CAPITAL", "1").await.ok()["ok"], true);
    tell(&service, &extended, "extend", &json!({"ttl_seconds": 7200})).await.ok();
}

#[tokio::test]
async fn a_second_look_does_not_halt_again() {
    let service = busy().await;
    by_hand(&service, DAMAGE[0].0).await;
    let first = reconciliation(&service).await;
    let again = leaves_no_trace!(service, reconciliation(&service).await);
    assert_eq!(json!([again["halted_at"], again["differences"]]), json!([first["halted_at"], first["differences"]]));
    repair(&service, "r").await;
}

#[tokio::test]
async fn one_at_a_time_is_compared_on_request() {
    let service = busy().await;
    let turn = service.app.risk.reconciling().take(Principal::unauthenticated()).await.unwrap();
    let refused = service.get("/risk/reconciliation").await.refused(503, "OVERLOADED");
    assert_eq!(refused["retry_same_key"], true);
    drop(turn);
    assert_eq!(reconciliation(&service).await["balanced"], true);
    // A client that hangs up does not let the next one in: PostgreSQL still works on its request.
    let mut tx = service.pool.begin().await.unwrap();
    tx.execute("LOCK TABLE risk_open IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waiting = tokio::spawn(service.get("/risk/reconciliation"));
    while service.app.risk.reconciling().is_free() {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    service.get("/risk/reconciliation").await.refused(503, "OVERLOADED");
    tx.rollback().await.unwrap();
    while !service.app.risk.reconciling().is_free() {
        tokio::task::yield_now().await;
    }
    assert_eq!(reconciliation(&service).await["balanced"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_find_a_difference_at_once_one_halts() {
    let first = busy().await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    by_hand(&first, DAMAGE[0].0).await;
    // As each instance's own comparison, the shell and the route do, of which an instance lets in one at a time.
    let look = |db: Database| tokio::spawn(async move { reconcile::reconcile(&db).await.unwrap() });
    let looks: Vec<_> = (0..12).map(|n| look([&first, &second][n % 2].db.clone())).collect();
    let mut halted = Vec::new();
    for look in looks {
        let found = look.await.unwrap();
        assert!(!found.differences.is_empty());
        halted.push(found.halted_at);
    }
    assert!(halted[0].is_some() && halted.iter().all(|at| *at == halted[0]), "{halted:?}");
    assert_eq!(control(&first, "RISK_HALT").await.len(), 1);
    // The book is halted for every process.
    second.reserve("CAPITAL", "1").await.refused(503, "LEDGER_HALTED");
    repair(&second, "r").await;
    assert_eq!(first.reserve("CAPITAL", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_book_that_was_put_right_by_hand_stays_halted_until_somebody_says_so() {
    let service = busy().await;
    by_hand(&service, DAMAGE[0].0).await;
    reconciliation(&service).await;
    by_hand(&service, "UPDATE risk_open SET open_amount = 50 WHERE engine = 'WHOLESALE'").await;
    let found = reconciliation(&service).await;
    assert_eq!(found["balanced"], true);
    assert!(found["halted_at"].is_string());
    service.reserve("CAPITAL", "1").await.refused(503, "LEDGER_HALTED");
    let repaired = repair(&service, "put right by hand").await;
    assert!(repaired.balanced && repaired.halted_at.is_none());
    assert_eq!(control(&service, "RISK_REPAIR").await.len(), 1);
    assert_eq!(service.reserve("CAPITAL", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn where_nothing_is_to_be_repaired_nothing_is_written() {
    let service = busy().await;
    let found = leaves_no_trace!(service, repair(&service, "to be sure").await);
    assert!(found.balanced && found.differences.is_empty());
}

#[tokio::test]
async fn a_reserve_that_was_made_before_a_halt_is_still_answered() {
    let service = busy().await;
    let body = json!({"engine": "CAPITAL", "amount": 1, "idempotency_key": "k"});
    let mut first = service.post("/risk/check-and-reserve", &body).await.ok();
    first["replayed"] = json!(true);
    by_hand(&service, DAMAGE[0].0).await;
    reconciliation(&service).await;
    let again = leaves_no_trace!(service, service.post("/risk/check-and-reserve", &body).await);
    assert_eq!(again.ok(), first);
    repair(&service, "r").await;
}

#[tokio::test]
async fn a_halt_outlives_a_restart() {
    let service = busy().await;
    by_hand(&service, DAMAGE[0].0).await;
    reconciliation(&service).await;
    let restarted = Service::on(service.options.clone(), Setup::default()).await;
    restarted.reserve("CAPITAL", "1").await.refused(503, "LEDGER_HALTED");
    repair(&restarted, "r").await;
    assert_eq!(restarted.reserve("CAPITAL", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn positions_are_closable_whatever_counter_was_damaged() {
    for damage in [
        "UPDATE risk_open SET open_amount = 3",
        "DELETE FROM risk_open",
        "UPDATE risk_ledger_day SET exposure_used = 1 WHERE engine = 'GLOBAL'",
        "UPDATE risk_ledger_day SET exposure_used = 1 WHERE engine = 'WHOLESALE'",
    ] {
        let service = Service::live().await;
        let settled = hold(&service, "WHOLESALE", "30").await;
        let unused = hold(&service, "WHOLESALE", "30").await;
        let released = hold(&service, "WHOLESALE", "20").await;
        hold(&service, "WHOLESALE", "10").await;
        hold(&service, "WHOLESALE", "5").await;
        by_hand(&service, damage).await;
        tell(&service, &settled, "settle", &json!({"realized_loss": 2})).await.ok();
        tell(&service, &unused, "settle", &json!({"settled_amount": 0})).await.ok();
        tell(&service, &released, "release", &json!({})).await.ok();
        let original = json!({"engine": "WHOLESALE", "reserved_amount": 10});
        service.post("/risk/settle", &original).await.ok();
        assert_eq!(reconciliation(&service).await["balanced"], false, "{damage}");
        repair(&service, "damaged").await;
        assert_eq!(reconciliation(&service).await["balanced"], true, "{damage}");
        let after = level(&service, "WHOLESALE").await;
        // An engine's exposure gives back no more than it shows: less came back than could have, which is conservative.
        let exposure = if damage.ends_with("'WHOLESALE'") { 94 } else { 45 };
        assert_eq!(after, json!([exposure, 5, 2, 5]), "{damage}");
    }
}

#[tokio::test]
async fn a_hold_that_cannot_expire_is_settled_once() {
    let service = Service::live().await;
    let held = hold_for(&service, "WHOLESALE", "30", 1).await;
    by_hand(&service, "UPDATE risk_open SET open_amount = 3").await;
    service.set_skew("2 seconds").await;
    tell(&service, &held, "settle", &json!({"realized_loss": 7})).await.ok();
    tell(&service, &held, "settle", &json!({"realized_loss": 7})).await.refused(409, "ALREADY_SETTLED");
    repair(&service, "damaged").await;
    assert_eq!(level(&service, "WHOLESALE").await, json!([30, 0, 7, 1]));
}

#[tokio::test]
async fn a_counter_at_the_end_of_its_range_is_compared_and_repaired() {
    let service = Service::live().await;
    hold(&service, "WHOLESALE", "30").await;
    by_hand(&service, "UPDATE risk_ledger_day SET realized_loss = 1e22").await;
    assert_eq!(reconciliation(&service).await["balanced"], false);
    repair(&service, "damaged").await;
    assert_eq!(reconciliation(&service).await["balanced"], true);
}

#[tokio::test]
async fn a_comparison_goes_on_from_where_it_was_over_midnight_and_behind_a_database_that_lost_events() {
    let service = busy().await;
    let head = async || service.count("SELECT seq FROM audit_head WHERE stream = 'risk'").await;
    let look = async || {
        let found = reconciliation(&service).await;
        assert_eq!(json!([found["balanced"], found["seq"]]), json!([true, head().await]), "{found}");
    };
    look().await;
    hold(&service, "CAPITAL", "5").await;
    look().await;
    service.set_skew("2 days").await;
    look().await;
    let held = hold(&service, "CAPITAL", "6").await;
    tell(&service, &held, "settle", &json!({"settled_amount": 4, "realized_loss": 1})).await.ok();
    hold(&service, "WHOLESALE", "7").await;
    look().await;
    let summed = service.app.risk.reconciler().reconcile().await.unwrap();
    let whole = reconcile::reconcile(&service.db).await.unwrap();
    assert_eq!(format!("{summed:?}"), format!("{whole:?}"));
    // The last event is gone, with what it moved, as after a restore.
    let loses = "ALTER TABLE risk_event DISABLE TRIGGER guard;
         ALTER TABLE audit_head DISABLE TRIGGER guard;
         DELETE FROM risk_reservation WHERE seq = (SELECT max(seq) FROM risk_event);
         DELETE FROM risk_event WHERE seq = (SELECT max(seq) FROM risk_event);
         UPDATE risk_open SET open_amount = open_amount - 7 WHERE engine IN ('WHOLESALE', 'GLOBAL');
         UPDATE risk_ledger_day SET exposure_used = exposure_used - 7, actions_count = actions_count - 1
         WHERE engine IN ('WHOLESALE', 'GLOBAL') AND day = (holdfast_now() AT TIME ZONE 'UTC')::date;
         UPDATE audit_head SET (seq, hash, at) = (SELECT seq, hash, at FROM risk_event ORDER BY seq DESC LIMIT 1) WHERE stream = 'risk';
         ALTER TABLE risk_event ENABLE ALWAYS TRIGGER guard;
         ALTER TABLE audit_head ENABLE ALWAYS TRIGGER guard";
    sqlx::raw_sql(loses).execute(&service.pool).await.unwrap();
    look().await;
}

#[tokio::test]
async fn an_open_reservation_that_was_changed_by_hand_is_found_from_the_beginning() {
    let service = busy().await;
    assert_eq!(reconciliation(&service).await["balanced"], true);
    by_hand(&service, "UPDATE risk_reservation SET open_amount = 29 WHERE engine = 'CAPITAL' AND status = 'OPEN'")
        .await;
    let found = reconcile::reconcile(&service.db).await.unwrap();
    assert_eq!(found.differences.len(), 2, "CAPITAL and GLOBAL: {found:?}");
    by_hand(&service, "UPDATE risk_reservation SET open_amount = 30 WHERE engine = 'CAPITAL' AND status = 'OPEN'")
        .await;
    repair(&service, "put right by hand").await;
}
