//! How soon an engage is answered while 512 connections reserve as fast as they are answered.

use crate::Result;
use crate::fleet::Fleet;
use crate::http::{Connection, post};
use crate::numbers::{milliseconds, real};
use crate::support::all;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The clients of the flood.
const CONNECTIONS: usize = 512;
/// Between two engages, so that the flood is one of reserves that pass.
const BETWEEN: Duration = Duration::from_millis(100);

/// The measurements.
#[derive(Debug)]
pub(crate) struct Flooded {
    /// Each engage, from before it connects to its answer.
    pub(crate) engages_ms: Vec<f64>,
    /// Reserves that were answered meanwhile, a second.
    pub(crate) reserves: f64,
}

/// Engages so often under the flood, on connections of their own.
pub(crate) async fn measure(fleet: &Fleet, trials: u32) -> Result<Flooded> {
    fleet.release().await?;
    let addr = fleet.addresses()[0];
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut flood = JoinSet::new();
    for _ in 0..CONNECTIONS {
        flood.spawn(reserve(addr, Arc::clone(&stop), Arc::clone(&answered)));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = (Instant::now(), answered.load(Ordering::Relaxed));
    let mut engages_ms = Vec::new();
    for _ in 0..trials {
        let engage = post("/go-live/kill-switch/engage", "", r#"{"actor":"bench"}"#);
        let sent = Instant::now();
        let mut connection = Connection::open(addr).await?;
        connection.succeed(&engage).await?;
        engages_ms.push(milliseconds(sent.elapsed()));
        fleet.release().await?;
        tokio::time::sleep(BETWEEN).await;
    }
    let reserves = real(answered.load(Ordering::Relaxed) - began.1) / began.0.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    all(flood).await?;
    Ok(Flooded { engages_ms, reserves })
}

async fn reserve(addr: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> Result<()> {
    let request = post("/risk/check-and-reserve", "", r#"{"engine":"WHOLESALE","amount":"0.000001","actor":"bench"}"#);
    let mut connection = Connection::open(addr).await?;
    while !stop.load(Ordering::Relaxed) {
        // Allowed, denied while it is engaged, or too many: all of them are answers.
        connection.exchange(&request).await?;
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
