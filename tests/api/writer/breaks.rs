//! Connections that break: every answer is one that the database bears out.

use super::proxy::{Armed, LATE, Proxy, Way};
use super::{all, allowed, arrived, assert_recorded, hold, reserve, settle, uncapped, waiting_backend};
use crate::support::Service;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Terminates a backend and returns when it is gone.
async fn terminate(service: &Service, pid: i32) {
    let sql = "SELECT pg_terminate_backend($1, 10000)";
    let gone: bool = sqlx::query_scalar(sql).bind(pid).fetch_one(&service.pool).await.unwrap();
    assert!(gone);
}

// Connections that break before the commit.

#[tokio::test]
async fn a_writer_whose_idle_connection_was_terminated_decides_the_next_request() {
    let service = uncapped().await;
    let tx = hold(&service).await;
    let first = reserve(&service, "test");
    let pid = waiting_backend(&service).await;
    tx.commit().await.unwrap();
    let first = allowed(first.await.unwrap());
    terminate(&service, pid).await;
    let second = allowed(reserve(&service, "test").await.unwrap());
    assert_recorded(&service, [first, second]).await;
}

#[tokio::test]
async fn a_writer_that_is_terminated_while_it_waits_decides_on_a_new_connection() {
    let service = uncapped().await;
    let first = allowed(reserve(&service, "test").await.unwrap());
    let tx = hold(&service).await;
    let second = reserve(&service, "test");
    let old = waiting_backend(&service).await;
    terminate(&service, old).await;
    assert_ne!(waiting_backend(&service).await, old);
    tx.commit().await.unwrap();
    let second = allowed(second.await.unwrap());
    assert_recorded(&service, [first, second]).await;
}

/// Takes as long as the writer's lock timeout.
#[tokio::test]
async fn a_head_that_stays_held_is_waited_for_once() {
    let service = uncapped().await;
    let first = allowed(reserve(&service, "test").await.unwrap());
    let tx = hold(&service).await;
    let waiting = reserve(&service, "test");
    let mut backends = BTreeSet::new();
    while !waiting.is_finished() {
        let sql = "SELECT pid FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'holdfast' AND wait_event_type = 'Lock'";
        let pids: Vec<i32> = sqlx::query_scalar(sql).fetch_all(&service.pool).await.unwrap();
        backends.extend(pids);
    }
    waiting.await.unwrap().refused(503, "DATABASE_UNAVAILABLE");
    tx.commit().await.unwrap();
    assert_recorded(&service, [first]).await;
    assert_eq!(backends.len(), 1, "the whole wait was repeated on another connection");
}

// Connections that break during the commit.

/// Waits for whatever transaction holds the head, so that what is read afterwards is final.
async fn quiet(service: &Service) {
    hold(service).await.commit().await.unwrap();
}

/// A service whose reserves are committed in this way, and the id of its first reserve.
async fn led(way: Way) -> (Proxy, Service, String) {
    let (proxy, service) = Proxy::between(way).await;
    proxy.lead(&service).await;
    let first = allowed(reserve(&service, "test").await.unwrap());
    (proxy, service, first)
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_commit_leaves_a_fresh_decision_and_one_reservation() {
    for way in Way::ALL {
        for armed in [Armed::BeforeCommit, Armed::Silently] {
            let (proxy, service, first) = led(way).await;
            proxy.arm(armed);
            let second = allowed(reserve(&service, "test").await.unwrap());
            assert!(proxy.has_cut(), "{way:?} {armed:?}");
            quiet(&service).await;
            assert_recorded(&service, [first, second]).await;
        }
    }
}

#[tokio::test]
async fn a_half_open_connection_at_the_commit_is_given_up_and_what_came_of_it_is_told() {
    for way in Way::ALL {
        let (proxy, service, first) = led(way).await;
        proxy.arm(Armed::HalfOpen);
        let second = reserve(&service, "test").await.unwrap();
        assert!(proxy.has_cut());
        let mut told = vec![first];
        match way {
            // The failure is certain, and nobody waits twice as long.
            Way::Free => assert_eq!(second.refused(503, "DATABASE_UNAVAILABLE")["retry_same_key"], true),
            // The server ends a transaction that idles, and says so on the way back.
            Way::Locked => told.push(allowed(second)),
        }
        assert_recorded(&service, told.clone()).await;
        told.push(allowed(reserve(&service, "test").await.unwrap()));
        assert_recorded(&service, told).await;
    }
}

#[tokio::test]
async fn a_write_that_reaches_the_database_after_its_answer_changes_nothing() {
    for way in Way::ALL {
        let (proxy, service) = Proxy::between(way).await;
        if way == Way::Locked {
            proxy.lead(&service).await;
        }
        proxy.arm(Armed::Late);
        let first = reserve(&service, "test").await.unwrap();
        assert!(proxy.has_cut());
        let mut told = Vec::new();
        // A transaction that holds the head is waited for; what has not begun never happens.
        match way {
            Way::Free => assert_eq!(first.refused(503, "DATABASE_UNAVAILABLE")["retry_same_key"], true),
            Way::Locked => told.push(allowed(first)),
        }
        told.push(allowed(reserve(&service, "test").await.unwrap()));
        proxy.arm(Armed::Late);
        told.push(allowed(reserve(&service, "test").await.unwrap()));
        assert!(proxy.has_cut());
        tokio::time::sleep(2 * LATE).await;
        assert_recorded(&service, told).await;
    }
}

#[tokio::test]
async fn a_first_connection_that_breaks_before_the_commit_is_a_503_that_decided_nothing() {
    for way in Way::ALL {
        let (proxy, service) = Proxy::between(way).await;
        proxy.arm(Armed::BeforeCommit);
        let body = reserve(&service, "test").await.unwrap().refused(503, "DATABASE_UNAVAILABLE");
        assert!(proxy.has_cut());
        assert_eq!(body["retry_same_key"], true);
        quiet(&service).await;
        assert_recorded(&service, []).await;
        let next = allowed(reserve(&service, "test").await.unwrap());
        assert_recorded(&service, [next]).await;
    }
}

#[tokio::test]
async fn a_first_connection_that_breaks_at_its_confirmation_has_decided_nothing() {
    for armed in [Armed::BeforeCommit, Armed::AfterCommit, Armed::Late] {
        let (proxy, service) = Proxy::between(Way::Locked).await;
        proxy.arm(armed);
        let body = reserve(&service, "test").await.unwrap().refused(503, "DATABASE_UNAVAILABLE");
        assert!(proxy.has_cut());
        assert_eq!(body["retry_same_key"], true);
        let next = allowed(reserve(&service, "test").await.unwrap());
        quiet(&service).await;
        assert_recorded(&service, [next]).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_commit_leaves_the_true_answer() {
    for way in Way::ALL {
        let (proxy, service) = Proxy::between(way).await;
        let mut ids = Vec::new();
        proxy.lead(&service).await;
        for _ in 0..10 {
            proxy.arm(Armed::AfterCommit);
            ids.push(allowed(reserve(&service, "test").await.unwrap()));
            assert!(proxy.has_cut());
        }
        assert_recorded(&service, ids.clone()).await;
        if way == Way::Locked {
            settles_through_a_break(&proxy, &service, &ids[0]).await;
        }
    }
}

#[tokio::test]
async fn a_pooler_that_tells_of_a_lost_server_as_of_any_error_leaves_the_true_answer() {
    for way in Way::ALL {
        let (proxy, service, first) = led(way).await;
        proxy.arm(Armed::LostServer);
        let second = allowed(reserve(&service, "test").await.unwrap());
        assert!(proxy.has_cut());
        assert_recorded(&service, [first, second]).await;
    }
}

async fn settles_through_a_break(proxy: &Proxy, service: &Service, id: &str) {
    proxy.arm(Armed::AfterCommit);
    let settled = settle(service, &json!({"reservation_id": id, "realized_loss": 3})).await.unwrap().ok();
    assert!(proxy.has_cut());
    assert_eq!(json!([settled["released"], settled["ledger_engine"]["realized_loss"]]), json!([1, 3]));
    assert_eq!(service.count("SELECT count(*) FROM risk_event WHERE action = 'SETTLE'").await, 1);
}

#[tokio::test]
async fn a_whole_batch_whose_connection_breaks_at_the_commit_gets_true_answers() {
    for armed in [Armed::BeforeCommit, Armed::AfterCommit] {
        let (proxy, service) = Proxy::between(Way::Locked).await;
        // An operation that finds nothing commits nothing. Once the connection was used, it takes the fifty into its
        // batch: there is one commit.
        proxy.lead(&service).await;
        let nothing = json!({"reservation_id": "00000000-0000-0000-0000-000000000001"});
        let tx = hold(&service).await;
        let plug = settle(&service, &nothing);
        waiting_backend(&service).await;
        let waiting: Vec<_> = (0..50).map(|_| reserve(&service, "test")).collect();
        arrived().await;
        proxy.arm(armed);
        tx.commit().await.unwrap();
        plug.await.unwrap().refused(404, "NOT_FOUND");
        let ids: Vec<_> = all(waiting).await.into_iter().map(allowed).collect();
        assert!(proxy.has_cut(), "{armed:?}");
        quiet(&service).await;
        assert_recorded(&service, ids).await;
        let transactions = "SELECT count(DISTINCT xmin::text) FROM risk_event WHERE action = 'RESERVE'";
        assert_eq!(service.count(transactions).await, 1, "{armed:?}");
    }
}

#[tokio::test]
async fn a_commit_that_cannot_be_looked_up_is_an_unknown_outcome() {
    for way in Way::ALL {
        let (proxy, service, first) = led(way).await;
        proxy.arm(Armed::AfterCommitForGood);
        let answer = reserve(&service, "test").await.unwrap();
        assert!(proxy.has_cut());
        let body = answer.refused(503, "OUTCOME_UNKNOWN");
        assert_eq!(body["retry_same_key"], true);
        assert_eq!(body["reservation_id"], Value::Null);
        // While the database is away nothing can be decided, and that is known.
        let away = reserve(&service, "test").await.unwrap().refused(503, "DATABASE_UNAVAILABLE");
        assert_eq!(away["retry_same_key"], true);
        proxy.arm(Armed::No);
        quiet(&service).await;
        // It had been committed; the caller was rightly not told that it had not.
        let second: String = sqlx::query_scalar("SELECT id::text FROM risk_reservation ORDER BY seq DESC LIMIT 1")
            .fetch_one(&service.pool)
            .await
            .unwrap();
        assert_ne!(second, first);
        let third = allowed(reserve(&service, "test").await.unwrap());
        assert_recorded(&service, [first, second, third]).await;
    }
}
