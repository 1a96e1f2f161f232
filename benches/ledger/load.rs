//! The load generator: any number of connections on one thread, in a closed or an open loop.
//!
//! Closed: every connection asks again as soon as it was answered; what is measured is how much gets through. Open: operations
//! are due at a fixed rate, whatever the answers do; latency counts from the moment an operation was **due**, so that a stall is
//! counted for everything that it kept waiting, not only for what was already sent ("coordinated omission").

use crate::Result;
use crate::http::Connection;
use crate::latencies::Latencies;
use crate::script::{Counts, Script, Work};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long the last answers may take after the measurement; more than the service's own deadline.
const DRAIN: Duration = Duration::from_secs(25);

/// The rule by which an operation is due.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// The answer to the one before.
    Closed,
    /// The clock: so many a second.
    Open { per_second: f64 },
}

/// A measurement to do.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// The connections are spread over these evenly.
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) connections: usize,
    pub(crate) work: Work,
    pub(crate) pace: Pace,
    /// Before it counts.
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Whether every granted id is kept, to be looked up in the ledger.
    pub(crate) keep_ids: bool,
}

/// The measurements.
#[derive(Debug)]
pub(crate) struct Tally {
    /// In the time that counts.
    pub(crate) measured: Counts,
    /// From the first request on: what the ledger has to hold.
    pub(crate) all: Counts,
    /// Of the operations that count; of a lifecycle, both requests together; of a batch, the call.
    pub(crate) latencies: Latencies,
    /// Operations that were due while it counted, each of which was done, however late; in a closed loop, those that ended then.
    pub(crate) offered: u64,
    /// How long it took until all that was measured was answered.
    pub(crate) elapsed: Duration,
    pub(crate) ids: Vec<u128>,
    /// An answer that nobody expected.
    pub(crate) strange: Option<String>,
}

/// When operations are due, for all connections together.
#[derive(Debug)]
struct Schedule {
    pace: Pace,
    begin: Instant,
    from: Instant,
    to: Instant,
    taken: AtomicU64,
}

impl Schedule {
    /// Waits for the next operation; `None` after the last.
    async fn next(&self) -> Option<Instant> {
        match self.pace {
            Pace::Closed => Some(Instant::now()).filter(|now| *now < self.to),
            Pace::Open { per_second } => {
                let number = self.taken.fetch_add(1, Ordering::Relaxed);
                let due = self.begin + Duration::from_secs_f64(crate::numbers::real(number) / per_second);
                if due >= self.to {
                    return None;
                }
                if due > Instant::now() {
                    tokio::time::sleep_until(due).await;
                }
                Some(due)
            }
        }
    }

    /// Whether an operation counts in the measurement: in a closed loop if it ended in time, in an open one if it was
    /// due.
    fn counts(&self, due: Instant, ended: Instant) -> bool {
        match self.pace {
            Pace::Closed => self.from <= ended && ended <= self.to,
            Pace::Open { .. } => self.from <= due,
        }
    }
}

impl Load {
    pub(crate) async fn run(&self) -> Result<Tally> {
        let mut connections = Vec::with_capacity(self.connections);
        for target in self.targets.iter().cycle().take(self.connections) {
            connections.push(Connection::open(*target).await?);
        }
        let begin = Instant::now();
        let from = begin + self.warm_up;
        let to = from + self.duration;
        let schedule = Arc::new(Schedule { pace: self.pace, begin, from, to, taken: AtomicU64::new(0) });
        let board = Arc::new(Mutex::new(Board::new(from)));
        let mut tasks = JoinSet::new();
        for connection in connections {
            let script = Script::new(self.work, self.keep_ids);
            tasks.spawn(drive(connection, script, Arc::clone(&schedule), Arc::clone(&board)));
        }
        let all = tokio::time::timeout_at(to + DRAIN, tasks.join_all()).await;
        let scripts = all.map_err(|_| format!("requests were not answered {DRAIN:?} after the last one was due"))?;
        let board = board.lock().expect("no task panics while it counts").clone();
        let (mut ids, mut strange) = (Vec::new(), None);
        for script in scripts {
            ids.extend(script.ids.into_iter().flatten());
            strange = strange.or(script.strange);
        }
        let elapsed = match self.pace {
            Pace::Closed => self.duration,
            Pace::Open { .. } => self.duration.max(board.last - from),
        };
        let Board { measured, all, latencies, offered, .. } = board;
        Ok(Tally { measured, all, latencies, offered, elapsed, ids, strange })
    }
}

/// The counters of all connections. One thread runs them, so none ever waits for the lock.
#[derive(Debug, Clone)]
struct Board {
    measured: Counts,
    all: Counts,
    latencies: Latencies,
    offered: u64,
    last: Instant,
}

impl Board {
    fn new(from: Instant) -> Self {
        let (measured, all) = Default::default();
        Self { measured, all, latencies: Latencies::new(), offered: 0, last: from }
    }

    fn count(&mut self, schedule: &Schedule, due: Instant, counts: Counts) {
        let ended = Instant::now();
        self.all += counts;
        if schedule.counts(due, ended) {
            self.measured += counts;
            self.offered += 1;
            self.last = ended;
            // A refusal is quick, and would flatter the latency of what was done.
            if counts.decided() > 0 {
                self.latencies.record(ended - due);
            }
        }
    }
}

/// One connection, from its first request to its last.
async fn drive(
    mut connection: Connection,
    mut script: Script,
    schedule: Arc<Schedule>,
    board: Arc<Mutex<Board>>,
) -> Script {
    while let Some(due) = schedule.next().await {
        let answered = script.run(&mut connection).await;
        let counts = answered.as_ref().copied().unwrap_or(Counts { broken: 1, ..Counts::default() });
        board.lock().expect("no task panics while it counts").count(&schedule, due, counts);
        if let Err(error) = answered {
            script.strange.get_or_insert_with(|| error.to_string());
            if connection.reopen().await.is_err() {
                break;
            }
        }
    }
    script
}
