//! A start after a crash, and a verification, after years of events: operators wait for both.

use crate::Result;
use crate::fill;
use crate::support::figures::Spec;
use crate::support::numbers::{grouped, rounded};
use crate::support::place::{Instance, Place};
use crate::support::verification::verify;
use rustix::process::{Signal, kill_process};
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::Instant;

/// Events that are written between the last checkpoint and the crash.
const SINCE_CHECKPOINT: u64 = 100_000;

/// Measures, on a service with many events, and prints the rows of the table.
pub(crate) async fn measure(place: &Place, service: Instance, db: PgConnection, events: u64) -> Result<String> {
    let (service, ready) = crash(place, service, db, events).await?;
    println!("ready {:.2} s after kill -9 of the service and of PostgreSQL", ready.as_secs_f64());
    let verified = verify(&place.data(), &[]).await?;
    let (rate, peak) = (verified.rate(events + SINCE_CHECKPOINT), format!("{} KiB", grouped(verified.peak_kib)));
    println!("audit verify: {:.1} s, {} events/s, at most {peak}", verified.took.as_secs_f64(), rounded(rate));
    drop(service);

    let start = Spec::at_most("ready after `kill -9` of service and PostgreSQL", Some(3.0), Some(1.0), 2, " s");
    let speed = Spec::at_least("events verified a second", Some(500_000.0), Some(1_000_000.0), 0, "");
    Ok([start.row(&[ready.as_secs_f64()], ""), speed.row(&[rate], &format!(" ({peak})"))].concat())
}

/// Kills everything at once, and starts the service again.
async fn crash(
    place: &Place,
    mut service: Instance,
    mut db: PgConnection,
    events: u64,
) -> Result<(Instance, Duration)> {
    fill::until(&service, &mut db, events + SINCE_CHECKPOINT).await?;
    let postmaster = place.postmaster().ok_or("PostgreSQL does not run")?;
    kill_process(postmaster, Signal::KILL)?;
    kill_process(service.pid(), Signal::KILL)?;
    while service.check_alive().is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(service);
    let began = Instant::now();
    let service = place.serve().await?;
    Ok((service, began.elapsed()))
}
