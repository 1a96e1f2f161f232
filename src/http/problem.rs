//! Errors on their way out: RFC 9457 bodies with the request's id, from whichever layer they come.

use crate::error::{Error, Problem};
use crate::types::{RequestId, bounded};
use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::ser::{SerializeMap, Serializer};

/// The prefix of a problem's type; the code follows, lower case with hyphens.
const TYPE_PREFIX: &str = "urn:holdfast:problem:";

/// Gives an error response its body. A response that is not an error, or already has a body, is unchanged. `missing`
/// may explain a path without a route.
pub fn render(
    response: Response,
    path: &str,
    request_id: &RequestId,
    missing: impl FnOnce(&str) -> Option<String>,
) -> Response {
    let (mut parts, body) = response.into_parts();
    let problem = match parts.extensions.remove::<Problem>() {
        Some(problem) => problem,
        // The router's own refusals, and an unknown method.
        None if parts.status == StatusCode::NOT_FOUND && !parts.headers.contains_key(CONTENT_TYPE) => {
            Error::RouteNotFound.problem()
        }
        None if parts.status == StatusCode::METHOD_NOT_ALLOWED && !parts.headers.contains_key(CONTENT_TYPE) => {
            Error::MethodNotAllowed.problem()
        }
        None => return Response::from_parts(parts, body),
    };
    let mut problem = problem;
    if let Some(methods) = parts.headers.get(ALLOW).and_then(|value| value.to_str().ok()) {
        problem.detail = format!("this route does not accept that method: send {methods}");
    }
    if problem.row.code == Error::RouteNotFound.row().code
        && let Some(detail) = missing(path)
    {
        problem.detail = detail;
    }
    let text = body_text(&problem, path, request_id);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    parts.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (parts, Body::from(text)).into_response()
}

fn body_text(problem: &Problem, path: &str, request_id: &RequestId) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::new(&mut text);
    let written = serializer.serialize_map(None).and_then(|mut map| {
        let kind = format!("{TYPE_PREFIX}{}", problem.row.code.to_ascii_lowercase().replace('_', "-"));
        map.serialize_entry("type", &kind)?;
        map.serialize_entry("title", problem.row.title)?;
        map.serialize_entry("status", &problem.status.as_u16())?;
        map.serialize_entry("detail", &problem.detail)?;
        map.serialize_entry("instance", bounded(path))?;
        map.serialize_entry("error", problem.row.code)?;
        map.serialize_entry("request_id", request_id.as_str())?;
        for (name, value) in &problem.extensions {
            map.serialize_entry(name, value)?;
        }
        map.end()
    });
    written.expect("a problem consists of text and JSON");
    text
}
