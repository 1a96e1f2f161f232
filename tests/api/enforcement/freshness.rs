//! Freshness: a change is effective at once or with the next read, and a lapsed lease blocks.

use super::{DEALS, DISABLE, ENABLE, ENGAGE, LEASE_MS, RELEASE, Upstream, switch};
use crate::support::{Service, Setup};
use serde_json::json;

#[tokio::test]
async fn the_lease_ends_exactly_two_seconds_after_the_last_read() {
    let service = Service::live().await;
    let upstream = Upstream::behind(&service);
    service.clock.advance(LEASE_MS);
    assert_eq!(upstream.get(DEALS).await.status, 200);
    assert_eq!(upstream.reached().len(), 1);
    service.clock.advance(1);
    let answer = upstream.get(DEALS).await;
    assert_eq!(answer.headers["retry-after"], "1");
    answer.refused(503, "STATE_STALE");
    assert!(upstream.reached().is_empty());
    service.app.feed.refresh(&service.db).await.unwrap();
    assert_eq!(upstream.get(DEALS).await.status, 200, "one good read opens it again");
}

#[tokio::test]
async fn an_instance_that_has_read_nothing_yet_blocks() {
    use holdfast::app::App;
    use holdfast::clock::Clock;
    let mut service = Service::live().await;
    service.app = App::new(&service.db, Clock::manual(0), holdfast::app::Setup::default());
    let upstream = Upstream::behind(&service);
    let body = upstream.get(DEALS).await.refused(503, "STATE_STALE");
    assert_eq!(body["state_version"], json!(null));
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_change_of_its_own_is_effective_at_once() {
    let service = Service::fresh().await;
    let upstream = Upstream::behind(&service);
    for (path, refusal) in [
        (ENABLE, None),
        (ENGAGE, Some("KILL_SWITCH_ENGAGED")),
        (RELEASE, None),
        (DISABLE, Some("GO_LIVE_DISABLED")),
        (ENABLE, None),
    ] {
        switch(&service, path).await;
        let answer = upstream.get(DEALS).await;
        if let Some(code) = refusal {
            answer.refused(403, code);
            assert!(upstream.reached().is_empty(), "after {path}");
        } else {
            assert_eq!(answer.status, 200, "after {path}");
            assert_eq!(upstream.reached().len(), 1, "after {path}");
        }
    }
}

#[tokio::test]
async fn a_kill_switch_pulled_by_a_wire_is_effective_at_once() {
    let service = Service::live().await;
    let upstream = Upstream::behind(&service);
    let wire = json!({
        "domain": "WHOLESALE", "metric": "contract_rate", "enabled": true, "action": "KILL_SWITCH",
        "window_events": 5, "baseline_events": 5, "min_events_to_enforce": 5, "actor": "bryan",
    });
    service.post("/regression/policies/upsert", &wire).await.ok();
    service.kpis("WHOLESALE", "contract_rate", 5, 0).await;
    assert_eq!(upstream.get(DEALS).await.status, 200);
    upstream.reached();
    service.kpis("WHOLESALE", "contract_rate", 5, 1).await;
    upstream.get(DEALS).await.refused(403, "KILL_SWITCH_ENGAGED");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_change_of_its_own_does_not_renew_the_lease() {
    let service = Service::fresh().await;
    let upstream = Upstream::behind(&service);
    service.clock.advance(LEASE_MS + 1);
    switch(&service, ENABLE).await;
    upstream.get(DEALS).await.refused(503, "STATE_STALE");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_change_by_another_instance_is_seen_with_the_next_read() {
    let here = Service::live().await;
    let there = Service::on(here.options.clone(), Setup::default()).await;
    let upstream = Upstream::behind(&here);
    for (path, refusal) in
        [(ENGAGE, Some("KILL_SWITCH_ENGAGED")), (RELEASE, None), (DISABLE, Some("GO_LIVE_DISABLED")), (ENABLE, None)]
    {
        switch(&there, path).await;
        here.app.feed.refresh(&here.db).await.unwrap();
        let answer = upstream.get(DEALS).await;
        if let Some(code) = refusal {
            answer.refused(403, code);
            assert!(upstream.reached().is_empty(), "after {path}");
        } else {
            assert_eq!(answer.status, 200, "after {path}");
            upstream.reached();
        }
    }
}

#[tokio::test]
async fn an_unseen_engage_blocks_when_the_lease_lapses_at_the_latest() {
    let here = Service::live().await;
    let there = Service::on(here.options.clone(), Setup::default()).await;
    let upstream = Upstream::behind(&here);
    here.clock.advance(LEASE_MS);
    switch(&there, ENGAGE).await;
    here.clock.advance(1);
    upstream.get(DEALS).await.refused(503, "STATE_STALE");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_read_that_fails_neither_renews_the_lease_nor_forgets_the_state() {
    let service = Service::live().await;
    let upstream = Upstream::behind(&service);
    service.clock.advance(LEASE_MS);
    service.db.close().await;
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    assert_eq!(upstream.get(DEALS).await.status, 200, "the lease still runs");
    upstream.reached();
    service.clock.advance(1);
    upstream.get(DEALS).await.refused(503, "STATE_STALE");
    assert!(upstream.reached().is_empty());
}

#[tokio::test]
async fn a_state_row_that_is_gone_or_garbled_never_renews_the_lease() {
    for damage in ["DELETE FROM go_live_state", "ALTER TABLE go_live_state DROP COLUMN kill_switch_engaged"] {
        let service = Service::live().await;
        let upstream = Upstream::behind(&service);
        sqlx::query(damage).execute(&service.pool).await.unwrap();
        service.clock.advance(LEASE_MS + 1);
        assert!(service.app.feed.refresh(&service.db).await.is_err(), "{damage}");
        upstream.get(DEALS).await.refused(503, "STATE_STALE");
        assert!(upstream.reached().is_empty(), "{damage}");
    }
}

#[tokio::test]
async fn a_version_that_went_backwards_never_opens_the_gate() {
    let service = Service::live().await;
    switch(&service, ENGAGE).await;
    // As after the restore of a backup from before the engage.
    sqlx::query("UPDATE go_live_state SET version = 2, kill_switch_engaged = false")
        .execute(&service.pool)
        .await
        .unwrap();
    service.app.feed.refresh(&service.db).await.unwrap();
    let upstream = Upstream::behind(&service);
    assert_eq!(upstream.get(DEALS).await.status, 403);
    assert!(upstream.reached().is_empty());
}
