//! The shared parts of the benchmarks: how a run begins and ends, the service that is measured, and how figures read.

pub(crate) mod figures;
pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod numbers;
pub(crate) mod place;
pub(crate) mod verification;
pub(crate) mod yardstick;

use clap::Parser;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// A fault here is told to a person, and ends the run.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The options of a run; `None` where none is wanted, since `cargo test --all-targets` runs benches, too.
pub(crate) fn options<O: Parser>() -> Option<O> {
    // Cargo passes this to every benchmark.
    let (bench, arguments): (Vec<_>, Vec<_>) = std::env::args_os().partition(|argument| argument == "--bench");
    if bench.is_empty() {
        println!("not measured: run it with {}", O::command().get_name().trim_end_matches(" --"));
        return None;
    }
    Some(O::parse_from(arguments))
}

/// Builds the program, and measures it to the end, or until somebody asks to stop.
pub(crate) fn main<O: Parser>(runtime: &mut Builder, measure: impl AsyncFnOnce(&O) -> Result<()>) -> ExitCode {
    let Some(options) = options::<O>() else { return ExitCode::SUCCESS };
    let measured = place::build().and_then(|()| {
        runtime.enable_all().build()?.block_on(async {
            tokio::select! {
                measured = measure(&options) => measured,
                stopped = stopped() => stopped,
            }
        })
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

/// The results of all tasks; the first error ends the others.
pub(crate) async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut ended = Vec::with_capacity(tasks.len());
    while let Some(one) = tasks.join_next().await {
        ended.push(one??);
    }
    Ok(ended)
}

/// Prints the tables, and writes everything that was measured to a file where one was named.
pub(crate) fn publish(tables: &str, path: Option<&Path>, json: impl FnOnce() -> Value) -> Result<()> {
    println!("\n{tables}");
    if let Some(path) = path {
        std::fs::write(path, json().to_string())?;
        println!("written to {}", path.display());
    }
    Ok(())
}
