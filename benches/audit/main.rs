//! How fast the trail is verified, and with how much memory, by one command: `cargo bench --bench audit`.
//!
//! A fresh PostgreSQL, a service on it that is made to reserve until there are enough events, and then `holdfast audit verify` of a
//! release build over all of them, several times, and over a tenth: memory that does not grow with the trail is the same for both.
//! The figure includes the whole command: starting, connecting, reading, hashing, printing.

#[path = "../support/support.rs"]
#[expect(dead_code, reason = "each benchmark takes what it needs")]
mod support;

use clap::Parser;
use std::process::ExitCode;
use support::figures::{Spec, TABLE};
use support::http::{self, Connection};
use support::numbers::{grouped, real, rounded};
use support::place::{Instance, Place};
use support::verification::verify;
use support::{Result, all};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Events a second that a verification must reach.
const MUST: f64 = 500_000.0;
/// Reserves of one request.
const BATCH: u64 = 1_000;
/// Connections that send them.
const CONNECTIONS: u64 = 8;

/// Measures the verification of the audit trail by a release build, on a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench audit --")]
struct Options {
    /// Events to verify.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    events: u64,
    /// Verifications of all of them; the figure is the range over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

fn main() -> ExitCode {
    support::main(Builder::new_multi_thread().worker_threads(1), run)
}

async fn run(options: &Options) -> Result<()> {
    let place = Place::new(0)?;
    let service = place.serve().await?;
    service.post("/go-live/enable", r#"{"actor":"bench"}"#).await?;
    let began = Instant::now();
    fill(&service, options.events).await?;
    println!("{} events in {:.0} s", grouped(options.events), began.elapsed().as_secs_f64());
    let part = options.events / 10;
    let (mut rates, mut peaks) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let all = verify(&place.data(), &[]).await?;
        let some = verify(&place.data(), &["--stream", "risk", "--to", &part.to_string()]).await?;
        println!(
            "round {round}: {} events/s, at most {} KiB; of a tenth {} events/s, at most {} KiB",
            rounded(all.rate(options.events)),
            grouped(all.peak_kib),
            rounded(some.rate(part)),
            grouped(some.peak_kib)
        );
        rates.push(all.rate(options.events));
        peaks.push(real(all.peak_kib) / real(some.peak_kib));
    }
    let rate = Spec::at_least("events verified a second", Some(MUST), None, 0, "");
    let peak = Spec::at_most("memory for ten times the events ÷ for one", Some(1.1), None, 2, "");
    println!("\n{TABLE}{}{}", rate.row(&rates, ""), peak.row(&peaks, ""));
    Ok(())
}

/// Reserves until the risk stream has so many events.
async fn fill(service: &Instance, events: u64) -> Result<()> {
    let reserve = r#"{"op":"reserve","engine":"WHOLESALE","amount":"1.25","actor":"bench","reason":"a reason of some length","correlation_id":"thread"}"#;
    let body = format!(r#"{{"operations":[{}]}}"#, vec![reserve; usize::try_from(BATCH)?].join(","));
    let request = http::post("/risk/batch", "", &body);
    // The levels are seeded without caps, so all of them pass.
    let batches = events.div_ceil(BATCH);
    let mut senders = JoinSet::new();
    for sender in 0..CONNECTIONS {
        let (request, addr) = (request.clone(), service.addr);
        let own = batches / CONNECTIONS + u64::from(sender < batches % CONNECTIONS);
        senders.spawn(async move {
            let mut connection = Connection::open(addr).await?;
            for _ in 0..own {
                connection.succeed(&request).await?;
            }
            Ok(())
        });
    }
    all(senders).await.map(drop)
}
