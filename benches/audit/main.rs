//! How fast the trail is verified, and with how much memory, by one command: `cargo bench --bench audit`.
//!
//! A fresh PostgreSQL, a service on it that is made to reserve until there are enough events, and then `holdfast audit verify` of a
//! release build over all of them, several times, and over a tenth: memory that does not grow with the trail is the same for both.
//! What is in the figure is the whole command: starting, connecting, reading, hashing, printing.

// What the benchmarks share.
#[path = "../support/bounds.rs"]
mod bounds;
#[path = "../support/http.rs"]
#[expect(dead_code, reason = "each benchmark takes what it needs")]
mod http;
#[path = "../support/numbers.rs"]
mod numbers;
#[path = "../support/place.rs"]
#[expect(dead_code, reason = "each benchmark takes what it needs")]
mod place;

use clap::Parser;
use numbers::{grouped, real, rounded};
use place::{Instance, Place, free_address};
use std::process::{Command, ExitCode, Stdio};
use tokio::time::Instant;

/// What can go wrong here is told to a person, and ends the run.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

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
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        // `cargo test --all-targets` runs benches, too.
        println!("not measured: run it with cargo bench --bench audit");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    match runtime.expect("a runtime").block_on(run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    let place = Place::new(0)?;
    let data = place.root().join("data").display().to_string();
    let service = Instance::start(&place, "service", free_address()?, &[("DATA_DIR", data.clone())]).await?;
    service.post("/go-live/enable", r#"{"actor":"bench"}"#).await?;
    let began = Instant::now();
    fill(&service, options.events).await?;
    println!("{} events in {:.0} s", grouped(options.events), began.elapsed().as_secs_f64());
    let part = options.events / 10;
    let (mut rates, mut peaks) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let all = verify(&data, options.events, &[])?;
        let some = verify(&data, part, &["--stream", "risk", "--to", &part.to_string()])?;
        println!(
            "round {round}: {} events/s, at most {} KiB; of a tenth {} events/s, at most {} KiB",
            rounded(all.rate),
            grouped(all.peak_kib),
            rounded(some.rate),
            grouped(some.peak_kib)
        );
        rates.push(all.rate);
        peaks.push(real(all.peak_kib) / real(some.peak_kib));
    }
    println!("\n| Figure | Must | Measured (range over rounds) | Verdict |\n|---|---|---|---|");
    let verdict = bounds::verdict(&rates, bounds::Side::AtLeast, Some(MUST), None);
    println!("| events verified a second | {} | {} | {verdict} |", rounded(MUST), bounds::range(&rates, 0, ""));
    let verdict = bounds::verdict(&peaks, bounds::Side::AtMost, Some(1.1), None);
    println!("| memory for ten times the events ÷ for one | 1.1 | {} | {verdict} |", bounds::range(&peaks, 2, ""));
    Ok(())
}

/// Reserves until the risk stream has so many events.
async fn fill(service: &Instance, events: u64) -> Result<()> {
    let reserve = r#"{"op":"reserve","engine":"WHOLESALE","amount":"1.25","actor":"bench","reason":"a reason of some length","correlation_id":"thread"}"#;
    let body = format!(r#"{{"operations":[{}]}}"#, vec![reserve; usize::try_from(BATCH)?].join(","));
    let request = http::post("/risk/batch", "", &body);
    // The levels are seeded without caps, so all of them pass.
    let batches = events.div_ceil(BATCH);
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..CONNECTIONS {
        let (request, addr) = (request.clone(), service.addr);
        let own = batches / CONNECTIONS + u64::from(sender < batches % CONNECTIONS);
        senders.spawn(async move {
            let mut connection = http::Connection::open(addr).await?;
            for _ in 0..own {
                let answer = connection.exchange(&request).await?;
                if answer.status != 200 {
                    return Err(format!("a batch was answered {}", answer.excerpt()).into());
                }
            }
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    Ok(())
}

/// What one verification took.
struct Verified {
    rate: f64,
    peak_kib: u64,
}

/// Runs `holdfast audit verify` to its end.
fn verify(data: &str, events: u64, arguments: &[&str]) -> Result<Verified> {
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["audit", "verify", "--data-dir", data])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut peak_kib = 0;
    let status = loop {
        // The peak is gone with the process, so it is looked at until then.
        let shown = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak =
            shown.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(|peak| peak.trim_end_matches(" kB").trim());
        peak_kib = peak.and_then(|peak| peak.parse().ok()).unwrap_or(0).max(peak_kib);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    if !status.success() {
        return Err(format!("holdfast audit verify ended with {status}").into());
    }
    Ok(Verified { rate: real(events) / began.elapsed().as_secs_f64(), peak_kib })
}
