//! What was begun is finished: a change is not undone because its caller hung up or waited long enough.
//!
//! Without this, the server drops the work of a request whose connection closes: an operator whose `curl -m 1` gives up
//! would find the kill switch not engaged. A task per change would do it, too; but nearly all callers wait, so the work runs
//! where it is waited for, and becomes a task only when the waiting ends first.

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;

/// Whether a request may change something.
pub(super) fn is_change(request: &Request) -> bool {
    matches!(*request.method(), Method::POST | Method::DELETE)
}

/// Work that goes on as a task of its own when nobody waits for it any more.
pub(super) struct Completing(Option<Pin<Box<dyn Future<Output = Response> + Send>>>);

impl Completing {
    /// The work must not panic: what panicked half-way is not continued (`panics` is inside).
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
        // Without a runtime the process is ending, and so does what it was doing.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}
