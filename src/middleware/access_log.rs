//! One line a request, after it was answered, and its metrics. Labels are route templates, never raw paths: a scanner must
//! not be able to fill a metrics store.

use crate::clock::Clock;
use crate::error::Problem;
use crate::types::RequestId;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;

/// The route template, as the innermost router found it; it travels out with the response.
#[derive(Debug, Clone)]
pub struct Route(pub MatchedPath);

pub(super) async fn log(request: Request, next: Next) -> Response {
    let clock = Clock::system();
    let started_ms = clock.now_ms();
    let method = request.method().clone();
    let path = crate::http::bounded(request.uri().path()).to_owned();
    let request_id = request.extensions().get::<RequestId>().cloned();
    let response = next.run(request).await;
    let elapsed_ms = clock.now_ms() - started_ms;
    let status = response.status().as_u16();
    let code = response.extensions().get::<Problem>().map(|problem| problem.code);
    let route = response.extensions().get::<Route>().map_or("none", |Route(route)| route.as_str()).to_owned();

    // A method of the caller's invention is no label.
    let method_label = if ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].contains(&method.as_str()) {
        method.as_str().to_owned()
    } else {
        "OTHER".to_owned()
    };
    let labels = [("route", route.clone()), ("method", method_label), ("status", status.to_string())];
    metrics::counter!("holdfast_http_requests_total", &labels).increment(1);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of one request are far below 2^52")]
    metrics::histogram!("holdfast_http_request_seconds", "route" => route.clone()).record(elapsed_ms as f64 / 1_000.0);
    // Strings are written quoted and escaped, in text as in JSON: a field cannot forge a line.
    tracing::info!(
        target: "holdfast::access",
        method = method.as_str(),
        path,
        route,
        status,
        error = code,
        elapsed_ms,
        request_id = request_id.as_ref().map(RequestId::as_str),
        "request"
    );
    response
}

/// Puts the route template on the response; mounted inside the router, where the template is known.
pub async fn note_route(matched: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(matched) = matched {
        response.extensions_mut().insert(Route(matched));
    }
    response
}
