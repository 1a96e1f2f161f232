//! How much slower each route is after years of events, by one command: `cargo bench --bench age`.
//!
//! A fresh PostgreSQL and a service on it are filled with lifecycles through `POST /risk/batch`, first with few events, then with many.
//! At both points each route is asked one call at a time, and the figure is the median with many events ÷ with few. Then everything is
//! killed and started again, and the trail is verified.

mod fill;
mod routes;
#[path = "../support/support.rs"]
#[expect(dead_code, reason = "each benchmark takes what it needs")]
mod support;
mod years;

use clap::Parser;
use sqlx::{Connection as _, Executor, PgConnection, Row};
use std::process::ExitCode;
use support::Result;
use support::figures::{Spec, TABLE};
use support::numbers::grouped;
use support::place::{Instance, Place};
use tokio::runtime::Builder;
use tokio::time::Instant;

/// Events of the risk stream at the first point.
const FEW: u64 = 10_000;

/// Measures every read of a release build with few and with many events, on a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench age --")]
struct Options {
    /// Events of the risk stream at the second point; about two a lifecycle.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(100_000..=200_000_000))]
    stored: u64,
    /// Calls that a median is taken of.
    #[arg(long, default_value_t = 41, value_parser = clap::value_parser!(u64).range(3..=1_001))]
    calls: u64,
    /// Only routes whose line contains this text.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    support::main(Builder::new_multi_thread().worker_threads(1), run)
}

async fn run(options: &Options) -> Result<()> {
    let place = Place::new(1)?;
    let service = place.serve().await?;
    let mut db = PgConnection::connect(&place.url("holdfast")).await?;
    fill::begin(&service).await?;
    let few = measure(options, &service, &mut db, FEW).await?;
    let many = measure(options, &service, &mut db, options.stored).await?;

    let size = sqlx::query("SELECT pg_database_size(current_database())::float8").fetch_one(&mut db).await?;
    let years = years::measure(&place, service, db, options.stored).await?;
    print!("\n{:.2} GB on disk\n\n{TABLE}{years}", size.get::<f64, _>(0) / 1e9);
    for ((line, few), (_, many)) in few.into_iter().zip(many) {
        let title = format!("`{line}`");
        let ratio = Spec::at_most(&title, Some(1.3), Some(1.1), 2, "");
        print!("{}", ratio.row(&[many / few], &format!(" ({few:.2} → {many:.2} ms)")));
    }
    Ok(())
}

/// Fills up to this many events, and gives each route's median in milliseconds.
async fn measure(
    options: &Options,
    service: &Instance,
    db: &mut PgConnection,
    events: u64,
) -> Result<Vec<(String, f64)>> {
    let began = Instant::now();
    fill::until(service, db, events).await?;
    println!("{} events after {:.0} s", grouped(events), began.elapsed().as_secs_f64());
    // As autovacuum leaves a table of this size.
    db.execute("VACUUM (ANALYZE)").await?;
    db.execute("CHECKPOINT").await?;
    let mut medians = Vec::new();
    for line in routes::all(db).await? {
        if options.only.as_ref().is_none_or(|only| line.contains(only.as_str())) {
            let median = routes::median(service, &line, options.calls).await?;
            println!("{median:>10.2} ms  {line}");
            medians.push((line, median));
        }
    }
    Ok(medians)
}
