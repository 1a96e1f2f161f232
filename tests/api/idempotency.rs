//! One intent, one effect: the same key and input is done once and answered alike, whatever the route; another input under
//! the key is refused by name; what had no effect is not kept; and what is kept is forgotten after a week.

mod batch;
mod forgotten;
mod kept;
mod key;
mod routes;
mod switches;
mod twins;

use crate::support::{Answer, Service, as_first};
use axum::http::HeaderMap;
use serde_json::{Value, json};

const RESERVE: &str = "/risk/check-and-reserve";
const TRIAL: &str = "/heimdall/sandbox/trial";
const KPI: &str = "/regression/kpi";
const UPSERT: &str = "/risk/policies/upsert";
const ENABLE: &str = "/go-live/enable";

/// `POST` of JSON under a key, given as the header.
#[track_caller]
fn keyed(service: &Service, path: &str, key: &str, body: &Value) -> impl Future<Output = Answer> + use<> {
    service.post_with(path, ("idempotency-key", key), body)
}

/// Whether an answer says that it is an earlier one.
fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// The headers that are the same whenever the same is answered: all but the request's own id, the mark of a replay, and the
/// length, which is the body's.
fn own_headers(answer: &Answer) -> HeaderMap {
    let mut headers = answer.headers.clone();
    for own in ["x-request-id", "idempotent-replayed", "content-length"] {
        headers.remove(own);
    }
    headers
}

/// Expects an answer that is no replay.
#[track_caller]
fn done(answer: Answer) -> Value {
    assert!(!is_replay(&answer), "{}", answer.text);
    answer.ok()
}

/// Expects the earlier answer, to the letter but for what it says of itself.
#[track_caller]
fn replayed(answer: Answer, first: &Value) {
    assert!(is_replay(&answer), "{}", answer.text);
    assert_eq!(as_first(&answer.ok()), as_first(first));
}

/// The fields that errors name.
fn named(errors: &Value) -> Vec<String> {
    let errors = errors.as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["field"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Expects the refusal of a key that stands for something else, naming exactly these fields.
#[track_caller]
fn reused(answer: Answer, fields: &[&str]) {
    assert!(!is_replay(&answer));
    let body = answer.refused(422, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(named(&body["errors"]), fields, "{body}");
}

/// How many keys are kept.
async fn kept_keys(service: &Service) -> i64 {
    service.count("SELECT count(*) FROM idempotency_key").await
}

/// A reserve that there is room for.
fn reserve_of(amount: i64) -> Value {
    json!({"engine": "WHOLESALE", "amount": amount, "actor": "sender"})
}

fn trial_of(domain: &str) -> Value {
    json!({"domain": domain, "confidence": 0.9, "success": true})
}
