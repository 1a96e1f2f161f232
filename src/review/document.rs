//! The review as a document: its members, and the words that several of its sentences share.

use super::blind::{BlindWire, Unwatched};
use super::here::Answering;
use super::required::Lacking;
use super::slo::Slo;
use super::store::{LedgerDifference, OldHolds, Principals};
use super::week::Week;
use crate::approval::model::ApprovalRecord;
use crate::audit::checkpoint::Witness;
use crate::audit::{ControlRecord, HeadRecord};
use crate::enforcement::instance::Instances;
use crate::go_live::model::GoLiveState;
use crate::heimdall::model::{Evidence, Scorecard, Standing};
use crate::regression::model::WireState;
use crate::regression::store::Silent;
use crate::risk::http::LedgerToday;
use crate::risk::model::RiskPolicy;
use crate::risk::store::Denied;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The age after which an open hold that never expires is listed.
pub(super) const OLD: TimeDelta = TimeDelta::days(7);

/// The review.
#[derive(Debug, Serialize, ToSchema)]
pub struct Review {
    /// The time of the review, by the database's clock.
    pub generated_at: DateTime<Utc>,
    /// The Monday from which changes and objectives are counted.
    pub since: DateTime<Utc>,
    /// Whether the service is in open mode: it has no tokens and authenticates no caller.
    pub open_mode: bool,
    /// The valid tokens whose holder may both measure and recommend, and so grade itself.
    pub grade_themselves: Vec<String>,
    /// The points to look at first; empty when nothing needs attention.
    pub look_first: Vec<String>,
    /// The instance that answers, and the causes that stop it whatever the state is.
    pub answering: Answering,
    /// The instances on this database, and the settings in which the live ones differ.
    pub instances: Instances,
    /// The live instances that do not enforce, so that they admit everything.
    pub not_enforcing: Vec<String>,
    /// The go-live state.
    pub state: GoLiveState,
    /// The requests that wait for a second person.
    pub approvals: Vec<ApprovalRecord>,
    /// The changes and the refused attempts, newest first; at most 200.
    pub changes: Vec<ControlRecord>,
    /// Today's ledger, with the denials by reason.
    pub ledger: Vec<LedgerToday>,
    /// The days from `since` on, with today so far.
    pub week: Week,
    /// The same numbers of the week before `since`.
    pub week_before: Week,
    /// The reserves that were denied in the period, by engine and reason, the most frequent first.
    pub denials: Vec<Denied>,
    /// The holds that have been open for more than 7 days and never expire, by engine.
    pub old_holds: Vec<OldHolds>,
    /// The time since which new reserves are halted because the book does not balance; null if no imbalance is known.
    pub ledger_halted_at: Option<DateTime<Utc>>,
    /// The counters that did not balance at that time.
    pub ledger_differences: Vec<LedgerDifference>,
    /// The seconds by which the database's clock is behind the last event of the ledger; 0 if it is not.
    pub clock_behind_seconds: i64,
    /// Whether that was accepted, so that reserves continue, on the day of that event.
    pub clock_behind_accepted: bool,
    /// The engines whose policy is disabled.
    pub disabled_engines: Vec<RiskPolicy>,
    /// The wires that are tripped.
    pub tripped: Vec<WireState>,
    /// The wires in SHADOW mode that would have tripped.
    pub shadow_tripped: Vec<WireState>,
    /// The watched wires whose drop is at least half of the tripping one, or whose evidence is half way to it on its
    /// logarithm.
    pub near_tripping: Vec<WireState>,
    /// The watched series that have gone silent.
    pub silent: Vec<Silent>,
    /// The series that were measured in the period and have no wire.
    pub unwatched: Vec<Unwatched>,
    /// The wires that judge nothing.
    pub blind_wires: Vec<BlindWire>,
    /// Today's scorecards.
    pub scorecards: Vec<Scorecard>,
    /// The domains whose production use does not match their evidence.
    pub charter: CharterReview,
    /// The missing parts of the book, each with the next step: guards that are not armed, policies, partitions.
    pub missing: Vec<String>,
    /// The heads of the audit streams.
    pub audit: Vec<HeadRecord>,
    /// The last checkpoint of the audit trail on this machine, and whether the trail agrees with it; null if there is
    /// none.
    pub checkpoint: Option<Witness>,
    /// The delivery document's success metrics over the period.
    pub slo: Slo,
    /// The number of further rows of each shortened list, by the list's name. Complete lists are not in it.
    pub more: BTreeMap<&'static str, usize>,
    /// The callers whose changes the sentences mention.
    #[serde(skip)]
    pub(super) who: Principals,
    /// The required components that are not installed.
    #[serde(skip)]
    pub(super) lacking: Vec<Lacking>,
}

/// The domains whose production use does not match their evidence.
#[derive(Debug, Serialize, ToSchema)]
pub struct CharterReview {
    /// Production use is off, but the evidence passes now.
    pub could_promote: Vec<Standing>,
    /// Production use is on, but the evidence does not pass now.
    pub should_demote: Vec<Standing>,
    /// Production use is on, but its evidence did not pass when it was switched on; null there means unknown.
    pub evidence_not_met: Vec<Standing>,
}

impl CharterReview {
    pub(super) fn new(standings: &[Standing]) -> Self {
        let those = |wanted: fn(&&Standing) -> bool| standings.iter().filter(wanted).cloned().collect();
        Self {
            could_promote: those(|domain| !domain.prod_use_enabled && domain.passes),
            should_demote: those(|domain| domain.prod_use_enabled && !domain.passes),
            evidence_not_met: those(|domain| domain.prod_use_enabled && domain.evidence != Some(Evidence::Met)),
        }
    }
}

/// The event with which a change would have begun, as a text.
pub(super) fn began(wire: &WireState) -> String {
    wire.began_at_event.map_or_else(String::new, |event| {
        let percent = wire.evidence_pct.unwrap_or_default();
        format!(" ({percent:.0} % of the evidence; began at event {event}, {} events ago)", wire.current_events)
    })
}
