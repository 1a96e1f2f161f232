//! Computes the tables of docs/CHARTER.md by the gate itself.

use super::*;

fn ruled(gate_rule: GateRule, least: &str, trials: &str) -> HeimdallPolicy {
    let (min_sandbox_success_rate, min_sandbox_trials) = (fraction(least), trials.parse().unwrap());
    HeimdallPolicy { min_sandbox_trials, min_sandbox_success_rate, gate_rule, ..policy() }
}

fn opens(policy: &HeimdallPolicy, successes: i64, trials: i64) -> bool {
    verdict(&evidence_checks(policy, tally(successes, trials))).passes()
}

#[test]
fn the_least_successes_of_each_seed_are_those_of_the_table() {
    for (trials, least, of_point, of_bound, of_evidence) in [
        (50, "0.8", 40, 45, 47),
        (60, "0.8", 48, 54, 56),
        (75, "0.82", 62, 67, 70),
        (100, "0.85", 85, 91, 94),
        (200, "0.8", 160, 170, 176),
        (500, "0.8", 400, 415, 425),
    ] {
        let fewest = |rule| {
            let policy = ruled(rule, least, &trials.to_string());
            let found =
                (0..=trials).find(|successes| opens(&policy, *successes, trials)).expect("a perfect record opens");
            assert!(
                (found..=trials).all(|successes| opens(&policy, successes, trials)),
                "more successes never close it"
            );
            found
        };
        let found = [GateRule::Point, GateRule::Lcb, GateRule::Anytime].map(fewest);
        assert_eq!(found, [of_point, of_bound, of_evidence], "{trials} trials, {least}");
    }
}

#[test]
fn a_perfect_record_opens_after_as_many_trials_as_the_table_says() {
    for (least, of_bound, of_evidence) in
        [("0.8", 11, 22), ("0.85", 16, 31), ("0.9", 25, 48), ("0.95", 52, 98), ("0.99", 268, 502)]
    {
        let first = |rule| {
            let policy = ruled(rule, least, "1");
            (1..600).find(|trials| opens(&policy, *trials, *trials))
        };
        assert_eq!([first(GateRule::Lcb), first(GateRule::Anytime)], [Some(of_bound), Some(of_evidence)], "{least}");
    }
}

/// The probability that the gate is ever open after one of the first `last` trials, each of which succeeds with
/// probability `rate`. It follows the distribution of the successes of the runs that have not seen the gate open yet.
fn ever_open(policy: &HeimdallPolicy, rate: f64, last: i64) -> f64 {
    let mut closed = vec![1.0];
    let mut open = 0.0;
    for trials in 1..=last {
        let mut next = vec![0.0; closed.len() + 1];
        for (successes, share) in closed.iter().enumerate() {
            next[successes] += share * (1.0 - rate);
            next[successes + 1] += share * rate;
        }
        for (successes, share) in next.iter_mut().enumerate() {
            if opens(policy, i64::try_from(successes).unwrap(), trials) {
                open += std::mem::take(share);
            }
        }
        closed = next;
    }
    open
}

#[test]
fn whoever_may_go_on_until_the_gate_opens_opens_it_as_often_as_the_table_says() {
    for (rate, of_point, of_bound, of_evidence) in [
        (0.7, 0.112, 0.001, 0.000_1),
        (0.75, 0.406, 0.019, 0.001),
        (0.78, 0.714, 0.088, 0.008),
        (0.8, 0.899, 0.244, 0.031),
        (0.85, 1.0, 0.960, 0.672),
        (0.9, 1.0, 1.0, 1.0),
    ] {
        for (rule, expected) in
            [(GateRule::Point, of_point), (GateRule::Lcb, of_bound), (GateRule::Anytime, of_evidence)]
        {
            let found = ever_open(&ruled(rule, "0.8", "50"), rate, 500);
            assert!((found - expected).abs() < 0.000_6, "{rule:?} at {rate}: {found}, not {expected}");
        }
    }
}

#[test]
fn by_anytime_a_rate_that_is_not_enough_opens_the_gate_in_one_of_twenty_at_most() {
    for least in ["0.5", "0.8", "0.95"] {
        let rate: f64 = least.parse().unwrap();
        let found = ever_open(&ruled(GateRule::Anytime, least, "1"), rate, 1_000);
        assert!(found <= 0.05, "{least}: {found}");
    }
}
