//! Recommendations: judged at creation, kept as written, and listed.

use super::{RECOMMEND, UPSERT, eligible, events, policy, recommend, require, trials};
use crate::support::Service;
use serde_json::{Value, json};

#[tokio::test]
async fn the_five_gate_reasons_come_in_their_order() {
    let service = Service::fresh().await;
    let verdict = async |confidence: &str, eligible: bool, reason: &str| {
        let made = recommend(&service, "ROUTE", confidence).await;
        let id = service.count("SELECT max(seq) FROM heimdall_event").await;
        let stated: Value = serde_json::from_str(confidence).unwrap();
        assert_eq!(
            made,
            json!({
                "id": id, "domain": "ROUTE", "model_version": null, "confidence": stated, "prod_eligible": eligible,
                "gate_reason": reason, "gate_checks": made["gate_checks"], "expires_at": made["expires_at"], "single_use": false,
                "created_at": made["created_at"],
            })
        );
    };
    let set = async |body: Value| service.post(UPSERT, &body).await.ok();

    // No policy is no permission, and asking creates none.
    verdict("1", false, "prod_use_disabled").await;
    assert_eq!(policy(&service, "ROUTE").await, Value::Null);
    // Off comes first, though nothing else would pass either.
    set(json!({"domain": "ROUTE", "min_sandbox_trials": 5})).await;
    verdict("0", false, "prod_use_disabled").await;
    set(json!({"domain": "ROUTE", "prod_use_enabled": true})).await;
    verdict("0.899999999999999999", false, "confidence_below_threshold").await;
    // Equality passes, here and below.
    verdict("0.9", false, "insufficient_sandbox_trials").await;
    trials(&service, "ROUTE", 3, 1).await;
    verdict("0.9", false, "insufficient_sandbox_trials").await;
    trials(&service, "ROUTE", 0, 1).await;
    verdict("0.9", false, "sandbox_success_rate_below_threshold").await;
    trials(&service, "ROUTE", 5, 0).await;
    verdict("0.9", true, "gate_pass").await;
}

#[tokio::test]
async fn a_recommendation_sent_twice_is_two_recommendations() {
    let service = Service::fresh().await;
    let first = recommend(&service, "D", "0.5").await;
    let second = recommend(&service, "D", "0.5").await;
    assert_ne!(first["id"], second["id"]);
    let list = service.get("/heimdall/recommendations").await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn recommendation_and_evidence_are_kept_as_written() {
    let service = Service::fresh().await;
    let recommendation = r#"{"z":1.50,"a":[1, 2],"big":12345678901234567890.123,"\u00fc":null}"#;
    let evidence = r#"{ "model" : "v2.1" }"#;
    let body = format!(
        r#"{{"domain":"D","confidence":0.5,"recommendation":{recommendation},"evidence":{evidence},"actor":"ai","correlation_id":"c-1"}}"#
    );
    let made = service.post_text(RECOMMEND, "application/json", &body).await.ok();
    let answer = service.get(&format!("/heimdall/recommendations/{}", made["id"])).await;
    let kept = format!(r#""recommendation":{recommendation},"evidence":{evidence},"#);
    assert!(answer.text.contains(&kept), "{}", answer.text);
    assert_eq!((&answer.json["actor"], &answer.json["correlation_id"]), (&json!("ai"), &json!("c-1")));
    // In a form the object is a string.
    let form = "domain=D&confidence=0.5&recommendation=%7B%22a%22%3A1.0%7D";
    let made = service.post_form(RECOMMEND, form).await.ok();
    let answer = service.get(&format!("/heimdall/recommendations/{}", made["id"])).await;
    assert!(answer.text.contains(r#""recommendation":{"a":1.0},"evidence":null"#), "{}", answer.text);
}

#[tokio::test]
async fn a_recommendation_keeps_the_policy_and_the_scorecard_it_was_judged_by() {
    let service = Service::fresh().await;
    let id = eligible(&service, "D").await;
    // Both move on; the verdict's copies do not.
    trials(&service, "D", 0, 2).await;
    service.post(UPSERT, &json!({"domain": "D", "prod_use_enabled": false})).await.ok();
    let kept = service.get(&format!("/heimdall/recommendations/{id}")).await.ok();
    assert_eq!((&kept["prod_eligible"], &kept["gate_reason"]), (&json!(true), &json!("gate_pass")));
    let policy = &kept["policy_snapshot"];
    assert_eq!(
        json!([policy["domain"], policy["min_sandbox_trials"], policy["prod_use_enabled"], policy["version"]]),
        json!(["D", 2, true, 1])
    );
    let card = &kept["scorecard_snapshot"];
    assert_eq!(
        json!([card["domain"], card["trials"], card["successes"], card["success_rate"], card["avg_confidence"]]),
        json!(["D", 2, 2, 1, 0.9])
    );
    // Without a policy there is nothing to keep of one.
    let made = recommend(&service, "NO_POLICY", "0.5").await;
    let kept = service.get(&format!("/heimdall/recommendations/{}", made["id"])).await.ok();
    assert_eq!(kept["policy_snapshot"], Value::Null);
    assert_eq!(kept["scorecard_snapshot"]["trials"], 0);
}

#[tokio::test]
async fn recommendations_are_listed_newest_first_and_filtered() {
    let service = Service::fresh().await;
    let passed = eligible(&service, "D").await;
    let failed = recommend(&service, "D", "0.1").await["id"].clone();
    let other = recommend(&service, "E", "0.1").await["id"].clone();
    for (filter, expected) in [
        ("", json!([other, failed, passed])),
        ("?domain=d", json!([failed, passed])),
        ("?prod_eligible=true", json!([passed])),
        ("?prod_eligible=no", json!([other, failed])),
        ("?domain=E&prod_eligible=1", json!([])),
        ("?domain=NOBODY", json!([])),
    ] {
        let page = service.get(&format!("/heimdall/recommendations{filter}")).await.ok();
        let ids: Vec<&Value> = page["items"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert_eq!((json!(ids), &page["next_cursor"]), (expected, &Value::Null), "{filter}");
    }
    for (filter, field) in
        [("domain=A+B", "domain"), ("prod_eligible=perhaps", "prod_eligible"), ("domian=D", "domian")]
    {
        service.get(&format!("/heimdall/recommendations?{filter}")).await.invalid(field);
    }
}

#[tokio::test]
async fn events_are_filtered_by_action_and_domain() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    require(&service, id).await.ok();
    trials(&service, "E", 1, 0).await;
    for (filter, count) in [
        ("", 5),
        ("&action=TRIAL", 3),
        ("&action=RECOMMEND", 1),
        ("&action=REQUIRE", 1),
        ("&domain=E", 1),
        ("&domain=E&action=REQUIRE", 0),
    ] {
        assert_eq!(events(&service, filter).await.len(), count, "{filter}");
    }
    service.get("/heimdall/events?action=GUESS").await.invalid("action");
}

#[tokio::test]
async fn a_recommendation_that_does_not_exist_is_404_and_not_an_event() {
    let service = Service::live().await;
    let before = service.events().await;
    // The trial has a sequence number and is no recommendation.
    trials(&service, "D", 1, 0).await;
    for id in [0, 1, 999, 1_000_000_000_000] {
        service.get(&format!("/heimdall/recommendations/{id}")).await.refused(404, "NOT_FOUND");
        require(&service, id).await.refused(404, "NOT_FOUND");
    }
    for id in ["abc", "-1", "1.5", "1000000000001"] {
        service.get(&format!("/heimdall/recommendations/{id}")).await.invalid("id");
    }
    assert_eq!(service.events().await, before + 1);
}
