//! Properties of any stream.

use super::*;
use crate::regression::model::WINDOW_MAX;
use proptest::prelude::*;

const LARGEST: i128 = 1_000_000_000_000_000_000;

/// Streams that change: long enough for evidence to come, go, and reach its cap.
fn successes() -> impl Strategy<Value = Vec<Measurement>> {
    let part = (0_u8..=10, 0_usize..150)
        .prop_flat_map(|(tenths, events)| prop::collection::vec(0_u8..10, events).prop_map(move |dice| (tenths, dice)));
    prop::collection::vec(part, 1..4).prop_map(|parts| {
        let events =
            |(tenths, dice): (u8, Vec<u8>)| dice.into_iter().map(move |die| Measurement::Success(die < tenths));
        parts.into_iter().flat_map(events).collect()
    })
}

fn values() -> impl Strategy<Value = Vec<i128>> {
    let one = prop_oneof![-LARGEST..=LARGEST, -5 * MICRO..=5 * MICRO, Just(0), Just(MICRO)];
    prop::collection::vec(one, 1..120)
}

fn bits(evidence: &Evidence) -> [u64; 3] {
    evidence.e.map(f64::to_bits)
}

/// All steps of a stream.
fn run(frozen: &Frozen, evidence: &mut Evidence, stream: &[Measurement]) -> Vec<Step> {
    stream.iter().map(|event| evidence.step(frozen, *event)).collect()
}

fn assert_sound(frozen: &Frozen, stream: &[Measurement]) -> Result<(), TestCaseError> {
    let mut evidence = Evidence::default();
    for (at, event) in stream.iter().enumerate() {
        let step = evidence.step(frozen, *event);
        prop_assert!(evidence.e.iter().all(|e| e.is_finite() && *e > 0.0 && *e <= 1e15), "{evidence:?}");
        prop_assert!(step.evidence.is_finite() && frozen.bound().is_finite());
        prop_assert!(evidence.e.iter().all(|e| *e <= evidence.e[step.leading]));
        prop_assert_eq!(evidence.now.events, i64::try_from(at).unwrap() + 1);
        prop_assert!(step.recent.events >= 1);
        let compared = frozen.settings().tolerance.compare(frozen.baseline(), step.recent);
        prop_assert_eq!(step.trips, step.evidence >= ARL && compared.reaches);
    }
    Ok(())
}

fn any_tolerance() -> impl Strategy<Value = Tolerance> {
    let direction = prop_oneof![Just(HIGHER), Just(LOWER)];
    let effect = prop_oneof![Just(Effect::Relative), Just(Effect::Absolute)];
    (direction, effect, 1..=MICRO).prop_map(|(direction, effect, limit)| tolerance(direction, effect, true, limit))
}

proptest! {
    /// Evidence that was stored and restored after any event has the same bits as evidence that was not.
    #[test]
    fn evidence_goes_on_from_where_it_was_kept(
        stream in successes(),
        split in any::<prop::sample::Index>(),
        baseline in (1_i64..=300).prop_flat_map(|events| (0..=events, Just(events))),
    ) {
        let window = rate(baseline.0, baseline.1);
        let frozen = Frozen::rate(Settings::of(a_fifth(true), window, 0.0, ARL), window).unwrap();
        let mut whole = Evidence::default();
        let steps = run(&frozen, &mut whole, &stream);
        let (before, after) = stream.split_at(split.index(stream.len() + 1));
        let mut first = Evidence::default();
        let mut parted = run(&frozen, &mut first, before);
        // The database stores bits and numbers.
        let mut second = Evidence { e: bits(&first).map(f64::from_bits), began: first.began, now: first.now };
        parted.extend(run(&Frozen::rate(frozen.settings(), window).unwrap(), &mut second, after));
        prop_assert_eq!(bits(&second), bits(&whole));
        prop_assert_eq!(second, whole);
        prop_assert_eq!(parted, steps);
    }

    /// tripwire.md 5.5, 8: failures instead of successes, in the other direction, are the same bits and the same trips.
    #[test]
    fn the_complement_in_the_other_direction_has_the_same_evidence(
        stream in successes(),
        baseline in (1_i64..=300).prop_flat_map(|events| (0..=events, Just(events))),
        wire in any_tolerance(),
        tolerance_fraction in prop_oneof![Just(0.0), Just(0.1)],
    ) {
        let other = if wire.direction == HIGHER { LOWER } else { HIGHER };
        let (window, complement) = (rate(baseline.0, baseline.1), rate(baseline.1 - baseline.0, baseline.1));
        let mirror = Tolerance { direction: other, ..wire };
        let frozen = Frozen::rate(Settings::of(wire, window, tolerance_fraction, ARL), window).unwrap();
        let mirrored = Frozen::rate(Settings::of(mirror, complement, tolerance_fraction, ARL), complement).unwrap();
        let (mut evidence, mut reflected) = (Evidence::default(), Evidence::default());
        for event in stream {
            let Measurement::Success(success) = event else { continue };
            let (step, reflection) =
                (evidence.step(&frozen, event), reflected.step(&mirrored, Measurement::Success(!success)));
            prop_assert_eq!(bits(&evidence), bits(&reflected));
            prop_assert_eq!((step.leading, step.trips), (reflection.leading, reflection.trips));
            prop_assert_eq!(step.recent.events, reflection.recent.events);
        }
    }

    /// Values with their sign changed, in the other direction, are the same bits, and in units the same trips.
    #[test]
    fn negated_values_in_the_other_direction_have_the_same_evidence(
        baseline in values(),
        stream in values(),
        limit in 1..=MICRO,
    ) {
        let negated = |values: &[i128]| values.iter().map(|value| measured(-value)).collect::<Vec<_>>();
        let plain: Vec<_> = baseline.iter().map(|value| measured(*value)).collect();
        let frozen = frozen_values(tolerance(HIGHER, Effect::Absolute, false, limit), 0.0, &plain);
        let mirrored = frozen_values(tolerance(LOWER, Effect::Absolute, false, limit), 0.0, &negated(&baseline));
        prop_assert_eq!(frozen.baseline().sum.units(), -mirrored.baseline().sum.units());
        let (mut evidence, mut reflected) = (Evidence::default(), Evidence::default());
        for units in stream {
            let (step, reflection) = (evidence.step(&frozen, value(units)), reflected.step(&mirrored, value(-units)));
            prop_assert_eq!(bits(&evidence), bits(&reflected));
            prop_assert_eq!((step.leading, step.trips), (reflection.leading, reflection.trips));
            prop_assert_eq!(step.recent.sum.units(), -reflection.recent.sum.units());
        }
    }

    /// From no success to nothing but successes, in any direction and effect.
    #[test]
    fn evidence_of_any_rate_is_a_number(
        stream in successes(),
        events in prop_oneof![1_i64..=5, 1_i64..=WINDOW_MAX],
        share in prop_oneof![Just(0), Just(1_000), 0_i64..=1_000],
        wire in any_tolerance(),
        tolerance_fraction in 0.0_f64..1.0,
    ) {
        let window = rate(events * share / 1_000, events);
        let frozen = Frozen::rate(Settings::of(wire, window, tolerance_fraction, ARL), window).unwrap();
        assert_sound(&frozen, &stream)?;
    }

    /// Equal, negative, few and enormous values, in any direction and effect.
    #[test]
    fn evidence_of_any_values_is_a_number(
        baseline in prop_oneof![values(), (values(), 1_usize..50).prop_map(|(values, times)| vec![values[0]; times])],
        stream in values(),
        wire in any_tolerance(),
        tolerance_fraction in 0.0_f64..1.0,
    ) {
        let baseline: Vec<_> = baseline.into_iter().map(measured).collect();
        let frozen = frozen_values(Tolerance { boolean: false, ..wire }, tolerance_fraction, &baseline);
        let stream: Vec<_> = stream.into_iter().map(value).collect();
        assert_sound(&frozen, &stream)?;
    }

    /// Running sums give the windows of the definition.
    #[test]
    fn rolling_windows_are_those_of_the_last_events(
        stream in values(),
        window in 1_usize..20,
        baseline in 1_usize..40,
        min in 1_i64..30,
    ) {
        let wire = a_fifth(false);
        let sum = |units: &[i128]| Window {
            events: i64::try_from(units.len()).unwrap(),
            sum: Total::from_units(units.iter().sum()).unwrap(),
        };
        let events = |count| i64::try_from(count).unwrap();
        let mut rolling = Rolling::new(wire, events(window), events(baseline), min);
        for last in 1..=stream.len() {
            let trips = rolling.step(value(stream[last - 1]));
            let (before, recent) = stream[..last].split_at(last.saturating_sub(window));
            let (before, recent) = (sum(&before[before.len().saturating_sub(baseline)..]), sum(recent));
            prop_assert_eq!(rolling.windows(), (before, recent));
            let enough = before.events.min(recent.events) >= min;
            prop_assert_eq!(trips, enough && wire.reaches(before, recent));
        }
    }
}
