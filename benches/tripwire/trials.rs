//! Many series under one detector.

use crate::series::{Kind, Series};
use crate::support::numbers::real;
use holdfast::regression::detector::permutation::SplitMix64;
use holdfast::regression::detector::{Evidence, Frozen, Rolling, Settings};
use holdfast::regression::model::{Direction, Effect, Measurement, Tolerance, Window};
use holdfast::types::Total;

/// All tables follow from it.
const SEED: u64 = 20_260_105;
/// Events of the baseline, and of PLAIN's window.
pub(crate) const BASELINE: usize = 200;
pub(crate) const WINDOW: usize = 50;
/// Events within which a trip counts as false.
const HORIZON: u32 = 5_000;
/// Events within which a drop is seen or missed.
const PATIENCE: u32 = 1_000;
/// The default of `false_trip_arl`.
const ARL: f64 = 50_000.0;

/// How a series is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Detector {
    Plain,
    Sequential { tolerance_fraction: f64 },
}

impl Detector {
    /// As by default.
    pub(crate) const SEQUENTIAL: Self = Self::Sequential { tolerance_fraction: 0.0 };
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    kind: Kind,
    detector: Detector,
    tolerance: Tolerance,
    baseline_events: usize,
}

impl Trial {
    pub(crate) fn new(kind: Kind, detector: Detector) -> Self {
        Self { kind, detector, tolerance: a_fifth(kind), baseline_events: BASELINE }
    }

    /// With another limit.
    pub(crate) fn limited(self, tolerance: Tolerance) -> Self {
        Self { tolerance, ..self }
    }

    /// With another baseline.
    pub(crate) fn against(self, baseline_events: usize) -> Self {
        Self { baseline_events, ..self }
    }

    /// Percent of the series that trip.
    pub(crate) fn false_trips(self, streams: u32) -> f64 {
        let trips = in_parallel(streams, |seed| {
            let (mut series, mut wire) = self.begin(seed);
            // PLAIN counts from its first event; the baseline of SEQUENTIAL comes before.
            (1..=HORIZON).find(|_| wire.trips(series.draw()))
        });
        100.0 * real(trips.iter().flatten().count() as u64) / f64::from(streams)
    }

    /// The median of the events from a drop to the trip; infinite when fewer than half of the series trip. Those that trip before
    /// the drop are left out.
    pub(crate) fn median_delay(self, drop: f64, streams: u32) -> f64 {
        let delays = in_parallel(streams, |seed| {
            let (mut series, mut wire) = self.begin(seed);
            let before = if matches!(self.detector, Detector::Plain) { self.baseline_events + WINDOW } else { WINDOW };
            if (0..before).any(|_| wire.trips(series.draw())) {
                return None;
            }
            series.drop_by(drop);
            Some((1..=PATIENCE).find(|_| wire.trips(series.draw())).map_or(f64::INFINITY, f64::from))
        });
        let mut delays: Vec<_> = delays.into_iter().flatten().collect();
        delays.sort_unstable_by(f64::total_cmp);
        delays.get(delays.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    fn begin(self, seed: u64) -> (Series, Wire) {
        let mut series = Series::new(self.kind, seed);
        let wire = match self.detector {
            Detector::Plain => Wire::Plain(rolling(self.tolerance, self.baseline_events)),
            Detector::Sequential { tolerance_fraction } => {
                let baseline: Vec<_> = (0..self.baseline_events).map(|_| series.draw()).collect();
                Wire::Sequential(frozen(self.tolerance, &baseline, tolerance_fraction), Evidence::default())
            }
        };
        (series, wire)
    }
}

/// A detector at work.
#[expect(clippy::large_enum_variant, reason = "one a thread")]
enum Wire {
    Plain(Rolling),
    Sequential(Frozen, Evidence),
}

impl Wire {
    fn trips(&mut self, event: Measurement) -> bool {
        match self {
            Self::Plain(rolling) => rolling.step(event),
            Self::Sequential(frozen, evidence) => evidence.step(frozen, event).trips,
        }
    }
}

/// A drop of a fifth.
pub(crate) fn a_fifth(kind: Kind) -> Tolerance {
    let (direction, effect) = (Direction::HigherIsBetter, Effect::Relative);
    Tolerance { direction, effect, boolean: kind.is_rate(), limit: 200_000 }
}

/// PLAIN as by default.
pub(crate) fn rolling(tolerance: Tolerance, baseline_events: usize) -> Rolling {
    let events = |count| i64::try_from(count).expect("a constant of this file");
    Rolling::new(tolerance, events(WINDOW), events(baseline_events), events(WINDOW))
}

/// SEQUENTIAL on a baseline.
pub(crate) fn frozen(tolerance: Tolerance, baseline: &[Measurement], tolerance_fraction: f64) -> Frozen {
    let sum = baseline.iter().try_fold(Total::ZERO, |sum, event| sum.plus(event.addend())).expect("within range");
    let window = Window { events: i64::try_from(baseline.len()).expect("a short baseline"), sum };
    let settings = Settings::of(tolerance, window, tolerance_fraction, ARL);
    if tolerance.boolean {
        return Frozen::rate(settings, window).expect("a baseline");
    }
    let values = baseline.iter().filter_map(|event| match event {
        Measurement::Value(value) => Some(*value),
        Measurement::Success(_) => None,
    });
    Frozen::values(settings, &values.collect::<Vec<_>>()).expect("a baseline")
}

/// The result of each series, by its seed, over all cores.
fn in_parallel<T: Send>(streams: u32, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    // Seeds that follow one another give series that do; those that SplitMix64 gives do not.
    let mut random = SplitMix64::new(SEED);
    let seeds: Vec<_> = (0..streams).map(|_| random.bits()).collect();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = seeds.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = seeds
            .chunks(share)
            .map(|seeds| scope.spawn(|| seeds.iter().map(|seed| run(*seed)).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker that does not panic")).collect()
    })
}
