//! Nobody is kept waiting for longer than anybody waits. A change that was begun goes on (`completion`); a read is dropped.

use crate::error::Error;
use axum::response::{IntoResponse, Response};
use std::future::Future;
use std::time::Duration;

/// How long a request may take, its body included. Longer than every limit inside it: connection 5 s, statement 5 s.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn enforce(work: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(response) => response,
        Err(_) => Error::DeadlineExceeded(DEADLINE.as_secs()).into_response(),
    }
}
