//! What enforcement costs, how fast a kill reaches everybody, and that nobody outlives it, by one command:
//! `cargo bench --bench enforcement`. docs/BENCHMARKS.md says what each of the figures means.
//!
//! A round is a fresh directory, a fresh PostgreSQL and three fresh processes of the service on it, each behind a proxy of its
//! own that can lose its connections. An admission after `guaranteed_by`, or an allocation in a decision, is a defect: exit
//! code 1. A figure that is slow is not: figures are not assertions.

mod allocations;
mod decision;
mod faults;
mod figures;
mod fleet;
mod flood;
mod propagation;
mod proxy;
mod rate;
mod recovery;
mod report;
mod round;
mod server;
mod watch;

// What the benchmarks share.
#[path = "../support/bounds.rs"]
mod bounds;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/numbers.rs"]
mod numbers;
#[path = "../support/place.rs"]
#[expect(dead_code, reason = "each benchmark takes what it needs")]
mod place;

use clap::Parser;
use report::Report;
use round::{Round, Row};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What can go wrong here is told to a person, and ends the run.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures the enforcement of a release build, on a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench enforcement --")]
pub(crate) struct Options {
    /// Fresh starts of everything; a figure is the range over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Kills of each propagation row; with notifications cut, a third of them.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    trials: u32,
    /// Seconds of load on each side of a ratio.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// How long the database is away in the recovery row.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(4..=3_600))]
    outage_seconds: u64,
    /// Only these rows, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Row>,
    /// Also write everything that was measured to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn outage(&self) -> Duration {
        Duration::from_secs(self.outage_seconds)
    }

    /// Whether the row is to be measured.
    fn wants(&self, row: Row) -> bool {
        self.only.is_empty() || self.only.contains(&row)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        // `cargo test --all-targets` runs benches, too.
        println!("not measured: run it with cargo bench --bench enforcement");
        return ExitCode::SUCCESS;
    }
    // One thread for the load and the proxies, which leaves the cores to what is measured; and this one, which may block.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let measured = runtime.expect("a runtime").block_on(async {
        tokio::select! {
            measured = run(&options) => measured,
            stopped = stopped() => stopped,
        }
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends with an error when somebody asks to stop; what runs is taken down on the way out.
async fn stopped() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Err("stopped before the end".into())
}

async fn run(options: &Options) -> Result<()> {
    let mut report = Report::default();
    for number in 1..=options.rounds {
        let round = Round::begin(options, number).await?;
        if number == 1 {
            report.facts = round.facts().await?;
            for (name, value) in &report.facts {
                println!("{name}: {value}");
            }
        }
        report.rounds.push(round.run().await?);
    }
    println!("\n{}", report.markdown()?);
    if let Some(path) = &options.json {
        std::fs::write(path, report.json(options).to_string())?;
        println!("written to {}", path.display());
    }
    match report.defects().as_slice() {
        [] => Ok(()),
        defects => Err(format!("ENFORCEMENT IS WRONG:\n{}", defects.join("\n")).into()),
    }
}
