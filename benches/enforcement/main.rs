//! Measures the cost of enforcement and the time in which a kill reaches every instance, and checks that none outlives
//! it, by one command:
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
#[path = "../support/support.rs"]
#[expect(dead_code, reason = "each benchmark takes what it needs")]
mod support;
mod watch;

use clap::Parser;
use report::Report;
use round::{Round, Row};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use support::{Result, http, machine, numbers, place};
use tokio::runtime::Builder;

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
}

impl Options {
    pub(crate) fn outage(&self) -> Duration {
        Duration::from_secs(self.outage_seconds)
    }

    /// Whether the row is measured.
    fn wants(&self, row: Row) -> bool {
        self.only.is_empty() || self.only.contains(&row)
    }
}

fn main() -> ExitCode {
    // One thread for the load and the proxies, which leaves the cores to what is measured; and this one, which may block.
    support::main(Builder::new_multi_thread().worker_threads(1), run)
}

async fn run(options: &Options) -> Result<()> {
    let mut report = Report::default();
    for number in 1..=options.rounds {
        let round = Round::begin(options, number).await?;
        if number == 1 {
            report.facts = round.facts().await?;
            report.facts.print();
        }
        report.rounds.push(round.run().await?);
    }
    support::publish(&report.markdown()?, options.json.as_deref(), || report.json(options))?;
    match report.defects().as_slice() {
        [] => Ok(()),
        defects => Err(format!("ENFORCEMENT IS WRONG:\n{}", defects.join("\n")).into()),
    }
}
