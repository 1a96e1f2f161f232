//! The figures: what they are called, what they have to be, and how they read.

use crate::support::figures::Spec;

/// The rows of the table, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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

impl Figure {
    pub(crate) fn spec(self) -> Spec<'static> {
        let most = |title, must, aim, places, unit| Spec::at_most(title, Some(must), aim, places, unit);
        let ratio = |title, must, aim| Spec::at_least(title, Some(must), Some(aim), 3, " ×");
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
