//! The identity of a request: its id, taken from the caller or made, and always given back; and the last touch on every
//! answer, since an error's body repeats that id.

use crate::enforcement::near;
use crate::types::RequestId;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::response::Response;

/// Where a request's id is taken from and given back.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The facts of a request before anything was done about it.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) request_id: RequestId,
    pub(super) method: Method,
    uri: Uri,
}

impl Identity {
    /// Names the request; whoever handles it finds its [`RequestId`] among its extensions.
    pub(super) fn of(request: &mut Request) -> Self {
        let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
        let request_id = given.and_then(RequestId::from_header).unwrap_or_else(RequestId::generate);
        request.extensions_mut().insert(request_id.clone());
        Self { request_id, method: request.method().clone(), uri: request.uri().clone() }
    }

    /// The path as it was sent.
    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }

    /// The answer as the caller sees it: an error with its body, the id, what caches may do, and no body after HEAD.
    pub(super) fn render(self, response: Response) -> Response {
        let mut response = crate::http::render(response, self.path(), &self.request_id, near::missing);
        if self.method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        let length = response.body().size_hint().exact();
        let is_read = matches!(self.method, Method::GET | Method::HEAD);
        let headers = response.headers_mut();
        // Made of letters, digits, _ and -, so it is a header value.
        if let Ok(value) = HeaderValue::from_str(self.request_id.as_str()) {
            headers.insert(REQUEST_ID, value);
        }
        // State that a cache would serve after it changed is wrong state; the documents' own assets are exempt.
        if is_read && !self.uri.path().starts_with("/docs/") {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        // The router states the length of what it answers; this is for what was answered or rendered outside it.
        if let Some(length) = length
            && !headers.contains_key(CONTENT_LENGTH)
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }
}
