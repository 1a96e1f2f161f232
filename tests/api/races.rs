//! Many at once: caps hold exactly, one wins where one may, a stop that was answered binds whatever is sent after it, and
//! nothing deadlocks.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

use crate::access::{call, token};
use crate::support::{Answer, BASE, Service, Setup, broken_links};
use axum::http::Method;
use serde_json::{Value, json};
use sqlx::Row;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// How long something that must wait for a held lock is watched for not waiting.
const WATCHED: Duration = Duration::from_millis(300);

/// Engines without a cap under a GLOBAL without one.
async fn uncapped(service: &Service, engines: &[&str]) {
    for engine in ["GLOBAL"].iter().chain(engines) {
        let body = json!({"engine": engine, "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0,
            "allow_unlimited": true});
        service.post("/risk/policies/upsert", &body).await.ok();
    }
}

/// A wire that trips at its fourth event, of which three are recorded.
async fn nearly_tripped(service: &Service, metric: &str, action: &str) {
    let wire = json!({"domain": "WHOLESALE", "metric": metric, "window_events": 2, "baseline_events": 2,
        "min_events_to_enforce": 2, "max_drop_fraction": 0.5, "action": action, "enabled": true});
    service.post("/regression/policies/upsert", &wire).await.ok();
    for success in [true, true, false] {
        service.post("/regression/kpi", &failure(metric, success)).await.ok();
    }
}

fn failure(metric: &str, success: bool) -> Value {
    json!({"domain": "WHOLESALE", "metric": metric, "success": success})
}

fn reserve_body(engine: &str) -> Value {
    json!({"engine": engine, "amount": 1, "actor": "racer"})
}

/// The service behind a socket of its own, until dropped.
struct Server {
    url: String,
    task: JoinHandle<()>,
}

impl Server {
    async fn of(service: &Service) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{BASE}", listener.local_addr().unwrap());
        let router = axum::ServiceExt::<axum::extract::Request>::into_make_service(service.app.router());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

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

/// Workers that reserve through these services until each has sent `AFTER` reserves after `stopped` was set. Each asserts
/// that none of those was approved.
struct Racers {
    stopped: Arc<AtomicBool>,
    warm: Arc<Notify>,
    workers: JoinSet<usize>,
}

const WORKERS: usize = 12;
/// Reserves in all before the stop is pulled.
const BEFORE: usize = 60;
/// Reserves of each worker after it was answered.
const AFTER: usize = 5;

impl Racers {
    fn start(services: &[&Service], engine: &'static str) -> Self {
        let (stopped, warm) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for number in 0..WORKERS {
            let router = services[number % services.len()].router.clone();
            let (stopped, warm, answered) = (stopped.clone(), warm.clone(), answered.clone());
            workers.spawn(async move {
                let (mut after, mut approved) = (0, 0);
                while after < AFTER {
                    let sent_after = stopped.load(Ordering::SeqCst);
                    let answer = send(&router, "/risk/check-and-reserve", &reserve_body(engine)).await.ok();
                    let allowed = answer["ok"] == true;
                    assert!(!(sent_after && allowed), "approved after the stop was answered: {answer}");
                    approved += usize::from(allowed);
                    after += usize::from(sent_after);
                    if answered.fetch_add(1, Ordering::SeqCst) + 1 == BEFORE {
                        warm.notify_one();
                    }
                }
                approved
            });
        }
        Self { stopped, warm, workers }
    }

    /// Reserves run: now is the time to stop them.
    async fn warm(&self) {
        self.warm.notified().await;
    }

    /// The stop was answered. How many were approved before.
    async fn stop(self) -> usize {
        self.stopped.store(true, Ordering::SeqCst);
        self.workers.join_all().await.into_iter().sum()
    }
}

/// Sends through a router; the answer may have any status.
fn send(router: &holdfast::app::Service, path: &str, body: &Value) -> impl Future<Output = Answer> + use<> {
    let request = crate::support::request(
        axum::http::Method::POST,
        &format!("{BASE}{path}"),
        Some("application/json"),
        &body.to_string(),
    );
    let router = router.clone();
    async move {
        let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
        Answer::read(response, std::panic::Location::caller()).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reserve_that_was_sent_after_engage_was_answered_is_approved() {
    let first = Service::live().await;
    uncapped(&first, &["RACE"]).await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    let racers = Racers::start(&[&first, &second], "RACE");
    racers.warm().await;
    second.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    let approved = racers.stop().await;
    assert_eq!(i64::try_from(approved).unwrap(), first.count("SELECT count(*) FROM risk_reservation").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reserve_that_was_sent_after_disable_was_answered_is_approved() {
    let service = Service::live().await;
    uncapped(&service, &["RACE"]).await;
    let racers = Racers::start(&[&service], "RACE");
    racers.warm().await;
    service.post("/go-live/disable", &json!({"actor": "a"})).await.ok();
    racers.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reserve_that_was_sent_after_a_tripping_measurement_was_answered_is_approved() {
    for action in ["THROTTLE", "KILL_SWITCH"] {
        let service = Service::live().await;
        uncapped(&service, &["WHOLESALE"]).await;
        nearly_tripped(&service, "contract_rate", action).await;
        let racers = Racers::start(&[&service], "WHOLESALE");
        racers.warm().await;
        let answer = service.post("/regression/kpi", &failure("contract_rate", false)).await.ok();
        assert_eq!(answer["tripped"]["action"], action);
        racers.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reserve_that_was_sent_after_an_upsert_disabled_its_engine_is_approved() {
    let service = Service::live().await;
    uncapped(&service, &["RACE"]).await;
    let racers = Racers::start(&[&service], "RACE");
    racers.warm().await;
    let off = json!({"engine": "RACE", "enabled": false});
    service.post("/risk/policies/upsert", &off).await.ok();
    racers.stop().await;
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

// What waits for what.

/// Holds a stream's head in a transaction of its own, as a slow writer would, until dropped or let go.
async fn held(service: &Service, stream: &'static str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut tx = service.pool.begin().await.unwrap();
    let row = sqlx::query("SELECT seq FROM audit_head WHERE stream = $1 FOR UPDATE")
        .bind(stream)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let _: i64 = row.get(0);
    tx
}

/// Asserts that this has no answer yet.
async fn pending(waiting: &mut JoinHandle<Answer>) {
    let early = tokio::time::timeout(WATCHED, waiting).await;
    assert!(early.is_err(), "did not wait: {early:?}");
}

#[tokio::test]
async fn engage_is_answered_while_the_ledger_is_held_and_binds_the_reserve_that_waits() {
    let service = Service::live().await;
    let tx = held(&service, "risk").await;
    let mut waiting = tokio::spawn(service.reserve("WHOLESALE", "1"));
    pending(&mut waiting).await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    assert!(!waiting.is_finished());
    tx.commit().await.unwrap();
    let denied = waiting.await.unwrap().ok();
    assert_eq!(denied["reason"], "kill_switch_engaged");
}

#[tokio::test]
async fn engage_is_answered_though_waiting_reserves_have_taken_every_connection() {
    let service = Service::live().await;
    uncapped(&service, &["RACE"]).await;
    let tx = held(&service, "risk").await;
    let mut waiting: Vec<_> = (0..40).map(|_| tokio::spawn(service.reserve("RACE", "1"))).collect();
    pending(&mut waiting[0]).await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    service.post("/go-live/disable", &json!({"actor": "a"})).await.ok();
    assert!(waiting.iter().all(|one| !one.is_finished()));
    tx.commit().await.unwrap();
    for one in waiting {
        assert_eq!(one.await.unwrap().ok()["reason"], "kill_switch_engaged");
    }
}

#[tokio::test]
async fn trials_measurements_and_reads_do_not_wait_for_the_ledger() {
    let service = Service::live().await;
    let tx = held(&service, "risk").await;
    service.kpis("WHOLESALE", "contract_rate", 1, 0).await;
    let trial = json!({"domain": "BUYER_MATCH", "confidence": 1, "success": true});
    service.post("/heimdall/sandbox/trial", &trial).await.ok();
    for path in [
        "/risk/policies",
        "/risk/ledger/today",
        "/risk/reservations",
        "/risk/events",
        "/go-live/state",
        "/go-live/checklist",
        "/regression/state",
        "/heimdall/scorecard/today",
        "/review",
    ] {
        service.get(path).await.ok();
    }
    let dry = json!({"engine": "WHOLESALE", "amount": 1, "dry_run": true});
    service.post("/risk/check-and-reserve", &dry).await.ok();
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn the_ledger_does_not_wait_for_the_other_streams() {
    let service = Service::live().await;
    let mut held_heads = Vec::new();
    for stream in ["kpi", "heimdall", "control"] {
        held_heads.push(held(&service, stream).await);
    }
    let id = service.reserve("WHOLESALE", "1").await.ok()["reservation_id"].clone();
    service.post("/risk/settle", &json!({"reservation_id": id})).await.ok();
}

#[tokio::test]
async fn upserts_and_tripping_measurements_wait_for_the_ledger_and_then_act() {
    let service = Service::live().await;
    nearly_tripped(&service, "contract_rate", "THROTTLE").await;
    let tx = held(&service, "risk").await;
    let mut upsert =
        tokio::spawn(service.post("/risk/policies/upsert", &json!({"engine": "CAPITAL", "max_daily_loss": 1})));
    let mut trip = tokio::spawn(service.post("/regression/kpi", &failure("contract_rate", false)));
    pending(&mut upsert).await;
    pending(&mut trip).await;
    tx.commit().await.unwrap();
    assert_eq!(upsert.await.unwrap().ok()["version"], 2);
    assert_eq!(trip.await.unwrap().ok()["tripped"]["engine"], "WHOLESALE");
}

/// Takes as long as the ledger's own lock timeout.
#[tokio::test]
async fn a_ledger_that_stays_held_is_a_503_that_decided_nothing() {
    let service = Service::live().await;
    let events = service.events().await;
    let tx = held(&service, "risk").await;
    let answer = service.reserve("WHOLESALE", "1").await;
    assert!(answer.headers.contains_key("retry-after"));
    let refused = answer.refused(503, "DATABASE_UNAVAILABLE");
    assert_eq!(refused["retry_same_key"], true);
    tx.commit().await.unwrap();
    assert_eq!(service.events().await, events);
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

/// Returns when exactly so many of the service's connections are at work, in a state and waiting as given.
async fn settled_at(service: &Service, sql: &'static str, count: i64) {
    // Bounded by the service's own limits: no statement and no idle transaction of it lives longer than 5 s.
    while service.count(sql).await != count {
        tokio::task::yield_now().await;
    }
}

const BLOCKED: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'holdfast' AND wait_event_type = 'Lock'";
const AT_WORK: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'holdfast' AND state <> 'idle'";

#[tokio::test]
async fn a_reserve_that_is_dropped_while_it_waits_is_recorded_whole_or_not_at_all() {
    let service = Service::live().await;
    for _ in 0..10 {
        let tx = held(&service, "risk").await;
        let waiting = tokio::spawn(service.reserve("WHOLESALE", "1"));
        settled_at(&service, BLOCKED, 1).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        tx.commit().await.unwrap();
        settled_at(&service, AT_WORK, 0).await;
    }
    // The books are checked when the service is dropped; the ledger still works.
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test]
async fn however_often_one_principal_pulls_a_switch_another_one_finds_a_connection() {
    let service = Service::live().await;
    let (one, other) = (token(&service, "operate").await, token(&service, "operate,read").await);
    let stop = |token: &str| {
        tokio::spawn(call(&service, Method::POST, &format!("{BASE}/go-live/disable"), Some(token), &json!({})))
    };
    let tx = held(&service, "control").await;
    let mut sent: Vec<_> = (0..20).map(|_| stop(&one)).collect();
    settled_at(&service, BLOCKED, 2).await;
    sent.push(stop(&other));
    // It waits where the first ones do, at the head, and not behind the rest of them.
    settled_at(&service, BLOCKED, 3).await;
    tx.commit().await.unwrap();
    for stopped in sent {
        stopped.await.unwrap().ok();
    }
    let path = format!("{BASE}/go-live/events?limit=21");
    let events = call(&service, Method::GET, &path, Some(&other), &Value::Null).await.ok();
    let principals: Vec<_> =
        events["items"].as_array().unwrap().iter().rev().map(|event| &event["principal"]).collect();
    let place = principals.iter().position(|one| principals.iter().filter(|other| *other == one).count() == 1);
    assert!(place.is_some_and(|place| place < 10), "{principals:?}");
}

/// `curl -m 1` by somebody in a hurry: the switch is pulled, whether or not the answer is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engage_whose_client_hung_up_still_engages() {
    use tokio::io::AsyncWriteExt;
    let service = Service::live().await;
    let server = Server::of(&service).await;
    let address = server.url.strip_prefix("http://").unwrap();
    let (address, _) = address.split_once('/').unwrap();
    let tx = held(&service, "control").await;
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request =
        format!("POST {BASE}/go-live/kill-switch/engage HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    settled_at(&service, BLOCKED, 1).await;
    drop(client);
    // As long as it takes the server to notice; the head is held meanwhile.
    let noticed = tokio::time::timeout(WATCHED, std::future::pending::<()>()).await;
    assert!(noticed.is_err());
    tx.commit().await.unwrap();
    settled_at(&service, AT_WORK, 0).await;
    let state = service.get("/go-live/state").await.ok();
    assert_eq!(state["kill_switch_engaged"], true, "{state}");
}
