//! As many rows of a kind as there may be, and what never grows with them.

use crate::support::{Service, Setup};
use holdfast::config::LimitsConfig;
use serde_json::{Value, json};
use sqlx::Executor;
use std::time::Duration;

/// A service whose limits a few rows reach: a fresh install has four engines, domains and wires.
async fn small() -> Service {
    let limits =
        LimitsConfig { engines_max: 6, domains_max: 6, wires_max: 6, metrics_max: 3, ..LimitsConfig::default() };
    Service::with(Setup { limits, ..Setup::default() }).await
}

/// Makes things until one is refused for their number, and gives how many were made.
async fn until_refused(service: &Service, path: &str, setting: &str, body: impl Fn(usize) -> Value) -> usize {
    for number in 0..20 {
        let events = service.events().await;
        let answer = service.post(path, &body(number)).await;
        if answer.status != 200 {
            let refused = answer.refused(409, "LIMIT_REACHED");
            assert_eq!(refused["setting"], setting);
            assert_eq!(service.events().await, events, "a refusal leaves no event");
            // What is there is changed all the same.
            service.post(path, &body(0)).await.ok();
            return number;
        }
    }
    panic!("{path} is never refused");
}

#[tokio::test]
async fn engines_domains_wires_and_series_have_limits_and_what_is_there_goes_on() {
    let service = small().await;
    let engine = |number: usize| {
        json!({"engine": format!("E{number}"), "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1,
               "max_actions_per_day": 1})
    };
    assert_eq!(until_refused(&service, "/risk/policies/upsert", "ENGINES_MAX", engine).await, 2);
    let domain = |number: usize| json!({"domain": format!("D{number}")});
    assert_eq!(until_refused(&service, "/heimdall/policies/upsert", "DOMAINS_MAX", domain).await, 2);
    let trial = |number: usize| json!({"domain": format!("T{number}"), "confidence": 0.9, "success": true});
    assert_eq!(until_refused(&service, "/heimdall/sandbox/trial", "DOMAINS_MAX", trial).await, 6);
    // One with a policy has room whoever tries others.
    service.post("/heimdall/sandbox/trial", &json!({"domain": "D1", "confidence": 0.9, "success": true})).await.ok();
    let wire = |number: usize| json!({"domain": "W", "metric": format!("m{number}"), "enabled": true});
    assert_eq!(until_refused(&service, "/regression/policies/upsert", "WIRES_MAX", wire).await, 2);
    let kpi = |number: usize| json!({"domain": "K", "metric": format!("m{number}"), "success": true});
    assert_eq!(until_refused(&service, "/regression/kpi", "METRICS_MAX", kpi).await, 3);
    // One that a wire watches has room whoever measures others.
    service.post("/regression/kpi", &json!({"domain": "W", "metric": "m1", "success": true})).await.ok();
    let again = Service::on(
        service.options.clone(),
        Setup { limits: LimitsConfig { metrics_max: 3, ..LimitsConfig::default() }, ..Setup::default() },
    )
    .await;
    again.post("/regression/kpi", &kpi(9)).await.refused(409, "LIMIT_REACHED");
}

#[tokio::test]
async fn the_lease_is_renewed_however_long_the_policies_take() {
    let service = Service::fresh().await;
    service.post("/go-live/enable", &json!({"actor": "test"})).await.ok();
    let mut tx = service.pool.begin().await.unwrap();
    tx.execute("LOCK TABLE risk_policy IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let keeping = tokio::spawn(service.app.feed.clone().run(service.db.clone()));
    service.clock.advance(1_500);
    let age = || service.app.feed.age().expect("it was read");
    let renewed = async {
        while age() >= Duration::from_millis(1_500) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), renewed).await.expect("it is renewed");
    tx.rollback().await.unwrap();
    keeping.abort();
}
