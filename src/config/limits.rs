//! What an instance keeps in memory at most.

use clap::Args;
use std::ops::RangeInclusive;

const MIB: usize = 1024 * 1024;
/// Budgets that make sense, MiB: the least has room for a batch of measurements of each of two principals.
const BUDGETS: RangeInclusive<usize> = 16..=65_536;

/// How much an instance keeps in memory for its callers.
#[derive(Debug, Clone, Args)]
pub struct LimitsConfig {
    /// `BODY_BUDGET_MIB`: how much the bodies of all requests in flight have together, beyond 8 KiB each; one principal has half.
    #[arg(long, env = "BODY_BUDGET_MIB", default_value = "128", value_name = "MIB", value_parser = budget)]
    pub body_budget_mib: usize,

    /// `ANSWER_BUDGET_MIB`: how much the answers that are under way have together, but for those of up to 16 KiB; one principal has half.
    #[arg(long, env = "ANSWER_BUDGET_MIB", default_value = "128", value_name = "MIB", value_parser = budget)]
    pub answer_budget_mib: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { body_budget_mib: 128, answer_budget_mib: 128 }
    }
}

impl LimitsConfig {
    /// Bytes for the bodies of all requests in flight.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        self.body_budget_mib * MIB
    }

    /// Bytes for the answers that are under way.
    #[must_use]
    pub const fn answer_bytes(&self) -> usize {
        self.answer_budget_mib * MIB
    }
}

fn budget(text: &str) -> Result<usize, String> {
    let budget = text.trim().parse().ok().filter(|budget| BUDGETS.contains(budget));
    budget.ok_or_else(|| format!("it is a number of MiB from {} to {}", BUDGETS.start(), BUDGETS.end()))
}
