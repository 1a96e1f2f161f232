//! A series while events are added to it: the sums that its wire asks for.

use super::{Mark, Sums};
use crate::types::Total;
use std::collections::BTreeMap;

/// A series as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Whether it is one of successes and failures; none before its first event.
    pub boolean: Option<bool>,
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
    pub const fn ending(end: Mark, seq: i64, boolean: bool) -> Self {
        Self { boolean: Some(boolean), end, seq, read: BTreeMap::new(), added: Vec::new() }
    }

    /// Adds its next event.
    pub fn push(&mut self, mark: Mark, boolean: bool, seq: i64) {
        (self.boolean, self.end, self.seq) = (Some(boolean), mark, seq);
        self.added.push(mark.sum);
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
