//! The ledger's figures, by one command: `cargo bench --bench ledger`. docs/BENCHMARKS.md says what each of them means.
//!
//! A round is a fresh directory, a fresh PostgreSQL and a fresh process of the service, in its default configuration. The
//! yardstick, one transaction per action on the same PostgreSQL, runs before and after the rows that are compared with it, so
//! that every ratio is of one round. After every row the books are checked; a ledger that is wrong ends the run with exit
//! code 1. A figure that is low does not: figures are not assertions.

mod answers;
mod books;
mod figures;
mod latencies;
mod load;
mod report;
mod rows;
mod script;
mod soak;
#[path = "../support/support.rs"]
#[expect(dead_code, reason = "each benchmark takes what it needs")]
mod support;
mod usage;

use clap::Parser;
use report::Report;
use rows::{Round, Row};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use support::{Result, http, machine, numbers, place, yardstick};
use tokio::runtime::Builder;

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
}

impl Options {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Whether the row is measured.
    fn wants(&self, row: Row) -> bool {
        if self.only.is_empty() { row != Row::Soak || self.soak } else { self.only.contains(&row) }
    }
}

fn main() -> ExitCode {
    // One thread: the generator should leave the cores to what it measures.
    support::main(&mut Builder::new_current_thread(), run)
}

async fn run(options: &Options) -> Result<()> {
    let files = usage::raise_file_limit();
    let pgbench = yardstick::pgbench()?;
    let mut report = Report::default();
    for number in 1..=options.rounds {
        let mut round = Round::begin(options, number).await?;
        if number == 1 {
            report.facts = round.facts().await?;
            report.facts.push("open files", files.to_string());
            report.facts.print();
        }
        report.rounds.push(round.run(&pgbench, number == options.rounds).await?);
    }
    support::publish(&report.markdown()?, options.json.as_deref(), || report.json(options))
}
