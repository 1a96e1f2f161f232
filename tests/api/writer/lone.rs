//! A reserve that is alone commits by one statement, and is decided anew if anything changed under it.

use super::proxy::{Armed, Proxy, SLOW, Way};
use super::{allowed, reserve, settle, uncapped, waiting_backend};
use crate::support::{Answer, Service, broken_links};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::json;
use sqlx::{Executor, Postgres, Row, Transaction};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often the head's turn moved.
const TURN: &str = "SELECT turn FROM audit_head WHERE stream = 'risk'";

#[tokio::test]
async fn whatever_a_reserve_rests_on_moves_the_turn_of_the_head_whoever_changes_it() {
    let service = uncapped().await;
    let mut turn = service.count(TURN).await;
    // If replication applies a change, the head that it moved arrives by itself, and without the key to a trip.
    let applied = "BEGIN; SET LOCAL session_replication_role = replica;
         INSERT INTO risk_throttle (engine, trip_id, created_at) VALUES ('RACE', 1, now()); COMMIT";
    service.pool.execute(applied).await.unwrap();
    assert_eq!(service.count(TURN).await, turn);
    for sql in [
        "UPDATE risk_policy SET max_open_risk = 1 WHERE engine = 'RACE'",
        "UPDATE risk_throttle SET created_at = now()",
        "DELETE FROM risk_throttle",
        "INSERT INTO risk_halt (at, differences) VALUES (now(), '[]')",
        "DELETE FROM risk_halt",
        // A repair where there was no halt.
        "DELETE FROM risk_halt",
        "UPDATE risk_policy SET max_open_risk = 0 WHERE engine = 'RACE'",
    ] {
        service.pool.execute(sql).await.unwrap();
        let now = service.count(TURN).await;
        assert!(now > turn, "{sql}");
        turn = now;
    }
    allowed(reserve(&service, "test").await.unwrap());
    assert_eq!(service.count(TURN).await, turn, "an event needs no turn");
    for sql in ["turn = turn - 1", "turn = turn + 1, at = at + interval '1 us'", "turn = turn + 1, hash = sha256('x')"]
    {
        let sql = sqlx::AssertSqlSafe(format!("UPDATE audit_head SET {sql} WHERE stream = 'risk'"));
        assert!(service.pool.execute(sql).await.is_err());
    }
}

/// A reserve that has read and waits with its write until the transaction ends; nothing else waits for that.
async fn between_read_and_write(service: &Service) -> (Transaction<'static, Postgres>, JoinHandle<Answer>) {
    allowed(reserve(service, "test").await.unwrap());
    let mut tx = service.pool.begin().await.unwrap();
    tx.execute("LOCK TABLE risk_event IN SHARE MODE").await.unwrap();
    let waiting = reserve(service, "test");
    waiting_backend(service).await;
    (tx, waiting)
}

#[tokio::test]
async fn a_change_between_the_read_and_the_write_of_a_lone_reserve_binds_it() {
    let cap = json!({"engine": "RACE", "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 1});
    let disabled = json!({"engine": "RACE", "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 5,
        "enabled": false});
    for (path, body, reason) in [
        ("/go-live/kill-switch/engage", json!({"reason": "stop"}), "kill_switch_engaged"),
        ("/go-live/disable", json!({"actor": "a"}), "go_live_disabled"),
        ("/risk/policies/upsert", cap, "open_risk_exceeded"),
        ("/risk/policies/upsert", disabled, "policy_disabled"),
    ] {
        let service = uncapped().await;
        // They are for changes by hand: what Holdfast itself changes does not depend on them.
        service.pool.execute("ALTER TABLE risk_policy DISABLE TRIGGER turn").await.unwrap();
        let (tx, waiting) = between_read_and_write(&service).await;
        service.post(path, &body).await.ok();
        tx.commit().await.unwrap();
        let answer = waiting.await.unwrap().ok();
        assert_eq!((&answer["ok"], &answer["reason"]), (&json!(false), &json!(reason)));
    }
}

#[tokio::test]
async fn a_lone_reserve_whose_process_was_paused_is_decided_anew() {
    let service = uncapped().await;
    let (tx, waiting) = between_read_and_write(&service).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT holdfast_now()").fetch_one(&service.pool).await.unwrap();
    tx.commit().await.unwrap();
    allowed(waiting.await.unwrap());
    let at: DateTime<Utc> =
        sqlx::query_scalar("SELECT max(at) FROM risk_event").fetch_one(&service.pool).await.unwrap();
    assert!(at > now, "{at} {now}");
}

#[tokio::test]
async fn a_counter_that_was_changed_by_hand_after_a_reserve_is_not_overwritten_by_the_next() {
    let service = uncapped().await;
    let totals = "SELECT (SELECT open_amount FROM risk_open WHERE engine = 'RACE'), exposure_used, realized_loss, actions_count::numeric
                  FROM risk_ledger_day WHERE engine = 'RACE'";
    for (counter, (table, column)) in [
        ("risk_open", "open_amount"),
        ("risk_ledger_day", "exposure_used"),
        ("risk_ledger_day", "realized_loss"),
        ("risk_ledger_day", "actions_count"),
    ]
    .into_iter()
    .enumerate()
    {
        // Twice, so that the second is decided on what the first left.
        allowed(reserve(&service, "test").await.unwrap());
        allowed(reserve(&service, "test").await.unwrap());
        let by_hand = |sign: char| {
            let sql = format!("UPDATE {table} SET {column} = {column} {sign} 10 WHERE engine = 'RACE'");
            service.pool.execute(sqlx::AssertSqlSafe(sql))
        };
        by_hand('+').await.unwrap();
        let row = |row: sqlx::postgres::PgRow| (0..4).map(|at| row.get::<Decimal, _>(at)).collect::<Vec<_>>();
        let before = row(service.pool.fetch_one(totals).await.unwrap());
        allowed(reserve(&service, "test").await.unwrap());
        let after = row(service.pool.fetch_one(totals).await.unwrap());
        assert!(after[counter] >= before[counter], "{column}: {before:?}, {after:?}");
        by_hand('-').await.unwrap();
    }
}

#[tokio::test]
async fn a_lone_denial_is_decided_once() {
    let service = uncapped().await;
    let cap = json!({"engine": "RACE", "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 1});
    service.post("/risk/policies/upsert", &cap).await.ok();
    allowed(reserve(&service, "test").await.unwrap());
    for denials in 1..=3 {
        assert_eq!(reserve(&service, "test").await.unwrap().ok()["reason"], "open_risk_exceeded");
        assert_eq!(service.count("SELECT denied FROM risk_denial_day").await, denials);
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test]
async fn a_hold_that_fell_due_while_the_write_before_was_answered_is_not_extended() {
    let (proxy, service) = Proxy::between(Way::Free).await;
    proxy.lead(&service).await;
    let short = json!({"engine": "RACE", "amount": 1, "ttl_seconds": 1});
    let id = allowed(service.post("/risk/check-and-reserve", &short).await);
    tokio::time::sleep(Duration::from_millis(700)).await;
    proxy.arm(Armed::Slow);
    let slow = reserve(&service, "test");
    while !proxy.has_cut() {
        tokio::task::yield_now().await;
    }
    service.clock.advance(u64::try_from(SLOW.as_millis()).unwrap());
    allowed(slow.await.unwrap());
    let extended = service.post(&format!("/risk/reservations/{id}/extend"), &json!({"ttl_seconds": 60})).await;
    extended.refused(409, "ALREADY_EXPIRED");
}

#[tokio::test]
async fn a_settle_whose_reservation_was_ended_by_hand_under_it_writes_nothing() {
    let service = uncapped().await;
    let id = allowed(reserve(&service, "test").await.unwrap());
    let mut tx = service.pool.begin().await.unwrap();
    // No trigger tells the ledger of this: the settle has read it, and waits with its write.
    tx.execute("LOCK TABLE risk_event IN SHARE MODE").await.unwrap();
    let waiting = settle(&service, &json!({"reservation_id": id}));
    waiting_backend(&service).await;
    let ended = "UPDATE risk_reservation SET status = 'RELEASED', open_amount = 0,
        closed_at = created_at + interval '1 us', closed_seq = 2 WHERE id = $1::uuid";
    sqlx::query(ended).bind(&id).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let refused = waiting.await.unwrap();
    assert_ne!(refused.status, 200, "{}", refused.text);
    assert_eq!(service.count("SELECT count(*) FROM risk_event WHERE action = 'SETTLE'").await, 0);
    assert_eq!(service.count("SELECT seq FROM audit_head WHERE stream = 'risk'").await, 1);
    let mended = "UPDATE risk_reservation SET status = 'OPEN', open_amount = 1, closed_at = NULL, closed_seq = NULL";
    service.pool.execute(mended).await.unwrap();
    settle(&service, &json!({"reservation_id": id})).await.unwrap().ok();
}
