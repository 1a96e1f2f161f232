//! Inputs that are refused, with the field and the fix.

use super::{RECOMMEND, TRIAL, UPSERT};
use crate::support::Service;
use serde_json::json;

/// A body and the field that is wrong with it.
pub(super) type Refused = (&'static str, &'static str);

pub(super) const BAD_UPSERTS: &[Refused] = &[
    ("{}", "domain"),
    (r#"{"domain":" "}"#, "domain"),
    (r#"{"domain":"A B"}"#, "domain"),
    (r#"{"domain":"D","min_confidence_prod":1.1}"#, "min_confidence_prod"),
    (r#"{"domain":"D","min_confidence_prod":-0.1}"#, "min_confidence_prod"),
    (r#"{"domain":"D","min_confidence_prod":0.1234567}"#, "min_confidence_prod"),
    (r#"{"domain":"D","min_sandbox_success_rate":1.000001}"#, "min_sandbox_success_rate"),
    (r#"{"domain":"D","min_sandbox_trials":-1}"#, "min_sandbox_trials"),
    (r#"{"domain":"D","min_sandbox_trials":1.5}"#, "min_sandbox_trials"),
    (r#"{"domain":"D","prod_use_enabled":"maybe"}"#, "prod_use_enabled"),
    (r#"{"domain":"D","min_trials":5}"#, "min_trials"),
];

const BAD_TRIALS: &[Refused] = &[
    (r#"{"confidence":0.5,"success":true}"#, "domain"),
    (r#"{"domain":"D","success":true}"#, "confidence"),
    (r#"{"domain":"D","confidence":0.5}"#, "success"),
    (r#"{"domain":"D","confidence":0.5,"success":2}"#, "success"),
    (r#"{"domain":"D","confidence":0.5,"success":true,"x":1}"#, "x"),
];

const BAD_RECOMMENDATIONS: &[Refused] = &[
    (r#"{"domain":"D"}"#, "confidence"),
    (r#"{"domain":"D","confidence":0.5,"recommendation":[1]}"#, "recommendation"),
    (r#"{"domain":"D","confidence":0.5,"recommendation":"buy"}"#, "recommendation"),
    (r#"{"domain":"D","confidence":0.5,"evidence":{"a":{"b":1,"b":2}}}"#, "evidence"),
];

#[tokio::test]
async fn a_refused_input_names_its_field_and_leaves_no_trace() {
    let service = Service::fresh().await;
    let state = async || {
        (
            service.events().await,
            service.get("/heimdall/policies").await.ok(),
            service.get("/heimdall/scorecard/today").await.ok(),
        )
    };
    let before = state().await;
    for (path, cases) in [(UPSERT, BAD_UPSERTS), (TRIAL, BAD_TRIALS), (RECOMMEND, BAD_RECOMMENDATIONS)] {
        for (body, field) in cases {
            let answer = service.post_text(path, "application/json", body).await;
            assert!(!answer.invalid(field).is_empty(), "{path} {body}");
        }
    }
    let too_long = [
        (UPSERT, json!({"domain": "D".repeat(81)}), "domain"),
        (UPSERT, json!({"domain": "D", "reason": "r".repeat(1001)}), "reason"),
        (RECOMMEND, json!({"domain": "D", "confidence": 0.5, "evidence": {"text": "x".repeat(16 * 1024)}}), "evidence"),
    ];
    for (path, body, field) in too_long {
        service.post(path, &body).await.invalid(field);
    }
    assert_eq!(state().await, before);
}

#[tokio::test]
async fn more_trials_than_the_table_holds_are_refused_with_the_field_named() {
    let service = Service::fresh().await;
    // The column's limit; one more must be a 422, not a constraint that speaks as a 500.
    let most = json!({"domain": "D", "min_sandbox_trials": 1_000_000_000});
    service.post(UPSERT, &most).await.ok();
    for count in ["1000000001", "1000000000000"] {
        let body = format!(r#"{{"domain":"D","min_sandbox_trials":{count}}}"#);
        let answer = service.post_text(UPSERT, "application/json", &body).await;
        answer.invalid("min_sandbox_trials");
    }
}

#[tokio::test]
async fn confidences_beyond_their_bounds_are_refused_with_the_fix() {
    let service = Service::fresh().await;
    let cases = [
        ("1.000000000000000001", "is more than 1: send a number from 0 to 1"),
        ("1.5", "is more than 1: send a number from 0 to 1"),
        ("-0.1", "is -0.1, which is less than 0: send a number from 0 to 1"),
        ("-0", "is minus zero: send 0"),
        ("-0.0", "is minus zero: send 0"),
        ("0.1234567890123456789", "has 19 decimals, at most 18: round it, or send \"0.123456789012345679\""),
        ("1e-19", "has 19 decimals, at most 18: round it, or send \"0.000000000000000001\""),
        ("\"high\"", "is not a plain decimal number: send digits, for example 400 or \"0.3\""),
    ];
    for (confidence, sentence) in cases {
        for path in [TRIAL, RECOMMEND] {
            let success = if path == TRIAL { r#","success":true"# } else { "" };
            let body = format!(r#"{{"domain":"D","confidence":{confidence}{success}}}"#);
            let answer = service.post_text(path, "application/json", &body).await;
            assert_eq!(answer.invalid("confidence"), sentence, "{path} {confidence}");
        }
    }
    assert_eq!(service.events().await, 0);
}
