//! A series while events are added to it, with the sums that its wire needs.

use super::{Mark, Sums};
use crate::types::{Domain, Metric, Total};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The kind of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = SeriesKind)]
pub enum Kind {
    /// Successes and failures.
    Boolean,
    /// Values.
    Numeric,
}

impl Kind {
    /// The kind's name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::Numeric => "NUMERIC",
        }
    }

    /// The field of a measurement of this kind.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Boolean => "success",
            Self::Numeric => "value",
        }
    }
}

/// The name of a series, and of its wire, in events and sentences.
#[must_use]
pub fn series_name(domain: &Domain, metric: &Metric) -> String {
    format!("{domain}.{metric}")
}

/// A series, as far as it was read.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// The kind; none before the first event, unless an operator set it.
    pub kind: Option<Kind>,
    /// The end of the series.
    pub end: Mark,
    /// The sequence number of its last event in the KPI stream; 0 before the first.
    pub seq: i64,
    /// The running sums that were read, by place.
    pub read: BTreeMap<i64, Total>,
    /// The running sums of the events that were added since.
    added: Vec<Total>,
}

impl Series {
    /// A series that ends here.
    #[must_use]
    pub const fn ending(end: Mark, seq: i64, kind: Kind) -> Self {
        Self { kind: Some(kind), end, seq, read: BTreeMap::new(), added: Vec::new() }
    }

    /// Adds the next event.
    pub fn push(&mut self, mark: Mark, kind: Kind, seq: i64) {
        (self.kind, self.end, self.seq) = (Some(kind), mark, seq);
        self.added.push(mark.sum);
    }

    /// Whether the series consists of successes and failures. A series without events counts as one.
    #[must_use]
    pub fn is_boolean(&self) -> bool {
        self.kind.is_none_or(|kind| kind == Kind::Boolean)
    }

    /// Whether any event was added.
    #[must_use]
    pub fn has_grown(&self) -> bool {
        !self.added.is_empty()
    }
}

impl Sums for Series {
    fn sum(&self, events: i64) -> Option<Total> {
        if events == 0 {
            return Some(Total::ZERO);
        }
        let before = self.end.events - i64::try_from(self.added.len()).ok()?;
        match usize::try_from(events - before - 1) {
            Ok(place) if events > before => self.added.get(place).copied(),
            _ if events == self.end.events => Some(self.end.sum),
            _ => self.read.get(&events).copied(),
        }
    }
}
