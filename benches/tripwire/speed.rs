//! How fast a detector goes through a history in memory, on one core.

use crate::rows::{Row, Table};
use crate::series::{Kind, Series};
use crate::trials::{BASELINE, a_fifth, frozen, rolling};
use holdfast::regression::detector::Evidence;
use holdfast::regression::model::Measurement;
use std::hint::black_box;
use tokio::time::Instant;

/// Events of a history.
const EVENTS: u32 = 2_000_000;
/// Times that it is gone through; the slowest counts.
const ROUNDS: u32 = 5;
/// Millions of events a second that a detector must take.
const MUST: f64 = 5.0;

/// Millions of events a second. As many series as the other tables have would say nothing more.
pub(crate) fn table(_streams: u32) -> Table {
    let mut table = Table::new("Millions of events a second through the core loop, one core");
    for (name, kind) in [("successes", Kind::Rate { p: 0.9 }), ("values", Kind::Lognormal { sigma: 1.0 })] {
        let mut series = Series::new(kind, 1);
        let history: Vec<_> = (0..EVENTS).map(|_| series.draw()).collect();
        let plain = rate(&history, |history| {
            let mut wire = rolling(a_fifth(kind), BASELINE);
            history.iter().filter(|event| wire.step(**event)).count()
        });
        let (baseline, after) = history.split_at(BASELINE);
        let baseline = frozen(a_fifth(kind), baseline, 0.0);
        let sequential = rate(after, |history| {
            let mut evidence = Evidence::default();
            history.iter().filter(|event| evidence.step(&baseline, **event).trips).count()
        });
        for (detector, rate) in [("PLAIN", plain), ("SEQUENTIAL", sequential)] {
            let row = Row::new(format!("{detector}, {name}"), (rate * 10.0).round() / 10.0, "");
            table.push(row.within(MUST, f64::INFINITY));
        }
    }
    table
}

/// The slowest of the rounds.
fn rate(history: &[Measurement], run: impl Fn(&[Measurement]) -> usize) -> f64 {
    let rates = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        black_box(run(black_box(history)));
        f64::from(EVENTS) / began.elapsed().as_secs_f64() / 1e6
    });
    rates.fold(f64::INFINITY, f64::min)
}
