//! A start after a crash, and a verification, after years of events: operators wait for both.

use crate::Result;
use crate::fill;
use crate::support::figures::Spec;
use crate::support::machine;
use crate::support::numbers::{grouped, real, rounded};
use crate::support::place::{Instance, Place, program};
use rustix::process::{Signal, kill_process};
use sqlx::PgConnection;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

/// Events that are written between the last checkpoint and the crash.
const SINCE_CHECKPOINT: u64 = 100_000;

/// Measures, on a service with many events, and prints the rows of the table.
pub(crate) async fn measure(place: &Place, service: Instance, db: PgConnection, events: u64) -> Result<String> {
    let (service, ready) = crash(place, service, db, events).await?;
    println!("ready {:.2} s after kill -9 of the service and of PostgreSQL", ready.as_secs_f64());
    let (verified, peak_kib) = verify(place).await?;
    let rate = real(events + SINCE_CHECKPOINT) / verified.as_secs_f64();
    println!(
        "audit verify: {:.1} s, {} events/s, at most {} KiB",
        verified.as_secs_f64(),
        rounded(rate),
        grouped(peak_kib)
    );
    drop(service);

    let start = Spec::at_most("ready after `kill -9` of service and PostgreSQL", Some(3.0), Some(1.0), 2, " s");
    let verify = Spec::at_least("events verified a second", Some(500_000.0), Some(1_000_000.0), 0, "");
    Ok([start.row(&[ready.as_secs_f64()], ""), verify.row(&[rate], &format!(" ({} KiB)", grouped(peak_kib)))].concat())
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

/// The duration of `holdfast audit verify`, and the most memory that it had.
async fn verify(place: &Place) -> Result<(Duration, u64)> {
    let began = Instant::now();
    let mut child = Command::new(program())
        .args(["audit", "verify", "--data-dir"])
        .arg(place.data())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().ok_or("it has not been waited for")?;
    let mut peak_kib = 0;
    let status = loop {
        // The peak is gone with the process, so it is looked at until then.
        peak_kib = machine::memory_kib(pid, "VmHWM").unwrap_or(0).max(peak_kib);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    if status.success() {
        Ok((began.elapsed(), peak_kib))
    } else {
        Err(format!("audit verify ended with {status}").into())
    }
}
