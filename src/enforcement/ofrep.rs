//! OFREP 0.3: the state as feature flags, for any OpenFeature SDK.
//!
//! The switch never blocks these routes: a client that is refused stops asking, and would miss the release. An unknown
//! flag instead has the safe value, with `reason` `UNKNOWN` and `stale` in its metadata. The flags have no targeting,
//! so the evaluation context is read but not used.
//!
//! | Flag | True when | Safe value |
//! |---|---|---|
//! | `prod_exec_allowed` | production work passes now | false |
//! | `kill_switch_engaged` | the kill switch is engaged, or this instance's kill file exists | true |
//! | `go_live_enabled` | go-live is enabled | false |
//! | `engine.<NAME>.enabled` | the engine's reserves can pass: enabled, and not throttled | false |
//! | `domain.<NAME>.prod_use_enabled` | the domain's recommendations may be used in production | false |

use super::feed::Policies;
use super::gate::{Source, View};
use super::outside::Outside;
use crate::db;
use crate::error::Error;
use crate::http::BODY_BYTES_MAX;
use crate::http::errors::ProblemBody;
use crate::http::input::read_body;
use crate::types::hex;
use crate::types::{Domain, Engine};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<Outside> {
    OpenApiRouter::new().routes(routes!(evaluate_flag)).routes(routes!(evaluate_flags))
}

/// The body of an evaluation. All of it is optional.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used: the body is read leniently")]
struct EvaluationRequest {
    /// The subject of the evaluation; the flags are the same for every subject.
    context: Option<serde_json::Map<String, Value>>,
}

/// A flag's value.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Evaluation {
    /// The flag's name.
    key: String,
    /// The flag's value.
    value: bool,
    /// `STATIC`; `UNKNOWN` if the state is not known and the value is the safe one.
    reason: &'static str,
    /// The value as a word.
    variant: &'static str,
    metadata: FlagMetadata,
}

/// The state behind a flag.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
struct FlagMetadata {
    /// Whether the state or the policies behind the flag are unknown or too old.
    stale: bool,
    /// The version of the go-live state; left out if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_version: Option<i64>,
}

/// The values of all flags.
#[derive(Debug, Serialize, ToSchema)]
struct Evaluations {
    flags: Vec<Evaluation>,
    metadata: FlagMetadata,
}

/// The error of an evaluation.
#[derive(Debug, Serialize, ToSchema)]
struct EvaluationFailure {
    /// The flag's name; left out if all flags were requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// `FLAG_NOT_FOUND`, `PARSE_ERROR`, `INVALID_CONTEXT` or `GENERAL`.
    #[serde(rename = "errorCode")]
    error_code: &'static str,
    /// The error as a sentence.
    #[serde(rename = "errorDetails")]
    error_details: String,
}

/// Evaluates one flag.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags/{key}", tag = "flags", request_body = Option<EvaluationRequest>,
    params(("key" = String, Path, description = "The flag", pattern = "^[A-Za-z0-9_.-]+$")),
    responses((status = 200, description = "The flag's value", body = Evaluation),
              (status = 400, description = "The body cannot be read, or the path is ambiguous",
               content((EvaluationFailure = "application/json"), (ProblemBody = "application/problem+json"))),
              (status = 404, description = "There is no such flag", body = EvaluationFailure),
              (status = 413, description = "The body is too large", body = EvaluationFailure))
)]
async fn evaluate_flag(
    State(outside): State<Outside>,
    key: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let Ok(Path(key)) = key else {
        let error_details = "the flag's name is not text".to_owned();
        let failure = EvaluationFailure { key: None, error_code: "GENERAL", error_details };
        return refused(StatusCode::BAD_REQUEST, failure);
    };
    if let Err(refused) = read_context(request, Some(&key)).await {
        return refused;
    }
    let (view, policies) = (outside.feed.view(), outside.feed.policies());
    if let Some(evaluation) = flag(&key, view, policies.as_deref()) {
        return ([(CACHE_CONTROL, "no-cache")], Json(evaluation)).into_response();
    }
    let failure = EvaluationFailure {
        error_details: format!("there is no flag {key}: see POST /ofrep/v1/evaluate/flags for all of them"),
        key: Some(key),
        error_code: "FLAG_NOT_FOUND",
    };
    refused(StatusCode::NOT_FOUND, failure)
}

fn refused(status: StatusCode, failure: EvaluationFailure) -> Response {
    (status, [(CACHE_CONTROL, "no-cache")], Json(failure)).into_response()
}

/// Evaluates every flag, with an `ETag` over all of them.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags", tag = "flags", request_body = Option<EvaluationRequest>,
    params(("If-None-Match" = Option<String>, Header, description = "The ETag of the last answer; 304 when nothing has changed")),
    responses((status = 200, description = "The flags' values", body = Evaluations),
              (status = 304, description = "Nothing has changed"),
              (status = 400, description = "The body cannot be read", body = EvaluationFailure),
              (status = 413, description = "The body is too large", body = EvaluationFailure))
)]
async fn evaluate_flags(State(outside): State<Outside>, headers: HeaderMap, request: Request) -> Response {
    if let Err(refused) = read_context(request, None).await {
        return refused;
    }
    let (view, policies) = (outside.feed.view(), outside.feed.policies());
    // The names are the last known ones: a flag that vanished would get the client's default.
    let last = outside.feed.last_policies();
    let names = ["prod_exec_allowed", "kill_switch_engaged", "go_live_enabled"].map(str::to_owned).into_iter();
    let (known, last) = (policies.as_deref(), last.as_deref());
    let engines = last.into_iter().flat_map(|all| &all.engines).map(|(name, _)| format!("engine.{name}.enabled"));
    let domains =
        last.into_iter().flat_map(|all| &all.domains).map(|(name, _)| format!("domain.{name}.prod_use_enabled"));
    let flags = names.chain(engines).chain(domains).filter_map(|key| flag(&key, view, known)).collect();
    let text = db::json_text(&Evaluations { flags, metadata: metadata(view) });
    // The tag covers the whole answer, since a lease that lapses changes values without a new version of the state.
    let tag = format!("\"{}\"", hex(&Sha256::digest(text.as_bytes())));
    let mut response = if matches(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, "application/json")], text).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}

/// Whether a client has this answer already. Proxies weaken tags and add suffixes for their encodings.
fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let bare = tag.trim_matches('"');
    headers.get_all(IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).any(
        |given| {
            let given = given.trim();
            let given = given.strip_prefix("W/").unwrap_or(given).trim_matches('"');
            given == "*"
                || given == bare
                || ["-gzip", "-br", "-zstd"].iter().any(|suffix| given.strip_suffix(suffix) == Some(bare))
        },
    )
}

/// Reads a body to its end, within the usual limits. An empty body is accepted, and every JSON object whose context, if
/// any, is an object.
async fn read_context(request: Request, key: Option<&str>) -> Result<(), Response> {
    let failure = |status, error_code, error_details: &str| {
        let (key, error_details) = (key.map(str::to_owned), error_details.to_owned());
        refused(status, EvaluationFailure { key, error_code, error_details })
    };
    let (parts, body) = request.into_parts();
    let bytes = read_body(&parts, body, BODY_BYTES_MAX).await.map_err(|error| match error {
        Error::BodyTooLarge { limit } => {
            let details = format!("the body is larger than {limit} bytes");
            failure(StatusCode::PAYLOAD_TOO_LARGE, "GENERAL", &details)
        }
        Error::Malformed(details) => failure(StatusCode::BAD_REQUEST, "PARSE_ERROR", &details),
        other => other.into_response(),
    })?;
    let text = bytes.trim_ascii();
    if text.is_empty() || text == b"null" {
        return Ok(());
    }
    if text.first() != Some(&b'{') && serde_json::from_slice::<IgnoredAny>(text).is_ok() {
        return Err(failure(StatusCode::BAD_REQUEST, "PARSE_ERROR", "the body is not a JSON object"));
    }
    match serde_json::from_slice::<Context>(text) {
        // The content is not used.
        Ok(Context { context: None }) => Ok(()),
        Ok(Context { context: Some(context) }) if context.get().starts_with('{') => Ok(()),
        Ok(_) => Err(failure(StatusCode::BAD_REQUEST, "INVALID_CONTEXT", "context is not a JSON object")),
        Err(error) => Err(failure(StatusCode::BAD_REQUEST, "PARSE_ERROR", &format!("the body is not JSON: {error}"))),
    }
}

/// The part of a body that is checked.
#[derive(Deserialize)]
struct Context {
    context: Option<Box<RawValue>>,
}

fn metadata(view: View) -> FlagMetadata {
    FlagMetadata { stale: matches!(view, View::Stale | View::Rewound), state_version: view.version() }
}

/// The flag with this name; none if it does not exist.
fn flag(key: &str, view: View, policies: Option<&Policies>) -> Option<Evaluation> {
    let metadata = metadata(view);
    let (go_live, killed) = match view {
        View::Fresh { go_live_enabled, kill_switch_engaged, .. } => (go_live_enabled, kill_switch_engaged),
        View::Killed | View::Stale | View::Rewound => (false, true),
    };
    // While the state or the policies are unknown, or the kill file stops this instance, every name that a policy may
    // have gets the safe value.
    let policies = policies.filter(|_| !metadata.stale && view != View::Killed);
    let are_unknown = policies.is_none() && view != View::Killed;
    let policy = |known: Option<&[(String, bool)]>, name: &str, is_name: bool| match known {
        Some(known) => known.iter().find(|(known, _)| known == name).map(|(_, on)| *on),
        None => is_name.then_some(false),
    };
    let (value, on, off, stale) = match key {
        "prod_exec_allowed" => (go_live && !killed, "allowed", "blocked", metadata.stale),
        "kill_switch_engaged" => (killed, "on", "off", metadata.stale),
        "go_live_enabled" => (go_live, "on", "off", metadata.stale),
        _ => {
            let engine = key.strip_prefix("engine.").and_then(|rest| rest.strip_suffix(".enabled"));
            let domain = key.strip_prefix("domain.").and_then(|rest| rest.strip_suffix(".prod_use_enabled"));
            let value = match (engine, domain) {
                (Some(name), _) => {
                    let is_name = name.parse::<Engine>().is_ok_and(|engine| engine.as_str() == name);
                    policy(policies.map(|all| &*all.engines), name, is_name)?
                }
                (_, Some(name)) => {
                    let is_name = name.parse::<Domain>().is_ok_and(|domain| domain.as_str() == name);
                    policy(policies.map(|all| &*all.domains), name, is_name)?
                }
                (None, None) => return None,
            };
            (value, "on", "off", are_unknown)
        }
    };
    let metadata = FlagMetadata { stale, ..metadata };
    let reason = if stale { "UNKNOWN" } else { "STATIC" };
    Some(Evaluation { key: key.to_owned(), value, reason, variant: if value { on } else { off }, metadata })
}
