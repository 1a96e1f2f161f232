//! Midnight, restarts, and a clock that goes wrong.

use super::{hold, level, reservation, settle, snapshot};
use crate::support::{Service, Setup, broken_links};
use serde_json::json;

// Midnight.

#[tokio::test]
async fn after_midnight_the_stock_is_carried_and_the_flows_start_at_zero() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    hold(&service, "CAPITAL", "50", None).await;
    settle(&service, json!({"engine": "CAPITAL", "reserved_amount": 50, "realized_loss": 149})).await;
    service.reserve("NOTIFY", "1").await.ok();
    service.set_skew("1 day").await;
    assert_eq!(level(&service, "WHOLESALE").await, json!([0, 400, 0, 0]));
    assert_eq!(level(&service, "GLOBAL").await, json!([0, 400, 0, 0]));
    let rows = service.get("/risk/ledger/today").await.ok();
    for row in rows.as_array().unwrap() {
        assert_eq!(row["denied_count"], 0, "denials are the day's");
    }
    // Yesterday's exposure does not count today, yesterday's open risk does.
    let denied = service.reserve("WHOLESALE", "601").await.ok();
    assert_eq!(denied["reason"], "open_risk_exceeded");
    assert_eq!(service.reserve("WHOLESALE", "600").await.ok()["ok"], true);
    let held = reservation(&service, &id).await;
    assert_ne!(held["day"], service.get("/risk/ledger/today").await.ok()[0]["day"]);
}

#[tokio::test]
async fn a_loss_cap_that_was_reached_yesterday_does_not_stop_today() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "1", None).await;
    settle(&service, json!({"reservation_id": id, "realized_loss": 300})).await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false);
    service.set_skew("1 day").await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_closed_days_row_never_changes_again() {
    let service = Service::live().await;
    let (first, second) =
        (hold(&service, "WHOLESALE", "400", None).await, hold(&service, "WHOLESALE", "100", None).await);
    let yesterday = async || -> Vec<String> {
        let sql = "SELECT d::text FROM risk_ledger_day AS d
                   WHERE day = (SELECT min(day) FROM risk_ledger_day) ORDER BY engine";
        sqlx::query_scalar(sql).fetch_all(&service.pool).await.unwrap()
    };
    let before = yesterday().await;
    service.set_skew("1 day").await;
    settle(&service, json!({"reservation_id": first, "settled_amount": 1, "realized_loss": 9})).await;
    settle(&service, json!({"engine": "WHOLESALE", "reserved_amount": 100})).await;
    service.reserve("WHOLESALE", "5").await.ok();
    assert_eq!(yesterday().await, before);
    assert_eq!(reservation(&service, &second).await["status"], "SETTLED");
}

#[tokio::test]
async fn the_exposure_of_a_hold_from_yesterday_is_not_given_back_today() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    service.set_skew("1 day").await;
    hold(&service, "WHOLESALE", "30", None).await;
    let answer = settle(&service, json!({"reservation_id": id, "settled_amount": 100, "realized_loss": 5})).await;
    assert_eq!(answer["released"], 400);
    assert_eq!(level(&service, "WHOLESALE").await, json!([30, 30, 5, 1]));
    assert_eq!(level(&service, "GLOBAL").await, json!([30, 30, 5, 1]));
}

#[tokio::test]
async fn an_overrun_of_a_hold_from_yesterday_books_to_today() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    service.set_skew("1 day").await;
    let answer = settle(&service, json!({"reservation_id": id, "settled_amount": 450})).await;
    assert_eq!(answer["flags"], json!(["overrun"]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([50, 0, 0, 0]));
}

#[tokio::test]
async fn an_original_settle_across_midnight_gives_back_only_what_was_reserved_today() {
    let service = Service::live().await;
    hold(&service, "WHOLESALE", "100", None).await;
    service.set_skew("1 day").await;
    hold(&service, "WHOLESALE", "70", None).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 170, "settled_amount": 0});
    assert_eq!(settle(&service, body).await["released"], 170);
    assert_eq!(level(&service, "WHOLESALE").await, json!([0, 0, 0, 1]));
}

// Restart.

#[tokio::test]
async fn a_restart_keeps_policies_ledger_reservations_and_events_and_continues_the_sequence() {
    let first = Service::live().await;
    let body = json!({"engine": "CAPITAL", "max_daily_loss": 42, "actor": "ann", "reason": "kept"});
    first.post("/risk/policies/upsert", &body).await.ok();
    let open = hold(&first, "WHOLESALE", "400", Some("thread")).await;
    hold(&first, "CAPITAL", "0.000001", None).await;
    settle(&first, json!({"engine": "CAPITAL", "reserved_amount": "0.000001", "realized_loss": 1})).await;
    first.reserve("NOTIFY", "1").await.ok();
    let paths = ["/risk/policies", "/risk/ledger/today", "/risk/reservations", "/risk/events", "/go-live/state"];
    let mut before = Vec::new();
    for path in paths {
        before.push(first.get(path).await.text);
    }
    let options = first.options.clone();
    first.db.close().await;
    first.pool.close().await;
    drop(first);

    let second = Service::on(options, Setup::default()).await;
    for (path, text) in paths.iter().zip(before) {
        assert_eq!(second.get(path).await.text, text, "{path}");
    }
    settle(&second, json!({"reservation_id": open})).await;
    second.reserve("WHOLESALE", "1").await.ok();
    let page = second.get("/risk/events").await.ok();
    let seqs: Vec<_> = page["items"].as_array().unwrap().iter().map(|event| event["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, [6, 5, 4, 3, 2, 1]);
    assert_eq!(broken_links(&second.pool).await, [""; 0]);
}

#[tokio::test]
async fn two_instances_on_one_database_are_one_book() {
    let first = Service::live().await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    let id = hold(&first, "WHOLESALE", "600", None).await;
    assert_eq!(
        second.reserve("WHOLESALE", "401").await.ok()["message"],
        "WHOLESALE hard stop: Daily exposure cap exceeded (1001 > 1000)"
    );
    settle(&second, json!({"reservation_id": id})).await;
    first.post("/risk/settle", &json!({"reservation_id": id})).await.refused(409, "ALREADY_SETTLED");
    second.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    assert_eq!(first.reserve("WHOLESALE", "1").await.ok()["reason"], "kill_switch_engaged");
}

// A clock that goes wrong.

#[tokio::test]
async fn a_clock_that_went_back_more_than_an_hour_halts_reserves_and_nothing_else() {
    let service = Service::live().await;
    service.set_skew("2 hours").await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    service.set_skew("0").await;
    let events = service.events().await;
    let answer = service.reserve("WHOLESALE", "1").await;
    assert!(answer.headers.contains_key("retry-after"));
    let refused = answer.refused(503, "CLOCK_WENT_BACK");
    assert_eq!(refused["retry_same_key"], true);
    assert_eq!(service.events().await, events);
    let answer = settle(&service, json!({"reservation_id": id, "realized_loss": 3})).await;
    assert_eq!(snapshot(&answer["ledger_engine"]), json!([400, 0, 3, 1]));
    let body = json!({"engine": "WHOLESALE", "max_daily_loss": 1});
    service.post("/risk/policies/upsert", &body).await.ok();
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    service.set_skew("2 hours").await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false, "decided again, once the clock is right");
}

#[tokio::test]
async fn a_dry_run_is_halted_by_a_clock_that_went_back_as_the_reserve_would_be() {
    let service = Service::live().await;
    service.set_skew("2 hours").await;
    hold(&service, "WHOLESALE", "1", None).await;
    service.set_skew("0").await;
    let body = json!({"engine": "WHOLESALE", "amount": 1, "dry_run": true});
    service.post("/risk/check-and-reserve", &body).await.refused(503, "CLOCK_WENT_BACK");
}

#[tokio::test]
async fn times_strictly_increase_in_every_stream_though_the_clock_went_back_a_minute() {
    let service = Service::live().await;
    for skew in ["1 minute", "0", "59 minutes", "0", "30 seconds"] {
        service.set_skew(skew).await;
        hold(&service, "WHOLESALE", "1", None).await;
        settle(&service, json!({"engine": "WHOLESALE", "reserved_amount": 1})).await;
        service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
        service.post("/go-live/kill-switch/release", &json!({})).await.ok();
        service.kpis("WHOLESALE", "contract_rate", 2, 0).await;
        let trial = json!({"domain": "BUYER_MATCH", "confidence": 0.5, "success": true});
        service.post("/heimdall/sandbox/trial", &trial).await.ok();
    }
    for (stream, sql) in [
        (
            "risk",
            "SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY seq) AS step FROM risk_event) s WHERE step <= '0'",
        ),
        (
            "control",
            "SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY seq) AS step FROM control_event) s WHERE step <= '0'",
        ),
        (
            "kpi",
            "SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY seq) AS step FROM kpi_event) s WHERE step <= '0'",
        ),
        (
            "heimdall",
            "SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY seq) AS step FROM heimdall_event) s WHERE step <= '0'",
        ),
    ] {
        assert_eq!(service.count(sql).await, 0, "{stream}");
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test]
async fn a_clock_that_went_back_over_midnight_keeps_booking_to_the_later_day() {
    let service = Service::live().await;
    // Half an hour past the next midnight, then half an hour before it.
    let skew = async |minutes: i64| {
        let sql = "UPDATE test_clock SET skew = date_trunc('day', test_now() AT TIME ZONE 'UTC') + interval '1 day'
                   + make_interval(mins => $1::int) - (test_now() AT TIME ZONE 'UTC')";
        sqlx::query(sql).bind(minutes).execute(&service.pool).await.unwrap();
    };
    // Time that passed: a day at most.
    service.clock.advance(86_400_000);
    skew(20).await;
    hold(&service, "WHOLESALE", "10", None).await;
    skew(-20).await;
    hold(&service, "WHOLESALE", "10", None).await;
    assert_eq!(service.count("SELECT count(DISTINCT day) FROM risk_event").await, 1);
}
