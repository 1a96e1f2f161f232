use super::*;
use crate::error::Error;
use crate::types::Fraction;
use chrono::DateTime;
use proptest::prelude::*;

fn request() -> PolicyUpsert {
    PolicyUpsert {
        domain: "WHOLESALE".parse().unwrap(),
        metric: "contract_rate".parse().unwrap(),
        window_events: None,
        baseline_events: None,
        min_events_to_enforce: None,
        max_drop_fraction: None,
        action: None,
        engine: None,
        detector: None,
        direction: None,
        effect: None,
        max_drop_value: None,
        mode: None,
        on_stale: None,
        stale_after_seconds: None,
        false_trip_arl: None,
        tolerance_fraction: None,
        enabled: None,
    }
}

fn policy(drop: &str) -> RegressionPolicy {
    let request = PolicyUpsert { max_drop_fraction: Some(drop.parse().unwrap()), ..request() };
    upsert(None, &request, None, None, DateTime::UNIX_EPOCH).unwrap().0
}

/// The reading of PLAIN for two adjacent windows.
fn evaluate(policy: &RegressionPolicy, baseline: Window, recent: Window) -> Reading {
    let mut state = WireState::new(policy.domain.clone(), policy.metric.clone());
    state.pinned = Some(baseline);
    let policy = RegressionPolicy { window_events: "10000".parse().unwrap(), ..policy.clone() };
    let end = Mark { events: recent.events, sum: recent.sum };
    Wire::new(policy, state, false).read(end, &Series::default()).unwrap()
}

fn window(successes: i64, events: i64) -> Window {
    Window { events, sum: Total::from_units(i128::from(successes) * 1_000_000).unwrap() }
}

#[test]
fn a_new_wire_starts_at_the_originals_defaults() {
    let policy = policy("0.2");
    assert_eq!(
        (policy.window_events.get(), policy.baseline_events.get(), policy.min_events_to_enforce.get()),
        (50, 200, 50)
    );
    assert!(policy.enabled && policy.action == Action::Throttle);
    assert_eq!(policy.throttled_engine().unwrap().as_str(), "WHOLESALE");
}

/// tripwire.md 5.4: the 14 ties at d = 0.20 that `(b - c) / b >= d` in doubles misses.
#[test]
fn exact_ties_trip_where_floats_miss_them() {
    let ties = [
        (25, 5),
        (35, 7),
        (50, 10),
        (70, 14),
        (85, 17),
        (95, 19),
        (100, 20),
        (115, 23),
        (140, 28),
        (165, 33),
        (170, 34),
        (190, 38),
        (195, 39),
        (200, 40),
    ];
    for (baseline, recent) in ties {
        let evaluation = evaluate(&policy("0.2"), window(baseline, 200), window(recent, 50));
        assert_eq!(evaluation.verdict, Verdict::Trips, "{baseline}/200 {recent}/50");
        assert_eq!(evaluate(&policy("0.2"), window(baseline, 200), window(recent + 1, 50)).verdict, Verdict::Holds);
    }
    // All pairs: 40 exact ties.
    let exact =
        (0..=200).flat_map(|b| (0..=50).map(move |c| (b, c))).filter(|&(b, c)| b > 0 && 20 * c == 4 * b).count();
    assert_eq!(exact, 40);
}

#[test]
fn every_verdict_has_its_note() {
    let policy = policy("0.2");
    let note = |baseline, recent| {
        let reading = evaluate(&policy, baseline, recent);
        reading.verdict.note(reading.drop, reading.evidence, Action::Throttle)
    };
    assert_eq!(note(window(10, 30), window(49, 49)), "insufficient_events(recent=49, baseline=30)");
    assert_eq!(note(window(0, 200), window(50, 50)), "cannot_compute_rate");
    assert_eq!(note(window(190, 200), window(45, 50)), "OK drop=0.053");
    assert_eq!(note(window(180, 200), window(50, 50)), "OK drop=-0.111");
    assert_eq!(note(window(190, 200), window(37, 50)), "TRIGGERED drop=0.221 action=THROTTLE");
    let negative = Window { events: 200, sum: "-5".parse().unwrap() };
    assert_eq!(note(negative, window(1, 50)), "cannot_compute_rate");
}

#[test]
fn windows_never_reach_behind_the_watermark_and_the_pinned_baseline_ends() {
    let policy = policy("0.2");
    assert_eq!(Span::of(&policy, 250, 0, false), Span { low: 0, high: 200, pinned: false });
    assert_eq!(Span::of(&policy, 20, 0, false), Span { low: 0, high: 0, pinned: false });
    assert_eq!(Span::of(&policy, 1_000, 0, false), Span { low: 750, high: 950, pinned: false });
    assert_eq!(Span::of(&policy, 1_030, 1_000, true), Span { low: 1_000, high: 1_000, pinned: true });
    assert_eq!(Span::of(&policy, 1_249, 1_000, true), Span { low: 1_000, high: 1_199, pinned: true });
    assert_eq!(Span::of(&policy, 1_250, 1_000, true), Span { low: 1_000, high: 1_200, pinned: false });
}

#[test]
fn impossible_wires_are_refused_with_the_fix() {
    let base = PolicyUpsert {
        domain: "D".repeat(80).parse().unwrap(),
        metric: "m".parse().unwrap(),
        window_events: Some("20".parse().unwrap()),
        baseline_events: Some("10001".parse().unwrap()),
        max_drop_fraction: Some(Fraction::ZERO),
        ..request()
    };
    let Err(Error::Invalid(errors)) = upsert(None, &base, None, None, DateTime::UNIX_EPOCH) else { panic!("accepted") };
    let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["baseline_events", "min_events_to_enforce", "max_drop_fraction", "engine"]);
}

proptest! {
    /// The decision is that of rational arithmetic, for booleans and for the largest values alike.
    #[test]
    fn the_comparison_is_exact(
        baseline in 1_i128..=10_000 * 1_000_000_000_000_000_000,
        recent in -10_000_i128 * 1_000_000_000_000_000_000..=10_000 * 1_000_000_000_000_000_000,
        events in (50_i64..=10_000, 50_i64..=10_000),
        drop in 1_i64..=1_000_000,
    ) {
        let mut policy = policy("0.2");
        policy.max_drop_fraction = crate::types::scaled_text(i128::from(drop), 6).parse().unwrap();
        let (b, c) = (Window { events: events.0, sum: Total::from_units(baseline).unwrap() }, Window { events: events.1, sum: Total::from_units(recent).unwrap() });
        let trips = evaluate(&policy, b, c).verdict == Verdict::Trips;
        // current <= baseline * (1 - d), both sides times nb * nc * 10^6.
        let expected = recent * i128::from(events.0) * 1_000_000 <= baseline * i128::from(events.1) * i128::from(1_000_000 - drop);
        prop_assert_eq!(trips, expected);
    }
}
