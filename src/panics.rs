//! Contains a panic: it ends one request, or one turn of a task, and nothing around it. The panic hook has already
//! logged its message.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// How long a task that panicked waits before it starts again, since it may panic again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// The error of a future that panicked.
#[derive(Debug)]
pub(crate) struct Panicked;

/// The future's outcome, or that it panicked. A future that panicked is never used again. Its shared values are guarded
/// by locks that know poisoning, or by the database.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(outcome)) => Poll::Ready(Ok(outcome)),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

/// The closure's result, or that it panicked.
pub(crate) fn caught_now<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| Panicked)
}

/// Keeps an endless task running: one that panicked starts again. `task` is its name in the log.
pub(crate) async fn kept_running<F: Future<Output = ()>>(task: &'static str, begin: impl Fn() -> F) -> Infallible {
    loop {
        let why = caught(begin()).await.map_or("it panicked", |()| "it ended, which it never should");
        tracing::error!(task, why, "a task starts again");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_task_that_panicked_begins_anew() {
        let (begun, third) = (AtomicU32::new(0), Notify::new());
        let running = kept_running("test", || async {
            match begun.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("a value that cannot be read"),
                1 => {}
                _ => third.notify_one(),
            }
        });
        tokio::select! {
            never = running => match never {},
            () = third.notified() => {}
        }
    }
}
