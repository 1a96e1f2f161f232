//! Figures, their bounds, and the table of them.

use super::numbers::rounded;

/// The head of the table.
pub(crate) const TABLE: &str =
    "| Figure | Must | Aim | Measured (range over rounds) | Verdict |\n|---|---|---|---|---|\n";

/// The verdict on a figure that is not where it must be.
pub(crate) const BELOW: &str = "**below must**";

/// Where a figure has to be of its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    AtLeast,
    AtMost,
}

/// How a figure reads, and where it has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec<'a> {
    pub(crate) title: &'a str,
    must: Option<f64>,
    aim: Option<f64>,
    side: Side,
    places: usize,
    unit: &'static str,
}

impl<'a> Spec<'a> {
    pub(crate) fn at_least(
        title: &'a str,
        must: Option<f64>,
        aim: Option<f64>,
        places: usize,
        unit: &'static str,
    ) -> Self {
        Self { title, must, aim, side: Side::AtLeast, places, unit }
    }

    pub(crate) fn at_most(
        title: &'a str,
        must: Option<f64>,
        aim: Option<f64>,
        places: usize,
        unit: &'static str,
    ) -> Self {
        Self { side: Side::AtMost, ..Self::at_least(title, must, aim, places, unit) }
    }

    /// The range over the rounds.
    pub(crate) fn range(self, values: &[f64]) -> String {
        range(values, self.places, self.unit)
    }

    /// Its row of the table. `absolute` stands behind the range.
    pub(crate) fn row(self, values: &[f64], absolute: &str) -> String {
        let bound = |bound: Option<f64>| bound.map_or_else(|| "–".to_owned(), |bound| self.bound(bound));
        let head = format!("| {} | {} | {} |", self.title, bound(self.must), bound(self.aim));
        if values.is_empty() {
            return format!("{head} – | not measured |\n");
        }
        format!("{head} {}{absolute} | {} |\n", self.range(values), self.verdict(values))
    }

    /// A value of it, as a bound.
    fn bound(self, bound: f64) -> String {
        let number = if bound >= 1_000.0 { rounded(bound) } else { bound.to_string() };
        format!("{number}{}", self.unit.replace(" ×", ""))
    }

    /// As the worst round says.
    pub(crate) fn verdict(self, values: &[f64]) -> &'static str {
        let holds = |line: f64| {
            values.iter().all(|value| match self.side {
                Side::AtLeast => *value >= line,
                Side::AtMost => *value <= line,
            })
        };
        match (self.must, self.aim) {
            (_, Some(aim)) if holds(aim) => "aim met",
            (Some(must), _) if holds(must) => "must met",
            (Some(_), _) => BELOW,
            (None, Some(_)) => "aim missed",
            (None, None) => "published",
        }
    }
}

/// From the least to the most, or the one number that both are.
pub(crate) fn range(values: &[f64], places: usize, unit: &str) -> String {
    let show = |value: f64| if places == 0 { rounded(value) } else { format!("{value:.places$}") };
    let least = show(values.iter().copied().fold(f64::INFINITY, f64::min));
    let most = show(values.iter().copied().fold(0.0, f64::max));
    if least == most { format!("{least}{unit}") } else { format!("{least} – {most}{unit}") }
}
