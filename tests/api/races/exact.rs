//! Among many requests at once, exactly the permitted number pass, win or count.

use super::{Server, failure, nearly_tripped, reserve_body, send, uncapped};
use crate::support::{Answer, Service, Setup, broken_links};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::{JoinHandle, JoinSet};

/// Reserves 1 on RACE, `attempts` times from `connections` connections over the servers; how many were allowed and denied.
async fn storm(servers: &[Server], attempts: usize, connections: usize) -> (usize, usize) {
    let left = Arc::new(AtomicUsize::new(attempts));
    let mut workers = JoinSet::new();
    for number in 0..connections {
        let url = format!("{}/risk/check-and-reserve", servers[number % servers.len()].url);
        let left = left.clone();
        workers.spawn(async move {
            // A client of its own is a connection of its own.
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let (mut allowed, mut denied) = (0, 0);
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                let answer = client.post(&url).json(&reserve_body("RACE")).send().await.unwrap();
                assert_eq!(answer.status(), 200);
                let said = answer.headers()["holdfast-decision"].clone();
                let body: Value = answer.json().await.unwrap();
                if body["ok"] == true {
                    assert_eq!(said, "allow");
                    allowed += 1;
                } else {
                    assert_eq!(said, "deny");
                    assert_eq!(body["message"], "RACE hard stop: Daily exposure cap exceeded (1001 > 1000)");
                    denied += 1;
                }
            }
            (allowed, denied)
        });
    }
    workers.join_all().await.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// A cap of 1,000 on RACE under a larger GLOBAL, go-live on.
async fn arena() -> Service {
    let service = Service::live().await;
    let global = json!({"engine": "GLOBAL", "max_daily_exposure": 100_000, "max_open_risk": 100_000});
    service.post("/risk/policies/upsert", &global).await.ok();
    let race = json!({"engine": "RACE", "max_daily_loss": 0, "max_daily_exposure": 1000, "max_open_risk": 0});
    service.post("/risk/policies/upsert", &race).await.ok();
    service
}

async fn assert_exactly_a_thousand(service: &Service) {
    let rows = service.get("/risk/ledger/today").await.ok();
    for row in rows.as_array().unwrap() {
        let expected = match row["engine"].as_str().unwrap() {
            "RACE" | "GLOBAL" => json!([1000, 1000, 1000, 2000]),
            _ => json!([0, 0, 0, 0]),
        };
        let seen = json!([row["exposure_used"], row["open_risk_reserved"], row["actions_count"], row["denied_count"]]);
        assert_eq!(seen, expected, "{}", row["engine"]);
    }
    for (sql, expected) in [
        ("SELECT count(*) FROM risk_reservation WHERE engine = 'RACE' AND status = 'OPEN' AND open_amount = 1", 1000),
        ("SELECT count(*) FROM risk_event WHERE action = 'RESERVE'", 1000),
        ("SELECT count(*) FROM risk_event WHERE action = 'DENY'", 2000),
        ("SELECT seq FROM audit_head WHERE stream = 'risk'", 3000),
    ] {
        assert_eq!(service.count(sql).await, expected, "{sql}");
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_thousand_reserves_at_once_against_a_cap_of_a_thousand_exactly_a_thousand_pass() {
    let service = arena().await;
    let servers = [Server::of(&service).await];
    assert_eq!(storm(&servers, 3000, 64).await, (1000, 2000));
    assert_exactly_a_thousand(&service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cap_holds_exactly_through_two_services_on_one_database() {
    let first = arena().await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    let servers = [Server::of(&first).await, Server::of(&second).await];
    assert_eq!(storm(&servers, 3000, 64).await, (1000, 2000));
    assert_exactly_a_thousand(&first).await;
}

/// Sends the same thing many times at once.
async fn at_once(count: usize, send: impl Fn(usize) -> JoinHandle<Answer>) -> Vec<Answer> {
    let running: Vec<_> = (0..count).map(send).collect();
    let mut answers = Vec::new();
    for one in running {
        answers.push(one.await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_operation_of_an_engine_and_of_a_day_may_come_from_many_at_once() {
    let service = Service::live().await;
    uncapped(&service, &["NEW"]).await;
    for (skew, open) in [("0", 32), ("1 day", 64), ("2 days", 96)] {
        service.set_skew(skew).await;
        let answers = at_once(32, |_| tokio::spawn(service.reserve("NEW", "1"))).await;
        for answer in answers {
            assert_eq!(answer.ok()["ok"], true);
        }
        let rows = service.get("/risk/ledger/today").await.ok();
        for row in rows.as_array().unwrap() {
            if row["engine"] == "NEW" || row["engine"] == "GLOBAL" {
                let seen = json!([row["exposure_used"], row["actions_count"], row["open_risk_reserved"]]);
                assert_eq!(seen, json!([32, 32, open]));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_denial_of_a_day_may_come_from_many_at_once() {
    let service = Service::live().await;
    let answers = at_once(32, |_| tokio::spawn(service.reserve("NOTIFY", "1"))).await;
    for answer in answers {
        assert_eq!(answer.ok()["ok"], false);
    }
    assert_eq!(service.count("SELECT sum(denied)::bigint FROM risk_denial_day").await, 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_new_engine_upserted_by_many_at_once_is_one_change() {
    let service = Service::live().await;
    let body = json!({"engine": "NEW", "max_daily_loss": 1, "max_daily_exposure": 2, "max_open_risk": 3});
    let answers = at_once(16, |_| tokio::spawn(service.post("/risk/policies/upsert", &body))).await;
    let mut changed = 0;
    for answer in answers {
        let answer = answer.ok();
        assert_eq!(answer["version"], 1);
        changed += usize::from(answer["changes"] != json!([]));
    }
    assert_eq!(changed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_settles_of_one_reservation_exactly_one_wins() {
    let service = Service::live().await;
    for _ in 0..5 {
        let id = service.reserve("WHOLESALE", "10").await.ok()["reservation_id"].clone();
        let body = json!({"reservation_id": id, "realized_loss": 1});
        let answers = at_once(16, |_| tokio::spawn(service.post("/risk/settle", &body))).await;
        let mut won = 0;
        for answer in answers {
            if answer.status == 200 {
                won += 1;
            } else {
                let lost = answer.refused(409, "ALREADY_SETTLED");
                assert_eq!(lost["settled"]["realized_loss"], 1);
            }
        }
        assert_eq!(won, 1);
    }
    let row = service.get("/risk/ledger/today").await.ok()[1].clone();
    assert_eq!(json!([row["engine"], row["open_risk_reserved"], row["realized_loss"]]), json!(["GLOBAL", 0, 5]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settles_by_id_and_by_amount_never_release_the_same_risk_twice() {
    let service = Service::live().await;
    let mut ids = Vec::new();
    for _ in 0..16 {
        ids.push(service.reserve("WHOLESALE", "1").await.ok()["reservation_id"].clone());
    }
    let answers = at_once(32, |number| {
        let body = if number % 2 == 0 {
            json!({"reservation_id": ids[number / 2]})
        } else {
            json!({"engine": "WHOLESALE", "reserved_amount": 1})
        };
        tokio::spawn(service.post("/risk/settle", &body))
    })
    .await;
    let mut released = 0;
    for answer in answers {
        if answer.status == 200 {
            released += answer.ok()["released"].as_i64().unwrap();
        } else {
            answer.refused(409, "ALREADY_SETTLED");
        }
    }
    assert_eq!(released, 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_measurements_at_once_exactly_one_trips_the_wire() {
    let service = Service::live().await;
    nearly_tripped(&service, "contract_rate", "THROTTLE").await;
    let body = failure("contract_rate", false);
    let answers = at_once(16, |_| tokio::spawn(service.post("/regression/kpi", &body))).await;
    let mut tripped = 0;
    for answer in answers {
        tripped += usize::from(!answer.ok()["tripped"].is_null());
    }
    assert_eq!(tripped, 1);
    assert_eq!(
        service
            .count("SELECT (SELECT count(*) FROM regression_trip) * 10 + (SELECT count(*) FROM risk_throttle)")
            .await,
        11
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_trials_at_once_are_counted_exactly() {
    const TASKS: usize = 32;
    let service = Service::live().await;
    let left = Arc::new(AtomicUsize::new(1000));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (router, left) = (service.router.clone(), left.clone());
        tasks.spawn(async move {
            while let Ok(number) = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                let trial = json!({"domain": "NEW_DOMAIN", "confidence": if number % 2 == 0 { "0.8" } else { "0.9" },
                    "success": number % 4 != 0, "model_version": if number % 5 == 0 { "v1" } else { "v2" }});
                send(&router, "/heimdall/sandbox/trial", &trial).await.ok();
            }
        });
    }
    tasks.join_all().await;
    let cards = service.get("/heimdall/scorecard/today").await.ok();
    let card = cards.as_array().unwrap().iter().find(|card| card["domain"] == "NEW_DOMAIN").unwrap();
    assert_eq!(
        json!([card["trials"], card["successes"], card["success_rate"], card["avg_confidence"]]),
        json!([1000, 750, 0.75, 0.85])
    );
    // 500 of 0.8, half of them right, and 500 of 0.9, all right.
    assert_eq!(card["calibration"]["brier_score"], json!(0.175));
    let versions: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', model_version, trials, successes, trim_scale(confidence_sum), trim_scale(confidence_square_sum),
                          trim_scale(confidence_success_sum))
         FROM heimdall_scorecard_version ORDER BY 1",
    )
    .fetch_all(&service.pool)
    .await
    .unwrap();
    assert_eq!(versions, ["v1 200 150 170 145 130", "v2 800 600 680 580 520"]);
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}
