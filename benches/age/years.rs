//! What operators wait for after years of events: a start after a crash, a verification, and reserves beside an archive.

use crate::Result;
use crate::fill::{self, new_id};
use crate::support::figures::Spec;
use crate::support::http::{self, Connection};
use crate::support::numbers::{grouped, milliseconds, percentile, real, rounded};
use crate::support::place::{Instance, Place, program};
use crate::support::{all, machine};
use rustix::process::{Signal, kill_process};
use sqlx::{Connection as _, Executor, PgConnection, Row};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Events that are written between the last checkpoint and the crash.
const SINCE_CHECKPOINT: u64 = 100_000;
/// The fewest events with a partition that can be archived: the first one has 11,000,000, and the newest always stays.
const WITH_TWO_PARTITIONS: u64 = 12_500_000;
/// The paced load: reserves a second, and the connections that send them.
const RATE: u32 = 1_000;
const CONNECTIONS: u32 = 16;
/// How long the reserves run alone.
const ALONE: Duration = Duration::from_secs(20);

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
    let ratio = if events < WITH_TWO_PARTITIONS { None } else { Some(beside_archive(place, &service).await?) };

    let start = Spec::at_most("ready after `kill -9` of service and PostgreSQL", Some(3.0), Some(1.0), 2, " s");
    let verify = Spec::at_least("events verified a second", Some(500_000.0), Some(1_000_000.0), 0, "");
    let beside = Spec::at_most("p99 of reserves beside an archive ÷ alone", Some(1.5), Some(1.2), 2, " ×");
    let (ratios, absolute) = ratio.map_or((Vec::new(), String::new()), |(ratio, text)| (vec![ratio], text));
    Ok([
        start.row(&[ready.as_secs_f64()], ""),
        verify.row(&[rate], &format!(" ({} KiB)", grouped(peak_kib))),
        beside.row(&ratios, &absolute),
    ]
    .concat())
}

/// Kills everything at once, after which the database is forty days later, and starts the service again.
async fn crash(
    place: &Place,
    mut service: Instance,
    mut db: PgConnection,
    events: u64,
) -> Result<(Instance, Duration)> {
    fill::until(&service, &mut db, events + SINCE_CHECKPOINT).await?;
    // An archive takes only what is weeks old. A process that runs would not believe such a clock.
    db.execute(
        "CREATE OR REPLACE FUNCTION holdfast_now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS 'SELECT clock_timestamp() + interval ''40 days'''",
    )
    .await?;
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

/// The p99 of reserves beside an archive of every partition but the newest ÷ that of reserves alone.
async fn beside_archive(place: &Place, service: &Instance) -> Result<(f64, String)> {
    let mut db = PgConnection::connect(&place.url("holdfast")).await?;
    let day = sqlx::query("SELECT ((holdfast_now() AT TIME ZONE 'UTC')::date - 35)::text").fetch_one(&mut db).await?;
    let alone = async {
        tokio::time::sleep(ALONE).await;
        Ok(())
    };
    let alone = paced(service, alone).await?;
    let began = Instant::now();
    let archive = async {
        let mut command = Command::new(program());
        command.args(["archive", "--before", &day.get::<String, _>(0), "--to"]).arg(place.root().join("archive"));
        command.arg("--data-dir").arg(place.data()).kill_on_drop(true);
        let output = command.output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() || !text.contains(".zst") {
            return Err(format!("the archive failed: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
        }
        println!("{}", text.trim());
        Ok(())
    };
    let beside = paced(service, archive).await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("reserves alone: p99 {alone:.2} ms; beside an archive of {seconds:.0} s: {beside:.2} ms");
    Ok((beside / alone, format!(" ({alone:.2} → {beside:.2} ms)")))
}

/// The p99 in milliseconds of reserves at a steady rate while something runs.
async fn paced(service: &Instance, meanwhile: impl Future<Output = Result<()>>) -> Result<f64> {
    let runs = Arc::new(AtomicBool::new(true));
    let mut senders = JoinSet::new();
    for sender in 0..CONNECTIONS {
        let mut connection = Connection::open(service.addr).await?;
        let runs = Arc::clone(&runs);
        let mut due = Instant::now() + Duration::from_secs(1) * sender / RATE;
        senders.spawn(async move {
            let mut latencies = Vec::new();
            while runs.load(Ordering::Relaxed) {
                tokio::time::sleep_until(due).await;
                let body =
                    format!(r#"{{"engine":"AGE_3","amount":1,"actor":"bench","reservation_id":"{}"}}"#, new_id());
                connection.succeed(&http::post("/risk/check-and-reserve", "", &body)).await?;
                // From when it was due, so that a slow answer counts against those that had to wait for it.
                latencies.push(milliseconds(due.elapsed()));
                due += Duration::from_secs(1) * CONNECTIONS / RATE;
            }
            Ok(latencies)
        });
    }
    let done = meanwhile.await;
    runs.store(false, Ordering::Relaxed);
    let mut latencies: Vec<f64> = all(senders).await?.concat();
    done?;
    Ok(percentile(&mut latencies, 99))
}
