//! What loosens: the one list of it. Whoever loosens needs [`Scope::Release`](crate::types::Scope::Release), and, while it is
//! asked for, a second person. Both go by this function, so that there is no door for one of the two alone.
//!
//! The shell is no door of this kind: whoever has it has the database, and `holdfast two-person-release off` as well.

use super::model::ApprovalAction;
use crate::go_live::model::Change;
use crate::heimdall::model::{self as charter, HeimdallPolicy};
use crate::regression::model::{self as wire, RegressionPolicy};
use crate::risk::model::RiskPolicy;
use crate::risk::model::adjust::Correction;
use crate::risk::model::policy as risk;

/// A change as it would be, with what it would change.
#[derive(Debug, Clone, Copy)]
pub enum Proposal<'a> {
    /// Of the go-live state.
    GoLive(Change),
    /// Of an engine's caps: as they are, none for a new engine, and as they would be.
    RiskPolicy(Option<&'a RiskPolicy>, &'a RiskPolicy),
    /// Of what was booked.
    Correction(Correction),
    /// Of what a domain must show: as it is, and as it would be.
    Charter(Option<&'a HeimdallPolicy>, &'a HeimdallPolicy),
    /// Production use by the evidence.
    Promotion,
    /// Of a wire: as it is, as it would be, and the trip that this ends.
    Wire(Option<&'a RegressionPolicy>, &'a RegressionPolicy, Option<i64>),
    /// A wire that tripped is armed again.
    Rearm,
    /// Another baseline.
    Baseline,
}

/// As what a change loosens; none for one that does not: it tightens, or nobody is less safe by it.
#[must_use]
pub fn loosening(proposal: &Proposal<'_>) -> Option<ApprovalAction> {
    let (action, loosens) = match *proposal {
        Proposal::GoLive(Change::Enable) => (ApprovalAction::Enable, true),
        Proposal::GoLive(change) => (ApprovalAction::Release, change.loosens()),
        Proposal::RiskPolicy(before, after) => (ApprovalAction::RaiseCap, risk::loosens(before, after)),
        Proposal::Correction(correction) => (ApprovalAction::Correct, correction.is_downwards()),
        Proposal::Charter(before, after) => (ApprovalAction::Charter, charter::loosens(before, after)),
        Proposal::Promotion => (ApprovalAction::Promote, true),
        Proposal::Wire(before, after, ends) => {
            (ApprovalAction::Wire, ends.is_some() || wire::loosens(before, after) || wire::rebases(before, after))
        }
        Proposal::Rearm => (ApprovalAction::Rearm, true),
        Proposal::Baseline => (ApprovalAction::Rebase, true),
    };
    loosens.then_some(action)
}
