//! Finishes every change that was begun, also when its caller hangs up or the deadline passes.
//!
//! Without this, the server drops the work of a request whose connection closes: an operator whose `curl -m 1` gives up
//! would find the kill switch not engaged. A task per change would also do, but nearly all callers wait. So the work
//! runs in the waiting future, and becomes a task only when the waiting ends first.

use crate::enforcement::routes;
use crate::http::places::Share;
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;

/// Whether a request goes on without its caller, as every change does. The backtest, a POST that takes a place of the
/// reads, ends with its caller as every read does. Evaluations of flags and checks for proxies go on: they read memory
/// alone.
pub(super) fn is_change(request: &Request) -> bool {
    let (method, path) = (request.method(), request.uri().path());
    // The only POST among the reads has no parameter in its path.
    let is_read = || routes::route(method, path).is_some_and(|row| row.share == Share::Read);
    matches!(*method, Method::POST | Method::DELETE) && !is_read()
}

/// Work that goes on as a task of its own after the waiting for it ended.
pub(super) struct Completing(Option<Pin<Box<dyn Future<Output = Response> + Send>>>);

impl Completing {
    /// The work must not panic, since work that panicked half-way cannot continue (`panics` is inside).
    pub(super) fn new(work: impl Future<Output = Response> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl Future for Completing {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        let work = self.0.as_mut().expect("a future is not polled again after it was ready");
        let response = ready!(work.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(response)
    }
}

impl Drop for Completing {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the work ends with it.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforcement::routes::ROUTES;

    #[test]
    fn no_read_goes_on_without_its_caller_and_every_change_does() {
        for row in ROUTES {
            let Some(method) = &row.method else { continue };
            let path = row.template.replace("{id}", "7").replace("{key}", "x").replace("{*rest}", "a.css");
            let request = Request::builder().method(method).uri(&path).body(axum::body::Body::empty()).unwrap();
            let is_read = matches!(row.share, Share::Read | Share::Probe);
            assert_eq!(is_change(&request), !is_read, "{method} {path}");
        }
    }
}
