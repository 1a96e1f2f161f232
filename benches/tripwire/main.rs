//! Measures the tripwire's detectors: their false trips on series that do not change, and their delay on those that do,
//! by one command:
//! `cargo bench --bench tripwire`.
//!
//! Thousands of series are drawn and judged by the code that the service runs. Every series follows from the seed and its own
//! number, so the tables are the same on every machine, however many threads share the work; only the speed is this machine's.

mod rows;
mod series;
mod speed;
#[path = "../support/support.rs"]
#[expect(dead_code, reason = "each benchmark takes what it needs")]
mod support;
mod trials;

use clap::Parser;
use holdfast::regression::model::{Direction, Effect, Tolerance};
use rows::{Row, Table};
use series::Kind;
use std::process::ExitCode;
use tokio::time::Instant;
use trials::{Detector, Trial};

/// The rates of the tables.
const RATES: [f64; 5] = [0.5, 0.8, 0.9, 0.95, 0.99];
/// The default of `tolerance_fraction`, and the one for `KILL_SWITCH` with a limit of 20 %.
const TOLERANCES: [f64; 2] = [0.0, 0.1];

/// Measures false trips and delays of the tripwire's detectors on drawn series, and how fast they are.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench tripwire --")]
struct Options {
    /// Series of each row. The bounds are for the default; with fewer, chance alone can miss them.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    streams: u32,
}

fn main() -> ExitCode {
    let Some(options) = support::options::<Options>() else { return ExitCode::SUCCESS };
    let began = Instant::now();
    let mut missed = 0;
    for measure in [false_trips, delays, baselines, errors, noise, speed::table] {
        let table = measure(options.streams);
        println!("{table}");
        missed += table.missed();
    }
    println!("{:.0} s; {missed} of the bounds missed", began.elapsed().as_secs_f64());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Of series that do not change: how many trip within 5,000 events.
fn false_trips(streams: u32) -> Table {
    // PLAIN's bounds say that it is the original's rule: what was simulated of that, give or take four standard errors.
    let plain = [(99.9, 100.0), (96.4, 99.2), (16.2, 23.4), (0.0, 1.5), (0.0, 0.1)];
    let mut table = Table::new("False trips within 5,000 events of a series that does not change");
    for (p, must) in RATES.into_iter().zip(plain) {
        let share = Trial::new(Kind::Rate { p }, Detector::Plain).false_trips(streams);
        table.push(Row::new(format!("PLAIN, success rate {p}"), share, "%").within(must.0, must.1));
    }
    for p in RATES {
        let share = Trial::new(Kind::Rate { p }, Detector::SEQUENTIAL).false_trips(streams);
        table.push(Row::new(format!("SEQUENTIAL, success rate {p}"), share, "%").within(0.0, 1.5));
    }
    let values = Kind::Lognormal { sigma: 1.0 };
    let share = Trial::new(values, Detector::Plain).false_trips(streams);
    table.push(Row::new("PLAIN, lognormal values (sigma 1)".into(), share, "%").within(99.9, 100.0));
    let share = Trial::new(values, Detector::SEQUENTIAL).false_trips(streams);
    table.push(Row::new("SEQUENTIAL, lognormal values (sigma 1)".into(), share, "%").within(0.0, 1.2));
    table
}

/// Of series that drop: how many events later the median trips.
fn delays(streams: u32) -> Table {
    let mut table = Table::new("Median events from a drop to the trip");
    for (drop, p, plain, sequential) in [
        (0.5, 0.9, (19.0, 21.0), (18.0, 27.0)),
        (0.5, 0.95, (19.0, 21.0), (13.0, 20.0)),
        (0.5, 0.99, (19.0, 21.0), (8.0, 13.0)),
        (0.3, 0.95, (31.0, 35.0), (32.0, 45.0)),
        (0.3, 0.99, (32.0, 36.0), (16.0, 25.0)),
    ] {
        let title = |detector: &str| format!("{detector}, {:.0} % drop of success rate {p}", 100.0 * drop);
        let median = Trial::new(Kind::Rate { p }, Detector::Plain).median_delay(drop, streams);
        table.push(Row::new(title("PLAIN"), median, "").within(plain.0, plain.1));
        let median = Trial::new(Kind::Rate { p }, Detector::SEQUENTIAL).median_delay(drop, streams);
        table.push(Row::new(title("SEQUENTIAL"), median, "").within(sequential.0, sequential.1));
    }
    for drop in [0.5, 0.3] {
        let tolerant = Detector::Sequential { tolerance_fraction: TOLERANCES[1] };
        let median = Trial::new(Kind::Rate { p: 0.9 }, tolerant).median_delay(drop, streams);
        let title = format!("SEQUENTIAL, tolerance_fraction 0.1, {:.0} % drop of success rate 0.9", 100.0 * drop);
        table.push(Row::new(title, median, ""));
        let median = Trial::new(Kind::Lognormal { sigma: 1.0 }, Detector::SEQUENTIAL).median_delay(drop, streams);
        let title = format!("SEQUENTIAL, {:.0} % drop of lognormal values (sigma 1)", 100.0 * drop);
        table.push(Row::new(title, median, ""));
    }
    table
}

/// The value of a longer baseline for SEQUENTIAL: false trips, and the median number of events from a drop to the trip.
fn baselines(streams: u32) -> Table {
    let mut table = Table::new("SEQUENTIAL with a longer baseline");
    for p in [0.8, 0.9] {
        for baseline_events in [200, 1_000] {
            let trial = Trial::new(Kind::Rate { p }, Detector::SEQUENTIAL).against(baseline_events);
            let title = format!("{baseline_events} events, success rate {p}, false trips within 5,000 events");
            table.push(Row::new(title, trial.false_trips(streams), "%"));
            for drop in [0.3, 0.2] {
                let title = format!(
                    "{baseline_events} events, success rate {p}, median events from a {:.0} % drop to the trip",
                    100.0 * drop
                );
                table.push(Row::new(title, trial.median_delay(drop, streams), ""));
            }
        }
    }
    table
}

/// Of error rates that may rise by 5 points: false trips, and how many events after a rise the median trips.
fn errors(streams: u32) -> Table {
    let (direction, effect) = (Direction::LowerIsBetter, Effect::Absolute);
    let points = Tolerance { direction, effect, boolean: true, limit: 50_000 };
    let mut table = Table::new("Error rates, LOWER_IS_BETTER, ABSOLUTE, a limit of 5 points");
    for (name, detector, baseline_events) in [
        ("PLAIN", Detector::Plain, 200),
        ("SEQUENTIAL", Detector::SEQUENTIAL, 200),
        ("SEQUENTIAL with 1,000 events", Detector::SEQUENTIAL, 1_000),
    ] {
        for p in [0.01, 0.02, 0.05] {
            let trial = Trial::new(Kind::Rate { p }, detector).limited(points).against(baseline_events);
            let title = format!("{name}, false trips within 5,000 events, error rate {p}");
            table.push(Row::new(title, trial.false_trips(streams), "%"));
            let title = format!("{name}, median events from a rise to {:.2} to the trip, error rate {p}", p + 0.1);
            let rise = (p + 0.1) / p;
            table.push(Row::new(title, trial.median_delay(1.0 - rise, streams), ""));
        }
    }
    table
}

/// Of series with good and bad days, and no change beyond them: how many trip within 5,000 events.
fn noise(streams: u32) -> Table {
    let mut table = Table::new("False trips within 5,000 events, the rate drawn anew every 50 events");
    for (p, sd) in [(0.8, 0.03), (0.9, 0.03), (0.8, 0.05), (0.9, 0.05)] {
        let kind = Kind::NoisyRate { mean: p, sd };
        let share = Trial::new(kind, Detector::Plain).false_trips(streams);
        table.push(Row::new(format!("PLAIN, {p} ± {sd}"), share, "%"));
        for tolerance_fraction in TOLERANCES {
            let share = Trial::new(kind, Detector::Sequential { tolerance_fraction }).false_trips(streams);
            let title = format!("SEQUENTIAL, tolerance_fraction {tolerance_fraction}, {p} ± {sd}");
            table.push(Row::new(title, share, "%"));
        }
    }
    table
}
