//! Everything at once: nothing deadlocks, and every reserve is decided.

use super::{failure, nearly_tripped, reserve_body, send, uncapped};
use crate::support::{Service, Setup, broken_links};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;

/// One operation of the tumult, chosen by its number.
fn tumult(number: usize) -> (&'static str, Value) {
    let engine = ["WHOLESALE", "CAPITAL", "RACE"][number / 3 % 3];
    match number % 15 {
        0 | 1 => ("/risk/check-and-reserve", reserve_body(engine)),
        2 => ("/risk/settle", json!({"engine": engine, "reserved_amount": 1, "realized_loss": "0.01"})),
        3 => ("/risk/policies/upsert", json!({"engine": engine, "max_actions_per_day": 1000 + number})),
        4 => ("/risk/policies/upsert", json!({"engine": "WHOLESALE", "enabled": true, "reason": "override"})),
        5 => (
            "/regression/policies/upsert",
            json!({"domain": "WHOLESALE", "metric": "contract_rate", "enabled": true,
            "reason": "re-arm"}),
        ),
        6 => (
            "/regression/policies/upsert",
            json!({"domain": "WHOLESALE", "metric": "offer_accept_rate", "enabled": true,
            "reason": "re-arm"}),
        ),
        7 | 8 => ("/regression/kpi", failure("contract_rate", number % 4 < 2)),
        9 => ("/regression/kpi", failure("offer_accept_rate", number % 4 < 2)),
        10 => ("/heimdall/sandbox/trial", json!({"domain": "BUYER_MATCH", "confidence": "0.9", "success": true})),
        11 => ("/heimdall/recommend", json!({"domain": "BUYER_MATCH", "confidence": "0.95"})),
        12 => ("/go-live/kill-switch/engage", json!({})),
        13 => ("/go-live/kill-switch/release", json!({})),
        _ => ("/regression/evaluate", json!({"domain": "WHOLESALE", "metric": "contract_rate"})),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_neither_deadlocks_nor_fails_and_the_books_and_chains_hold() {
    const TASKS: usize = 16;
    const EACH: usize = 45;
    let first = Service::live().await;
    uncapped(&first, &["RACE", "WHOLESALE", "CAPITAL"]).await;
    // One wire throttles, the other pulls the kill switch; both trip and are re-armed over and over.
    nearly_tripped(&first, "contract_rate", "THROTTLE").await;
    nearly_tripped(&first, "offer_accept_rate", "KILL_SWITCH").await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let router = [&first, &second][task % 2].router.clone();
        tasks.spawn(async move {
            for step in 0..EACH {
                // Each task walks all operations in an order of its own; 7 and 15 have no common divisor.
                let (path, body) = tumult(task * 4 + step * 7);
                let answer = send(&router, path, &body).await;
                assert!(
                    matches!(answer.status.as_u16(), 200 | 409),
                    "{path} {body}: {} {}",
                    answer.status,
                    answer.text
                );
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(broken_links(&first.pool).await, [""; 0]);
    assert!(first.count("SELECT count(*) FROM regression_trip").await > 0, "the wires tripped meanwhile");
    assert_eq!(
        first
            .count("SELECT count(*) FROM risk_throttle t JOIN regression_trip r ON r.id = t.trip_id WHERE r.rearmed_at IS NOT NULL")
            .await,
        0,
        "a trip that was ended throttles nothing"
    );
}

/// As of somebody who pulls and releases a switch without end, faster than a batch is decided.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_that_move_all_the_time_keep_no_reserve_from_being_decided() {
    const TASKS: usize = 8;
    const EACH: usize = 40;
    let first = Service::live().await;
    uncapped(&first, &["RACE"]).await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    let done = Arc::new(AtomicBool::new(false));
    let moving = {
        let (pool, done) = (first.pool.clone(), done.clone());
        tokio::spawn(async move {
            let mut moved = 0;
            while !done.load(Ordering::SeqCst) {
                sqlx::query("UPDATE go_live_state SET version = version + 1").execute(&pool).await.unwrap();
                moved += 1;
            }
            moved
        })
    };
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let router = [&first, &second][task % 2].router.clone();
        tasks.spawn(async move {
            for _ in 0..EACH {
                let answer = send(&router, "/risk/check-and-reserve", &reserve_body("RACE")).await;
                assert_eq!(answer.ok()["ok"], true);
            }
        });
    }
    tasks.join_all().await;
    done.store(true, Ordering::SeqCst);
    assert!(moving.await.unwrap() > 0);
    assert_eq!(first.count("SELECT count(*) FROM risk_reservation").await, i64::try_from(TASKS * EACH).unwrap());
    assert_eq!(broken_links(&first.pool).await, [""; 0]);
}
