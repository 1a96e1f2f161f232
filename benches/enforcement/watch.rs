//! A load on every instance that remembers what was admitted when, by the wall clock: the one that `guaranteed_by` is told in.

use crate::Result;
use crate::fleet::admits;
use crate::http::Connection;
use crate::support::all;
use chrono::{DateTime, Utc};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Connections to each instance.
const CONNECTIONS: usize = 4;
/// Between an answer and the next request: thousands a second in all, which leaves the machine to the fault.
const PAUSE: Duration = Duration::from_millis(1);
/// Before a connection that broke is opened again.
const REOPEN: Duration = Duration::from_millis(5);
/// How long the last answers may take.
const DRAIN: Duration = Duration::from_secs(15);

/// The time of day. PostgreSQL runs on this machine, so its clock is the same one.
#[expect(clippy::disallowed_methods, reason = "what guaranteed_by promises is compared with the wall clock")]
pub(crate) fn wall() -> DateTime<Utc> {
    Utc::now()
}

/// Waits until the wall clock says so.
pub(crate) async fn sleep_until(at: DateTime<Utc>) {
    while let Ok(left) = (at - wall()).to_std() {
        tokio::time::sleep(left.max(PAUSE)).await;
    }
}

/// A running load.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<Seen>>,
}

/// When the requests were sent that were answered.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    admitted: Vec<DateTime<Utc>>,
    refused: Vec<DateTime<Utc>>,
}

impl Watch {
    pub(crate) fn start(instances: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for addr in instances {
            for _ in 0..CONNECTIONS {
                tasks.spawn(ask(*addr, Arc::clone(&stop)));
            }
        }
        Self { stop, tasks }
    }

    /// Ends it, with the answers to all that was sent.
    pub(crate) async fn end(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = tokio::time::timeout(DRAIN, all(self.tasks)).await;
        let mut seen = Seen::default();
        for one in ended.map_err(|_| "an instance does not answer any more")?? {
            seen.admitted.extend(one.admitted);
            seen.refused.extend(one.refused);
        }
        Ok(seen)
    }
}

/// One connection. A request has no limit of time: what a paused instance answers when it goes on counts, too.
async fn ask(addr: SocketAddr, stop: Arc<AtomicBool>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut connection = Connection::open(addr).await?;
    while !stop.load(Ordering::Relaxed) {
        let sent = wall();
        match admits(&mut connection).await {
            Ok(true) => seen.admitted.push(sent),
            Ok(false) => seen.refused.push(sent),
            // A connection that broke says nothing about the state; an answer that is neither is not expected.
            Err(error) if error.is::<std::io::Error>() => {
                while connection.reopen().await.is_err() && !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(REOPEN).await;
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(seen)
}

impl Seen {
    /// Admissions of requests that were sent after an instant.
    pub(crate) fn admitted_after(&self, at: DateTime<Utc>) -> usize {
        self.admitted.iter().filter(|sent| **sent > at).count()
    }

    pub(crate) fn refused_after(&self, at: DateTime<Utc>) -> usize {
        self.refused.iter().filter(|sent| **sent > at).count()
    }

    /// Admissions in all.
    pub(crate) fn admitted(&self) -> usize {
        self.admitted.len()
    }

    /// When the last request was sent that was admitted.
    pub(crate) fn last_admission(&self) -> Option<DateTime<Utc>> {
        self.admitted.iter().max().copied()
    }
}
