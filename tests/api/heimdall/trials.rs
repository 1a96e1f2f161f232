//! Trials and the day's scorecard.

use super::{TRIAL, UPSERT, card, events, of, open_gate, recommend, trials};
use crate::support::Service;
use serde_json::{Value, json};

#[tokio::test]
async fn a_trial_is_counted_and_answered_with_its_scorecard() {
    let service = Service::fresh().await;
    let body =
        json!({"domain": "BUYER_MATCH", "confidence": 0.8, "success": true, "actor": "ai", "correlation_id": "run-1"});
    let first = service.post(TRIAL, &body).await.ok();
    assert_eq!(
        first,
        json!({
            "day": first["day"], "from": first["day"], "domain": "BUYER_MATCH", "model_version": null, "trials": 1, "successes": 1,
            "success_rate": 1, "avg_confidence": 0.8,
            "calibration": {"overconfidence": -0.2, "overconfidence_z": -0.5, "brier_score": 0.04},
            "updated_at": first["updated_at"],
        })
    );
    let event = &events(&service, "").await[0];
    let seen = ["domain", "action", "ok", "confidence", "success", "actor", "correlation_id", "recommendation_id"]
        .map(|member| event[member].clone());
    assert_eq!(json!(seen), json!(["BUYER_MATCH", "TRIAL", true, 0.8, true, "ai", "run-1", null]));
}

#[tokio::test]
async fn a_trial_sent_twice_is_two_trials() {
    let service = Service::fresh().await;
    trials(&service, "D", 2, 1).await;
    let card = card(&service, "D").await;
    assert_eq!((&card["trials"], &card["successes"]), (&json!(3), &json!(2)));
    assert_eq!(card["success_rate"], json!(0.666_666_666_667));
    assert_eq!(events(&service, "&action=TRIAL").await.len(), 3);
}

#[tokio::test]
async fn rates_are_exact_sums_divided_once() {
    let service = Service::fresh().await;
    for number in 0..75 {
        let body = json!({"domain": "WHOLESALE_OFFER", "confidence": 0.9, "success": number < 65});
        service.post(TRIAL, &body).await.ok();
    }
    let text = service.get("/heimdall/scorecard/today").await.text;
    // 65/75, and 75 times 0.9 without the drift of a float sum.
    assert!(
        text.contains(r#""trials":75,"successes":65,"success_rate":0.866666666667,"avg_confidence":0.9,"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_doubles_seventeen_digits_are_taken_as_written() {
    let service = Service::fresh().await;
    for confidence in ["0.8666666666666667", "0.30000000000000004", "0.333333333333333333"] {
        let body = format!(r#"{{"domain":"D","confidence":{confidence},"success":true}}"#);
        let answer = service.post_text(TRIAL, "application/json", &body).await;
        answer.ok();
    }
    let sum: String = sqlx::query_scalar("SELECT confidence_sum::text FROM heimdall_scorecard_day")
        .fetch_one(&service.pool)
        .await
        .unwrap();
    assert_eq!(sum, "1.500000000000000073");
    let text = service.get("/heimdall/events").await.text;
    for confidence in ["0.8666666666666667,", "0.30000000000000004,", "0.333333333333333333,"] {
        let member = format!(r#""confidence":{confidence}"#);
        assert!(text.contains(&member), "{member} in {text}");
    }
    assert_eq!(card(&service, "D").await["avg_confidence"], json!(0.5));
}

#[tokio::test]
async fn domains_are_one_in_any_case_and_trimmed() {
    let service = Service::fresh().await;
    for domain in ["buyer_match", " Buyer_Match ", "BUYER_MATCH"] {
        let body = json!({"domain": domain, "confidence": 0.9, "success": true});
        service.post(TRIAL, &body).await.ok();
    }
    assert_eq!(card(&service, "BUYER_MATCH").await["trials"], 3);
    let on = json!({"domain": "buyer_match", "prod_use_enabled": true});
    service.post(UPSERT, &on).await.ok();
    let made = recommend(&service, "buyer_Match", "0.95").await;
    assert_eq!(made["domain"], "BUYER_MATCH");
    assert_eq!(made["gate_reason"], "insufficient_sandbox_trials");
    assert_eq!(events(&service, "&domain=buyer_match").await.len(), 4);
    assert_eq!(service.get("/heimdall/policies").await.ok().as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn the_scorecard_lists_every_policy_and_every_domain_with_trials() {
    let service = Service::fresh().await;
    trials(&service, "AAA_NO_POLICY", 1, 0).await;
    let cards = service.get("/heimdall/scorecard/today").await.ok();
    let domains: Vec<&Value> = cards.as_array().unwrap().iter().map(|card| &card["domain"]).collect();
    assert_eq!(
        json!(domains),
        json!(["AAA_NO_POLICY", "BUYER_MATCH", "CAPITAL_ROUTE", "FOLLOWUP_NEXT_ACTION", "WHOLESALE_OFFER"])
    );
    let idle = of(&cards, "CAPITAL_ROUTE");
    assert_eq!(
        idle,
        json!({
            "day": idle["day"], "from": idle["day"], "domain": "CAPITAL_ROUTE", "model_version": null, "trials": 0, "successes": 0,
            "success_rate": 0, "avg_confidence": 0,
            "calibration": {"overconfidence": null, "overconfidence_z": null, "brier_score": null}, "updated_at": null,
            "gate": idle["gate"],
        })
    );
}

#[tokio::test]
async fn midnight_closes_the_gate_until_new_trials_arrive() {
    let service = Service::fresh().await;
    open_gate(&service, "D").await;
    assert_eq!(recommend(&service, "D", "0.95").await["gate_reason"], "gate_pass");
    let today = card(&service, "D").await["day"].clone();
    service.set_skew("1 day").await;
    let tomorrow = card(&service, "D").await;
    assert_ne!(tomorrow["day"], today);
    assert_eq!((&tomorrow["trials"], &tomorrow["updated_at"]), (&json!(0), &Value::Null));
    let closed = recommend(&service, "D", "0.95").await;
    assert_eq!(closed["gate_reason"], "insufficient_sandbox_trials");
    trials(&service, "D", 2, 0).await;
    assert_eq!(recommend(&service, "D", "0.95").await["gate_reason"], "gate_pass");
}
