//! The sums of a domain's trials, and whether its confidence is calibrated.

use crate::statistics::Z_95;
use crate::types::{Domain, Fraction, ModelVersion, Ratio};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// 1, in the units of a sum of confidences.
const ONE: i128 = 1_000_000_000_000_000_000;
/// The inverse of the least mean overconfidence that counts, 0.05.
const GAPS_IN_ONE: i128 = 20;

/// The sums of sandbox trials: integers, and exact sums of confidences in 10^-18.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of trials.
    pub trials: i64,
    /// The number of trials that succeeded.
    pub successes: i64,
    /// The sum of their confidences.
    pub confidence_sum: i128,
    /// The sum of the squared confidences, exact in the database and rounded once, here.
    pub square_sum: i128,
    /// The sum of the confidences of those that succeeded.
    pub success_sum: i128,
}

#[expect(clippy::cast_precision_loss, reason = "a sum of fewer than 2^53 confidences is a double to one part in 10^15")]
fn double(sum: i128) -> f64 {
    sum as f64 / ONE as f64
}

/// A statistic as answers show it: six decimals, of 10^12 at most.
#[expect(clippy::cast_possible_truncation, reason = "a cast to an integer saturates, and Ratio bounds what it shows")]
pub(super) fn shown(value: f64) -> Ratio {
    Ratio::of((value * 1_000_000.0).round() as i128, 1_000_000).unwrap_or_default()
}

impl Tally {
    /// Whether the share of successes reaches a threshold, compared exactly. Zero trials count as a share of 0.
    #[must_use]
    pub fn success_rate_reaches(self, threshold: Fraction) -> bool {
        if self.trials == 0 {
            return threshold == Fraction::ZERO;
        }
        i128::from(self.successes) * 1_000_000 >= threshold.units() * i128::from(self.trials)
    }

    /// The sum of the stated confidences less the successes, in 10^-18.
    fn gap_sum(self) -> i128 {
        self.confidence_sum - i128::from(self.successes) * ONE
    }

    /// That sum in standard deviations, if every confidence were a true probability; none if all of them were 0 or 1,
    /// so that the deviation is 0.
    pub(super) fn overconfidence_z(self) -> Option<f64> {
        let variance = self.confidence_sum - self.square_sum;
        (variance > 0).then(|| double(self.gap_sum()) / double(variance).sqrt())
    }

    /// Whether the confidences are too high: by 0.05 on average or more (compared exactly), and by more than chance
    /// explains, one-sided at 95 %.
    #[must_use]
    pub fn is_overconfident(self) -> bool {
        self.trials > 0
            && self.gap_sum() * GAPS_IN_ONE >= i128::from(self.trials) * ONE
            && self.overconfidence_z().is_none_or(|z| z > Z_95)
    }
}

/// The calibration of stated confidences. All fields are null without trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Calibration {
    /// Mean confidence minus success rate; above 0 is overconfident.
    pub overconfidence: Option<Ratio>,
    /// The overconfidence in standard deviations; null if every confidence was 0 or 1.
    pub overconfidence_z: Option<Ratio>,
    /// The mean squared distance of confidence from outcome, 0 to 1; 0 is perfect, and always stating 0.5 gives 0.25.
    pub brier_score: Option<Ratio>,
}

/// A domain's trials of a day or of a window of days, as answers show them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Scorecard {
    /// The UTC day of the database clock: the last day that counts.
    pub day: NaiveDate,
    /// The first day that counts.
    pub from: NaiveDate,
    /// The domain.
    pub domain: Domain,
    /// The only model version whose trials count; null for all.
    pub model_version: Option<ModelVersion>,
    /// The number of trials.
    pub trials: i64,
    /// The number of trials that succeeded.
    pub successes: i64,
    /// The share of successes; 0 without trials.
    pub success_rate: Ratio,
    /// The mean stated confidence; 0 without trials.
    pub avg_confidence: Ratio,
    /// The calibration of the stated confidences.
    pub calibration: Calibration,
    /// The time of the last trial; null without trials.
    pub updated_at: Option<DateTime<Utc>>,
}

/// The trials that a scorecard counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The domain of the trials.
    pub domain: Domain,
    /// The first UTC day.
    pub from: NaiveDate,
    /// The last UTC day.
    pub day: NaiveDate,
    /// The only model version whose trials count; none for all.
    pub model_version: Option<ModelVersion>,
}

impl Span {
    /// All trials of a day.
    #[must_use]
    pub const fn of_day(domain: Domain, day: NaiveDate) -> Self {
        Self { domain, from: day, day, model_version: None }
    }
}

impl Scorecard {
    /// The scorecard of a tally.
    #[must_use]
    pub fn new(span: Span, tally: Tally, updated_at: Option<DateTime<Utc>>) -> Self {
        let trials = i128::from(tally.trials);
        let of_all = |sum: i128| Ratio::of(sum, trials * ONE);
        // The mean of (c - y)^2, where y^2 equals y.
        let squares = tally.square_sum - 2 * tally.success_sum + i128::from(tally.successes) * ONE;
        Self {
            day: span.day,
            from: span.from,
            domain: span.domain,
            model_version: span.model_version,
            trials: tally.trials,
            successes: tally.successes,
            success_rate: Ratio::of(tally.successes.into(), trials).unwrap_or_default(),
            avg_confidence: of_all(tally.confidence_sum).unwrap_or_default(),
            calibration: Calibration {
                overconfidence: of_all(tally.gap_sum()),
                overconfidence_z: tally.overconfidence_z().map(shown),
                brier_score: of_all(squares),
            },
            updated_at,
        }
    }
}
