//! Policies: the seeds, and an upsert's changes, refusals and events.

use super::{policy, uncapped, upsert};
use crate::support::Service;
use serde_json::{Value, json};

#[tokio::test]
async fn policies_are_seeded_and_ordered_by_engine() {
    let service = Service::fresh().await;
    let policies = service.get("/risk/policies").await.ok();
    let seen: Vec<_> = policies
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| {
            json!([
                policy["engine"],
                policy["max_daily_loss"],
                policy["max_daily_exposure"],
                policy["max_open_risk"],
                policy["max_actions_per_day"],
                policy["enabled"],
                policy["version"],
                policy["throttled_by"]
            ])
        })
        .collect();
    let expected = [
        json!(["CAPITAL", 150, 750, 750, 0, true, 1, []]),
        json!(["GLOBAL", 250, 1500, 1500, 0, true, 1, []]),
        json!(["NOTIFY", 0, 0, 0, 0, false, 1, []]),
        json!(["WHOLESALE", 200, 1000, 1000, 0, true, 1, []]),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn policies_show_exactly_the_contracts_fields() {
    let service = Service::fresh().await;
    let policy = policy(&service, "GLOBAL").await;
    let mut fields: Vec<_> = policy.as_object().unwrap().keys().cloned().collect();
    fields.sort();
    let expected = "changed_by default_ttl_seconds enabled engine max_actions_per_day max_daily_exposure max_daily_loss max_open_risk \
                    reason throttled_by updated_at version";
    assert_eq!(fields.join(" "), expected);
}

#[tokio::test]
async fn an_upsert_keeps_what_is_left_out_and_names_exactly_what_moved() {
    let service = Service::fresh().await;
    let body = json!({"engine": "wholesale ", "max_open_risk": "900.5", "max_daily_loss": 200, "actor": "ann",
        "reason": "tighter"});
    let answer = upsert(&service, body).await;
    assert_eq!(answer["changes"], json!([{"field": "max_open_risk", "from": 1000, "to": 900.5}]));
    let policy = policy(&service, "WHOLESALE").await;
    let kept =
        json!([policy["max_daily_loss"], policy["max_daily_exposure"], policy["max_open_risk"], policy["enabled"]]);
    assert_eq!(kept, json!([200, 1000, 900.5, true]));
    assert_eq!(json!([policy["changed_by"], policy["reason"], policy["version"]]), json!(["ann", "tighter", 2]));
    for (field, value) in policy.as_object().unwrap() {
        assert_eq!(&answer[field], value, "the answer is the policy: {field}");
    }
}

#[tokio::test]
async fn changes_of_every_field_are_listed_in_order_with_before_and_after() {
    let service = Service::fresh().await;
    let body = json!({"engine": "CAPITAL", "enabled": false, "max_actions_per_day": 9, "max_open_risk": 3,
        "max_daily_exposure": 2, "max_daily_loss": 1});
    let changes = upsert(&service, body).await["changes"].clone();
    let expected = json!([
        {"field": "max_daily_loss", "from": 150, "to": 1},
        {"field": "max_daily_exposure", "from": 750, "to": 2},
        {"field": "max_open_risk", "from": 750, "to": 3},
        {"field": "max_actions_per_day", "from": 0, "to": 9},
        {"field": "enabled", "from": true, "to": false},
    ]);
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn a_new_engine_needs_its_three_caps_and_each_missing_one_is_named() {
    let service = Service::fresh().await;
    let caps = ["max_daily_loss", "max_daily_exposure", "max_open_risk"];
    // Every subset of the three but the whole.
    for given in 0_usize..7 {
        let mut body = json!({"engine": "FRESH"});
        for (bit, cap) in caps.iter().enumerate() {
            if given & (1 << bit) != 0 {
                body[cap] = json!(5);
            }
        }
        let refused = service.post("/risk/policies/upsert", &body).await.refused(422, "VALIDATION_FAILED");
        let named: Vec<_> =
            refused["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
        let missing: Vec<_> = caps.iter().filter(|cap| body.get(cap).is_none()).copied().collect();
        assert_eq!(named, missing);
    }
    assert_eq!(policy(&service, "FRESH").await, Value::Null);
    assert_eq!(service.events().await, 0);
}

#[tokio::test]
async fn a_new_engine_starts_enabled_at_version_one_and_can_reserve() {
    let service = Service::live().await;
    let body = json!({"engine": "fresh", "max_daily_loss": 1, "max_daily_exposure": 10, "max_open_risk": 0});
    let made = upsert(&service, body).await;
    assert_eq!(json!([made["engine"], made["enabled"], made["version"]]), json!(["FRESH", true, 1]));
    assert_eq!(made["changes"][0], json!({"field": "max_daily_loss", "from": null, "to": 1}));
    assert_eq!(service.reserve("FRESH", "10").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_new_engine_can_be_made_disabled() {
    let service = Service::live().await;
    let body =
        json!({"engine": "F", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1, "enabled": "no"});
    assert_eq!(upsert(&service, body).await["enabled"], false);
}

#[tokio::test]
async fn a_positive_cap_does_not_become_unlimited_by_accident() {
    let service = Service::fresh().await;
    upsert(&service, json!({"engine": "CAPITAL", "max_actions_per_day": 7})).await;
    let events = service.events().await;
    for cap in ["max_daily_loss", "max_daily_exposure", "max_open_risk", "max_actions_per_day"] {
        for spelling in [json!(0), json!("0.000"), json!("0")] {
            if cap == "max_actions_per_day" && spelling == "0.000" {
                continue;
            }
            let body = json!({"engine": "CAPITAL", cap: spelling});
            let refused = service.post("/risk/policies/upsert", &body).await.refused(422, "ZERO_MEANS_UNLIMITED");
            assert_eq!(refused["errors"][0]["field"], cap);
            assert!(refused["detail"].as_str().unwrap().contains("allow_unlimited=true"));
        }
    }
    assert_eq!(service.events().await, events);
    assert_eq!(policy(&service, "CAPITAL").await["version"], 2);
}

#[tokio::test]
async fn allow_unlimited_removes_a_cap_on_purpose() {
    let service = Service::live().await;
    uncapped(&service, "CAPITAL").await;
    assert_eq!(policy(&service, "CAPITAL").await["max_open_risk"], 0);
    assert_eq!(service.reserve("CAPITAL", "1000000000000").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_cap_that_is_zero_already_may_be_sent_as_zero() {
    let service = Service::fresh().await;
    let body = json!({"engine": "NOTIFY", "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0});
    assert_eq!(upsert(&service, body).await["changes"], json!([]));
}

#[tokio::test]
async fn an_upsert_that_changes_nothing_writes_nothing() {
    let service = Service::fresh().await;
    let body = json!({"engine": "CAPITAL", "max_daily_loss": "150.000000", "max_daily_exposure": 750, "enabled": true,
        "actor": "nightly", "reason": "again"});
    let before = policy(&service, "CAPITAL").await;
    let answer = upsert(&service, body).await;
    assert_eq!(answer["changes"], json!([]));
    assert_eq!(policy(&service, "CAPITAL").await, before);
    assert_eq!(service.events().await, 0);
}

#[tokio::test]
async fn the_same_upsert_twice_is_one_change() {
    let service = Service::fresh().await;
    let body = json!({"engine": "CAPITAL", "max_daily_loss": 99});
    assert_eq!(upsert(&service, body.clone()).await["version"], 2);
    let again = upsert(&service, body).await;
    assert_eq!(json!([again["version"], again["changes"]]), json!([2, []]));
    assert_eq!(service.events().await, 1);
}

#[tokio::test]
async fn version_counts_every_change() {
    let service = Service::fresh().await;
    for (step, version) in (1..=5).zip(2..) {
        let body = json!({"engine": "CAPITAL", "max_daily_loss": step});
        assert_eq!(upsert(&service, body).await["version"], version);
    }
}

#[tokio::test]
async fn an_upsert_is_an_event_with_who_why_and_what_moved() {
    let service = Service::fresh().await;
    let body = json!({"engine": "CAPITAL", "max_daily_loss": 99, "changed_by": "ann", "reason": "why"});
    upsert(&service, body).await;
    let row: (String, String, String, String, String) =
        sqlx::query_as("SELECT action, subject, actor, reason, detail FROM control_event")
            .fetch_one(&service.pool)
            .await
            .unwrap();
    assert_eq!(
        (row.0.as_str(), row.1.as_str(), row.2.as_str(), row.3.as_str()),
        ("RISK_POLICY_UPSERT", "CAPITAL", "ann", "why")
    );
    let detail: Value = serde_json::from_str(&row.4).unwrap();
    assert_eq!(detail["changes"], json!([{"field": "max_daily_loss", "from": 150, "to": 99}]));
}

#[tokio::test]
async fn an_upsert_that_is_not_acceptable_leaves_no_trace() {
    let service = Service::fresh().await;
    let before = service.get("/risk/policies").await.text;
    for (field, body) in [
        ("engine", json!({"max_daily_loss": 1})),
        ("engine", json!({"engine": "no spaces", "max_daily_loss": 1})),
        ("max_daily_loss", json!({"engine": "CAPITAL", "max_daily_loss": -1})),
        ("max_open_risk", json!({"engine": "CAPITAL", "max_open_risk": "1000000000000.000001"})),
        ("max_daily_exposure", json!({"engine": "CAPITAL", "max_daily_exposure": "1.0000001"})),
        ("max_actions_per_day", json!({"engine": "CAPITAL", "max_actions_per_day": 1.5})),
        ("enabled", json!({"engine": "CAPITAL", "enabled": "maybe"})),
        ("max_loss", json!({"engine": "CAPITAL", "max_loss": 1})),
    ] {
        let _ = service.post("/risk/policies/upsert", &body).await.invalid(field);
    }
    assert_eq!(service.get("/risk/policies").await.text, before);
    assert_eq!(service.events().await, 0);
}

#[tokio::test]
async fn an_upsert_binds_the_very_next_decision() {
    let service = Service::live().await;
    assert_eq!(service.reserve("WHOLESALE", "400").await.ok()["ok"], true);
    upsert(&service, json!({"engine": "WHOLESALE", "max_open_risk": 500})).await;
    let denied = service.reserve("WHOLESALE", "101").await.ok();
    assert_eq!(denied["reason"], "open_risk_exceeded");
    assert_eq!(denied["policy_snapshot"]["version"], 2);
    upsert(&service, json!({"engine": "WHOLESALE", "max_open_risk": 501})).await;
    assert_eq!(service.reserve("WHOLESALE", "101").await.ok()["ok"], true);
    upsert(&service, json!({"engine": "WHOLESALE", "enabled": false})).await;
    assert_eq!(service.reserve("WHOLESALE", "0.000001").await.ok()["reason"], "policy_disabled");
}
