//! The measurements, for people and for programs.

use crate::Options;
use crate::faults::{FAULTS, Fault, Outcome};
use crate::figures::Figure;
use crate::machine::Facts;
use crate::numbers::grouped;
use crate::support::figures::{BELOW, TABLE};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::fmt::{self, Write as _};

/// One round.
#[derive(Debug)]
pub(crate) struct RoundReport {
    number: u32,
    /// The load average before it.
    busy: String,
    samples: Vec<(Figure, f64)>,
    pub(crate) outcomes: Vec<Outcome>,
    /// The data behind the figures, by row.
    details: Map<String, Value>,
}

impl RoundReport {
    pub(crate) fn new(number: u32, busy: String) -> Self {
        Self { number, busy, samples: Vec::new(), outcomes: Vec::new(), details: Map::new() }
    }

    pub(crate) fn sample(&mut self, figure: Figure, value: f64) {
        self.samples.push((figure, value));
    }

    pub(crate) fn detail(&mut self, row: &str, detail: Value) {
        self.details.insert(row.to_owned(), detail);
    }

    fn json(&self) -> Value {
        let figures = self.samples.iter().map(|(figure, value)| (figure.spec().title.to_owned(), json!(value)));
        let faults = self.outcomes.iter().map(|one| {
            json!({"fault": one.fault.name(), "admitted_after": one.admitted_after, "refused_after": one.refused_after,
                   "admitted": one.admitted, "margin_ms": one.margin_ms})
        });
        json!({
            "round": self.number, "load_average_before": self.busy, "figures": figures.collect::<Map<_, _>>(),
            "faults": faults.collect::<Vec<_>>(), "rows": self.details,
        })
    }
}

/// All rounds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) facts: Facts,
    pub(crate) rounds: Vec<RoundReport>,
}

impl Report {
    /// Everything that was measured.
    pub(crate) fn json(&self, options: &Options) -> Value {
        json!({
            "facts": self.facts.json(), "seconds": options.seconds, "trials": options.trials,
            "outage_seconds": options.outage_seconds,
            "rounds": self.rounds.iter().map(RoundReport::json).collect::<Vec<_>>(),
        })
    }

    /// The tables of docs/BENCHMARKS.md.
    pub(crate) fn markdown(&self) -> Result<String, fmt::Error> {
        let mut text = self.facts.table(self.rounds.iter().map(|round| round.busy.as_str()));
        write!(text, "\n{TABLE}")?;
        text.extend(Figure::value_variants().iter().map(|figure| figure.spec().row(&self.values(*figure), "")));
        if self.rounds.iter().any(|round| !round.outcomes.is_empty()) {
            self.faults(&mut text)?;
        }
        Ok(text)
    }

    /// Each fault, over all rounds.
    fn faults(&self, text: &mut String) -> fmt::Result {
        text.push_str(
            "\n| Fault, all rounds | Admitted after `guaranteed_by` | Refused after it | Last admission before it, at least |\n|---|---|---|---|\n",
        );
        for fault in FAULTS {
            let outcomes = || self.outcomes().filter(|one| one.fault.name() == fault.name());
            let admitted: usize = outcomes().map(|one| one.admitted_after).sum();
            let refused: usize = outcomes().map(|one| one.refused_after).sum();
            let margin = outcomes().map(|one| one.margin_ms).min().unwrap_or_default();
            let (name, refused) = (Fault::name(fault), grouped(refused as u64));
            writeln!(text, "| {name} | {admitted} | {refused} | {margin} ms |")?;
        }
        Ok(())
    }

    /// The results that are wrong, and not only slow.
    pub(crate) fn defects(&self) -> Vec<String> {
        let claims = Figure::value_variants().iter().filter(|figure| figure.is_claim());
        let found = claims.map(|figure| (figure.spec(), self.values(*figure)));
        let broken = found.filter(|(spec, values)| spec.verdict(values) == BELOW);
        broken.map(|(spec, values)| format!("{}: {}", spec.title, spec.range(&values))).collect()
    }

    fn values(&self, figure: Figure) -> Vec<f64> {
        let samples = self.rounds.iter().flat_map(|round| &round.samples);
        samples.filter(|(one, _)| *one == figure).map(|(_, value)| *value).collect()
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.rounds.iter().flat_map(|round| &round.outcomes)
    }
}
