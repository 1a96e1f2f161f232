use super::*;
use crate::types::{Count, Fraction, Ratio};
use chrono::{NaiveDate, TimeDelta};
use proptest::prelude::*;

mod tables;

/// An enabled policy with the original's defaults.
fn policy() -> HeimdallPolicy {
    let on = PolicyUpsert { prod_use_enabled: Some(true), ..PolicyUpsert::of("D".parse().unwrap()) };
    upsert(None, &on, None, None, DateTime::UNIX_EPOCH).unwrap().0
}

fn tally(successes: i64, trials: i64) -> Tally {
    Tally { trials, successes, ..Tally::default() }
}

/// The sums of trials, each with its stated confidence in thousandths and its outcome.
fn summed(trials: impl IntoIterator<Item = (i128, bool)>) -> Tally {
    trials.into_iter().fold(Tally::default(), |sum, (thousandths, success)| {
        let confidence = thousandths * 1_000_000_000_000_000;
        Tally {
            trials: sum.trials + 1,
            successes: sum.successes + i64::from(success),
            confidence_sum: sum.confidence_sum + confidence,
            square_sum: sum.square_sum + thousandths * thousandths * 1_000_000_000_000,
            success_sum: sum.success_sum + if success { confidence } else { 0 },
        }
    })
}

fn confidence(text: &str) -> Confidence {
    text.parse().unwrap()
}

fn fraction(text: &str) -> Fraction {
    text.parse().unwrap()
}

fn version(text: &str) -> ModelVersion {
    text.parse().unwrap()
}

fn gate(policy: Option<&HeimdallPolicy>, tally: Tally, confidence: Confidence) -> GateReason {
    verdict(&checks(policy, tally, confidence, None))
}

#[test]
fn a_new_domain_starts_at_the_originals_defaults() {
    let policy = policy();
    assert_eq!(policy.min_confidence_prod.to_string(), "0.9");
    assert_eq!(policy.min_sandbox_trials.get(), 50);
    assert_eq!(policy.min_sandbox_success_rate.to_string(), "0.8");
    assert_eq!((policy.days(), policy.gate_rule, policy.calibration_gate), (1, GateRule::Point, false));
    assert_eq!((policy.recommendation_ttl_seconds.get(), policy.single_use), (259_200, false));
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
    for gate_rule in [GateRule::Point, GateRule::Lcb, GateRule::Anytime] {
        let lax = HeimdallPolicy { gate_rule, ..lax.clone() };
        let found = gate(Some(&lax), Tally::default(), confidence("1"));
        assert_eq!(found, GateReason::SandboxSuccessRateBelowThreshold, "{gate_rule:?}");
        let nothing = HeimdallPolicy { min_sandbox_success_rate: Fraction::ZERO, ..lax };
        assert_eq!(gate(Some(&nothing), Tally::default(), confidence("1")), GateReason::GatePass, "{gate_rule:?}");
    }
}

#[test]
fn every_check_is_told_and_what_more_trials_may_mend_is_no_failure() {
    use CheckResult::{Fail, InsufficientEvidence, Pass};
    let strict = HeimdallPolicy {
        gate_rule: GateRule::Lcb,
        calibration_gate: true,
        approved_model_version: Some(version("v2")),
        ..policy()
    };
    let results = |tally, stated: &str, model: &str| -> Vec<_> {
        let checks = checks(Some(&strict), tally, confidence(stated), Some(&version(model)));
        checks.iter().map(|check| (check.check, check.result)).collect()
    };
    let named = |results: [CheckResult; 6]| {
        ["prod_use", "confidence", "sandbox_trials", "sandbox_success_rate", "calibration", "model_version"]
            .into_iter()
            .zip(results)
            .collect::<Vec<_>>()
    };
    let none = Tally::default();
    assert_eq!(
        results(none, "0.5", "v1"),
        named([Pass, Fail, InsufficientEvidence, InsufficientEvidence, InsufficientEvidence, Fail])
    );
    // 44 of 50 would pass as a point, but is not certain enough yet; 39 of 50 would not pass as a point either.
    assert_eq!(
        results(summed((0..50).map(|trial| (900, trial < 44))), "0.9", "v2"),
        named([Pass, Pass, Pass, InsufficientEvidence, Pass, Pass])
    );
    let sure = summed((0..50).map(|trial| (950, trial < 39)));
    assert_eq!(results(sure, "0.9", "v2"), named([Pass, Pass, Pass, Fail, Fail, Pass]));
    assert_eq!(
        results(summed((0..50).map(|trial| (900, trial < 45))), "0.9", "v2"),
        named([Pass, Pass, Pass, Pass, Pass, Pass])
    );
    let off = checks(None, sure, confidence("1"), None);
    assert_eq!(off.iter().map(|check| (check.check, check.result)).collect::<Vec<_>>(), [("prod_use", Fail)]);
}

/// An allowed use, of a recommendation that was made under this policy at the epoch.
fn allowed(policy: &HeimdallPolicy) -> Use<'_> {
    Use {
        eligible_at_creation: true,
        gate_reason_at_creation: "gate_pass",
        confidence: confidence("0.95"),
        model_version: None,
        expires_at: policy.expiry(DateTime::UNIX_EPOCH),
        revoked_seq: None,
        used_seq: None,
        single_use: policy.single_use,
        policy: Some(policy.into()),
        engine_active: None,
        switches: Switches { kill_switch_engaged: false, live: true },
        at: DateTime::UNIX_EPOCH,
    }
}

#[test]
fn use_is_checked_again_and_only_gets_stricter() {
    let on = policy();
    assert_eq!(may_use(&allowed(&on)), GateReason::GatePass);
    assert_eq!(may_use(&Use { policy: None, ..allowed(&on) }), GateReason::ProdUseDisabled);
    let stricter = HeimdallPolicy { min_confidence_prod: fraction("0.96"), ..on.clone() };
    assert_eq!(may_use(&allowed(&stricter)), GateReason::ConfidenceBelowThreshold);
    for (kill_switch_engaged, reason) in [(true, GateReason::KillSwitchEngaged), (false, GateReason::GoLiveDisabled)] {
        let switches = Switches { kill_switch_engaged, live: false };
        assert_eq!(may_use(&Use { switches, ..allowed(&on) }), reason);
    }
    for reason in GateReason::ALL.into_iter().filter(|reason| !reason.passes()) {
        let never = Use { eligible_at_creation: false, gate_reason_at_creation: reason.as_str(), ..allowed(&on) };
        assert_eq!(may_use(&never), reason);
    }
    let unknown = Use { eligible_at_creation: false, gate_reason_at_creation: "gate_pass", ..allowed(&on) };
    assert_eq!(may_use(&unknown), GateReason::ProdUseDisabled);
}

#[test]
fn what_ends_a_recommendation_is_named_in_its_order() {
    let strict = HeimdallPolicy {
        engine: Some("E".parse().unwrap()),
        approved_model_version: Some(version("v2")),
        single_use: true,
        ..policy()
    };
    // Everything is wrong at once, and is mended from the first to the last.
    let mut asked = Use {
        expires_at: Some(DateTime::UNIX_EPOCH),
        revoked_seq: Some(7),
        used_seq: Some(8),
        engine_active: Some(false),
        switches: Switches { kill_switch_engaged: true, live: false },
        ..allowed(&strict)
    };
    let approved = version("v2");
    assert_eq!(may_use(&asked), GateReason::RecommendationExpired);
    // The lifetime ends at its very instant, and not a microsecond before.
    asked.expires_at = Some(DateTime::UNIX_EPOCH + TimeDelta::microseconds(1));
    assert_eq!(may_use(&asked), GateReason::RecommendationRevoked);
    asked.revoked_seq = None;
    assert_eq!(may_use(&asked), GateReason::RecommendationAlreadyUsed);
    asked.used_seq = None;
    assert_eq!(may_use(&asked), GateReason::ModelVersionNotApproved);
    asked.model_version = Some(&approved);
    assert_eq!(may_use(&asked), GateReason::EngineThrottled);
    // An engine whose state is unknown is not on.
    asked.engine_active = None;
    assert_eq!(may_use(&asked), GateReason::EngineThrottled);
    asked.engine_active = Some(true);
    assert_eq!(may_use(&asked), GateReason::KillSwitchEngaged);
    asked.switches.kill_switch_engaged = false;
    assert_eq!(may_use(&asked), GateReason::GoLiveDisabled);
    asked.switches.live = true;
    assert_eq!(may_use(&asked), GateReason::GatePass);
}

#[test]
fn once_is_once_whether_the_recommendation_or_the_policy_says_so() {
    let many = policy();
    let once = HeimdallPolicy { single_use: true, ..many.clone() };
    for (policy, single_use, again) in [
        (&many, false, GateReason::GatePass),
        (&many, true, GateReason::RecommendationAlreadyUsed),
        (&once, false, GateReason::RecommendationAlreadyUsed),
    ] {
        let asked = Use { single_use, ..allowed(policy) };
        assert_eq!(may_use(&asked), GateReason::GatePass);
        assert_eq!(may_use(&Use { used_seq: Some(9), ..asked }), again);
    }
}

#[test]
fn rates_are_exact_sums_divided_once() {
    let sum = summed((0..75).map(|trial| (900, trial < 65)));
    let card = Scorecard::new(Span::of_day("D".parse().unwrap(), NaiveDate::default()), sum, None);
    assert_eq!(
        (card.success_rate.to_string(), card.avg_confidence.to_string()),
        ("0.866666666667".into(), "0.9".into())
    );
}

#[test]
fn calibration_is_what_the_formulas_say() {
    let shown = |tally| {
        let card = Scorecard::new(Span::of_day("D".parse().unwrap(), NaiveDate::default()), tally, None);
        let of = |ratio: Option<Ratio>| ratio.map_or_else(|| "-".to_owned(), |ratio| ratio.to_string());
        let calibration = card.calibration;
        [of(calibration.overconfidence), of(calibration.overconfidence_z), of(calibration.brier_score)]
    };
    assert_eq!(shown(Tally::default()), ["-", "-", "-"]);
    // 50 x 0.9: 45 expected, sd sqrt(50 * 0.09) = 2.12132; 40 seen. Brier (40 * 0.01 + 10 * 0.81) / 50.
    assert_eq!(shown(summed((0..50).map(|trial| (900, trial < 40)))), ["0.1", "2.357023", "0.17"]);
    assert_eq!(shown(summed((0..50).map(|trial| (900, trial < 45)))), ["0", "0", "0.09"]);
    assert_eq!(shown(summed((0..50).map(|trial| (900, trial < 50)))), ["-0.1", "-2.357023", "0.01"]);
    // A certainty allows no deviation, so any deviation is too much.
    assert_eq!(shown(summed([(1000, true), (1000, false)])), ["0.5", "-", "0.5"]);
}

#[test]
fn overconfidence_blocks_by_size_and_by_certainty_together() {
    let of = |trials: i64, successes: i64, thousandths: i128| {
        summed((0..trials).map(|trial| (thousandths, trial < successes))).is_overconfident()
    };
    // 0.05 on the dot, and z = 50 / sqrt(1000 * 0.09) = 5.27.
    assert!(of(1_000, 850, 900));
    assert!(!of(1_000, 851, 900), "certain, and too small to matter");
    assert!(!of(20, 17, 900), "large enough, and may be chance: z = 0.745");
    assert!(of(50, 41, 900), "z = 1.886");
    assert!(!of(50, 42, 900), "z = 1.414");
    assert!(!of(50, 50, 900), "underconfidence never blocks");
    assert!(of(20, 19, 1_000) && !of(20, 20, 1_000) && !of(0, 0, 0));
}

#[test]
fn a_span_is_the_last_days_of_the_approved_version() {
    let day: NaiveDate = "2026-03-01".parse().unwrap();
    let days = |window_days: &str| {
        let rolling = HeimdallPolicy {
            scorecard_window: ScorecardWindow::RollingDays,
            window_days: window_days.parse().unwrap(),
            ..policy()
        };
        rolling.span(day).from.to_string()
    };
    assert_eq!(policy().span(day), Span::of_day("D".parse().unwrap(), day));
    assert_eq!([days("1"), days("2"), days("365")], ["2026-03-01", "2026-02-28", "2025-03-02"]);
    let approved = HeimdallPolicy { approved_model_version: Some(version("v2")), ..policy() };
    assert_eq!(approved.span(day).model_version, Some(version("v2")));
}

#[test]
fn a_setting_stays_moves_or_goes_and_never_two_of_them() {
    let engine = || "E".parse::<crate::types::Engine>().unwrap();
    assert_eq!(Setting::of("engine", Some(engine()), None).unwrap(), Setting::Set(engine()));
    assert_eq!(Setting::of("engine", Some(engine()), Some(false)).unwrap(), Setting::Set(engine()));
    assert_eq!(Setting::<ModelVersion>::of("v", None, Some(true)).unwrap(), Setting::Remove);
    assert_eq!(Setting::<ModelVersion>::of("v", None, Some(false)).unwrap(), Setting::Keep);
    assert!(Setting::of("engine", Some(engine()), Some(true)).is_err());
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

    /// A trial that a stricter rule passes, a weaker one passes too: always for the lower bound, for the e-process
    /// against the point.
    #[test]
    fn a_stricter_rule_never_passes_what_a_point_does_not(
        trials in 50_i64..600, share in 0_i64..=1_000, least in 1_i64..1_000,
    ) {
        let tally = tally(trials * share / 1_000, trials);
        let policy = HeimdallPolicy { min_sandbox_success_rate: fraction(&format!("0.{least:03}")), ..policy() };
        let passes = |gate_rule| gate(Some(&HeimdallPolicy { gate_rule, ..policy.clone() }), tally, confidence("1")).passes();
        prop_assert!(passes(GateRule::Point) || !(passes(GateRule::Lcb) || passes(GateRule::Anytime)));
    }
}
