//! The measurements, for people and for programs.

use crate::Options;
use crate::books::Checked;
use crate::figures::{By, Figure, Sample};
use crate::latencies::Latencies;
use crate::load::{Load, Pace, Tally};
use crate::machine::Facts;
use crate::numbers::{grouped, real, rounded};
use crate::script::{Counts, Work};
use crate::support::figures::TABLE;
use crate::usage::Cpu;
use crate::yardstick::Yardstick;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// The resources that a row needs of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) measured: Counts,
    /// With the warm-up.
    pub(crate) all: Counts,
}

/// A load that was run, and what came of it.
#[derive(Debug)]
pub(crate) struct Run {
    name: &'static str,
    connections: usize,
    /// Operations a second that were to be done; `None` in a closed loop.
    offered_per_second: Option<f64>,
    /// Operations a second that were decided; lifecycles, where they are the work.
    per_second: f64,
    pub(crate) tally: Tally,
    /// Per operation, in microseconds.
    cpu_us: [f64; 3],
    /// The findings of the check of the books, for this row and those before it without a check of their own.
    pub(crate) checked: Option<Checked>,
}

impl Run {
    pub(crate) fn new(name: &'static str, load: &Load, tally: Tally, cpu: Cpu) -> Self {
        let seconds = tally.elapsed.as_secs_f64();
        let operations = |counts: Counts| match load.work {
            Work::Lifecycle { .. } => counts.settled,
            Work::Reserve { .. } | Work::Keyed { .. } | Work::Batch { .. } => counts.decided(),
        };
        let per_operation = |used: Duration| used.as_secs_f64() * 1e6 / real(operations(tally.all).max(1));
        Self {
            name,
            connections: load.connections,
            offered_per_second: match load.pace {
                Pace::Closed => None,
                Pace::Open { per_second } => Some(per_second),
            },
            per_second: real(operations(tally.measured)) / seconds,
            cpu_us: [cpu.generator, cpu.service, cpu.postgres].map(per_operation),
            tally,
            checked: None,
        }
    }

    /// The work, and the number of connections.
    fn title(&self) -> String {
        let plural = if self.connections == 1 { "" } else { "s" };
        format!("{}, {} connection{plural}", self.name, grouped(self.connections as u64))
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let [p50_ms, _, p99_ms, ..] = self.latencies_ms();
        let Tally { measured, all, .. } = self.tally;
        Outcome { per_second: self.per_second, p50_ms, p99_ms, measured, all }
    }

    /// Percentiles 50, 90, 99 and 99.9, and the longest; milliseconds.
    fn latencies_ms(&self) -> [f64; 5] {
        let latencies = &self.tally.latencies;
        let at = |share| latencies.quantile_ms(share);
        [at(0.5), at(0.9), at(0.99), at(0.999), latencies.longest_ms()]
    }

    fn json(&self) -> Value {
        let [p50, p90, p99, p999, max] = self.latencies_ms();
        let [generator, service, postgres] = self.cpu_us;
        let counts = |counts: Counts| {
            json!({"allowed": counts.allowed, "denied": counts.denied, "settled": counts.settled,
                   "unavailable": counts.unavailable, "errors": counts.errors, "broken": counts.broken})
        };
        json!({
            "name": self.name, "connections": self.connections, "seconds": self.tally.elapsed.as_secs_f64(),
            "offered_per_second": self.offered_per_second, "per_second": self.per_second,
            "offered": self.tally.offered, "measured": counts(self.tally.measured), "with_warm_up": counts(self.tally.all),
            "latency_ms": {"p50": p50, "p90": p90, "p99": p99, "p99_9": p999, "max": max},
            "cpu_us_per_operation": {"generator": generator, "service": service, "postgres": postgres},
            "books": self.checked.map(|checked| json!({"events": checked.events, "hashes_recomputed": checked.hashes})),
        })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, p999, max] = self.latencies_ms();
        let Counts { allowed, denied, settled, unavailable, errors, broken } = self.tally.measured;
        write!(f, "{}: {}/s", self.title(), rounded(self.per_second))?;
        if let Some(offered) = self.offered_per_second {
            write!(f, " of {}/s offered", rounded(offered))?;
        }
        writeln!(f, "; p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2} ms")?;
        write!(f, "    allowed {}, denied {}, ", grouped(allowed), grouped(denied))?;
        write!(f, "settled {}, 503 {}, errors {errors}, broken {broken}; ", grouped(settled), grouped(unavailable))?;
        let [generator, service, postgres] = self.cpu_us;
        write!(f, "CPU per operation: generator {generator:.1}, service {service:.1}, PostgreSQL {postgres:.1} µs")?;
        match &self.tally.strange {
            Some(answer) => write!(f, "\n    not expected: {answer}"),
            None => Ok(()),
        }
    }
}

/// A minute of the soak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minute {
    pub(crate) number: u64,
    pub(crate) resident_kib: u64,
    pub(crate) p99_ms: f64,
}

/// One round.
#[derive(Debug)]
pub(crate) struct RoundReport {
    number: u32,
    /// The load average before it.
    busy: String,
    pub(crate) yardsticks: Vec<Yardstick>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) minutes: Vec<Minute>,
    pub(crate) runs: Vec<Run>,
}

impl RoundReport {
    pub(crate) fn new(number: u32, busy: String) -> Self {
        let (yardsticks, samples) = Default::default();
        Self { number, busy, yardsticks, samples, minutes: Vec::new(), runs: Vec::new() }
    }

    /// Divides what is compared with the yardstick by the better of those just before and just after it.
    pub(crate) fn compare(&mut self) {
        for sample in &mut self.samples {
            let around = self.yardsticks.iter().skip(sample.after_yardstick).take(2);
            let Some(yardstick) = Yardstick::best(around) else { continue };
            sample.value = match sample.figure.by() {
                By::Tps32 => sample.absolute.map(|rate| rate / yardstick.tps_32),
                By::Latency1 => sample.absolute.map(|latency| latency / yardstick.latency_1_ms),
                By::Nothing => sample.value,
            };
        }
    }

    fn json(&self) -> Value {
        let yardsticks = self.yardsticks.iter();
        let samples = self.samples.iter();
        json!({
            "round": self.number, "load_average_before": self.busy,
            "yardsticks": yardsticks.map(|one| json!({"tps_1": one.tps_1, "latency_1_ms": one.latency_1_ms, "tps_32": one.tps_32})).collect::<Vec<_>>(),
            "figures": samples.map(|one| json!({"figure": one.figure.spec().title, "value": one.value, "absolute": one.absolute})).collect::<Vec<_>>(),
            "soak": self.minutes.iter().map(|one| json!({"minute": one.number, "resident_kib": one.resident_kib, "p99_ms": one.p99_ms})).collect::<Vec<_>>(),
            "runs": self.runs.iter().map(Run::json).collect::<Vec<_>>(),
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
            "facts": self.facts.json(),
            "seconds": options.seconds,
            "rounds": self.rounds.iter().map(RoundReport::json).collect::<Vec<_>>(),
        })
    }

    /// The tables of docs/BENCHMARKS.md.
    pub(crate) fn markdown(&self) -> Result<String, fmt::Error> {
        let mut text = self.facts.table(self.rounds.iter().map(|round| round.busy.as_str()));
        let (mut tps, mut latencies) = (Vec::new(), Vec::new());
        for yardstick in self.rounds.iter().flat_map(|round| &round.yardsticks) {
            tps.push(yardstick.tps_32);
            latencies.push(yardstick.latency_1_ms);
        }
        if !tps.is_empty() {
            writeln!(text, "| yardstick, 32 clients | {} |", Figure::Reserves.absolute_range(&tps))?;
            writeln!(text, "| yardstick, 1 client | {} |", Figure::P50.absolute_range(&latencies))?;
        }
        write!(text, "\n{TABLE}")?;
        text.extend(Figure::value_variants().iter().map(|figure| self.figure(*figure)));
        text.push_str("\n| Load, all rounds | Offered | Allowed | Denied | Settled | 503 | Errors | Broken | p50 / p99 / p99.9 / max, ms |\n");
        text.push_str("|---|---|---|---|---|---|---|---|---|\n");
        let mut seen = HashSet::new();
        for run in self.rounds.iter().flat_map(|round| &round.runs) {
            if seen.insert((run.name, run.connections)) {
                self.load(&mut text, run)?;
            }
        }
        Ok(text)
    }

    fn figure(&self, figure: Figure) -> String {
        let samples = || self.rounds.iter().flat_map(|round| &round.samples).filter(|sample| sample.figure == figure);
        let values: Vec<f64> = samples().filter_map(|sample| sample.value).collect();
        let absolutes: Vec<f64> = samples().filter_map(|sample| sample.absolute).collect();
        let absolute =
            if absolutes.is_empty() { String::new() } else { format!(" ({})", figure.absolute_range(&absolutes)) };
        figure.spec().row(&values, &absolute)
    }

    /// The answers to one load, over all rounds.
    fn load(&self, text: &mut String, run: &Run) -> fmt::Result {
        let (mut counts, mut offered) = (Counts::default(), 0);
        let mut latencies = Latencies::new();
        let same = |other: &&Run| other.name == run.name && other.connections == run.connections;
        for other in self.rounds.iter().flat_map(|round| &round.runs).filter(same) {
            counts += other.tally.measured;
            offered += other.tally.offered;
            latencies.add(&other.tally.latencies);
        }
        let Counts { allowed, denied, settled, unavailable, errors, broken } = counts;
        write!(text, "| {} | ", run.title())?;
        for count in [offered, allowed, denied, settled, unavailable, errors, broken] {
            write!(text, "{} | ", grouped(count))?;
        }
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| latencies.quantile_ms(share));
        writeln!(text, "{p50:.2} / {p99:.2} / {p999:.2} / {:.2} |", latencies.longest_ms())
    }
}
