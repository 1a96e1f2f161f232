//! Figures against their bounds, and over the rounds.

use crate::numbers::rounded;

/// Where a figure has to be of its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    AtLeast,
    AtMost,
}

/// As the worst round says.
pub(crate) fn verdict(values: &[f64], side: Side, must: Option<f64>, aim: Option<f64>) -> &'static str {
    let holds = |line: f64| {
        values.iter().all(|value| match side {
            Side::AtLeast => *value >= line,
            Side::AtMost => *value <= line,
        })
    };
    match (must, aim) {
        (_, Some(aim)) if holds(aim) => "aim met",
        (Some(must), _) if holds(must) => "must met",
        (Some(_), _) => "**below must**",
        (None, Some(_)) => "aim missed",
        (None, None) => "published",
    }
}

/// From the least to the most, or the one number that both are.
pub(crate) fn range(values: &[f64], places: usize, unit: &str) -> String {
    let show = |value: f64| if places == 0 { rounded(value) } else { format!("{value:.places$}") };
    let least = show(values.iter().copied().fold(f64::INFINITY, f64::min));
    let most = show(values.iter().copied().fold(0.0, f64::max));
    if least == most { format!("{least}{unit}") } else { format!("{least} – {most}{unit}") }
}
