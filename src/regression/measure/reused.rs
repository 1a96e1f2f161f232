//! Counts the measurements that were refused because their id belongs to another one: each is a missing measurement.

use crate::audit::Origin;
use crate::regression::model::series_name;
use crate::regression::store::Pair;
use crate::types::EventId;
use std::sync::{Arc, Mutex, PoisonError};

/// The number since the process began, and the last one. All clones share them.
#[derive(Debug, Clone, Default)]
pub struct Reused(Arc<Mutex<(u64, Option<String>)>>);

fn counter() -> metrics::Counter {
    metrics::counter!("holdfast_event_ids_reused_total")
}

impl Reused {
    pub(crate) fn begin_counting() {
        counter().increment(0);
    }

    pub(super) fn note(&self, pair: &Pair, id: &EventId, origin: &Origin) {
        let (domain, metric) = pair;
        let principal = origin.principal.as_str();
        tracing::warn!(
            %domain, %metric, event_id = id.as_str(), principal,
            "a measurement was refused: its event_id names another one of the same sender"
        );
        counter().increment(1);
        let mut reused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *reused = (reused.0 + 1, Some(format!("{} {id} by {principal}", series_name(domain, metric))));
    }

    /// The number, and the last one as a text; none if there was none.
    #[must_use]
    pub fn so_far(&self) -> (u64, Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
