//! Everything between the socket and the gate, in one function.

pub mod access_log;
mod completion;
mod deadline;

use crate::error::Error;
use crate::types::RequestId;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

/// The id of a request, taken from the caller or made, and always given back.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The whole stack, outermost first, around the gated service:
///
/// 1. `identify`: names the request and renders error bodies. Outermost, so that every answer has an id and every error,
///    of whatever layer, has the same body.
/// 2. `access_log`: one line a request, and the metrics. Outside the panics, so that a panic is a logged 500.
/// 3. `catch_panic`: a panic is a 500 of one request.
/// 4. `deadline`: nobody is kept waiting for longer than that. Inside the log, outside the gate, so that it counts the
///    reading of the body.
/// 5. `completion`: what was begun is finished, also for a caller that hangs up. Inside the deadline, which only ends the
///    waiting.
///
/// The gate is inside all of this, and the router inside the gate.
pub fn stack(gated: Router) -> Router {
    gated
        .layer(from_fn(completion::ensure))
        .layer(from_fn(deadline::enforce))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| Error::Panicked.into_response()))
        .layer(from_fn(access_log::log))
        .layer(from_fn(identify))
}

async fn identify(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let request_id = given.and_then(RequestId::from_header).unwrap_or_else(RequestId::generate);
    let path = request.uri().path().to_owned();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_head = request.method() == Method::HEAD;
    request.extensions_mut().insert(request_id.clone());
    let mut response = crate::http::render(next.run(request).await, &path, &request_id);
    if is_head {
        *response.body_mut() = Body::empty();
    }
    let headers = response.headers_mut();
    // Made of letters, digits, _ and -, so it is a header value.
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
    // State that a cache would serve after it changed is wrong state; the documents' own assets are exempt.
    if is_read && !path.starts_with("/docs/") {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
