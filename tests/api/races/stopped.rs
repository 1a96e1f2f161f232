//! A stop that was answered binds whatever is sent after it.

use super::{failure, nearly_tripped, reserve_body, send, uncapped};
use crate::support::{Service, Setup};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::task::JoinSet;

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
