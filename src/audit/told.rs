//! Changes of the control plane in the log: one line for each committed change, whichever instance, shell or trip made
//! it.
//!
//! The lines come from the control stream itself, so that no line reports a rolled-back change and no route can be
//! forgotten. A reason is a text that may have to be erased, so it is in the trail and not here. Nothing depends on
//! these lines.

use super::Stream;
use super::store::{self, Told};
use crate::db::Database;
use crate::error::Result;
use crate::types::ControlAction;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How often the process checks for new changes; each check reads one row.
const EVERY: Duration = Duration::from_secs(1);
/// Most changes that are logged at once; for the rest, one line points to the trail.
const CHANGES_MAX: i64 = 200;
/// How long the end of the process waits for the last lines.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);

/// Logs the changes that are committed from now on.
#[derive(Debug, Clone)]
pub struct Changes {
    db: Database,
    /// The stream's head at the last check; none before the first.
    seen: Arc<Mutex<Option<i64>>>,
}

impl Changes {
    /// Reads the stream's head now. If that fails, changes that are committed before the first successful read are not
    /// logged.
    pub async fn from_now_on(db: Database) -> Self {
        let changes = Self { db, seen: Arc::default() };
        changes.look().await;
        changes
    }

    /// Logs changes until the task is cancelled.
    pub async fn watch(self) {
        let mut turns = tokio::time::interval(EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            self.look().await;
        }
    }

    /// Logs the last changes before the process ends.
    pub async fn finish(&self) {
        let _ = tokio::time::timeout(LAST_TIMEOUT, self.look()).await;
    }

    async fn look(&self) {
        let mut seen = self.seen.lock().await;
        match self.tell(*seen).await {
            Ok(stands) => *seen = Some(stands),
            Err(error) => tracing::debug!(%error, "the changes of the control plane could not be read"),
        }
    }

    /// Logs the changes after `seen` and returns the stream's head, which is further back in a restored database.
    async fn tell(&self, seen: Option<i64>) -> Result<i64> {
        let mut conn = self.db.work().await?;
        let stands = store::head_seq(&mut conn, Stream::Control).await?;
        let Some(seen) = seen.filter(|seen| *seen < stands) else {
            return Ok(stands);
        };
        let after = seen.max(stands - CHANGES_MAX);
        if after > seen {
            tracing::warn!(
                from = seen + 1,
                to = after,
                "some changes of the control plane are not in this log: see the audit trail"
            );
        }
        for change in store::read_told(&mut conn, after, stands).await? {
            change.tell();
        }
        Ok(stands)
    }
}

/// The numbers of a trip, from its event.
#[derive(Deserialize)]
struct Trip<'a> {
    #[serde(borrow)]
    policy: Wire<'a>,
    #[serde(borrow)]
    baseline_events: &'a RawValue,
    #[serde(borrow)]
    baseline_sum: &'a RawValue,
    #[serde(borrow)]
    current_events: &'a RawValue,
    #[serde(borrow)]
    current_sum: &'a RawValue,
    #[serde(borrow)]
    drop_fraction: Option<&'a RawValue>,
    #[serde(borrow, default)]
    evidence: Option<&'a RawValue>,
    #[serde(borrow, default)]
    silent_seconds: Option<&'a RawValue>,
    engine: Option<String>,
    shadow: bool,
}

#[derive(Deserialize)]
struct Wire<'a> {
    action: &'a str,
    detector: &'a str,
}

/// Changes that stop something or report a fault.
const STOPS: [ControlAction; 6] = [
    ControlAction::KillSwitchEngage,
    ControlAction::GoLiveDisable,
    ControlAction::RiskHalt,
    ControlAction::GoLiveRewindAccept,
    ControlAction::RegressionTrip,
    ControlAction::RegressionShadowTrip,
];

impl Told {
    // Callers' texts are fields, not part of the message: fields are quoted and escaped, so they cannot forge a line.
    fn tell(&self) {
        let Self { seq, action, .. } = self;
        let (subject, principal) = (self.subject.as_deref(), self.principal.as_str());
        let (actor, request_id) = (self.actor.as_deref(), self.request_id.as_deref());
        // Only a trip's detail is read.
        let trip = self.detail.as_deref().and_then(|detail| serde_json::from_str::<Trip<'_>>(detail).ok());
        if let Some(trip) = trip {
            tracing::warn!(
                wire = subject,
                trip_id = seq,
                does = trip.policy.action,
                engine = trip.engine.as_deref(),
                shadow = trip.shadow,
                drop_fraction = trip.drop_fraction.map(RawValue::get),
                silent_seconds = trip.silent_seconds.map(RawValue::get),
                evidence = trip.evidence.map(RawValue::get),
                detector = trip.policy.detector,
                baseline_events = trip.baseline_events.get(),
                baseline_sum = trip.baseline_sum.get(),
                current_events = trip.current_events.get(),
                current_sum = trip.current_sum.get(),
                principal,
                actor,
                request_id,
                "a wire has tripped"
            );
        } else if ControlAction::read(action).is_some_and(|action| STOPS.contains(&action)) {
            tracing::warn!(seq, action, subject, principal, actor, request_id, "the control plane changed");
        } else {
            tracing::info!(seq, action, subject, principal, actor, request_id, "the control plane changed");
        }
    }
}
