//! The history of a policy, from the events that changed it.

use super::actions::{Detail, Setting, row_of};
use crate::types::ControlAction;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Policies that have a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// An engine's caps.
    Risk,
    /// A domain's charter.
    Heimdall,
    /// A wire.
    Regression,
}

impl PolicyKind {
    /// The actions that change such a policy or remove it.
    pub(super) fn actions(self) -> impl Iterator<Item = ControlAction> {
        let wanted = match self {
            Self::Risk => [Setting::RiskPolicy, Setting::RiskPolicyRemoval],
            Self::Heimdall => [Setting::HeimdallPolicy, Setting::HeimdallPolicyRemoval],
            Self::Regression => [Setting::RegressionPolicy, Setting::RegressionPolicyRemoval],
        };
        let moves =
            move |action: &ControlAction| row_of(*action).moves.is_some_and(|setting| wanted.contains(&setting));
        ControlAction::ALL.into_iter().filter(moves)
    }
}

/// A changed field of a policy.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PolicyFieldChange {
    /// The field's name in the request.
    pub field: String,
    /// The value before; null if there was none.
    #[schema(value_type = Value)]
    pub from: Box<RawValue>,
    /// The value after the change.
    #[schema(value_type = Value)]
    pub to: Box<RawValue>,
}

/// A change of a policy: a version of it, or its removal.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyVersion {
    /// The event's number in the control stream.
    pub seq: i64,
    /// The time of the change.
    pub at: DateTime<Utc>,
    /// The action: an upsert, a removal, a promotion or a demotion.
    pub action: String,
    /// The policy's version after the change; of a removal, the removed one. Null if the detail was erased.
    pub version: Option<i64>,
    /// The authenticated principal.
    pub principal: String,
    /// The actor, as the caller claimed.
    pub actor: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The reason in the caller's words; null if none was given, or it was erased.
    pub reason: Option<String>,
    /// The changed fields, with their values before and after; empty for a removal.
    pub changes: Vec<PolicyFieldChange>,
    /// The whole policy after the change; of a removal, the removed one. Null if the detail was erased, or there was only
    /// a declared kind to remove.
    #[schema(value_type = Option<Object>)]
    pub policy: Option<Box<RawValue>>,
    /// True if the values are not known, because the event's detail was erased.
    pub erased: bool,
}

/// An upsert's detail.
#[derive(Deserialize)]
struct Upserted {
    changes: Vec<PolicyFieldChange>,
    policy: Box<RawValue>,
}

/// The detail of a wire's removal.
#[derive(Deserialize)]
struct WireRemoved {
    policy: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Versioned {
    version: i64,
}

/// The values of a change, from the detail of its event.
#[derive(Default)]
pub(super) struct Values {
    pub(super) version: Option<i64>,
    pub(super) changes: Vec<PolicyFieldChange>,
    pub(super) policy: Option<Box<RawValue>>,
}

impl Values {
    /// Reads a detail, which has the form of its action.
    pub(super) fn read(form: Detail, detail: &str) -> serde_json::Result<Self> {
        let (changes, policy) = match form {
            Detail::Removed => (Vec::new(), Some(serde_json::from_str(detail)?)),
            Detail::RemovedWire => (Vec::new(), serde_json::from_str::<WireRemoved>(detail)?.policy),
            Detail::Changes | Detail::FromTo | Detail::Report | Detail::Other => {
                let Upserted { changes, policy } = serde_json::from_str(detail)?;
                (changes, Some(policy))
            }
        };
        let version = policy.as_ref().map(|policy| serde_json::from_str::<Versioned>(policy.get()));
        let version = version.transpose()?.map(|policy| policy.version);
        Ok(Self { version, changes, policy })
    }
}
