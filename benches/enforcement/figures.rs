//! The figures: what they are called, what they have to be, and how they read.

use crate::bounds::{self, Side};

/// What the table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    DecisionMedian,
    DecisionP99,
    Allocations,
    Layer,
    ForwardAuth,
    PropagationP50,
    PropagationP99,
    CutP99,
    Flooded,
    Admissions,
    Recovery,
}

/// How a figure reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) title: &'static str,
    pub(crate) must: f64,
    pub(crate) aim: Option<f64>,
    side: Side,
    places: usize,
    unit: &'static str,
}

/// In the order of the table.
pub(crate) const FIGURES: [Figure; 11] = [
    Figure::DecisionMedian,
    Figure::DecisionP99,
    Figure::Allocations,
    Figure::Layer,
    Figure::ForwardAuth,
    Figure::PropagationP50,
    Figure::PropagationP99,
    Figure::CutP99,
    Figure::Flooded,
    Figure::Admissions,
    Figure::Recovery,
];

impl Figure {
    pub(crate) fn spec(self) -> Spec {
        let most = |title, must, aim, places, unit| Spec { title, must, aim, side: Side::AtMost, places, unit };
        let ratio = |title, must, aim| Spec { side: Side::AtLeast, ..most(title, must, Some(aim), 3, " ×") };
        match self {
            Self::DecisionMedian => most("decision, median", 200.0, Some(50.0), 0, " ns"),
            Self::DecisionP99 => most("decision, p99", 1_000.0, None, 0, " ns"),
            Self::Allocations => most("allocations in a million decisions", 0.0, None, 0, ""),
            Self::Layer => ratio("throughput of a trivial route with the layer ÷ without", 0.97, 0.99),
            Self::ForwardAuth => ratio("forward-auth requests/s ÷ `/livez` requests/s, same process", 0.85, 0.95),
            Self::PropagationP50 => most("engage to last of 3 instances blocking, p50", 10.0, Some(3.0), 1, " ms"),
            Self::PropagationP99 => most("engage to last of 3 instances blocking, p99", 50.0, Some(15.0), 1, " ms"),
            Self::CutP99 => most("the same with notifications cut, p99", 700.0, Some(600.0), 0, " ms"),
            Self::Flooded => {
                most("engage answered while 512 connections reserve, the slowest", 1_000.0, None, 0, " ms")
            }
            Self::Admissions => most("admissions after `guaranteed_by`, over all faults", 0.0, None, 0, ""),
            Self::Recovery => most("recovery after a database outage, the last instance", 1_000.0, None, 0, " ms"),
        }
    }

    /// Whether a figure that misses its bound is a defect, and not only slow.
    pub(crate) fn is_claim(self) -> bool {
        matches!(self, Self::Allocations | Self::Admissions)
    }
}

impl Spec {
    /// The range of a figure over the rounds.
    pub(crate) fn range(self, values: &[f64]) -> String {
        bounds::range(values, self.places, self.unit)
    }

    /// A value of it, as a bound.
    pub(crate) fn bound(self, bound: Option<f64>) -> String {
        bound.map_or_else(|| "–".to_owned(), |bound| format!("{bound}{}", self.unit.replace(" ×", "")))
    }

    /// As the worst round says.
    pub(crate) fn verdict(self, values: &[f64]) -> &'static str {
        bounds::verdict(values, self.side, Some(self.must), self.aim)
    }
}

/// A share of the samples, `per_100` of them, is not above this; exact. Sorts them.
pub(crate) fn percentile(samples: &mut [f64], per_100: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    let rank = (samples.len() * per_100).div_ceil(100).max(1);
    samples.get(rank - 1).copied().unwrap_or(f64::NAN)
}
