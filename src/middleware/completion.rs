//! What was begun is finished: a change is not undone because its caller hung up or waited long enough.
//!
//! Without this, the server drops the work of a request whose connection closes: an operator whose `curl -m 1` gives up
//! would find the kill switch not engaged.

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

pub(super) async fn ensure(request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        // A panic goes on here, where the layer outside makes it a 500; tasks are not cancelled before the process ends.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
