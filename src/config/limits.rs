//! The limits of an instance's memory, and of the rows of each kind.

use clap::Args;
use std::ops::RangeInclusive;

const MIB: usize = 1024 * 1024;
/// The range of a budget, MiB. The smallest has room for a batch of measurements of each of two principals.
const BUDGETS: RangeInclusive<usize> = 16..=65_536;

/// The range of a limit of rows. The smallest has room for the rows of a fresh install.
const ROWS: RangeInclusive<usize> = 10..=100_000;

/// The default budget, MiB.
const BUDGET: usize = 128;
/// The default limits. Series are created by measurements, so their limit is higher.
const ROWS_MAX: usize = 1_000;
const METRICS_MAX: usize = 10_000;
/// The limit of valid tokens, since one read of the state includes all of them.
const TOKENS_MAX: usize = 10_000;

/// The limits of an instance.
#[derive(Debug, Clone, Args)]
pub struct LimitsConfig {
    /// `BODY_BUDGET_MIB`: the memory for the bodies of all requests in flight, beyond 8 KiB each. One principal has
    /// half.
    #[arg(long, env = "BODY_BUDGET_MIB", default_value_t = BUDGET, value_name = "MIB", value_parser = budget)]
    pub body_budget_mib: usize,

    /// `ANSWER_BUDGET_MIB`: the memory for answers over 16 KiB until the socket has taken them. One principal has half.
    #[arg(long, env = "ANSWER_BUDGET_MIB", default_value_t = BUDGET, value_name = "MIB", value_parser = budget)]
    pub answer_budget_mib: usize,

    /// `ENGINES_MAX`: how many engines may have a policy.
    #[arg(long, env = "ENGINES_MAX", default_value_t = ROWS_MAX, value_name = "COUNT", value_parser = rows)]
    pub engines_max: usize,

    /// `DOMAINS_MAX`: how many domains may have a policy, and how many without one may have trials on one day.
    #[arg(long, env = "DOMAINS_MAX", default_value_t = ROWS_MAX, value_name = "COUNT", value_parser = rows)]
    pub domains_max: usize,

    /// `WIRES_MAX`: the largest number of wires.
    #[arg(long, env = "WIRES_MAX", default_value_t = ROWS_MAX, value_name = "COUNT", value_parser = rows)]
    pub wires_max: usize,

    /// `METRICS_MAX`: how many series may be measured and, counted apart, have a declared kind. A watched series always
    /// has room.
    #[arg(long, env = "METRICS_MAX", default_value_t = METRICS_MAX, value_name = "COUNT", value_parser = rows)]
    pub metrics_max: usize,

    /// `PACKS_MAX`: how many components may report.
    #[arg(long, env = "PACKS_MAX", default_value_t = ROWS_MAX, value_name = "COUNT", value_parser = rows)]
    pub packs_max: usize,

    /// `TOKENS_MAX`: how many tokens may be valid when the service creates one.
    #[arg(long, env = "TOKENS_MAX", default_value_t = TOKENS_MAX, value_name = "COUNT", value_parser = rows)]
    pub tokens_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            body_budget_mib: BUDGET,
            answer_budget_mib: BUDGET,
            engines_max: ROWS_MAX,
            domains_max: ROWS_MAX,
            wires_max: ROWS_MAX,
            metrics_max: METRICS_MAX,
            packs_max: ROWS_MAX,
            tokens_max: TOKENS_MAX,
        }
    }
}

impl LimitsConfig {
    /// Bytes for the bodies of all requests in flight.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        self.body_budget_mib * MIB
    }

    /// Bytes for the answers that are being sent.
    #[must_use]
    pub const fn answer_bytes(&self) -> usize {
        self.answer_budget_mib * MIB
    }
}

fn rows(text: &str) -> Result<usize, String> {
    let count = text.trim().parse().ok().filter(|count| ROWS.contains(count));
    count.ok_or_else(|| format!("it must be a number from {} to {}", ROWS.start(), ROWS.end()))
}

fn budget(text: &str) -> Result<usize, String> {
    let budget = text.trim().parse().ok().filter(|budget| BUDGETS.contains(budget));
    budget.ok_or_else(|| format!("it must be a number of MiB from {} to {}", BUDGETS.start(), BUDGETS.end()))
}
