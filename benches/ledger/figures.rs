//! The figures: what they are called, what they have to be, and how they read.

use crate::support::figures::{Spec, range};

/// The rows of the table, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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

/// The divisor of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Transactions a second of the yardstick with 32 clients.
    Tps32,
    /// Latency of the yardstick with 1 client.
    Latency1,
    /// Nothing, or something that the row measured itself.
    Nothing,
}

impl Figure {
    pub(crate) fn spec(self) -> Spec<'static> {
        let ratio = |title, must, aim, places| Spec::at_least(title, must, aim, places, " ×");
        let most = Spec::at_most;
        match self {
            Self::Reserves => ratio("reserves/s, 256 connections ÷ yardstick tps", Some(15.0), Some(30.0), 1),
            Self::Lifecycles => {
                ratio("reserve + settle lifecycles/s, 256 connections ÷ yardstick tps", Some(6.0), Some(12.0), 1)
            }
            Self::P99 => most("p99 of a reserve, 64 connections", Some(30.0), Some(15.0), 1, " ms"),
            Self::P99Open => most("p99 of a reserve, open loop at 70 % of the peak", None, None, 1, " ms"),
            Self::P50 => most("p50 of a reserve, 1 connection ÷ yardstick latency", Some(2.5), Some(1.6), 2, " ×"),
            Self::Batch => ratio("operations/s in batches of 500 ÷ yardstick tps", Some(30.0), Some(60.0), 1),
            Self::TwoInstances => ratio("two instances on one database ÷ one instance", Some(0.9), Some(1.0), 2),
            Self::Disk => most("bytes per lifecycle on disk", Some(1_100.0), Some(800.0), 0, " B"),
            Self::Wal => most("bytes of WAL per lifecycle", Some(1_600.0), Some(1_200.0), 0, " B"),
            Self::Memory => most("memory at the end of the soak ÷ after 1 minute", None, Some(1.2), 2, " ×"),
            Self::Keys => ratio("reserves/s with an Idempotency-Key each ÷ yardstick tps", None, None, 1),
            Self::Overload => ratio("reserves/s with 2,560 connections ÷ with 256", Some(0.9), None, 2),
            Self::Denials => Spec::at_least("denials/s, 256 connections", None, None, 0, "/s"),
        }
    }

    pub(crate) fn by(self) -> By {
        match self {
            Self::Reserves | Self::Lifecycles | Self::Batch | Self::Keys => By::Tps32,
            Self::P50 => By::Latency1,
            _ => By::Nothing,
        }
    }

    /// The range of what it is the ratio of.
    pub(crate) fn absolute_range(self, values: &[f64]) -> String {
        let (places, unit) = match self {
            Self::P50 => (3, " ms"),
            Self::Memory => (0, " MiB"),
            _ => (0, "/s"),
        };
        range(values, places, unit)
    }
}

/// A figure of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) figure: Figure,
    /// The value to compare with must and aim; `None` until the yardsticks of the round are known.
    pub(crate) value: Option<f64>,
    /// The two figures that it is the ratio of.
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
