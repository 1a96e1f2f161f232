//! A database clock that jumps: nothing new is reserved and nothing expires by a time that is not believed; what happened is
//! booked all the same, on the day that it is.

use super::{Standing, hold, hold_for, leaves_no_trace, level, snapshot, status, tell, uncapped};
use crate::support::{Service, Setup};
use chrono::TimeDelta;
use serde_json::{Value, json};

/// The last event's time is within a minute of the machine's.
const HEAD_IS_RIGHT: &str = "SELECT (abs(extract(epoch FROM at - test_now())) < 60)::int::bigint FROM audit_head
    WHERE stream = 'risk'";

#[tokio::test]
async fn a_clock_that_jumped_ahead_halts_reserves_and_extensions_and_expires_nothing() {
    let service = Service::live().await;
    let (held, other) =
        (hold_for(&service, "WHOLESALE", "10", 60).await, hold_for(&service, "WHOLESALE", "20", 60).await);
    service.jump("61 minutes").await;
    for path in ["/risk/check-and-reserve", "/risk/reservations"] {
        for dry_run in [false, true] {
            let body = json!({"engine": "WHOLESALE", "amount": 1, "dry_run": dry_run});
            let answer = leaves_no_trace!(service, service.post(path, &body).await);
            assert!(answer.headers.contains_key("retry-after"));
            assert_eq!(answer.refused(503, "CLOCK_JUMPED")["retry_same_key"], true);
        }
    }
    let answer = leaves_no_trace!(service, tell(&service, &held, "extend", &json!({"ttl_seconds": 600})).await);
    answer.refused(503, "CLOCK_JUMPED");
    leaves_no_trace!(service, super::expire_due(&service).await);
    // By the database's own clock their time is up; in the book they are open, and so every list shows them.
    assert_eq!(json!([status(&service, &held).await, status(&service, &other).await]), json!(["OPEN", "OPEN"]));
    for (asked, found) in [("OPEN", 2), ("EXPIRED", 0)] {
        let list = service.get(&format!("/risk/reservations?status={asked}")).await.ok();
        assert_eq!(list["items"].as_array().unwrap().len(), found, "{list}");
    }
    assert_eq!(service.count("SELECT count(*) FROM risk_reservation WHERE status = 'OPEN'").await, 2);
    let released = tell(&service, &held, "release", &json!({})).await.ok();
    assert_eq!(json!([released["released"], released["exposure_returned"]]), json!([10, 10]));
    let settled = tell(&service, &other, "settle", &json!({"realized_loss": 3})).await.ok();
    assert_eq!(
        json!([settled["late"], settled["released"], settled["ledger_engine"]["realized_loss"]]),
        json!([false, 20, 3])
    );
    assert_eq!(service.count(HEAD_IS_RIGHT).await, 1, "the head was not pushed ahead");
    // The clock right again: it goes on.
    service.jump("0").await;
    hold(&service, "WHOLESALE", "1").await;
}

#[tokio::test]
async fn a_settle_under_a_clock_that_jumped_a_day_books_on_the_day_that_it_is() {
    let service = Service::live().await;
    let mut clock = Standing::at(&service, "12:00").await;
    let first = hold(&service, "WHOLESALE", "10").await;
    hold(&service, "WHOLESALE", "5").await;
    let right = clock.at;
    clock.set(right + TimeDelta::days(1)).await;
    let settled = tell(&service, &first, "settle", &json!({"settled_amount": 4, "realized_loss": 3})).await.ok();
    assert_eq!(settled["ledger_engine"]["day"], right.date_naive().to_string());
    assert_eq!(snapshot(&settled["ledger_engine"]), json!([9, 5, 3, 2]), "today's exposure came back");
    let adjusted =
        service.post("/risk/adjustments", &json!({"corrects_seq": 3, "loss_delta": -1, "reason": "r"})).await.ok();
    assert_eq!(snapshot(&adjusted["ledger_global"]), json!([9, 5, 2, 2]));
    clock.set(right).await;
    assert_eq!(level(&service, "WHOLESALE").await, json!([9, 5, 2, 2]));
    hold(&service, "WHOLESALE", "1").await;
    assert_eq!(service.count("SELECT count(DISTINCT day) FROM risk_event").await, 1);
}

#[tokio::test]
async fn an_original_settle_under_a_clock_that_jumped_matches_what_is_not_due() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 600).await;
    service.jump("2 hours").await;
    let answer = service.post("/risk/settle", &json!({"engine": "WHOLESALE", "reserved_amount": 10})).await.ok();
    assert_eq!(json!([answer["released"], answer["unmatched"], answer["flags"]]), json!([10, 0, []]));
    assert_eq!(status(&service, &id).await, "SETTLED");
    service.jump("0").await;
}

#[tokio::test]
async fn what_was_decided_before_a_jump_is_still_answered_under_its_key_and_id() {
    let service = Service::live().await;
    let body = json!({"engine": "WHOLESALE", "amount": 1, "idempotency_key": "k", "reservation_id": "7e57ab1e-0000-4000-8000-000000000001"});
    let mut first = service.post("/risk/check-and-reserve", &body).await.ok();
    first["replayed"] = json!(true);
    service.jump("2 hours").await;
    let again = leaves_no_trace!(service, service.post("/risk/check-and-reserve", &body).await);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.ok(), first);
    let mut by_id = body.clone();
    by_id["idempotency_key"] = Value::Null;
    let again = leaves_no_trace!(service, service.post("/risk/check-and-reserve", &by_id).await);
    assert_eq!(again.ok(), first);
    service.jump("0").await;
}

#[tokio::test]
async fn an_hour_ahead_and_no_more_is_believed() {
    let service = Service::live().await;
    let mut clock = Standing::at(&service, "12:00").await;
    hold(&service, "WHOLESALE", "1").await;
    let ahead = TimeDelta::hours(1) + TimeDelta::microseconds(1);
    clock.set(clock.at + ahead).await;
    service.reserve("WHOLESALE", "1").await.refused(503, "CLOCK_JUMPED");
    clock.set(clock.at - TimeDelta::microseconds(1)).await;
    hold(&service, "WHOLESALE", "1").await;
}

#[tokio::test]
async fn time_that_really_passed_is_no_jump_however_long() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 3600).await;
    for skew in ["90 minutes", "2 days", "40 days"] {
        service.set_skew(skew).await;
        hold(&service, "WHOLESALE", "1").await;
    }
    assert_eq!(status(&service, &id).await, "EXPIRED");
}

#[tokio::test]
async fn a_jump_is_believed_once_both_clocks_have_agreed_for_a_minute_and_is_said_everywhere_until_then() {
    let service = Service::live().await;
    let mut clock = Standing::at(&service, "12:00").await;
    let id = hold_for(&service, "WHOLESALE", "10", 3600).await;
    clock.set(clock.at + TimeDelta::days(1)).await;
    assert_doubted(&service, "CLOCK_JUMPED").await;
    // The database's alone: whatever passes, it is not believed.
    for _ in 0..14 {
        clock.pass(TimeDelta::seconds(5)).await;
    }
    assert_doubted(&service, "CLOCK_JUMPED").await;
    let first = service.get("/review").await.ok()["look_first"][0].as_str().unwrap().to_owned();
    assert!(first.starts_with("The database's clock jumped 86400 s ahead, and this instance does not"), "{first}");
    // The machine's says the same: a minute.
    service.clock.set_wall(clock.at);
    for _ in 0..12 {
        clock.pass(TimeDelta::seconds(5)).await;
    }
    assert_doubted(&service, "CLOCK_JUMPED").await;
    assert_eq!(
        service.count("SELECT count(*) FROM risk_reservation WHERE status = 'OPEN'").await,
        1,
        "nothing expired"
    );
    clock.pass(TimeDelta::seconds(5)).await;
    service.get_root("/readyz").await.ok();
    hold(&service, "WHOLESALE", "1").await;
    assert_eq!(status(&service, &id).await, "EXPIRED", "time is what the database says again");
    assert_eq!(service.get("/review").await.ok()["answering"]["clock_jumped_seconds"], Value::Null);
}

#[tokio::test]
async fn a_clock_that_is_behind_the_ledger_is_not_ready_until_it_is_right() {
    let service = Service::live().await;
    let mut clock = Standing::at(&service, "12:00").await;
    hold(&service, "WHOLESALE", "1").await;
    let right = clock.at;
    clock.set(right - TimeDelta::minutes(90)).await;
    assert_doubted(&service, "CLOCK_WENT_BACK").await;
    clock.set(right).await;
    service.get_root("/readyz").await.ok();
    hold(&service, "WHOLESALE", "1").await;
    clock.set(right - TimeDelta::minutes(90)).await;
    assert_doubted(&service, "CLOCK_WENT_BACK").await;
    service.post("/go-live/kill-switch/engage", &json!({"actor": "ops"})).await.ok();
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_one_reserve_is_accepted_and_reserves_go_on_on_its_day() {
    let service = Service::live().await;
    let mut clock = Standing::at(&service, "12:00").await;
    let right = clock.at;
    clock.pass(TimeDelta::days(3)).await;
    // One reserve while it was ahead.
    let ahead = service.reserve("WHOLESALE", "1").await.ok();
    assert_eq!(ahead["ok"], true, "{ahead}");
    clock.set(right).await;
    assert_doubted(&service, "CLOCK_WENT_BACK").await;
    let accept = async || {
        let reason = "the host's clock was three days ahead".parse().unwrap();
        let origin = holdfast::audit::Origin::system(Some("bryan".parse().unwrap()));
        holdfast::risk::clock::accept_clock(&service.db, &reason, &origin).await.unwrap()
    };
    let accepted = accept().await.expect("it is behind");
    assert!(accepted.behind_seconds > 86_400, "{accepted:?}");
    service.app.feed.refresh(&service.db).await.unwrap();
    service.get_root("/readyz").await.ok();
    hold(&service, "WHOLESALE", "2").await;
    let today = service.get("/risk/ledger/today").await.ok();
    let row = today.as_array().unwrap().iter().find(|row| row["engine"] == "WHOLESALE").unwrap();
    assert_eq!(json!([row["day"], row["exposure_used"]]), json!([accepted.day, 3]), "{row}");
    let review = service.get("/review").await.ok();
    assert_eq!(review["clock_behind_accepted"], true);
    assert!(review["look_first"].to_string().contains("which was accepted"), "{}", review["look_first"]);
    let event = service.get("/audit/events?stream=control&action=CLOCK_ACCEPT").await.ok();
    assert_eq!(
        json!([event["items"][0]["actor"], event["items"][0]["action"]]),
        json!(["bryan", "CLOCK_ACCEPT"]),
        "{event}"
    );
    // The acceptance does not cover a clock that goes wrong once more, either way.
    clock.set(right - TimeDelta::hours(2)).await;
    assert_doubted(&service, "CLOCK_WENT_BACK").await;
    clock.set(right).await;
    hold(&service, "WHOLESALE", "1").await;
    clock.pass(TimeDelta::days(30)).await;
    hold(&service, "WHOLESALE", "1").await;
    clock.set(right).await;
    assert_doubted(&service, "CLOCK_WENT_BACK").await;
    assert!(accept().await.is_some());
    clock.pass(TimeDelta::days(31)).await;
    assert!(accept().await.is_none(), "a clock that is right needs no word");
}

#[tokio::test]
async fn what_is_recorded_under_a_clock_that_jumped_is_dated_by_the_time_that_it_is() {
    let service = Service::live().await;
    service.jump("3 hours").await;
    let kpi = json!({"domain": "D", "metric": "m", "success": true, "actor": "test"});
    service.post("/regression/kpi", &kpi).await.ok();
    let trial = json!({"domain": "D", "confidence": 0.9, "success": true, "actor": "test"});
    service.post("/heimdall/sandbox/trial", &trial).await.ok();
    let engaged = service.post("/go-live/kill-switch/engage", &json!({"actor": "test"})).await.ok();
    let shown = "SELECT (extract(epoch FROM holdfast_now()) * 1000)::bigint";
    let until: chrono::DateTime<chrono::Utc> = engaged["guaranteed_by"].as_str().unwrap().parse().unwrap();
    assert!(until.timestamp_millis() + 1_000 > service.count(shown).await, "the receipt is by the database's clock");
    service.post("/go-live/kill-switch/release", &json!({"actor": "test"})).await.ok();
    service.jump("0").await;
    for stream in ["kpi", "heimdall", "control"] {
        let ahead = sqlx::query_scalar::<_, bool>("SELECT at > test_now() FROM audit_head WHERE stream = $1")
            .bind(stream)
            .fetch_one(&service.pool)
            .await
            .unwrap();
        assert!(!ahead, "{stream} was pushed ahead");
    }
}

/// It refuses, is not ready, and says why.
async fn assert_doubted(service: &Service, code: &str) {
    service.reserve("WHOLESALE", "1").await.refused(503, code);
    let answer = service.get_root("/readyz").await;
    assert_eq!(answer.status, 503);
    let reason = answer.json["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with(code), "{reason}");
    // All tests of the process share the gauge: its value is another's as well.
    let metrics = service.get_root("/metrics").await.text;
    assert!(metrics.contains("\nholdfast_clock_doubted "), "{metrics}");
}

#[tokio::test]
async fn a_restart_accepts_the_time_that_it_finds() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    service.jump("3 days").await;
    service.reserve("WHOLESALE", "1").await.refused(503, "CLOCK_JUMPED");
    let restarted = Service::on(service.options.clone(), Setup::default()).await;
    hold(&restarted, "WHOLESALE", "1").await;
    assert_eq!(status(&restarted, &id).await, "EXPIRED");
    // One that was not restarted still does not believe it.
    service.reserve("WHOLESALE", "1").await.refused(503, "CLOCK_JUMPED");
}

#[tokio::test]
async fn a_batch_under_a_clock_that_jumped_closes_what_it_names_and_refuses_what_is_new() {
    let service = Service::live().await;
    uncapped(&service, &["WHOLESALE"]).await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    service.jump("2 hours").await;
    let operations = json!([
        {"op": "reserve", "engine": "WHOLESALE", "amount": 1},
        {"op": "settle", "reservation_id": id, "realized_loss": 2},
        {"op": "settle", "engine": "WHOLESALE", "reserved_amount": 1}
    ]);
    let answer = service.post("/risk/batch", &json!({"operations": operations})).await.ok();
    let results = &answer["results"];
    assert_eq!(json!([results[0]["status"], results[0]["error"]["error"]]), json!([503, "CLOCK_JUMPED"]));
    assert_eq!(json!([results[1]["status"], results[1]["answer"]["late"]]), json!([200, false]));
    assert_eq!(json!([results[2]["status"], results[2]["answer"]["unmatched"]]), json!([200, 1]));
    assert_eq!(service.count(HEAD_IS_RIGHT).await, 1);
    service.jump("0").await;
}

#[tokio::test]
async fn a_hold_that_is_due_under_a_clock_that_jumped_is_settled_once_and_late() {
    let service = Service::live().await;
    let held = hold_for(&service, "WHOLESALE", "10", 1).await;
    let mut clock = Standing::at(&service, "12:00").await;
    hold(&service, "WHOLESALE", "5").await;
    clock.set(clock.at + TimeDelta::hours(2)).await;
    let loss = json!({"realized_loss": 7});
    let settled = tell(&service, &held, "settle", &loss).await.ok();
    assert_eq!(json!([settled["late"], settled["unmatched"], settled["flags"]]), json!([true, 0, []]), "{settled}");
    assert_eq!(status(&service, &held).await, "SETTLED");
    for _ in 0..2 {
        tell(&service, &held, "settle", &loss).await.refused(409, "ALREADY_SETTLED");
    }
    assert_eq!(service.count("SELECT sum(loss_delta)::bigint FROM risk_event").await, 7);
}

#[tokio::test]
async fn a_clock_that_went_back_and_is_right_again_is_no_jump() {
    let service = Service::live().await;
    hold(&service, "WHOLESALE", "1").await;
    service.jump("-90 minutes").await;
    let body = json!({"engine": "WHOLESALE", "amount": 1});
    service.post("/risk/check-and-reserve", &body).await.refused(503, "CLOCK_WENT_BACK");
    service.jump("0").await;
    hold(&service, "WHOLESALE", "1").await;
}

#[tokio::test]
async fn todays_ledger_and_scorecards_are_of_the_day_that_is_booked_also_under_a_clock_that_jumped() {
    let service = Service::live().await;
    let mut clock = Standing::at(&service, "12:00").await;
    let id = hold_for(&service, "WHOLESALE", "5", 600).await;
    let trial = json!({"domain": "D", "confidence": 0.9, "success": true});
    service.post("/heimdall/sandbox/trial", &trial).await.ok();
    let day = clock.at.date_naive().to_string();
    clock.set(clock.at + TimeDelta::days(1)).await;
    assert_eq!(level(&service, "WHOLESALE").await, json!([5, 5, 0, 1]));
    let held = super::reservation(&service, &id).await;
    assert_eq!(json!([held["status"], held["open_amount"]]), json!(["OPEN", 5]));
    let today = service.get("/risk/ledger/today").await.ok();
    assert!(today.as_array().unwrap().iter().all(|row| row["day"] == day.as_str()), "{today}");
    let review = service.get("/review").await.ok();
    assert_eq!(review["ledger"], today);
    for cards in [&service.get("/heimdall/scorecard/today").await.ok(), &review["scorecards"]] {
        let card = cards.as_array().unwrap().iter().find(|card| card["domain"] == "D");
        assert_eq!(card.map(|card| &card["trials"]), Some(&json!(1)), "{cards}");
    }
    // Keys that still stand are not forgotten either.
    let kept = json!({"engine": "WHOLESALE", "reserved_amount": 5, "idempotency_key": "k"});
    let first = service.post("/risk/settle", &kept).await.ok();
    clock.set(clock.at + TimeDelta::days(30)).await;
    assert_eq!(holdfast::idempotency::forget(&service.db).await.unwrap(), 0);
    let again = service.post("/risk/settle", &kept).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.ok()["released"], first["released"]);
}
