//! A request to record measurements, and how its answer is built.

use crate::audit::Origin;
use crate::error::Result;
use crate::idempotency::Intent;
use crate::regression::answers::KpiAnswer;
use crate::regression::model::KpiEvent;
use serde_json::value::RawValue;
use std::fmt;

/// Builds the answer to a request from the results of its measurements.
pub type Render = Box<dyn Fn(Vec<Result<KpiAnswer>>) -> Result<Box<RawValue>> + Send + Sync>;

/// The measurements of one request, recorded together.
pub struct Measurements {
    /// Each measurement with its origin.
    pub events: Vec<(KpiEvent, Origin)>,
    /// The caller's idempotency key, if it sent one.
    pub intent: Option<Intent>,
    /// Builds the answer to the request, which is kept under its key.
    pub answer: Render,
}

impl fmt::Debug for Measurements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measurements")
            .field("events", &self.events.len())
            .field("intent", &self.intent)
            .finish_non_exhaustive()
    }
}
