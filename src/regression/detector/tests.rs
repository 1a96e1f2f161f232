//! The vectors of the reference (tripwire.md, section 5), and claims about any stream.

mod properties;

use super::*;
use crate::regression::model::{Direction, Effect, Mark, Measurement, Tolerance, Window};
use crate::types::{Measured, Total, scaled_text};

const HIGHER: Direction = Direction::HigherIsBetter;
const LOWER: Direction = Direction::LowerIsBetter;
const MICRO: i128 = 1_000_000;
/// The default of `false_trip_arl`.
const ARL: f64 = 50_000.0;

fn tolerance(direction: Direction, effect: Effect, boolean: bool, limit: i128) -> Tolerance {
    Tolerance { direction, effect, boolean, limit }
}

/// A relative drop of 20 %.
fn a_fifth(boolean: bool) -> Tolerance {
    tolerance(HIGHER, Effect::Relative, boolean, 200_000)
}

fn rate(successes: i64, events: i64) -> Window {
    Window { events, sum: Total::from_units(i128::from(successes) * MICRO).unwrap() }
}

fn value(units: i128) -> Measurement {
    Measurement::Value(measured(units))
}

fn measured(units: i128) -> Measured {
    scaled_text(units, 6).parse().unwrap()
}

fn whole(values: impl IntoIterator<Item = i64>) -> Vec<Measured> {
    values.into_iter().map(|value| measured(i128::from(value) * MICRO)).collect()
}

/// A rate with `successes` of 200, with d = 0.20.
fn frozen(successes: i64) -> Frozen {
    let baseline = rate(successes, 200);
    Frozen::rate(Settings::of(a_fifth(true), baseline, 0.0, ARL), baseline).unwrap()
}

fn frozen_values(tolerance: Tolerance, tolerance_fraction: f64, values: &[Measured]) -> Frozen {
    Frozen::values(Settings { tolerance, drop_fraction: 0.2, tolerance_fraction, arl: ARL }, values).unwrap()
}

/// A pattern of successes and failures, repeated for ever.
fn repeated(pattern: &[u8]) -> impl Iterator<Item = Measurement> {
    pattern.iter().cycle().map(|success| Measurement::Success(*success == 1))
}

/// The 250 events of the golden streams: each `m`-th fails.
fn failing_every(m: usize) -> Vec<Measurement> {
    (1..=250).map(|at| Measurement::Success(at % m != 0)).collect()
}

fn assert_near(value: f64, expected: f64) {
    assert!((value - expected).abs() <= 1e-6, "{value} is not {expected}");
}

/// tripwire.md 5.2: without the condition on the drop.
#[test]
fn evidence_is_that_of_the_reference() {
    let vectors: [(i64, &[u8], usize, [f64; 5]); 8] = [
        (160, &[0], 12, [2.023_477, 4.372_338, 10.015_072, 24.056_523, 59.915_115]),
        (180, &[0], 8, [3.169_274, 11.162_725, 42.815_631, 174.587_532, 741.503_286]),
        (190, &[0], 6, [5.057_271, 29.239_129, 186.987_991, 1_278.199_539, 9_102.695_506]),
        (160, &[1, 0], 82, [0.658_124, 2.023_477, 1.238_877, 2.487_472, 1.539_725]),
        (180, &[1, 0], 32, [0.645_657, 3.169_274, 1.863_573, 5.992_34, 3.493_331]),
        (190, &[1, 0], 20, [0.638_09, 5.057_271, 2.900_241, 15.167_872, 8.523_903]),
        (160, &[1, 1, 0], 744, [0.658_124, 0.658_124, 2.023_477, 1.238_877, 0.821_803]),
        (190, &[1, 1, 0], 45, [0.638_09, 0.638_09, 5.057_271, 2.900_241, 1.805_963]),
    ];
    for (successes, pattern, fires, first) in vectors {
        let (frozen, mut evidence) = (frozen(successes), Evidence::default());
        let seen: Vec<_> = repeated(pattern).take(1_000).map(|event| evidence.step(&frozen, event).evidence).collect();
        for (value, expected) in seen.iter().zip(first) {
            assert_near(*value, expected);
        }
        let reached = seen.iter().position(|evidence| *evidence >= ARL);
        assert_eq!(reached, Some(fires - 1), "{successes}/200, {pattern:?}");
    }
}

#[test]
fn the_bound_is_wilsons_or_the_tolerance() {
    for (successes, bound) in [(100, 0.442_23), (160, 0.749_606), (180, 0.859_589), (190, 0.918_105), (200, 0.986_65)] {
        assert_near(frozen(successes).bound(), bound);
    }
    let baseline = rate(180, 200);
    let tolerant = Settings { tolerance_fraction: 0.1, ..Settings::of(a_fifth(true), baseline, 0.0, ARL) };
    assert_near(Frozen::rate(tolerant, baseline).unwrap().bound(), 0.81);
}

/// The failing ones of 250 events, the pattern after them, the successes of the first 200, and the events at which
/// PLAIN and SEQUENTIAL fire.
type Golden = (usize, &'static [u8], i64, Option<usize>, Option<usize>);

/// tripwire.md 5.1: the bad event at which each detector fires. 190/200 against 38/50 is exactly 20 %; with floats
/// PLAIN is one late.
#[test]
fn the_golden_streams_fire_where_the_reference_does() {
    let streams: [Golden; 8] = [
        (5, &[0], 160, Some(9), Some(11)),
        (5, &[0, 1], 160, Some(23), Some(77)),
        (5, &[0, 1, 1], 160, Some(49), None),
        (10, &[0], 180, Some(9), Some(7)),
        (10, &[0, 1], 180, Some(19), Some(27)),
        (20, &[0], 190, Some(10), Some(6)),
        (20, &[0, 1], 190, Some(19), Some(19)),
        (20, &[0, 1, 1], 190, Some(31), Some(43)),
    ];
    for (m, pattern, successes, plain, sequential) in streams {
        let stream: Vec<_> = failing_every(m).into_iter().chain(repeated(pattern).take(2_000)).collect();
        let bad = |fired: Option<usize>| fired.map(|at| at.checked_sub(249).expect("not before the bad events"));
        let fired = bad((100..=stream.len()).position(|events| looked(&stream[..events])).map(|at| at + 99));
        assert_eq!(fired, plain, "PLAIN, each {m}th fails, then {pattern:?}");
        let mut rolling = Rolling::new(a_fifth(true), 50, 200, 50);
        assert_eq!(bad(stream.iter().position(|event| rolling.step(*event))), plain);

        let (frozen, mut evidence) = (frozen(successes), Evidence::default());
        let fired = stream.iter().skip(200).position(|event| evidence.step(&frozen, *event).trips);
        assert_eq!(bad(fired.map(|at| at + 200)), sequential, "SEQUENTIAL, each {m}th fails, then {pattern:?}");
    }
}

/// PLAIN of 50 and 200 by its definition, over all of the events.
fn looked(stream: &[Measurement]) -> bool {
    let (before, recent) = stream.split_at(stream.len().saturating_sub(50));
    let baseline = &before[before.len().saturating_sub(200)..];
    let window = |events: &[Measurement]| {
        let good = events.iter().filter(|event| **event == Measurement::Success(true)).count();
        rate(i64::try_from(good).unwrap(), i64::try_from(events.len()).unwrap())
    };
    baseline.len() >= 50 && a_fifth(true).reaches(window(baseline), window(recent))
}

#[test]
fn a_trip_says_when_the_change_began() {
    let (frozen, mut evidence) = (frozen(180), Evidence::default());
    let mut stream = failing_every(10).into_iter().skip(200).chain(repeated(&[0, 1]));
    let step = stream.by_ref().map(|event| evidence.step(&frozen, event)).find(|step| step.trips).unwrap();
    // 50 events with the baseline's rate, then 27 of which every other fails; the last of the 50 failed as well.
    assert_eq!((evidence.now.events, evidence.began[step.leading].events), (77, 49));
    assert_eq!(step.recent, rate(13, 28));
    assert_eq!(evidence.reading(&frozen), step);
    assert!(step.evidence >= ARL);
}

/// The limit, the `tolerance_fraction`, the baseline, the pattern after it, the event that trips, and the first
/// evidence.
type OfValues = (Tolerance, f64, Vec<Measured>, &'static [i64], usize, [f64; 5]);

/// Against an implementation of the reference's formulas in another language, with doubles.
#[test]
fn evidence_of_values_is_that_of_their_ranks() {
    let drop = a_fifth(false);
    let loss = tolerance(HIGHER, Effect::Absolute, false, 50 * MICRO);
    let cost = tolerance(LOWER, Effect::Relative, false, 200_000);
    let twenties = || (0..200).map(|at| at / 20);
    let vectors: [OfValues; 8] = [
        (drop, 0.0, whole(1..=200), &[50], 38, [1.233_517, 1.533_173, 1.920_085, 2.422_579, 3.078_743]),
        (drop, 0.0, whole(1..=200), &[30, 90], 51, [1.340_183, 1.368_695, 1.861_441, 1.903_222, 2.625_934]),
        (drop, 0.0, whole(twenties()), &[2, 5, 1], 61, [1.231_029, 1.117_128, 1.501_498, 1.873_578, 1.688_161]),
        (drop, 0.1, whole(1..=200), &[50], 41, [1.216, 1.488_589, 1.834_479, 2.275_66, 2.841_127]),
        (
            drop,
            0.0,
            whole((0..200).map(|at| 100 + at % 3)),
            &[0],
            21,
            [1.499_565, 2.301_826, 3.613_539, 5.792_449, 9.461_673],
        ),
        (drop, 0.0, whole([100; 200]), &[50], 20, [1.533_333, 2.411_667, 3.886_583, 6.405_804, 10.771_831]),
        (
            loss,
            0.0,
            whole((1..=200).map(|at| -at)),
            &[-190],
            23,
            [1.441_517, 2.119_471, 3.176_596, 4.847_747, 7.521_581],
        ),
        (cost, 0.0, whole(1..=200), &[150], 39, [1.228_183, 1.519_519, 1.893_711, 2.377_033, 3.004_609]),
    ];
    for (tolerance, tolerance_fraction, baseline, pattern, fires, first) in vectors {
        let (frozen, mut evidence) = (frozen_values(tolerance, tolerance_fraction, &baseline), Evidence::default());
        let events = pattern.iter().cycle().map(|units| value(i128::from(*units) * MICRO));
        let steps: Vec<_> = events.take(100).map(|event| evidence.step(&frozen, event)).collect();
        for (step, expected) in steps.iter().zip(first) {
            assert_near(step.evidence, expected);
        }
        assert_eq!(steps.iter().position(|step| step.trips), Some(fires - 1), "{tolerance:?} {pattern:?}");
    }
}

#[test]
fn outliers_count_as_the_fence_they_are_behind() {
    // Quartiles 50 and 151: fences at 50 - 3 · 101 and 151 + 3 · 101.
    let mut values = whole(1..=199);
    values.push(measured(1_000_000 * MICRO));
    let frozen = frozen_values(a_fifth(false), 0.0, &values);
    assert_eq!(frozen.baseline(), Window { events: 200, sum: "20354".parse().unwrap() });
    let mut evidence = Evidence::default();
    evidence.step(&frozen, value(-1_000_000 * MICRO));
    assert_eq!(evidence.now, Mark { events: 1, sum: "-253".parse().unwrap() });
}

#[test]
fn a_metric_that_hardly_varies_cannot_collapse_behind_its_fence() {
    // Between 100 and 101, three spreads below the quartile are 97: 3 %.
    let frozen = frozen_values(a_fifth(false), 0.0, &whole((0..200).map(|at| 100 + at % 2)));
    let mut evidence = Evidence::default();
    let trips = (0..50).map(|_| evidence.step(&frozen, value(0))).position(|step| step.trips);
    assert_eq!(trips, Some(20));
    // If three quarters are 0, there is no spread and so no fence.
    let rare = whole((0..200).map(|at| if at % 5 == 0 { 1_000 } else { 0 }));
    assert_eq!(frozen_values(a_fifth(false), 0.0, &rare).baseline().sum.to_string(), "40000");
}

#[test]
fn enough_evidence_without_the_drop_does_not_trip() {
    // The rate is almost certainly below 99.5 %, and it is below by 10 %.
    let baseline = rate(199, 200);
    let frozen = Frozen::rate(Settings::of(a_fifth(true), baseline, 0.0, ARL), baseline).unwrap();
    let mut evidence = Evidence::default();
    let steps: Vec<_> =
        repeated(&[1, 1, 1, 1, 0, 1, 1, 1, 1, 1]).take(2_000).map(|event| evidence.step(&frozen, event)).collect();
    assert!(steps.iter().any(|step| step.evidence >= ARL));
    assert!(steps.iter().all(|step| !step.trips));
}

#[test]
fn points_of_a_rate_are_designed_as_their_fraction_of_the_baseline() {
    let points = |direction, limit| tolerance(direction, Effect::Absolute, true, limit);
    assert_near(Settings::of(points(HIGHER, 90_000), rate(180, 200), 0.0, ARL).drop_fraction, 0.1);
    assert_near(Settings::of(points(LOWER, 90_000), rate(20, 200), 0.0, ARL).drop_fraction, 0.1);
    assert_near(Settings::of(points(HIGHER, 500_000), rate(20, 200), 0.0, ARL).drop_fraction, 1.0);
    assert_near(Settings::of(points(HIGHER, 500_000), rate(0, 200), 0.0, ARL).drop_fraction, 1.0);
    // 18 points of 90 % are a fifth: the same bets, the same trip.
    let baseline = rate(180, 200);
    let frozen = Frozen::rate(Settings::of(points(HIGHER, 180_000), baseline, 0.0, ARL), baseline).unwrap();
    let mut evidence = Evidence::default();
    assert_eq!(repeated(&[0]).take(50).position(|event| evidence.step(&frozen, event).trips), Some(7));
}

#[test]
fn nothing_is_no_baseline() {
    let settings = Settings::of(a_fifth(true), Window::default(), 0.0, ARL);
    assert_eq!(Frozen::rate(settings, Window::default()), None);
    assert_eq!(Frozen::values(settings, &[]), None);
}

#[test]
fn evidence_is_shown_on_the_scale_of_its_logarithm() {
    assert_near(evidence_pct(0.3, ARL), 0.0);
    assert_near(evidence_pct(1.0, ARL), 0.0);
    assert_near(evidence_pct(ARL.sqrt(), ARL), 50.0);
    assert_near(evidence_pct(1e15, ARL), 100.0);
    assert_near(evidence_pct(1.0, 1.0), 100.0);
}
