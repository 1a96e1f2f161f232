//! How long a kill takes to reach everybody: from just before the engage is sent to the first refusal of the last instance.

use crate::Result;
use crate::fleet::{Fleet, INSTANCES, admits};
use crate::http::Connection;
use crate::numbers::{milliseconds, percentile};
use crate::support::all;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Before the engage, in which every instance has to be seen admitting.
const LEAD: Duration = Duration::from_millis(10);
/// Between an answer and the next request to an instance: so much the result may be too long. Without it, the questions would
/// take the cores from what is asked about.
const LOOK: Duration = Duration::from_millis(1);
/// Far longer than the lease.
const PATIENCE: Duration = Duration::from_secs(10);
/// A poll falls into every interval of this length, so engages are spread over one.
const POLL: Duration = Duration::from_millis(500);

/// Milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Propagation {
    pub(crate) trials: u32,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// Until the engage was answered.
    pub(crate) answered_p50: f64,
    pub(crate) answered_p99: f64,
}

/// Kills so many times, each through another instance, at another moment between two polls.
pub(crate) async fn measure(fleet: &Fleet, trials: u32) -> Result<Propagation> {
    let (mut blocked, mut answered) = (Vec::new(), Vec::new());
    for trial in 0..trials {
        fleet.release().await?;
        // The golden ratio spreads any number of trials evenly.
        tokio::time::sleep(POLL.mul_f64((f64::from(trial) * 0.618_033_988_75).fract())).await;
        let mut probes = JoinSet::new();
        for addr in fleet.addresses() {
            probes.spawn(until_blocked(addr));
        }
        tokio::time::sleep(LEAD).await;
        let engaged = fleet.engage(trial as usize % INSTANCES).await?;
        let last = all(probes).await?.into_iter().fold(engaged.sent, Instant::max);
        blocked.push(milliseconds(last - engaged.sent));
        answered.push(milliseconds(engaged.answered - engaged.sent));
    }
    fleet.release().await?;
    Ok(Propagation {
        trials,
        p50: percentile(&mut blocked, 50),
        p99: percentile(&mut blocked, 99),
        max: percentile(&mut blocked, 100),
        answered_p50: percentile(&mut answered, 50),
        answered_p99: percentile(&mut answered, 99),
    })
}

/// Asks an instance over and over; gives the moment of its first refusal.
async fn until_blocked(addr: SocketAddr) -> Result<Instant> {
    let mut connection = Connection::open(addr).await?;
    let began = Instant::now();
    if !admits(&mut connection).await? {
        return Err(format!("{addr} refused before the engage").into());
    }
    while admits(&mut connection).await? {
        if began.elapsed() > PATIENCE {
            return Err(format!("{addr} still admits {PATIENCE:?} after the engage").into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(Instant::now())
}
