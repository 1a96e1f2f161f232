//! How fast a detector goes through a history in memory, on one core.

use crate::rows::{Row, Table};
use crate::series::{Kind, Series};
use crate::trials::{BASELINE, a_fifth, frozen, rolling};
use chrono::DateTime;
use holdfast::regression::backtest::Replay;
use holdfast::regression::detector::Evidence;
use holdfast::regression::model::{Detector, Measurement, PolicyUpsert, RegressionPolicy, upsert};
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
        let replay = |detector| {
            let policy = draft(detector);
            let boolean = matches!(kind, Kind::Rate { .. });
            rate(&history, |history| {
                let mut replay = Replay::new(&policy, boolean, 0);
                for event in history {
                    replay.meet(*event, || DateTime::UNIX_EPOCH).expect("a sum of this history fits");
                }
                usize::try_from(replay.trips().0).expect("as many as events at most")
            })
        };
        let rows = [
            ("PLAIN", plain),
            ("SEQUENTIAL", sequential),
            ("backtest of PLAIN", replay(Detector::Plain)),
            ("backtest of SEQUENTIAL", replay(Detector::Sequential)),
        ];
        for (detector, rate) in rows {
            let row = Row::new(format!("{detector}, {name}"), (rate * 10.0).round() / 10.0, "");
            table.push(row.within(MUST, f64::INFINITY));
        }
    }
    table
}

/// A wire of the defaults.
fn draft(detector: Detector) -> RegressionPolicy {
    let request = PolicyUpsert {
        domain: "BENCH".parse().expect("a name"),
        metric: "rate".parse().expect("a name"),
        window_events: None,
        baseline_events: None,
        min_events_to_enforce: None,
        max_drop_fraction: None,
        action: None,
        engine: None,
        detector: Some(detector),
        direction: None,
        effect: None,
        max_drop_value: None,
        mode: None,
        on_stale: None,
        stale_after_seconds: None,
        false_trip_arl: None,
        tolerance_fraction: None,
        enabled: None,
    };
    upsert(None, &request, None, None, DateTime::UNIX_EPOCH).expect("the defaults are acceptable").0
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
