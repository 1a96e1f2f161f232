//! The figures: what they are called, what they have to be, and how they read.

use crate::bounds::{self, Side};

/// What the table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Reserves,
    Lifecycles,
    P99,
    P99Open,
    P50,
    Batch,
    TwoInstances,
    Disk,
    Wal,
    Memory,
    Keys,
    Overload,
    Denials,
}

/// What a figure is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Transactions a second of the yardstick with 32 clients.
    Tps32,
    /// Latency of the yardstick with 1 client.
    Latency1,
    /// Nothing, or something that the row measured itself.
    Nothing,
}

/// How a figure reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) title: &'static str,
    pub(crate) must: Option<f64>,
    pub(crate) aim: Option<f64>,
    more_is_better: bool,
    places: usize,
    unit: &'static str,
    absolute_places: usize,
    absolute_unit: &'static str,
    pub(crate) by: By,
}

/// In the order of the table.
pub(crate) const FIGURES: [Figure; 13] = [
    Figure::Reserves,
    Figure::Lifecycles,
    Figure::P99,
    Figure::P99Open,
    Figure::P50,
    Figure::Batch,
    Figure::TwoInstances,
    Figure::Disk,
    Figure::Wal,
    Figure::Memory,
    Figure::Keys,
    Figure::Overload,
    Figure::Denials,
];

impl Figure {
    pub(crate) fn spec(self) -> Spec {
        let throughput = |title, must, aim| Spec {
            title,
            must,
            aim,
            more_is_better: true,
            places: 1,
            unit: " ×",
            absolute_places: 0,
            absolute_unit: "/s",
            by: By::Tps32,
        };
        let plain = |title, must, aim, unit| Spec {
            more_is_better: false,
            unit,
            by: By::Nothing,
            ..throughput(title, must, aim)
        };
        match self {
            Self::Reserves => throughput("reserves/s, 256 connections ÷ yardstick tps", Some(15.0), Some(30.0)),
            Self::Lifecycles => {
                throughput("reserve + settle lifecycles/s, 256 connections ÷ yardstick tps", Some(6.0), Some(12.0))
            }
            Self::P99 => plain("p99 of a reserve, 64 connections", Some(30.0), Some(15.0), " ms"),
            Self::P99Open => plain("p99 of a reserve, open loop at 70 % of the peak", None, None, " ms"),
            Self::P50 => Spec {
                more_is_better: false,
                places: 2,
                absolute_places: 3,
                absolute_unit: " ms",
                by: By::Latency1,
                ..throughput("p50 of a reserve, 1 connection ÷ yardstick latency", Some(2.5), Some(1.6))
            },
            Self::Batch => throughput("operations/s in batches of 500 ÷ yardstick tps", Some(30.0), Some(60.0)),
            Self::TwoInstances => Spec {
                places: 2,
                by: By::Nothing,
                ..throughput("two instances on one database ÷ one instance", Some(0.9), Some(1.0))
            },
            Self::Disk => Spec { places: 0, ..plain("bytes per lifecycle on disk", None, None, " B") },
            Self::Wal => Spec { places: 0, ..plain("bytes of WAL per lifecycle", None, None, " B") },
            Self::Memory => Spec {
                places: 2,
                absolute_unit: " MiB",
                ..plain("memory at the end of the soak ÷ after 1 minute", None, Some(1.2), " ×")
            },
            Self::Keys => throughput("reserves/s with an Idempotency-Key each ÷ yardstick tps", None, None),
            Self::Overload => Spec {
                places: 2,
                by: By::Nothing,
                ..throughput("reserves/s with 2,560 connections ÷ with 256", Some(0.9), None)
            },
            Self::Denials => {
                Spec { places: 0, more_is_better: true, ..plain("denials/s, 256 connections", None, None, "/s") }
            }
        }
    }
}

impl Spec {
    /// The range of a figure over the rounds.
    pub(crate) fn range(self, values: &[f64]) -> String {
        bounds::range(values, self.places, self.unit)
    }

    /// The range of what the figure is the ratio of.
    pub(crate) fn absolute_range(self, values: &[f64]) -> String {
        bounds::range(values, self.absolute_places, self.absolute_unit)
    }

    /// A value of it, as a bound.
    pub(crate) fn bound(self, bound: Option<f64>) -> String {
        bound.map_or_else(|| "–".to_owned(), |bound| format!("{bound}{}", self.unit.replace(" ×", "")))
    }

    /// As the worst round says.
    pub(crate) fn verdict(self, values: &[f64]) -> &'static str {
        let side = if self.more_is_better { Side::AtLeast } else { Side::AtMost };
        bounds::verdict(values, side, self.must, self.aim)
    }
}

/// A figure of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) figure: Figure,
    /// What is compared with must and aim; `None` until the yardsticks of the round are known.
    pub(crate) value: Option<f64>,
    /// What it is the ratio of.
    pub(crate) absolute: Option<f64>,
    /// The yardstick of the round that ran just before it, by its place.
    pub(crate) after_yardstick: usize,
}

impl Sample {
    pub(crate) fn absolute(figure: Figure, absolute: f64) -> Self {
        Self { figure, value: None, absolute: Some(absolute), after_yardstick: 0 }
    }

    pub(crate) fn value(figure: Figure, value: f64) -> Self {
        Self { figure, value: Some(value), absolute: None, after_yardstick: 0 }
    }
}
