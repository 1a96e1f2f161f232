//! Figures, their bounds, and the tables of docs/TRIPWIRE.md.

use std::fmt;

/// A figure, and where it has to be.
#[derive(Debug)]
pub(crate) struct Row {
    title: String,
    value: f64,
    unit: &'static str,
    must: Option<(f64, f64)>,
}

impl Row {
    /// A figure without a bound.
    pub(crate) fn new(title: String, value: f64, unit: &'static str) -> Self {
        Self { title, value, unit, must: None }
    }

    /// Bounds it; both ends are within.
    pub(crate) fn within(self, least: f64, most: f64) -> Self {
        Self { must: Some((least, most)), ..self }
    }

    fn is_missed(&self) -> bool {
        self.must.is_some_and(|(least, most)| !(least..=most).contains(&self.value))
    }

    fn shown(&self, value: f64) -> String {
        match self.unit {
            "" => format!("{value}"),
            unit if value == 0.0 || value >= 100.0 => format!("{value:.0} {unit}"),
            unit => format!("{value:.2} {unit}"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let must = match self.must {
            None => "–".into(),
            Some((0.0, most)) => format!("at most {}", self.shown(most)),
            Some((least, f64::INFINITY)) => format!("at least {}", self.shown(least)),
            Some((least, most)) => format!("{} to {}", self.shown(least), self.shown(most)),
        };
        let verdict = match self.must {
            None => "published",
            Some(_) if self.is_missed() => "**missed**",
            Some(_) => "must met",
        };
        let value = if self.value.is_finite() { self.shown(self.value) } else { "fewer than half trip".into() };
        write!(f, "| {} | {must} | {value} | {verdict} |", self.title)
    }
}

/// Figures that belong together.
#[derive(Debug)]
pub(crate) struct Table {
    title: &'static str,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// How many figures are not where they have to be.
    pub(crate) fn missed(&self) -> usize {
        self.rows.iter().filter(|row| row.is_missed()).count()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} | Must | Measured | Verdict |\n|---|---|---|---|", self.title)?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
