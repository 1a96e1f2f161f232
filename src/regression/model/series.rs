//! A series while events are added to it: the sums that its wire asks for.

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
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::Numeric => "NUMERIC",
        }
    }

    /// The field that carries it.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Boolean => "success",
            Self::Numeric => "value",
        }
    }
}

/// A series, and its wire, as events and sentences name them.
#[must_use]
pub fn series_name(domain: &Domain, metric: &Metric) -> String {
    format!("{domain}.{metric}")
}

/// A series as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Its kind; none before its first event, unless an operator said it.
    pub kind: Option<Kind>,
    /// Where it ends.
    pub end: Mark,
    /// Its last event, in the KPI stream; 0 before the first.
    pub seq: i64,
    /// Sums that were read.
    pub read: BTreeMap<i64, Total>,
    /// The sums of what was added since.
    added: Vec<Total>,
}

impl Series {
    /// A series that ends here.
    #[must_use]
    pub const fn ending(end: Mark, seq: i64, kind: Kind) -> Self {
        Self { kind: Some(kind), end, seq, read: BTreeMap::new(), added: Vec::new() }
    }

    /// Adds its next event.
    pub fn push(&mut self, mark: Mark, kind: Kind, seq: i64) {
        (self.kind, self.end, self.seq) = (Some(kind), mark, seq);
        self.added.push(mark.sum);
    }

    /// Whether it is one of successes and failures, as one without events is taken to be.
    #[must_use]
    pub fn is_boolean(&self) -> bool {
        self.kind.is_none_or(|kind| kind == Kind::Boolean)
    }

    /// Whether anything was added.
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
