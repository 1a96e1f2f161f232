//! Two kinds of requests against each other: short runs in turn, so that a machine whose speed drifts slows both alike.

use crate::Result;
use crate::http::Connection;
use crate::numbers::{percentile, real};
use crate::support::all;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const CONNECTIONS: usize = 64;
/// A short run. Four of them, A B B A, give one ratio.
const RUN: Duration = Duration::from_millis(50);
/// Ratios in a second of each side.
const RATIOS_PER_SECOND: u64 = 10;
/// Before it counts, each.
const WARM_UP: Duration = Duration::from_millis(500);

/// The request that is repeated.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) request: Arc<[u8]>,
}

/// The result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compared {
    /// The median of the ratios, one ÷ other.
    pub(crate) ratio: f64,
    /// Half of the ratios are between these.
    pub(crate) middle: [f64; 2],
    /// Requests a second, each the median of its own.
    pub(crate) one: f64,
    pub(crate) other: f64,
}

/// This number of seconds of each.
pub(crate) async fn compare(one: &Target, other: &Target, seconds: u64) -> Result<Compared> {
    let mut one = Side::open(one).await?;
    let mut other = Side::open(other).await?;
    one.run(WARM_UP).await?;
    other.run(WARM_UP).await?;
    let (mut ratios, mut ones, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..seconds * RATIOS_PER_SECOND {
        let mut first = one.run(RUN).await?;
        let second = other.run(RUN).await? + other.run(RUN).await?;
        first += one.run(RUN).await?;
        ratios.push(first / second);
        ones.push(first / 2.0);
        others.push(second / 2.0);
    }
    Ok(Compared {
        ratio: percentile(&mut ratios, 50),
        middle: [25, 75].map(|share| percentile(&mut ratios, share)),
        one: percentile(&mut ones, 50),
        other: percentile(&mut others, 50),
    })
}

/// One kind, with its connections, which stay open between the runs.
struct Side {
    request: Arc<[u8]>,
    connections: Vec<Connection>,
}

impl Side {
    async fn open(target: &Target) -> Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(target.addr).await?);
        }
        Ok(Self { request: Arc::clone(&target.request), connections })
    }

    /// Requests a second, each answered 200, in a closed loop.
    async fn run(&mut self, duration: Duration) -> Result<f64> {
        let mut tasks = JoinSet::new();
        let began = Instant::now();
        let end = began + duration;
        for mut connection in self.connections.drain(..) {
            let request = Arc::clone(&self.request);
            tasks.spawn(async move {
                let mut answered = 0_u64;
                while Instant::now() < end {
                    connection.succeed(&request).await?;
                    answered += 1;
                }
                Ok((connection, answered))
            });
        }
        let mut sum = 0;
        for (connection, answered) in all(tasks).await? {
            self.connections.push(connection);
            sum += answered;
        }
        Ok(real(sum) / began.elapsed().as_secs_f64())
    }
}
