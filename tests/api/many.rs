//! The most rows of each kind, and the costs that never grow with them.

use crate::support::{Service, Setup};
use holdfast::config::LimitsConfig;
use serde_json::{Value, json};
use sqlx::Executor;
use std::time::Duration;

/// A service whose limits a few rows reach: a fresh install has four engines, domains and wires.
async fn small() -> Service {
    let limits = LimitsConfig {
        engines_max: 6,
        domains_max: 6,
        wires_max: 6,
        metrics_max: 3,
        packs_max: 6,
        ..LimitsConfig::default()
    };
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
            // Existing rows can still be changed.
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
async fn components_that_report_have_a_limit_and_one_that_is_there_reports_on() {
    let service = small().await;
    let pack = |number: usize| json!({"id": format!("p{number}"), "status": "installed"});
    assert_eq!(until_refused(&service, "/go-live/packs", "PACKS_MAX", pack).await, 2);
    assert_eq!(service.get("/go-live/packs").await.ok().as_array().unwrap().len(), 6);
    let again = service.post("/go-live/packs", &json!({"id": "p1", "status": "missing", "version": "2"})).await.ok();
    assert_eq!(json!([again["status"], again["version"], again["name"]]), json!(["missing", "2", "p1"]));
    service.post("/go-live/packs", &json!({"id": "p9", "status": "missing"})).await.refused(409, "LIMIT_REACHED");
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

#[tokio::test]
async fn an_unused_engine_domain_or_wire_is_removed_by_an_event_and_makes_room() {
    let service = small().await;
    let caps = json!({"engine": "E", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1});
    for (lever, name, made) in [
        ("risk", json!({"engine": "E"}), caps),
        ("heimdall", json!({"domain": "D"}), json!({"domain": "D"})),
        ("regression", json!({"domain": "D", "metric": "m"}), json!({"domain": "D", "metric": "m"})),
    ] {
        let (upsert, remove) = (format!("/{lever}/policies/upsert"), format!("/{lever}/policies/remove"));
        service.post(&remove, &name).await.refused(404, "NOT_FOUND");
        if lever == "heimdall" {
            service.post(&upsert, &made).await.ok();
        } else {
            // One that is in force stays.
            let mut switched = made.clone();
            switched["enabled"] = json!(true);
            service.post(&upsert, &switched).await.ok();
            let refused = service.post(&remove, &name).await.refused(409, "STILL_USED");
            assert!(refused["uses"][0].as_str().unwrap().contains("set enabled to false"), "{refused}");
            switched["enabled"] = json!(false);
            service.post(&upsert, &switched).await.ok();
        }
        let stood = service.get("/audit/as-of").await.ok()[format!("{lever}_policies")].clone();
        let mut reasoned = name.clone();
        reasoned["reason"] = json!("misspelt");
        let removed = service.post(&remove, &reasoned).await.ok();
        assert_eq!(removed["ok"], true);
        let listed = service.get(&format!("/{lever}/policies")).await.ok();
        let names = |list: &Value| -> Vec<Value> {
            list.as_array().unwrap().iter().map(|one| json!([one["engine"], one["domain"], one["metric"]])).collect()
        };
        let now = service.get("/audit/as-of").await.ok()[format!("{lever}_policies")].clone();
        let values = Value::from(now.as_array().unwrap().iter().map(|one| one["value"].clone()).collect::<Vec<_>>());
        assert_eq!(names(&values), names(&listed));
        assert_eq!(now.as_array().unwrap().len() + 1, stood.as_array().unwrap().len());
        let events = service.get("/audit/events?stream=control&order=desc&limit=1").await.ok();
        let event = &events["items"][0];
        let action = format!("{}_POLICY_REMOVE", lever.to_uppercase());
        assert_eq!(json!([event["action"], event["reason"]]), json!([action, "misspelt"]), "{events}");
        service.post(&remove, &name).await.refused(404, "NOT_FOUND");
        let verified = service.get("/audit/verify").await.ok();
        assert_eq!(json!([verified["ok"], verified["missing"]]), json!([true, []]), "nothing is missed: {verified}");
        service.post(&upsert, &made).await.ok();
    }
}

#[tokio::test]
async fn one_that_was_used_or_is_in_force_is_not_removed() {
    let service = Service::live().await;
    service.post("/risk/policies/remove", &json!({"engine": "GLOBAL"})).await.refused(409, "STILL_USED");
    service.reserve("WHOLESALE", "1").await.ok();
    service.post("/risk/policies/upsert", &json!({"engine": "WHOLESALE", "enabled": false})).await.ok();
    let refused =
        service.post("/risk/policies/remove", &json!({"engine": "WHOLESALE"})).await.refused(409, "STILL_USED");
    assert_eq!(refused["uses"].as_array().unwrap().len(), 1, "{refused}");
    let trial = json!({"domain": "BUYER_MATCH", "confidence": 0.9, "success": true});
    service.post("/heimdall/sandbox/trial", &trial).await.ok();
    service.post("/heimdall/policies/remove", &json!({"domain": "BUYER_MATCH"})).await.refused(409, "STILL_USED");
    let pair = json!({"domain": "CAPITAL", "metric": "roi_event"});
    service.post("/regression/kpi", &json!({"domain": "CAPITAL", "metric": "roi_event", "value": 1})).await.ok();
    service.post("/regression/policies/remove", &pair).await.refused(409, "STILL_USED");
}

#[tokio::test]
async fn a_wire_is_removed_with_its_state_and_what_is_not_there_is_404() {
    let service = Service::live().await;
    let pair = json!({"domain": "LAB", "metric": "rate"});
    let sequential =
        json!({"domain": "LAB", "metric": "rate", "detector": "SEQUENTIAL", "enabled": false, "reason": "a wire"});
    let states = async || service.count("SELECT count(*) FROM regression_state WHERE domain = 'LAB'").await;
    for version in 1..=2 {
        service.post("/regression/policies/upsert", &sequential).await.ok();
        let baselines = service.get("/regression/baselines?domain=LAB&metric=rate").await.ok();
        assert_eq!((states().await, &baselines[0]["version"]), (1, &json!(version)), "{baselines}");
        service.post("/regression/policies/remove", &pair).await.ok();
        assert_eq!(states().await, 0);
        service.post("/regression/policies/remove", &pair).await.refused(404, "NOT_FOUND");
    }
    // Measurements are no wire and no declared kind.
    service.post("/regression/kpi", &json!({"domain": "LAB", "metric": "rate", "success": true})).await.ok();
    let before = service.everything().await;
    service.post("/regression/policies/remove", &pair).await.refused(404, "NOT_FOUND");
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn a_declared_kind_without_a_measurement_has_a_limit_and_is_removed() {
    let service = small().await;
    let kind = |number: usize| json!({"domain": "K", "metric": format!("m{number}"), "kind": "NUMERIC"});
    assert_eq!(until_refused(&service, "/regression/kind", "METRICS_MAX", kind).await, 3);
    let pair = json!({"domain": "K", "metric": "m1"});
    service.post("/regression/policies/remove", &pair).await.ok();
    service.post("/regression/kind", &kind(7)).await.ok();
    // The series may be of any kind again.
    service.post("/regression/kpi", &json!({"domain": "K", "metric": "m1", "success": true})).await.ok();
}

/// A service with room for three series.
async fn of_three_series() -> Service {
    let limits = LimitsConfig { metrics_max: 3, ..LimitsConfig::default() };
    Service::with(Setup { limits, ..Setup::default() }).await
}

fn series(metric: &str) -> Value {
    json!({"domain": "K", "metric": metric, "success": true})
}

#[tokio::test]
async fn a_measurement_that_is_refused_takes_no_room_for_a_series() {
    let service = of_three_series().await;
    service.post("/regression/kind", &json!({"domain": "K", "metric": "rate", "kind": "BOOLEAN"})).await.ok();
    let refused = json!({"domain": "K", "metric": "rate", "value": 1});
    let mut events = vec![refused; 5];
    events.extend(["a", "b", "rate"].map(series));
    let done = service.post("/regression/kpi/batch", &json!({"events": events})).await.ok();
    assert_eq!((&done["recorded"], &done["refused_count"]), (&json!(3), &json!(5)), "{done}");
    service.post("/regression/kpi", &series("c")).await.refused(409, "LIMIT_REACHED");
}

#[tokio::test]
async fn a_series_that_a_wire_watches_counts_like_any_other_and_always_has_room() {
    let service = of_three_series().await;
    for metric in ["m", "n"] {
        service
            .post("/regression/policies/upsert", &json!({"domain": "K", "metric": metric, "enabled": true}))
            .await
            .ok();
    }
    for metric in ["m", "a", "b"] {
        service.post("/regression/kpi", &series(metric)).await.ok();
    }
    service.post("/regression/kpi", &series("c")).await.refused(409, "LIMIT_REACHED");
    service.post("/regression/kpi", &series("n")).await.ok();
    service.post("/regression/kpi", &series("c")).await.refused(409, "LIMIT_REACHED");
    service.post("/regression/kpi", &series("a")).await.ok();
}
