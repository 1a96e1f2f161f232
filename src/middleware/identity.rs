//! The identity of a request, and the final rendering of every answer. The id comes from the caller or is generated;
//! every answer returns it, and an error's body repeats it.

use crate::enforcement::near;
use crate::types::RequestId;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::response::Response;

/// The header that carries a request's id, in the request and in the answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The facts of a request that are needed to render its answer.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) request_id: RequestId,
    pub(super) method: Method,
    uri: Uri,
}

impl Identity {
    /// Names the request, and puts its [`RequestId`] into its extensions for the handler.
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

    /// Renders the answer for the caller: a body for an error, the id, the rule for caches, and no body after HEAD.
    pub(super) fn render(self, response: Response) -> Response {
        let mut response = crate::http::render(response, self.path(), &self.request_id, near::missing);
        if self.method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        let length = response.body().size_hint().exact();
        let is_read = matches!(self.method, Method::GET | Method::HEAD);
        let headers = response.headers_mut();
        // The id consists of letters, digits, _ and -, so it is a header value.
        if let Ok(value) = HeaderValue::from_str(self.request_id.as_str()) {
            headers.insert(REQUEST_ID, value);
        }
        // A cache could serve a state after it changed, so answers are not cached. The files of the documentation are
        // exempt.
        if is_read && !self.uri.path().starts_with("/docs/") {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        // The router states the length of its own answers. This adds it to answers that were made or rendered outside
        // it.
        if let Some(length) = length
            && !headers.contains_key(CONTENT_LENGTH)
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }
}
