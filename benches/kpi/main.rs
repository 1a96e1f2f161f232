//! How fast measurements are recorded and evaluated, by one command: `cargo bench --bench kpi`.
//!
//! A fresh PostgreSQL, a service on it, and wires that are watched. Measurements one by one over 256 connections, as a ratio of what
//! one transaction per action can do on the same PostgreSQL; in batches; what an event costs as the series grows; and whether a
//! reserve that begins after the answer to a tripping measurement is ever admitted.

#[path = "../support/support.rs"]
#[expect(dead_code, reason = "each benchmark takes what it needs")]
mod support;

use clap::Parser;
use sqlx::{Connection as _, PgConnection};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::figures::{Spec, TABLE};
use support::http::{self, Connection};
use support::numbers::{grouped, real};
use support::place::{Instance, Place};
use support::yardstick::{self, Yardstick};
use support::{Result, all};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Connections that send single measurements.
const MANY: usize = 256;
/// Callers that send batches, and the measurements of each.
const BATCH_CALLERS: usize = 4;
const BATCH: u64 = 5_000;
/// The size of a small series, in events.
const SMALL: u64 = 10_000;
/// Batches that one figure of the cost of an event is the median of.
const COSTED: usize = 41;

/// Measures the recording and evaluating of measurements by a release build, on a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench kpi --")]
struct Options {
    /// Fresh starts of everything; a figure is the range over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement, after a warm-up of one second.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Events of the large series.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100_000..=100_000_000))]
    stored: u64,
}

fn main() -> ExitCode {
    support::main(Builder::new_multi_thread().worker_threads(1), run)
}

async fn run(options: &Options) -> Result<()> {
    let pgbench = yardstick::pgbench()?;
    let mut figures: [Vec<f64>; 7] = Default::default();
    for number in 1..=options.rounds {
        println!("== round {number} of {}", options.rounds);
        let place = Place::new(number)?;
        let service = place.serve().await?;
        service.post("/go-live/enable", r#"{"actor":"bench"}"#).await?;
        let mut db = PgConnection::connect(&place.url("postgres")).await?;
        let before = Yardstick::run(&pgbench, &place, &mut db, options.seconds).await?;
        for (metric, detector) in [("plain", "PLAIN"), ("sequential", "SEQUENTIAL")] {
            watch(&service, metric, detector).await?;
        }
        let plain = singles(&service, "plain", options.seconds).await?;
        let sequential = singles(&service, "sequential", options.seconds).await?;
        let after = Yardstick::run(&pgbench, &place, &mut db, options.seconds).await?;
        let tps = Yardstick::best([before, after].iter()).map_or(f64::NAN, |best| best.tps_32);
        println!("yardstick {tps:.0} tps with 32 clients; singles {plain:.0}/s PLAIN, {sequential:.0}/s SEQUENTIAL");
        let batched = batches(&service, "plain", options.seconds).await?;
        let batched_sequential = batches(&service, "sequential", options.seconds).await?;
        println!("batched {batched:.0}/s PLAIN, {batched_sequential:.0}/s SEQUENTIAL");
        let growth = growth(&service, options.stored).await?;
        let admitted = real(admitted(&service).await?);
        let round = [plain / tps, sequential / tps, plain, batched, batched_sequential, growth, admitted];
        for (values, value) in figures.iter_mut().zip(round) {
            values.push(value);
        }
        let verified = service.get(&format!("{}/audit/verify?stream=kpi", http::BASE)).await?.1;
        if !verified.contains("\"ok\":true") {
            return Err(format!("THE CHAIN IS WRONG: {verified}").into());
        }
    }
    let growth = format!("cost of an event at {} stored ÷ at {}", grouped(options.stored), grouped(SMALL));
    let least = |title, must, places| Spec::at_least(title, must, None, places, "");
    let specs = [
        least("measurements/s one by one, 256 connections, PLAIN ÷ yardstick tps", Some(12.0), 1),
        least("the same, SEQUENTIAL", Some(12.0), 1),
        least("measurements/s one by one, PLAIN", None, 0),
        least("measurements/s in batches of 5,000, PLAIN", Some(100_000.0), 0),
        least("the same, SEQUENTIAL", Some(100_000.0), 0),
        Spec::at_most(&growth, Some(1.2), None, 2, ""),
        Spec::at_most("reserves admitted after the answer to a tripping measurement", Some(0.0), None, 0, ""),
    ];
    let rows: Vec<_> = specs.iter().zip(&figures).map(|(spec, values)| spec.row(values, "")).collect();
    println!("\n{TABLE}{}", rows.concat());
    Ok(())
}

async fn watch(service: &Instance, metric: &str, detector: &str) -> Result<()> {
    let wire = format!(r#"{{"domain":"BENCH","metric":"{metric}","detector":"{detector}","actor":"bench"}}"#);
    service.post("/regression/policies/upsert", &wire).await
}

/// A measurement of a series that is as good as ever: one in twenty fails.
fn measurement(metric: &str, number: u64) -> String {
    format!(r#"{{"domain":"BENCH","metric":"{metric}","success":{},"actor":"bench"}}"#, !number.is_multiple_of(20))
}

/// Measurements a second, one by one, closed loop.
async fn singles(service: &Instance, metric: &'static str, seconds: u64) -> Result<f64> {
    let counted = Arc::new(AtomicU64::new(0));
    let number = Arc::new(AtomicU64::new(1));
    let from = Instant::now() + Duration::from_secs(1);
    let to = from + Duration::from_secs(seconds);
    let requests: Arc<[Vec<u8>; 2]> =
        Arc::new([0, 1].map(|number| http::post("/regression/kpi", "", &measurement(metric, number))));
    let mut callers = JoinSet::new();
    for _ in 0..MANY {
        let mut connection = Connection::open(service.addr).await?;
        let (counted, number, requests) = (Arc::clone(&counted), Arc::clone(&number), Arc::clone(&requests));
        callers.spawn(async move {
            while Instant::now() < to {
                // One in twenty fails.
                let fails = number.fetch_add(1, Ordering::Relaxed).is_multiple_of(20);
                connection.succeed(&requests[usize::from(!fails)]).await?;
                let now = Instant::now();
                if from <= now && now <= to {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
    }
    all(callers).await?;
    Ok(real(counted.load(Ordering::Relaxed)) / Duration::from_secs(seconds).as_secs_f64())
}

fn batch_of(metric: &str, events: u64) -> Vec<u8> {
    let lines: Vec<_> = (1..=events).map(|number| measurement(metric, number)).collect();
    http::post_of("x-ndjson", "/regression/kpi/batch", "", &lines.join("\n"))
}

/// Measurements a second in batches, closed loop.
async fn batches(service: &Instance, metric: &str, seconds: u64) -> Result<f64> {
    let request = Arc::new(batch_of(metric, BATCH));
    let counted = Arc::new(AtomicU64::new(0));
    let from = Instant::now() + Duration::from_secs(1);
    let to = from + Duration::from_secs(seconds);
    let mut callers = JoinSet::new();
    for _ in 0..BATCH_CALLERS {
        let mut connection = Connection::open(service.addr).await?;
        let (request, counted) = (Arc::clone(&request), Arc::clone(&counted));
        callers.spawn(async move {
            while Instant::now() < to {
                record(&mut connection, &request).await?;
                let now = Instant::now();
                if from <= now && now <= to {
                    counted.fetch_add(BATCH, Ordering::Relaxed);
                }
            }
            Ok(())
        });
    }
    all(callers).await?;
    Ok(real(counted.load(Ordering::Relaxed)) / Duration::from_secs(seconds).as_secs_f64())
}

/// Sends a batch of which every measurement has to be recorded.
async fn record(connection: &mut Connection, request: &[u8]) -> Result<()> {
    let answer = connection.succeed(request).await?;
    if http::find(answer.body, b"\"refused_count\":0").is_some() {
        return Ok(());
    }
    Err(format!("a batch was answered {}", answer.excerpt()).into())
}

/// The cost of an event of a large series relative to one of a small series, in batches of one measurement, since in
/// large batches only the rows themselves would count.
async fn growth(service: &Instance, stored: u64) -> Result<f64> {
    watch(service, "grows", "PLAIN").await?;
    let mut connection = Connection::open(service.addr).await?;
    let (small, large) = (batch_of("grows", SMALL), batch_of("grows", BATCH));
    record(&mut connection, &small).await?;
    let at_small = cost(&mut connection).await?;
    let mut have = SMALL;
    while have < stored {
        record(&mut connection, &large).await?;
        have += BATCH;
    }
    let at_large = cost(&mut connection).await?;
    println!("an event takes {at_small:.2?} at {}, {at_large:.2?} at {}", grouped(SMALL), grouped(have));
    Ok(at_large.as_secs_f64() / at_small.as_secs_f64())
}

/// The median time of a single measurement.
async fn cost(connection: &mut Connection) -> Result<Duration> {
    let request = http::post("/regression/kpi", "", &measurement("grows", 1));
    let mut times = Vec::with_capacity(COSTED * 10);
    for _ in 0..COSTED * 10 {
        let began = Instant::now();
        connection.succeed(&request).await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Reserves that were admitted although they began after a tripping measurement was answered.
async fn admitted(service: &Instance) -> Result<u64> {
    let wire = r#"{"domain":"BENCH","metric":"trips","window_events":20,"baseline_events":20,"min_events_to_enforce":20,"engine":"WHOLESALE"}"#;
    service.post("/regression/policies/upsert", wire).await?;
    let policy = r#"{"engine":"WHOLESALE","max_daily_exposure":0,"max_open_risk":0,"max_daily_loss":0,"allow_unlimited":true,"reason":"bench"}"#;
    service.post("/risk/policies/upsert", policy).await?;
    service.post("/risk/policies/upsert", &policy.replace("WHOLESALE", "GLOBAL")).await?;
    let good = http::post("/regression/kpi", "", r#"{"domain":"BENCH","metric":"trips","success":true}"#);
    let bad = http::post("/regression/kpi", "", r#"{"domain":"BENCH","metric":"trips","success":false}"#);
    let mut connection = Connection::open(service.addr).await?;
    for _ in 0..40 {
        connection.exchange(&good).await?;
    }
    // Once the tripping measurement was answered.
    let tripped = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(3);
    for _ in 0..32 {
        let mut connection = Connection::open(service.addr).await?;
        let tripped = Arc::clone(&tripped);
        callers.spawn(async move {
            let reserve = http::post("/risk/check-and-reserve", "", r#"{"engine":"WHOLESALE","amount":1}"#);
            let (mut before, mut after) = (0_u64, 0_u64);
            while Instant::now() < until {
                let is_after = tripped.load(Ordering::SeqCst);
                let answer = connection.exchange(&reserve).await?;
                let allowed = answer.status == 200 && http::find(answer.body, b"\"ok\":true").is_some();
                *(if is_after { &mut after } else { &mut before }) += u64::from(allowed);
            }
            Ok((before, after))
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    loop {
        let answer = connection.exchange(&bad).await?;
        if http::find(answer.body, b"\"tripped\":{").is_some() {
            tripped.store(true, Ordering::SeqCst);
            break;
        }
    }
    let (mut before, mut after) = (0, 0);
    for (one, other) in all(callers).await? {
        (before, after) = (before + one, after + other);
    }
    println!(
        "{} reserves admitted before the answer to the tripping measurement, {after} of those sent after it",
        grouped(before)
    );
    if before == 0 {
        return Err("no reserve was admitted before the trip: nothing was measured".into());
    }
    Ok(after)
}
