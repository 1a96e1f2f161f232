//! A panic is the end of one request, or of one turn of a task, and not of what goes on around it. What it says is on standard error
//! already, by the panic hook.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// That a future panicked.
#[derive(Debug)]
pub(crate) struct Panicked;

/// The future's outcome, or that it panicked. Nothing of a future that panicked is looked at again; what it shares with
/// others is guarded by locks that know poisoning, or by the database.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(outcome)) => Poll::Ready(Ok(outcome)),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}
