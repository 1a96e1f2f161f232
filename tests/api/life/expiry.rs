//! A hold that nobody ends in time: the risk comes back, and what may have happened stays counted.

use super::{
    Standing, by_hand, hold, hold_for, hold_with, leaves_no_trace, level, policy, reservation, status, tell, time,
    uncapped,
};
use crate::support::Service;
use chrono::TimeDelta;
use serde_json::{Value, json};

/// Reserves on this book, so that a batch is decided.
async fn anything(service: &Service) -> Value {
    service.reserve("CAPITAL", "1").await.ok()
}

#[tokio::test]
async fn an_expiry_returns_open_risk_and_keeps_exposure_and_count() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "400", 60).await;
    service.set_skew("61 seconds").await;
    super::expire_due(&service).await;
    for engine in ["WHOLESALE", "GLOBAL"] {
        assert_eq!(level(&service, engine).await, json!([400, 0, 0, 1]), "{engine}");
    }
    let held = reservation(&service, &id).await;
    assert_eq!(
        json!([held["status"], held["amount"], held["open_amount"], held["closed_seq"]]),
        json!(["EXPIRED", 400, 0, 2])
    );
    assert!(time(&held["closed_at"]) > time(&held["expires_at"]));
}

#[tokio::test]
async fn a_hold_without_a_time_never_expires() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "10").await;
    assert_eq!(reservation(&service, &id).await["expires_at"], Value::Null);
    service.set_skew("900 days").await;
    super::expire_due(&service).await;
    assert_eq!(status(&service, &id).await, "OPEN");
}

#[tokio::test]
async fn a_hold_stands_from_one_second_to_thirty_days() {
    let service = Service::live().await;
    for ttl in [json!(0), json!(-1), json!(2_592_001), json!("1.5"), json!("1e3x"), json!(true)] {
        let body = json!({"engine": "WHOLESALE", "amount": 1, "ttl_seconds": ttl});
        for path in ["/risk/check-and-reserve", "/risk/reservations"] {
            let _ = leaves_no_trace!(service, service.post(path, &body).await).invalid("ttl_seconds");
        }
    }
    for (ttl, seconds) in [(json!(1), 1), (json!("1"), 1), (json!(2_592_000), 2_592_000), (json!("2.592e6"), 2_592_000)]
    {
        let body = json!({"engine": "WHOLESALE", "amount": 1, "ttl_seconds": ttl});
        let answer = service.post("/risk/check-and-reserve", &body).await.ok();
        let held = reservation(&service, answer["reservation_id"].as_str().unwrap()).await;
        assert_eq!(answer["expires_at"], held["expires_at"]);
        assert_eq!(time(&held["expires_at"]) - time(&held["created_at"]), TimeDelta::seconds(seconds), "{ttl}");
    }
}

#[tokio::test]
async fn a_hold_expires_exactly_when_it_is_due_and_not_a_microsecond_before() {
    let service = Service::live().await;
    let mut clock = Standing::at(&service, "12:00").await;
    for by_name in [false, true] {
        let id = hold_for(&service, "WHOLESALE", "10", 60).await;
        let due = time(&reservation(&service, &id).await["expires_at"]);
        let look = async || {
            if by_name {
                // Refused, since it names another engine; or because it has expired.
                tell(&service, &id, "extend", &json!({"ttl_seconds": 1, "engine": "WHOLESALE"})).await.status.as_u16()
            } else {
                super::expire_due(&service).await;
                200
            }
        };
        clock.pass_to(due - TimeDelta::microseconds(1)).await;
        assert_eq!(look().await, 200);
        assert_eq!(status(&service, &id).await, "OPEN");
        // The extension may have moved it.
        let due = time(&reservation(&service, &id).await["expires_at"]);
        clock.pass_to(due).await;
        assert_eq!(look().await, if by_name { 409 } else { 200 });
        assert_eq!(status(&service, &id).await, "EXPIRED", "by name: {by_name}");
        assert_eq!(time(&reservation(&service, &id).await["closed_at"]), due);
    }
}

#[tokio::test]
async fn any_operation_expires_what_is_due_and_no_ticker_is_needed() {
    let service = Service::live().await;
    let operations = [
        ("/risk/check-and-reserve", json!({"engine": "CAPITAL", "amount": 1})),
        ("/risk/check-and-reserve", json!({"engine": "NOTIFY", "amount": 1})),
        ("/risk/settle", json!({"engine": "CAPITAL", "reserved_amount": 1})),
        ("/risk/adjustments", json!({"corrects_seq": 1, "loss_delta": 1, "reason": "r"})),
    ];
    let mut seconds = 0;
    for (path, body) in operations {
        let id = hold_for(&service, "WHOLESALE", "10", 60).await;
        seconds += 61;
        service.set_skew(&format!("{seconds} seconds")).await;
        service.post(path, &body).await.ok();
        assert_eq!(status(&service, &id).await, "EXPIRED", "{path}");
    }
}

#[tokio::test]
async fn an_operation_that_is_refused_still_expires_what_is_due() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    service.set_skew("61 seconds").await;
    tell(&service, &id, "release", &json!({})).await.refused(409, "ALREADY_EXPIRED");
    let held = reservation(&service, &id).await;
    assert_eq!(json!([held["status"], held["closed_seq"]]), json!(["EXPIRED", 2]));
}

#[tokio::test]
async fn room_that_an_expiry_gives_back_is_there_for_the_very_next_reserve() {
    let service = Service::live().await;
    policy(&service, json!({"engine": "WHOLESALE", "max_open_risk": 100})).await;
    hold_for(&service, "WHOLESALE", "100", 60).await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "open_risk_exceeded");
    service.set_skew("61 seconds").await;
    assert_eq!(service.reserve("WHOLESALE", "100").await.ok()["ok"], true);
    assert_eq!(level(&service, "WHOLESALE").await, json!([200, 100, 0, 2]));
}

#[tokio::test]
async fn a_batch_expires_the_oldest_due_512_and_the_rest_still_count() {
    let service = Service::live().await;
    uncapped(&service, &["WHOLESALE", "CAPITAL"]).await;
    due_at_once(&service, 513).await;
    policy(&service, json!({"engine": "WHOLESALE", "max_open_risk": 1})).await;
    service.set_skew("2 hours").await;
    let open = "SELECT count(*) FROM risk_reservation WHERE status = 'OPEN' AND engine = 'WHOLESALE'";
    anything(&service).await;
    assert_eq!(service.count(open).await, 1);
    // The one that is left is the last that was due; it counts until it is expired.
    let left = "SELECT count(*) FROM risk_reservation r WHERE r.status = 'OPEN' AND r.engine = 'WHOLESALE'
        AND r.expires_at = (SELECT max(expires_at) FROM risk_reservation)";
    assert_eq!(service.count(left).await, 1);
    assert_eq!(level(&service, "WHOLESALE").await, json!([513, 1, 0, 513]));
    assert_eq!(service.count("SELECT count(*) FROM risk_event WHERE action = 'EXPIRE'").await, 512);
    anything(&service).await;
    assert_eq!(service.count(open).await, 0);
}

/// This number of reserves of 1, due one after the other within an hour from now.
async fn due_at_once(service: &Service, count: u32) {
    let mut left = count;
    while left > 0 {
        let some = left.min(1000);
        let operations: Vec<_> = (0..some)
            .map(|n| json!({"op": "reserve", "engine": "WHOLESALE", "amount": 1, "ttl_seconds": 3600 - (n % 7) - 1}))
            .collect();
        let answer = service.post("/risk/batch", &json!({"operations": operations})).await.ok();
        assert!(answer["results"].as_array().unwrap().iter().all(|result| result["answer"]["ok"] == true), "{answer}");
        left -= some;
    }
}

#[tokio::test]
async fn a_hold_beyond_the_bound_that_is_named_is_expired_the_moment_it_is_due() {
    let service = Service::live().await;
    uncapped(&service, &["WHOLESALE"]).await;
    due_at_once(&service, 600).await;
    // Due last, so that no batch of the first 512 comes to it.
    let last = hold_for(&service, "WHOLESALE", "5", 3600).await;
    service.set_skew("2 hours").await;
    tell(&service, &last, "release", &json!({})).await.refused(409, "ALREADY_EXPIRED");
    assert_eq!(service.count("SELECT count(*) FROM risk_event WHERE action = 'EXPIRE'").await, 513);
    assert_eq!(level(&service, "WHOLESALE").await["1"], Value::Null);
    assert_eq!(level(&service, "WHOLESALE").await[1], 88);
    super::expire_due(&service).await;
    assert_eq!(level(&service, "WHOLESALE").await, json!([605, 0, 0, 601]));
}

#[tokio::test]
async fn what_is_due_and_not_yet_expired_is_not_matched_by_an_original_settle() {
    let service = Service::live().await;
    uncapped(&service, &["WHOLESALE"]).await;
    due_at_once(&service, 520).await;
    let live = hold(&service, "WHOLESALE", "3").await;
    service.set_skew("2 hours").await;
    let answer = service.post("/risk/settle", &json!({"engine": "WHOLESALE", "reserved_amount": 10})).await.ok();
    assert_eq!(json!([answer["released"], answer["unmatched"], answer["flags"]]), json!([3, 7, ["over_release"]]));
    assert_eq!(answer["reservations"], json!([{"reservation_id": live, "released": 3, "status": "SETTLED"}]));
    assert_eq!(answer["ledger_engine"]["open_risk_reserved"], 8);
}

#[tokio::test]
async fn holds_of_many_engines_expire_in_one_batch_each_on_its_own_level() {
    let service = Service::live().await;
    uncapped(&service, &["WHOLESALE", "CAPITAL", "A.1", "B-2"]).await;
    for (engine, amount) in [("CAPITAL", "2"), ("A.1", "3"), ("B-2", "4")] {
        hold_for(&service, engine, amount, 60).await;
    }
    let before = service.count("SELECT seq FROM audit_head WHERE stream = 'risk'").await;
    service.set_skew("61 seconds").await;
    hold(&service, "WHOLESALE", "1").await;
    let one = "SELECT count(DISTINCT xmin::text) FROM risk_event WHERE seq > 3";
    assert_eq!((before, service.count(one).await), (3, 1));
    for (engine, expected) in [
        ("WHOLESALE", json!([1, 1, 0, 1])),
        ("CAPITAL", json!([2, 0, 0, 1])),
        ("A.1", json!([3, 0, 0, 1])),
        ("B-2", json!([4, 0, 0, 1])),
        ("GLOBAL", json!([10, 1, 0, 4])),
    ] {
        assert_eq!(level(&service, engine).await, expected, "{engine}");
    }
}

#[tokio::test]
async fn a_hold_is_carried_over_midnight_and_expires_out_of_the_stock_alone() {
    let service = Service::live().await;
    let mut clock = Standing::at(&service, "23:59:30").await;
    let (first, second) =
        (hold_for(&service, "WHOLESALE", "100", 60).await, hold_for(&service, "WHOLESALE", "50", 60).await);
    clock.pass(TimeDelta::seconds(31)).await;
    assert_eq!(level(&service, "WHOLESALE").await, json!([0, 150, 0, 0]));
    hold(&service, "WHOLESALE", "7").await;
    tell(&service, &first, "settle", &json!({"settled_amount": 120, "realized_loss": 3})).await.ok();
    assert_eq!(
        level(&service, "WHOLESALE").await,
        json!([27, 57, 3, 1]),
        "loss and overrun are of the day of the settle"
    );
    clock.pass(TimeDelta::seconds(60)).await;
    super::expire_due(&service).await;
    assert_eq!(status(&service, &second).await, "EXPIRED");
    assert_eq!(level(&service, "WHOLESALE").await, json!([27, 7, 3, 1]));
    let days =
        "SELECT count(*) FROM risk_ledger_day WHERE engine = 'WHOLESALE' AND (exposure_used, realized_loss) = (150, 0)";
    assert_eq!(service.count(days).await, 1, "the closed day is what it was");
}

// The policy's time.

#[tokio::test]
async fn a_policys_default_time_is_shown_and_holds_where_a_reserve_names_none() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "1").await;
    let set = policy(&service, json!({"engine": "WHOLESALE", "default_ttl_seconds": 120})).await;
    assert_eq!(json!([set["default_ttl_seconds"], set["changes"].as_array().unwrap().len()]), json!([120, 1]));
    assert_eq!(set["changes"][0]["field"], "default_ttl_seconds");
    let shown = service.get("/risk/policies").await.ok();
    let shown: Vec<_> = shown.as_array().unwrap().iter().map(|policy| policy["default_ttl_seconds"].clone()).collect();
    assert_eq!(shown, [Value::Null, Value::Null, Value::Null, json!(120)]);
    for (more, seconds) in [(json!({}), 120), (json!({"ttl_seconds": 5}), 5), (json!({"ttl_seconds": 500}), 500)] {
        let held = reservation(&service, &hold_with(&service, "WHOLESALE", "1", more).await).await;
        assert_eq!(time(&held["expires_at"]) - time(&held["created_at"]), TimeDelta::seconds(seconds));
    }
    assert_eq!(reservation(&service, &id).await["expires_at"], Value::Null, "holds that stand keep their time");
    // Left out it stays, 0 removes it.
    assert_eq!(
        policy(&service, json!({"engine": "WHOLESALE", "max_daily_loss": 99})).await["default_ttl_seconds"],
        120
    );
    assert_eq!(
        policy(&service, json!({"engine": "WHOLESALE", "default_ttl_seconds": 0})).await["default_ttl_seconds"],
        Value::Null
    );
    let held = reservation(&service, &hold(&service, "WHOLESALE", "1").await).await;
    assert_eq!(held["expires_at"], Value::Null);
    let again = policy(&service, json!({"engine": "WHOLESALE", "default_ttl_seconds": 0})).await;
    assert_eq!(again["changes"], json!([]), "none before and none after is no change");
}

#[tokio::test]
async fn a_default_time_is_of_the_engines_and_within_its_bounds() {
    let service = Service::live().await;
    for (engine, ttl) in
        [("GLOBAL", json!(60)), ("WHOLESALE", json!(2_592_001)), ("WHOLESALE", json!(-1)), ("WHOLESALE", json!("0.5"))]
    {
        let body = json!({"engine": engine, "default_ttl_seconds": ttl});
        let _ = leaves_no_trace!(service, service.post("/risk/policies/upsert", &body).await)
            .invalid("default_ttl_seconds");
    }
    for ttl in [1, 2_592_000] {
        let set = policy(&service, json!({"engine": "WHOLESALE", "default_ttl_seconds": ttl})).await;
        assert_eq!(set["default_ttl_seconds"], ttl);
    }
    policy(&service, json!({"engine": "GLOBAL", "default_ttl_seconds": 0})).await;
}

#[tokio::test]
async fn holds_stay_when_their_policy_is_edited_and_headroom_is_never_below_zero() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "800", 3600).await;
    policy(
        &service,
        json!({"engine": "WHOLESALE", "max_open_risk": 100, "max_daily_exposure": 200, "max_actions_per_day": 1}),
    )
    .await;
    let rows = service.get("/risk/ledger/today").await.ok();
    let row = rows.as_array().unwrap().iter().find(|row| row["engine"] == "WHOLESALE").unwrap();
    assert_eq!(row["headroom"], json!({"exposure": 0, "open_risk": 0, "loss": 200, "actions": 0}));
    let denied = service.reserve("WHOLESALE", "1").await.ok();
    let reasons: Vec<_> =
        denied["failures"].as_array().unwrap().iter().map(|failure| failure["reason"].clone()).collect();
    assert_eq!(json!(reasons), json!(["daily_actions_exceeded", "daily_exposure_exceeded", "open_risk_exceeded"]));
    assert_eq!(status(&service, &id).await, "OPEN");
    tell(&service, &id, "settle", &json!({})).await.ok();
    assert_eq!(level(&service, "WHOLESALE").await, json!([800, 0, 0, 1]));
}

/// A book that was damaged from outside keeps no hold open: what the counter had lost before, it does not lose again.
#[tokio::test]
async fn a_hold_expires_when_it_is_due_also_on_a_damaged_book() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    by_hand(&service, "UPDATE risk_open SET open_amount = 5 WHERE engine = 'WHOLESALE'").await;
    service.set_skew("61 seconds").await;
    super::expire_due(&service).await;
    assert_eq!(status(&service, &id).await, "EXPIRED");
    assert_eq!(level(&service, "WHOLESALE").await, json!([10, 0, 0, 1]));
}
