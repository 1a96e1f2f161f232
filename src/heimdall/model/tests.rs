use super::*;
use proptest::prelude::*;

fn policy() -> HeimdallPolicy {
    let nothing = PolicyUpsert {
        domain: "D".parse().unwrap(),
        min_confidence_prod: None,
        min_sandbox_trials: None,
        min_sandbox_success_rate: None,
        prod_use_enabled: Some(true),
    };
    upsert(None, &nothing, None, None, DateTime::UNIX_EPOCH).unwrap().0
}

fn tally(successes: i64, trials: i64) -> Tally {
    Tally { trials, successes, confidence_sum: 0 }
}

fn confidence(text: &str) -> Confidence {
    text.parse().unwrap()
}

#[test]
fn a_new_domain_starts_at_the_originals_defaults() {
    let policy = policy();
    assert_eq!(policy.min_confidence_prod.to_string(), "0.9");
    assert_eq!(policy.min_sandbox_trials.get(), 50);
    assert_eq!(policy.min_sandbox_success_rate.to_string(), "0.8");
}

#[test]
fn the_gates_fail_in_order_and_equality_passes() {
    let on = policy();
    let off = HeimdallPolicy { prod_use_enabled: false, ..on.clone() };
    assert_eq!(gate(None, tally(50, 50), confidence("1")), GateReason::ProdUseDisabled);
    assert_eq!(gate(Some(&off), tally(0, 0), confidence("0")), GateReason::ProdUseDisabled);
    assert_eq!(gate(Some(&on), tally(0, 0), confidence("0.899999999999999999")), GateReason::ConfidenceBelowThreshold);
    assert_eq!(gate(Some(&on), tally(49, 49), confidence("0.9")), GateReason::InsufficientSandboxTrials);
    assert_eq!(gate(Some(&on), tally(39, 50), confidence("0.9")), GateReason::SandboxSuccessRateBelowThreshold);
    assert_eq!(gate(Some(&on), tally(40, 50), confidence("0.9")), GateReason::GatePass);
}

#[test]
fn no_trials_are_no_successes() {
    let lax = HeimdallPolicy { min_sandbox_trials: Count::ZERO, ..policy() };
    assert_eq!(gate(Some(&lax), Tally::default(), confidence("1")), GateReason::SandboxSuccessRateBelowThreshold);
}

#[test]
fn use_is_checked_again_and_only_gets_stricter() {
    let on = policy();
    let asked = |policy, kill_switch_engaged, live| Use {
        eligible_at_creation: true,
        gate_reason: "gate_pass",
        confidence: confidence("0.95"),
        policy,
        kill_switch_engaged,
        live,
    };
    assert_eq!(may_use(&asked(Some(&on), false, true)), GateReason::GatePass);
    assert_eq!(may_use(&asked(None, false, true)), GateReason::ProdUseDisabled);
    let stricter = HeimdallPolicy { min_confidence_prod: "0.96".parse().unwrap(), ..on.clone() };
    assert_eq!(may_use(&asked(Some(&stricter), false, true)), GateReason::ConfidenceBelowThreshold);
    assert_eq!(may_use(&asked(Some(&on), true, false)), GateReason::KillSwitchEngaged);
    assert_eq!(may_use(&asked(Some(&on), false, false)), GateReason::GoLiveDisabled);
    let never = Use {
        eligible_at_creation: false,
        gate_reason: "insufficient_sandbox_trials",
        ..asked(Some(&on), false, true)
    };
    assert_eq!(may_use(&never), GateReason::InsufficientSandboxTrials);
}

#[test]
fn rates_are_exact_sums_divided_once() {
    let mut sum = Tally::default();
    for trial in 0..75 {
        sum = sum.with(confidence("0.9"), trial < 65);
    }
    let card = Scorecard::new(NaiveDate::default(), "D".parse().unwrap(), sum, None);
    assert_eq!(
        (card.success_rate.to_string(), card.avg_confidence.to_string()),
        ("0.866666666667".into(), "0.9".into())
    );
}

proptest! {
    #[test]
    fn the_gate_passes_exactly_when_all_four_hold(
        stated in 0_i64..=1_000, trials in 0_i64..200, share in 0_i64..=100, on in any::<bool>(),
    ) {
        let successes = trials * share / 100;
        let policy = HeimdallPolicy { prod_use_enabled: on, ..policy() };
        let text = format!("{}.{:03}", stated / 1_000, stated % 1_000);
        let passes = gate(Some(&policy), tally(successes, trials), confidence(&text)).passes();
        prop_assert_eq!(passes, on && stated >= 900 && trials >= 50 && successes * 10 >= trials * 8);
    }
}
