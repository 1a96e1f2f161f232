//! Throttles: a tripped wire turns an engine off, a re-arm or an override with a reason turns it on.

use super::{policy, upsert};
use crate::support::Service;
use serde_json::{Value, json};

/// Trips a wire of four events, which throttles the engine named; gives the trip's id.
async fn trip(service: &Service, domain: &str, metric: &str, engine: &str) -> i64 {
    let wire = json!({"domain": domain, "metric": metric, "window_events": 2, "baseline_events": 2,
        "min_events_to_enforce": 2, "max_drop_fraction": 0.5, "action": "THROTTLE", "engine": engine, "enabled": true});
    service.post("/regression/policies/upsert", &wire).await.ok();
    let mut last = Value::Null;
    for success in [true, true, false, false] {
        let event = json!({"domain": domain, "metric": metric, "success": success, "actor": "probe"});
        last = service.post("/regression/kpi", &event).await.ok();
    }
    last["tripped"]["trip_id"].as_i64().unwrap_or_else(|| panic!("did not trip: {last}"))
}

async fn rearm(service: &Service, domain: &str, metric: &str) {
    let body = json!({"domain": domain, "metric": metric, "enabled": true, "reason": "checked"});
    service.post("/regression/policies/upsert", &body).await.ok();
}

#[tokio::test]
async fn a_throttle_turns_the_engine_off_and_says_so_on_its_policy() {
    let service = Service::live().await;
    let id = trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let policy = policy(&service, "WHOLESALE").await;
    assert_eq!(
        json!([policy["enabled"], policy["throttled_by"], policy["changed_by"], policy["reason"]]),
        json!([false, [id], "probe", "Regression tripwire: WHOLESALE.contract_rate drop=1.000"])
    );
    let denied = service.reserve("WHOLESALE", "1").await.ok();
    assert_eq!(denied["message"], "WHOLESALE hard stop: Policy disabled");
    assert_eq!(denied["policy_snapshot"]["enabled"], false);
    assert_eq!(service.reserve("CAPITAL", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_throttle_of_an_engine_without_a_policy_makes_a_disabled_one() {
    let service = Service::live().await;
    let id = trip(&service, "BUYER_MATCH", "match_success", "NEWCOMER").await;
    let policy = policy(&service, "NEWCOMER").await;
    assert_eq!(json!([policy["enabled"], policy["throttled_by"]]), json!([false, [id]]));
    rearm(&service, "BUYER_MATCH", "match_success").await;
    assert_eq!(service.reserve("NEWCOMER", "1").await.ok()["reason"], "policy_disabled", "nobody has given it caps");
}

#[tokio::test]
async fn enabling_a_throttled_engine_without_a_reason_is_refused_and_names_the_trips() {
    let service = Service::live().await;
    let first = trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let second = trip(&service, "WHOLESALE", "offer_accept_rate", "WHOLESALE").await;
    let (before, events) = (policy(&service, "WHOLESALE").await, service.events().await);
    for reason in [json!(null), json!(""), json!("  ")] {
        let body = json!({"engine": "WHOLESALE", "enabled": true, "max_daily_loss": 1, "reason": reason});
        let refused = service.post("/risk/policies/upsert", &body).await.refused(409, "ENGINE_THROTTLED");
        assert_eq!(refused["throttled_by"], json!([first, second]));
    }
    assert_eq!(policy(&service, "WHOLESALE").await, before);
    assert_eq!(service.events().await, events);
}

#[tokio::test]
async fn an_override_with_a_reason_lifts_the_throttle_and_leaves_the_wire_tripped() {
    let service = Service::live().await;
    let id = trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let body = json!({"engine": "WHOLESALE", "enabled": true, "actor": "ann", "reason": "checked by hand"});
    let answer = upsert(&service, body).await;
    assert_eq!(answer["changes"], json!([{"field": "throttled_by", "from": [id], "to": []}]));
    assert_eq!(
        json!([answer["enabled"], answer["throttled_by"], answer["reason"]]),
        json!([true, [], "checked by hand"])
    );
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    let states = service.get("/regression/state").await.ok();
    let wire = states.as_array().unwrap().iter().find(|state| state["metric"] == "contract_rate").unwrap();
    assert_eq!(json!([wire["triggered"], wire["trip_id"]]), json!([true, id]));
}

#[tokio::test]
async fn other_upserts_of_a_throttled_engine_need_no_reason_and_keep_the_throttle() {
    let service = Service::live().await;
    let id = trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let answer = upsert(&service, json!({"engine": "WHOLESALE", "max_daily_loss": 10})).await;
    assert_eq!(json!([answer["enabled"], answer["throttled_by"], answer["max_daily_loss"]]), json!([false, [id], 10]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "policy_disabled");
}

#[tokio::test]
async fn disabled_by_hand_survives_a_rearm() {
    let service = Service::live().await;
    trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    upsert(&service, json!({"engine": "WHOLESALE", "enabled": false})).await;
    rearm(&service, "WHOLESALE", "contract_rate").await;
    let policy = policy(&service, "WHOLESALE").await;
    assert_eq!(json!([policy["enabled"], policy["throttled_by"]]), json!([false, []]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "policy_disabled");
}

#[tokio::test]
async fn a_rearm_lifts_only_its_own_throttle() {
    let service = Service::live().await;
    trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let other = trip(&service, "WHOLESALE", "offer_accept_rate", "WHOLESALE").await;
    rearm(&service, "WHOLESALE", "contract_rate").await;
    assert_eq!(policy(&service, "WHOLESALE").await["throttled_by"], json!([other]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false);
    rearm(&service, "WHOLESALE", "offer_accept_rate").await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_rearm_after_an_override_by_hand_changes_nothing_on_the_engine() {
    let service = Service::live().await;
    trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    upsert(&service, json!({"engine": "WHOLESALE", "enabled": true, "reason": "by hand"})).await;
    let before = policy(&service, "WHOLESALE").await;
    rearm(&service, "WHOLESALE", "contract_rate").await;
    assert_eq!(policy(&service, "WHOLESALE").await, before);
}
