//! Callers who hang up at any moment, and the next one on their connection.

use crate::support::{Proxy, Service, Setup};
use axum::http::StatusCode;
use holdfast::db::Database;
use serde_json::json;
use sqlx::Executor;
use std::future::Future;
use std::pin::Pin;

/// A service whose way to its database can be held up.
async fn behind_a_proxy() -> (Service, Proxy) {
    let direct = Service::live().await;
    let proxy = Proxy::before(&direct.options).await;
    let mut service = Service::on(proxy.options(&direct.options), Setup::default()).await;
    // The books are looked at without it.
    service.options = direct.options.clone();
    (service, proxy)
}

/// Begins what `begin` makes, gives it up when `pieces` of answers have come, and says whether that was before its end.
async fn give_up_after<F: Future + Send + 'static>(proxy: &Proxy, pieces: u32, begun: F) -> bool
where
    F::Output: Send,
{
    proxy.hold_after(pieces);
    let mut begun = tokio::spawn(begun);
    let was_given_up = tokio::select! {
        biased;
        ended = &mut begun => {
            ended.unwrap();
            false
        }
        () = proxy.holds() => true,
    };
    begun.abort();
    proxy.let_go();
    was_given_up
}

#[tokio::test]
async fn no_reader_who_hangs_up_reaches_another() {
    let (service, proxy) = behind_a_proxy().await;
    service.post("/risk/check-and-reserve", &json!({"engine": "RETAIL", "amount": 1, "actor": "test"})).await.ok();
    for path in ["/go-live/state", "/risk/ledger/today", "/audit/events?stream=control", "/audit/verify", "/review"] {
        for pieces in 0.. {
            if !give_up_after(&proxy, pieces, service.get(path)).await {
                assert!(pieces > 1, "{path} has not asked the database");
                break;
            }
            // One after the other, each connection of the pool reads, and then begins what writes.
            for _ in 0..4 {
                let answer = service.get("/go-live/state").await;
                assert_eq!(answer.status, StatusCode::OK, "a read after {path} at {pieces}: {answer:?}");
            }
            for _ in 0..4 {
                let answer = service.post("/go-live/enable", &json!({"actor": "test"})).await;
                assert_eq!(answer.status, StatusCode::OK, "a change after {path} at {pieces}: {answer:?}");
            }
        }
    }
}

type Begun = Pin<Box<dyn Future<Output = ()> + Send>>;

#[tokio::test]
async fn a_beginning_that_is_given_up_leaves_no_transaction_to_the_next() {
    let (service, proxy) = behind_a_proxy().await;
    let kinds: [fn(Database) -> Begun; 5] = [
        |db| Box::pin(async move { drop(db.begin().await.unwrap()) }),
        |db| Box::pin(async move { drop(db.begin_snapshot().await.unwrap()) }),
        |db| Box::pin(async move { drop(db.begin_long_snapshot().await.unwrap()) }),
        |db| Box::pin(async move { drop(db.connect_long_snapshot().await.unwrap()) }),
        |db| Box::pin(async move { drop(db.begin_switch().await.unwrap()) }),
    ];
    for (kind, begin) in kinds.into_iter().enumerate() {
        for pieces in 0.. {
            if !give_up_after(&proxy, pieces, begin(service.db.clone())).await {
                break;
            }
            for _ in 0..3 {
                let mut conn = service.db.read().await.unwrap();
                let row = conn.fetch_one("SELECT transaction_timestamp() = statement_timestamp()").await.unwrap();
                assert!(sqlx::Row::get::<bool, _>(&row, 0), "kind {kind} at {pieces}: a transaction is open");
                drop(conn);
                drop(service.db.begin_snapshot().await.unwrap());
                let mut tx = service.db.begin_switch().await.unwrap();
                let row = tx.fetch_one("SHOW transaction_isolation").await.unwrap();
                assert_eq!(sqlx::Row::get::<String, _>(&row, 0), "read committed");
            }
        }
    }
}

#[tokio::test]
async fn a_backtest_ends_with_its_caller_and_a_change_goes_on() {
    let (service, proxy) = behind_a_proxy().await;
    service.kpis("RETAIL", "conversion", 3, 0).await;
    for pieces in 0..4 {
        let asked = service.post("/regression/backtest", &json!({"domain": "RETAIL", "metric": "conversion"}));
        proxy.hold_after(pieces);
        let begun = tokio::spawn(asked);
        proxy.holds().await;
        assert!(!service.app.regression.replaying.is_free());
        begun.abort();
        assert!(begun.await.unwrap_err().is_cancelled());
        assert!(service.app.regression.replaying.is_free(), "it goes on after {pieces} pieces");
        proxy.let_go();
    }
    let begun = service.post("/go-live/disable", &json!({"actor": "test"}));
    assert!(give_up_after(&proxy, 0, begun).await);
    loop {
        let state = service.get("/go-live/state").await.ok();
        if state["go_live_enabled"] == false {
            break;
        }
        tokio::task::yield_now().await;
    }
}
