//! A hundred thousand holds due at one instant keep nobody waiting: each batch takes its share of them and decides.

use super::{Standing, level, uncapped};
use crate::support::Service;
use chrono::TimeDelta;
use serde_json::json;

const HOLDS: i64 = 100_000;
/// Holds that one batch expires at most.
const SHARE: i64 = 512;

/// Holds of 1 that were made a microsecond after the other, all due at one instant, an hour later; the books balance.
async fn flood(service: &Service) {
    let sql = "WITH made AS (
            SELECT n AS seq, md5('hold ' || n)::uuid AS id, holdfast_now() - interval '1 second' + n * interval '1 us' AS at
            FROM generate_series(1, $1::bigint) AS n),
        events AS (
            INSERT INTO risk_event (seq, at, principal, engine, action, ok, amount, reservation_id, day, exposure_delta,
                                    open_delta, loss_delta, actions_delta, detail, hash)
            SELECT seq, at, 'test', 'RACE', 'RESERVE', true, 1, id, (at AT TIME ZONE 'UTC')::date, 1, 1, 0, 1, '{}',
                   sha256(id::text::bytea)
            FROM made RETURNING seq, hash, at, day),
        holds AS (
            INSERT INTO risk_reservation (id, seq, engine, amount, open_amount, status, day, created_at, expires_at)
            SELECT id, seq, 'RACE', 1, 1, 'OPEN', (at AT TIME ZONE 'UTC')::date, at, holdfast_now() + interval '1 hour'
            FROM made),
        stocks AS (
            INSERT INTO risk_open SELECT engine, $1, holdfast_now() FROM unnest(ARRAY['GLOBAL', 'RACE']) AS engine),
        flows AS (
            INSERT INTO risk_ledger_day (day, engine, exposure_used, realized_loss, actions_count, updated_at)
            SELECT (holdfast_now() AT TIME ZONE 'UTC')::date, engine, $1, 0, $1, holdfast_now()
            FROM unnest(ARRAY['GLOBAL', 'RACE']) AS engine)
        UPDATE audit_head SET seq = e.seq, hash = e.hash, at = e.at
        FROM events AS e WHERE stream = 'risk' AND e.seq = $1";
    let moved = sqlx::query(sql).bind(HOLDS).execute(&service.pool).await.unwrap();
    assert_eq!(moved.rows_affected(), 1);
    sqlx::query("ANALYZE risk_reservation, risk_event").execute(&service.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_holds_due_at_one_instant_are_expired_in_bounded_batches_while_reserves_go_on() {
    const RESERVES: i64 = 40;
    let service = Service::live().await;
    uncapped(&service, &["RACE", "OTHER"]).await;
    let mut clock = Standing::at(&service, "12:00").await;
    flood(&service).await;
    assert_eq!(service.get("/risk/reconciliation").await.ok()["balanced"], true);
    assert_eq!(service.reserve("RACE", "1").await.ok()["ok"], true);
    clock.pass(TimeDelta::hours(1)).await;

    // Without a ticker: each reserve is answered, and takes its share along.
    for done in 1..=5 {
        let answer = service.reserve("OTHER", "1").await.ok();
        assert_eq!(answer["ok"], true);
        let expired = service.count("SELECT count(*) FROM risk_event WHERE action = 'EXPIRE'").await;
        assert_eq!(expired, done * SHARE);
        // A hold that is due and not yet expired still counts.
        assert_eq!(level(&service, "RACE").await[1], HOLDS + 1 - expired);
    }
    let dry = json!({"engine": "OTHER", "amount": 1, "dry_run": true});
    assert_eq!(service.post("/risk/check-and-reserve", &dry).await.ok()["ok"], true);

    // Beside the ticker: every reserve that comes meanwhile is answered.
    let risk = service.app.risk.clone();
    let draining = tokio::spawn(async move { risk.expire_due().await });
    for _ in 5..RESERVES {
        assert_eq!(service.reserve("OTHER", "1").await.ok()["ok"], true);
    }
    draining.await.unwrap().unwrap();

    let shares = "SELECT max(expired)::bigint FROM
        (SELECT count(*) AS expired FROM risk_event WHERE action = 'EXPIRE' GROUP BY xmin::text) AS batches";
    assert_eq!(service.count(shares).await, SHARE, "no batch takes more than its share");
    let batches = "SELECT count(DISTINCT xmin::text) FROM risk_event WHERE action = 'EXPIRE'";
    assert_eq!(
        service.count(batches).await,
        (HOLDS + SHARE - 1) / SHARE,
        "and each takes all of it, while there is more"
    );
    assert_eq!(service.count("SELECT count(*) FROM risk_reservation WHERE status = 'EXPIRED'").await, HOLDS);
    assert_eq!(level(&service, "RACE").await, json!([HOLDS + 1, 1, 0, HOLDS + 1]));
    assert_eq!(level(&service, "OTHER").await, json!([RESERVES, RESERVES, 0, RESERVES]));
    assert_eq!(service.get("/risk/reconciliation").await.ok()["balanced"], true);
    // A look when nothing is due decides nothing.
    let events = service.events().await;
    super::expire_due(&service).await;
    assert_eq!(service.events().await, events);
}
