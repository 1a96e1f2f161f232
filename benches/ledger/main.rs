//! The ledger's figures, by one command: `cargo bench --bench ledger`. docs/BENCHMARKS.md says what each of them means.
//!
//! A round is a fresh directory, a fresh PostgreSQL and a fresh process of the service, in its default configuration. The
//! yardstick, one transaction per action on the same PostgreSQL, runs before and after the rows that are compared with it, so
//! that every ratio is of one round. After every row the books are checked; a ledger that is wrong ends the run with exit
//! code 1. A figure that is low does not: figures are not assertions.

mod answers;
mod books;
mod figures;
mod histogram;
mod instances;
mod load;
mod report;
mod rows;
mod script;
mod soak;
mod usage;
mod yardstick;

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
mod place;

use clap::Parser;
use report::Report;
use rows::{Round, Row};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What can go wrong here is told to a person, and ends the run.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures the ledger of a release build, over HTTP, on a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench ledger --")]
pub(crate) struct Options {
    /// Fresh starts of everything; a figure is the range over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement, after a warm-up of one second.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Also run the memory row, once, at the end of the last round.
    #[arg(long)]
    soak: bool,
    /// How long that is.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=1_440))]
    soak_minutes: u64,
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
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Whether the row is to be measured.
    fn wants(&self, row: Row) -> bool {
        if self.only.is_empty() { row != Row::Soak || self.soak } else { self.only.contains(&row) }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        // `cargo test --all-targets` runs benches, too.
        println!("not measured: run it with cargo bench --bench ledger");
        return ExitCode::SUCCESS;
    }
    // One thread: the generator should leave the cores to what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let measured = runtime.block_on(async {
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
    let files = usage::raise_file_limit();
    let pgbench = yardstick::pgbench()?;
    let mut report = Report::default();
    for number in 1..=options.rounds {
        let mut round = Round::begin(options, number).await?;
        if number == 1 {
            report.facts = round.facts().await?;
            report.facts.push(("open files".to_owned(), files.to_string()));
            for (name, value) in &report.facts {
                println!("{name}: {value}");
            }
        }
        report.rounds.push(round.run(&pgbench, number == options.rounds).await?);
    }
    println!("\n{}", report.markdown()?);
    if let Some(path) = &options.json {
        std::fs::write(path, report.json(options).to_string())?;
        println!("written to {}", path.display());
    }
    Ok(())
}
