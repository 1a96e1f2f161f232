//! Nobody is kept waiting for longer than anybody waits. A change that was begun goes on (`completion`); a read is dropped.

use crate::error::Error;
use axum::response::{IntoResponse, Response};
use std::future::Future;
use std::time::Duration;

/// How long a request may take, its body included. Longer than every limit inside it: connection 5 s, statement 5 s.
const DEADLINE: Duration = Duration::from_secs(10);

/// The same of a request that reads everything; one at a time is let in, so that it holds up nobody else.
const LONG: Duration = Duration::from_mins(2);
const LONG_PATHS: [&str; 4] = [
    "/api/governance/audit/verify",
    "/api/governance/audit/checkpoint",
    "/api/governance/regression/backtest",
    "/api/governance/risk/reconciliation",
];

/// How long a request of this path may take.
pub(super) fn of(path: &str) -> Duration {
    if LONG_PATHS.contains(&path) { LONG } else { DEADLINE }
}

pub(super) async fn enforce(deadline: Duration, work: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(deadline, work).await {
        Ok(response) => response,
        Err(_) => Error::DeadlineExceeded(deadline.as_secs()).into_response(),
    }
}
