use super::*;
use crate::types::Total;
use proptest::prelude::*;

/// 10^12 in millionths, the largest value.
const LARGEST: i128 = 1_000_000_000_000_000_000;

fn tolerance(direction: Direction, effect: Effect, boolean: bool, limit: i128) -> Tolerance {
    Tolerance { direction, effect, boolean, limit }
}

fn of(sum: i128, events: i64) -> Window {
    Window { events, sum: Total::from_units(sum).unwrap() }
}

fn rate(successes: i64, events: i64) -> Window {
    of(i128::from(successes) * MICRO, events)
}

/// The same events, with success and failure exchanged.
fn complement(window: Window) -> Window {
    of(i128::from(window.events) * MICRO - window.sum.units(), window.events)
}

fn negated(window: Window) -> Window {
    of(-window.sum.units(), window.events)
}

const HIGHER: Direction = Direction::HigherIsBetter;
const LOWER: Direction = Direction::LowerIsBetter;

#[test]
fn names_are_what_they_are_read_from() {
    for direction in [HIGHER, LOWER] {
        assert_eq!(Direction::of(direction.as_str()), Some(direction));
        assert_eq!(serde_json::to_value(direction).unwrap(), direction.as_str());
    }
    for effect in [Effect::Relative, Effect::Absolute] {
        assert_eq!(Effect::of(effect.as_str()), Some(effect));
        assert_eq!(serde_json::to_value(effect).unwrap(), effect.as_str());
    }
    assert_eq!((Direction::of("higher"), Effect::of("")), (None, None));
    assert_eq!((Direction::default(), Effect::default()), (HIGHER, Effect::Relative));
}

/// tripwire.md 5.4: the ties at d = 0.20 that `(b - c) / b >= d` in doubles misses, in either direction.
#[test]
fn exact_ties_reach_where_floats_miss_them() {
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
        let wire = tolerance(HIGHER, Effect::Relative, true, 200_000);
        let compared = wire.compare(rate(baseline, 200), rate(recent, 50));
        assert!(compared.reaches, "{baseline}/200 {recent}/50");
        assert_eq!(compared.drop.unwrap().to_string(), "0.2");
        assert!(!wire.reaches(rate(baseline, 200), rate(recent + 1, 50)));
        let mirror = tolerance(LOWER, Effect::Relative, true, 200_000);
        assert!(mirror.reaches(complement(rate(baseline, 200)), complement(rate(recent, 50))));
        assert!(!mirror.reaches(complement(rate(baseline, 200)), complement(rate(recent + 1, 50))));
    }
}

#[test]
fn a_rate_that_should_be_low_is_judged_by_its_complement() {
    let relative = tolerance(LOWER, Effect::Relative, true, 20_000);
    // Errors from 1 % to 3 %: successes from 99 % to 97 %, a drop of 2.02 %.
    let compared = relative.compare(rate(2, 200), rate(3, 100));
    assert_eq!(compared.drop.unwrap().short(), "0.020");
    assert!(compared.reaches && compared.computable);
    // Without any error there still is a baseline; with nothing but errors there is none.
    assert!(relative.compare(rate(0, 200), rate(0, 50)).computable);
    assert!(!relative.compare(rate(200, 200), rate(50, 50)).computable);
    // In points: from 1 % to 3 % are 2 points.
    let absolute = tolerance(LOWER, Effect::Absolute, true, 20_000);
    let compared = absolute.compare(rate(2, 200), rate(3, 100));
    assert_eq!(compared.drop.unwrap().to_string(), "0.02");
    assert!(compared.reaches);
    assert!(!absolute.reaches(rate(2, 200), rate(299, 10_000)));
}

#[test]
fn a_value_that_should_be_low_is_judged_by_its_rise() {
    let wire = tolerance(LOWER, Effect::Relative, false, 500_000);
    let compared = wire.compare(of(200 * 80 * MICRO, 200), of(50 * 120 * MICRO, 50));
    assert_eq!(compared.drop.unwrap().to_string(), "0.5");
    assert!(compared.reaches);
    assert!(!wire.reaches(of(200 * 80 * MICRO, 200), of(50 * 120 * MICRO - 1, 50)));
    assert_eq!(wire.compare(of(200 * 80 * MICRO, 200), of(50 * 40 * MICRO, 50)).drop.unwrap().to_string(), "-0.5");
}

#[test]
fn only_a_relative_drop_needs_a_positive_baseline() {
    let none = Compared { drop: None, reaches: false, computable: false };
    for (direction, boolean) in [(HIGHER, false), (LOWER, false), (HIGHER, true)] {
        let wire = tolerance(direction, Effect::Relative, boolean, 200_000);
        assert_eq!(wire.compare(of(0, 200), of(0, 50)), none);
    }
    for direction in [HIGHER, LOWER] {
        let wire = tolerance(direction, Effect::Relative, false, 200_000);
        assert_eq!(wire.compare(of(-100 * MICRO, 200), of(-500 * MICRO, 50)), none);
    }
    // A loss that grows from 0.5 to 10 per event, which is by 9.5.
    let wire = tolerance(HIGHER, Effect::Absolute, false, 9_500_000);
    let compared = wire.compare(of(-100 * MICRO, 200), of(-500 * MICRO, 50));
    assert_eq!((compared.drop.unwrap().to_string().as_str(), compared.reaches), ("9.5", true));
    assert!(!wire.reaches(of(-100 * MICRO, 200), of(-500 * MICRO + 1, 50)));
    assert_eq!(wire.compare(of(0, 0), of(1, 1)), none);
    assert_eq!(wire.compare(of(1, 1), of(0, 0)), none);
}

#[test]
fn the_largest_windows_compare_exactly() {
    let (high, low) = (of(10_000 * LARGEST, 10_000), of(-1_000_000_000 * LARGEST, 1_000_000_000));
    // From 10^12 to -10^12: twice the baseline, and 2 · 10^12 units.
    let compared = tolerance(HIGHER, Effect::Relative, false, MICRO).compare(high, low);
    assert_eq!((compared.drop.unwrap().to_string().as_str(), compared.reaches), ("2", true));
    for (limit, reaches) in [(2 * LARGEST, true), (2 * LARGEST + 1, false)] {
        let compared = tolerance(HIGHER, Effect::Absolute, false, limit).compare(high, low);
        assert!(compared.computable && compared.reaches == reaches, "{limit}");
    }
    // A number that does not fit is not computable.
    let beyond = of(-10_i128.pow(28), i64::MAX);
    assert!(!tolerance(HIGHER, Effect::Relative, false, MICRO).compare(high, beyond).reaches);
}

fn boolean_window() -> impl Strategy<Value = Window> {
    (1_i64..=10_000).prop_flat_map(|events| (0..=events).prop_map(move |successes| rate(successes, events)))
}

fn numeric_window() -> impl Strategy<Value = Window> {
    let values = prop_oneof![-LARGEST..=LARGEST, -5 * MICRO..=5 * MICRO];
    // A mean and a remainder, so that small sums occur as well as the largest.
    (1_i64..=10_000, values, -1_000_000_i128..=1_000_000).prop_map(|(events, mean, rest)| {
        let most = i128::from(events) * LARGEST;
        of((mean * i128::from(events) + rest).clamp(-most, most), events)
    })
}

proptest! {
    /// The decision equals that of rational arithmetic: both sides of `current <= baseline · (1 ∓ d)` or `current <=
    /// baseline ∓ d`, times both counts of events and 10^6.
    #[test]
    fn the_comparison_is_rational(b in numeric_window(), c in numeric_window(), limit in 1_i128..=2 * LARGEST) {
        let (sb, nb) = (b.sum.units(), i128::from(b.events));
        let (sc, nc) = (c.sum.units(), i128::from(c.events));
        let share = limit % MICRO + 1;
        let fell = tolerance(HIGHER, Effect::Relative, false, share).reaches(b, c);
        prop_assert_eq!(fell, sb > 0 && sc * nb * MICRO <= sb * nc * (MICRO - share));
        let rose = tolerance(LOWER, Effect::Relative, false, share).reaches(b, c);
        prop_assert_eq!(rose, sb > 0 && sc * nb * MICRO >= sb * nc * (MICRO + share));
        let fell = tolerance(HIGHER, Effect::Absolute, false, limit).reaches(b, c);
        prop_assert_eq!(fell, sc * nb <= (sb - limit * nb) * nc);
        let rose = tolerance(LOWER, Effect::Absolute, false, limit).reaches(b, c);
        prop_assert_eq!(rose, sc * nb >= (sb + limit * nb) * nc);
    }

    /// Equality reaches, and one millionth of the unit less does not.
    #[test]
    fn equality_reaches(events in 1_i64..=10_000, then in -LARGEST..=LARGEST, limit in 1_i128..=LARGEST) {
        let wire = tolerance(HIGHER, Effect::Absolute, false, limit);
        let now = i128::from(events) * (then - limit);
        prop_assert!(wire.reaches(of(then, 1), of(now, events)));
        prop_assert!(!wire.reaches(of(then, 1), of(now + 1, events)));
    }

    /// Lower-is-better is the mirror image: of successes by their complement, of values in units by their sign.
    #[test]
    fn the_other_direction_is_the_mirror_image(
        rates in (boolean_window(), boolean_window()),
        values in (numeric_window(), numeric_window()),
        limit in 1_i128..=MICRO,
    ) {
        for effect in [Effect::Relative, Effect::Absolute] {
            let (higher, lower) = (tolerance(HIGHER, effect, true, limit), tolerance(LOWER, effect, true, limit));
            prop_assert_eq!(
                higher.compare(rates.0, rates.1),
                lower.compare(complement(rates.0), complement(rates.1))
            );
        }
        let limit = limit * MICRO;
        let (higher, lower) =
            (tolerance(HIGHER, Effect::Absolute, false, limit), tolerance(LOWER, Effect::Absolute, false, limit));
        prop_assert_eq!(
            higher.compare(values.0, values.1),
            lower.compare(negated(values.0), negated(values.1))
        );
    }
}
