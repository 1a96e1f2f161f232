//! A wire belongs to its domain and to its engine: whoever lacks one of them touches it by no route.

use super::{call, create, new};
use crate::support::{BASE, Service};
use axum::http::Method;
use serde_json::{Value, json};

async fn post(service: &Service, token: &str, path: &str, body: Value) -> (u16, String) {
    let answer = call(service, Method::POST, &format!("{BASE}{path}"), Some(token), &body).await;
    (answer.status.as_u16(), answer.json["error"].as_str().unwrap_or_default().to_owned())
}

fn out_of_reach() -> (u16, String) {
    (403, "OUT_OF_REACH".to_owned())
}

/// Wires `m` of B, on an engine of its own name, and `k` of B, which pulls the kill switch; both with a baseline of five events.
async fn wires() -> Service {
    let service = Service::live().await;
    for (metric, action) in [("m", "THROTTLE"), ("k", "KILL_SWITCH")] {
        let wire = json!({
            "domain": "B", "metric": metric, "action": action,
            "window_events": 5, "baseline_events": 5, "min_events_to_enforce": 5,
        });
        service.post("/regression/policies/upsert", &wire).await.ok();
        service.kpis("B", metric, 6, 0).await;
    }
    service
}

/// A token of engine A, of whatever domain.
async fn of_engine_a(service: &Service, scopes: &str) -> String {
    let mut new = new(scopes);
    new.engines = Some(vec!["A".parse().unwrap()]);
    create(service, new).await
}

#[tokio::test]
async fn a_token_of_one_engine_touches_no_wire_of_another_by_any_route() {
    let service = wires().await;
    let token = of_engine_a(&service, "operate,release,evidence").await;
    let before = service.count("SELECT count(*) FROM control_event WHERE ok").await;
    let measured = service.count("SELECT count(*) FROM kpi_event").await;
    let upsert = "/regression/policies/upsert";
    for (path, body) in [
        (upsert, json!({"domain": "B", "metric": "m", "engine": "A", "enabled": false})),
        (upsert, json!({"domain": "B", "metric": "m", "engine": "A"})),
        (upsert, json!({"domain": "B", "metric": "m"})),
        (upsert, json!({"domain": "B", "metric": "m", "max_drop_fraction": 0.01})),
        (upsert, json!({"domain": "B", "metric": "k", "action": "THROTTLE", "engine": "A"})),
        (upsert, json!({"domain": "B", "metric": "new", "action": "KILL_SWITCH"})),
        ("/regression/baseline/reset", json!({"domain": "B", "metric": "m"})),
        ("/regression/baseline/reset", json!({"domain": "B", "metric": "k", "source": "NEXT_N", "force": true})),
        ("/regression/rearm", json!({"domain": "B", "metric": "m", "reason": "x"})),
        ("/regression/acknowledge", json!({"domain": "B", "metric": "m", "verdict": "FALSE_ALARM"})),
        ("/regression/evaluate", json!({"domain": "B", "metric": "m"})),
        ("/regression/evaluate", json!({"domain": "B", "metric": "k"})),
        ("/regression/kpi", json!({"domain": "B", "metric": "m", "success": false})),
        ("/regression/kpi", json!({"domain": "B", "metric": "k", "success": false})),
    ] {
        assert_eq!(post(&service, &token, path, body.clone()).await, out_of_reach(), "{path} {body}");
    }
    // A measurement of a batch is refused as well, and does not prevent the others of the request.
    let batch = json!({"events": [
        {"domain": "B", "metric": "m", "success": false},
        {"domain": "B", "metric": "nobody_watches", "success": false},
    ]});
    let path = format!("{BASE}/regression/kpi/batch");
    let answer = call(&service, Method::POST, &path, Some(&token), &batch).await.ok();
    assert_eq!(answer["recorded"], 1, "{answer}");
    assert_eq!(answer["refused"][0]["error"]["error"], "OUT_OF_REACH", "{answer}");
    assert_eq!(service.count("SELECT count(*) FROM kpi_event").await, measured + 1);
    assert_eq!(service.count("SELECT count(*) FROM control_event WHERE ok").await, before);
}

#[tokio::test]
async fn a_wire_is_moved_to_another_engine_by_whoever_reaches_both() {
    let service = wires().await;
    let body = json!({"domain": "B", "metric": "m", "engine": "A"});
    let path = "/regression/policies/upsert";
    let mut new = new("operate,release");
    new.engines = Some(vec!["B".parse().unwrap()]);
    let theirs = create(&service, new.clone()).await;
    assert_eq!(post(&service, &theirs, path, body.clone()).await, out_of_reach());
    new.engines = Some(vec!["A".parse().unwrap(), "B".parse().unwrap()]);
    let both = create(&service, new).await;
    assert_eq!(post(&service, &both, path, body).await, (200, String::new()));
}

#[tokio::test]
async fn a_wire_without_an_engine_belongs_to_tokens_of_every_engine() {
    let service = Service::live().await;
    // Longer than any engine's name.
    let domain = "D".repeat(51);
    let wire = json!({"domain": domain, "metric": "m", "action": "KILL_SWITCH"});
    service.post("/regression/policies/upsert", &wire).await.ok();
    let off = json!({"domain": domain, "metric": "m", "enabled": false});
    let path = "/regression/policies/upsert";
    let narrow = of_engine_a(&service, "operate,release").await;
    assert_eq!(post(&service, &narrow, path, off.clone()).await, out_of_reach());
    let wide = create(&service, new("operate,release")).await;
    assert_eq!(post(&service, &wide, path, off).await, (200, String::new()));
}

#[tokio::test]
async fn a_token_of_one_engine_changes_no_charter_that_another_engine_stops() {
    let service = Service::live().await;
    service.post("/heimdall/policies/upsert", &json!({"domain": "D", "engine": "B"})).await.ok();
    let token = of_engine_a(&service, "operate,release").await;
    for (path, body) in [
        ("/heimdall/policies/upsert", json!({"domain": "D", "engine": "A"})),
        ("/heimdall/policies/upsert", json!({"domain": "D", "remove_engine": true})),
        ("/heimdall/policies/upsert", json!({"domain": "D", "min_confidence_prod": 0.1})),
        ("/heimdall/policies/upsert", json!({"domain": "E", "engine": "B"})),
        ("/heimdall/promote", json!({"domain": "D", "reason": "x", "actor": "y"})),
        ("/heimdall/demote", json!({"domain": "D"})),
    ] {
        assert_eq!(post(&service, &token, path, body.clone()).await, out_of_reach(), "{path} {body}");
    }
    let own = json!({"domain": "E", "engine": "A"});
    assert_eq!(post(&service, &token, "/heimdall/policies/upsert", own).await, (200, String::new()));
}

#[tokio::test]
async fn a_stronger_action_that_makes_a_sequential_wire_less_sensitive_by_its_defaults_needs_release() {
    let service = Service::live().await;
    let upsert = "/regression/policies/upsert";
    for metric in ["m", "pinned"] {
        service.kpis("A", metric, 10, 0).await;
        let wire = json!({"domain": "A", "metric": metric, "detector": "SEQUENTIAL", "window_events": 5,
            "baseline_events": 10, "min_events_to_enforce": 5});
        service.post(upsert, &wire).await.ok();
    }
    let (operator, releaser) = (create(&service, new("operate")).await, create(&service, new("operate,release")).await);
    let refused = (403, "INSUFFICIENT_SCOPE".to_owned());
    let stronger = json!({"domain": "A", "metric": "m", "action": "KILL_SWITCH"});
    assert_eq!(post(&service, &operator, upsert, stronger.clone()).await, refused);
    // One of the defaults alone, too.
    for pinned in [json!({"false_trip_arl": 50_000}), json!({"tolerance_fraction": 0})] {
        let mut body = stronger.clone();
        body.as_object_mut().unwrap().extend(pinned.as_object().unwrap().clone());
        assert_eq!(post(&service, &operator, upsert, body.clone()).await, refused, "{body}");
    }
    // With the values that its detector goes by, it only tightens, and keeps its baseline.
    let kept = json!({"domain": "A", "metric": "pinned", "action": "KILL_SWITCH", "false_trip_arl": 50_000,
        "tolerance_fraction": 0});
    assert_eq!(post(&service, &operator, upsert, kept).await, (200, String::new()));
    assert_eq!(service.count("SELECT count(*) FROM regression_baseline WHERE metric = 'pinned'").await, 1);
    // A tolerance that moves by its default freezes the baseline anew, as one that is set does.
    assert_eq!(post(&service, &releaser, upsert, stronger).await, (200, String::new()));
    assert_eq!(service.count("SELECT count(*) FROM regression_baseline WHERE metric = 'm'").await, 2);
}

#[tokio::test]
async fn a_policy_that_was_removed_is_set_up_anew_with_the_right_to_loosen_alone() {
    let service = Service::live().await;
    let (operator, releaser) = (create(&service, new("operate")).await, create(&service, new("operate,release")).await);
    for (lever, name, made, laxer) in [
        (
            "risk",
            json!({"engine": "LAB"}),
            json!({"max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1, "enabled": false}),
            json!({"max_daily_loss": 9, "max_daily_exposure": 9, "max_open_risk": 9, "enabled": false}),
        ),
        (
            "heimdall",
            json!({"domain": "LAB"}),
            json!({"min_confidence_prod": 0.9}),
            json!({"min_confidence_prod": 0.1}),
        ),
        (
            "regression",
            json!({"domain": "LAB", "metric": "m"}),
            json!({"max_drop_fraction": 0.1, "enabled": false}),
            json!({"max_drop_fraction": 0.9, "enabled": false}),
        ),
    ] {
        let (upsert, remove) = (format!("/{lever}/policies/upsert"), format!("/{lever}/policies/remove"));
        let with = |more: &Value| {
            let mut body = name.clone();
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let (refused, done) = ((403, "INSUFFICIENT_SCOPE".to_owned()), (200, String::new()));
        // The first one loosens nothing, and what it is laxer than stays in the way.
        assert_eq!(post(&service, &operator, &upsert, with(&made)).await, done, "{lever}");
        assert_eq!(post(&service, &operator, &upsert, with(&laxer)).await, refused, "{lever}");
        assert_eq!(post(&service, &operator, &remove, name.clone()).await, done, "{lever}");
        for body in [&laxer, &made] {
            let changes = service.count("SELECT count(*) FROM control_event WHERE ok").await;
            assert_eq!(post(&service, &operator, &upsert, with(body)).await, refused, "{lever}");
            assert_eq!(service.count("SELECT count(*) FROM control_event WHERE ok").await, changes, "{lever}");
        }
        assert_eq!(post(&service, &releaser, &upsert, with(&laxer)).await, done, "{lever}");
    }
}
