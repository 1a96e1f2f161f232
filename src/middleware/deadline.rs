//! Limits the time that a caller waits. A change that was begun goes on (`completion`); a read is dropped.
//!
//! The limits of a change lie inside each other: 4 s for the head of a stream (`db::session`), 4.5 s for a batch until
//! its commit, 5 s for the answer to it, and 5 s in the queue (`group_commit`); 10 s for the request.

use crate::error::Error;
use axum::response::{IntoResponse, Response};
use std::future::Future;
use std::time::Duration;

/// How long a request may take, its body included. Longer than every limit inside it: connection 5 s, statement 5 s.
const DEADLINE: Duration = Duration::from_secs(10);

/// The time for a request that reads everything. One such request is admitted at a time, so it delays no other.
const LONG: Duration = Duration::from_mins(2);
const LONG_PATHS: [&str; 4] = [
    "/api/governance/audit/verify",
    "/api/governance/audit/checkpoint",
    "/api/governance/regression/backtest",
    "/api/governance/risk/reconciliation",
];

/// The time that a request of this path may take.
pub(super) fn of(path: &str) -> Duration {
    if LONG_PATHS.contains(&path) { LONG } else { DEADLINE }
}

pub(super) async fn enforce(deadline: Duration, work: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(deadline, work).await {
        Ok(response) => response,
        Err(_) => Error::DeadlineExceeded(deadline.as_secs()).into_response(),
    }
}
