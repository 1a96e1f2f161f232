//! An answer, read whole. What it claims to be is checked whenever it is read.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::Value;
use std::panic::Location;
use tokio::task::JoinHandle;

#[must_use]
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    /// The body as JSON; null where it is none.
    pub json: Value,
    caller: &'static Location<'static>,
}

impl Answer {
    pub async fn read(response: Response, caller: &'static Location<'static>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("the body can be read").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("the body is UTF-8");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        assert!(parts.headers.contains_key("x-request-id"), "an answer without a request id: {caller}");
        if parts.status.is_client_error() || parts.status.is_server_error() {
            let content_type = parts.headers.get("content-type").map(|value| value.to_str().unwrap());
            // readyz and OFREP say why in their own bodies.
            if json.get("ready").is_none() && json.get("errorCode").is_none() && !text.is_empty() {
                assert_eq!(content_type, Some("application/problem+json"), "{caller}: {text}");
                assert_eq!(json["status"], parts.status.as_u16(), "{caller}");
                for member in ["type", "title", "detail", "instance", "error", "request_id"] {
                    assert!(json[member].is_string(), "{caller}: no {member} in {text}");
                }
            }
        }
        Self { status: parts.status, headers: parts.headers, text, json, caller }
    }

    /// Expects 200 and gives the body.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "called at {}: {}", self.caller, self.text);
        self.json
    }

    /// Expects this status and stable code, and gives the body.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status.as_u16(), self.json["error"].as_str()),
            (status, Some(code)),
            "called at {}: {}",
            self.caller,
            self.text
        );
        self.json
    }

    /// Expects 422 with this field named, and gives the sentence.
    #[track_caller]
    pub fn invalid(self, field: &str) -> String {
        let caller = self.caller;
        let body = self.refused(422, "VALIDATION_FAILED");
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        let named = errors.iter().find(|error| error["field"] == field);
        named.unwrap_or_else(|| panic!("{field} is not named at {caller}: {body}"))["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// An answer without what says that it is told again, and how the hold stands at that time. A number is the status of an answer.
pub fn as_first(answer: &Value) -> Value {
    match answer {
        Value::Object(members) => {
            let present = |name: &str, value: &Value| match name {
                "replayed" | "expires_in_seconds" | "hint" => true,
                "status" | "hold_status" => !value.is_number(),
                _ => false,
            };
            let kept = members.iter().filter(|(name, value)| !present(name, value));
            kept.map(|(name, value)| (name.clone(), as_first(value))).collect()
        }
        Value::Array(list) => list.iter().map(as_first).collect(),
        other => other.clone(),
    }
}

/// The answers of requests that run, in this order.
pub async fn all(running: Vec<JoinHandle<Answer>>) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(running.len());
    for one in running {
        answers.push(one.await.unwrap());
    }
    answers
}
