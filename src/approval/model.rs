//! The changes that wait for a second person, and the states of a request.

use super::end::End;
use super::shown;
use crate::audit::FieldChange;
use crate::error::{Error, Result};
use crate::types::ControlAction;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The time for which a request waits for the second person.
pub(super) const STANDS: TimeDelta = TimeDelta::minutes(15);

/// A change that waits for a second person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub enum ApprovalAction {
    /// Switching production on.
    #[serde(rename = "GO_LIVE_ENABLE")]
    Enable,
    /// Releasing the kill switch.
    #[serde(rename = "KILL_SWITCH_RELEASE")]
    Release,
    /// A higher cap, or the removal of a cap.
    #[serde(rename = "RISK_POLICY_UPSERT")]
    RaiseCap,
    /// A downward correction of a loss or an exposure.
    #[serde(rename = "RISK_ADJUST")]
    Correct,
    /// Weaker conditions for a domain, or its production use.
    #[serde(rename = "HEIMDALL_POLICY_UPSERT")]
    Charter,
    /// Production use of a domain, on its evidence.
    #[serde(rename = "HEIMDALL_PROMOTE")]
    Promote,
    /// A wire that is re-armed, switched off or made less sensitive.
    #[serde(rename = "REGRESSION_POLICY_UPSERT")]
    Wire,
    /// The re-arming of a wire.
    #[serde(rename = "REGRESSION_REARM")]
    Rearm,
    /// A new baseline for a wire.
    #[serde(rename = "REGRESSION_BASELINE_RESET")]
    Rebase,
}

impl ApprovalAction {
    /// Every action.
    pub const ALL: [Self; 9] = [
        Self::Enable,
        Self::Release,
        Self::RaiseCap,
        Self::Correct,
        Self::Charter,
        Self::Promote,
        Self::Wire,
        Self::Rearm,
        Self::Rebase,
    ];

    /// The action's name, which the control event of the change has, too. A correction's event is the ledger's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enable => ControlAction::GoLiveEnable.as_str(),
            Self::Release => ControlAction::KillSwitchRelease.as_str(),
            Self::RaiseCap => ControlAction::RiskPolicyUpsert.as_str(),
            Self::Correct => "RISK_ADJUST",
            Self::Charter => ControlAction::HeimdallPolicyUpsert.as_str(),
            Self::Promote => ControlAction::HeimdallPromote.as_str(),
            Self::Wire => ControlAction::RegressionPolicyUpsert.as_str(),
            Self::Rearm => ControlAction::RegressionRearm.as_str(),
            Self::Rebase => ControlAction::RegressionBaselineReset.as_str(),
        }
    }

    /// The description of the change in a refusal.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Enable => "switching production on",
            Self::Release => "releasing the kill switch",
            Self::RaiseCap => {
                "an engine that is new or on again, a cap that is higher or gone, or holds that end sooner"
            }
            Self::Correct => "a correction downwards, which makes room,",
            Self::Charter => {
                "production use, a lower minimum, a weaker rule, a longer life, or another window, engine or model version,"
            }
            Self::Promote => "a promotion",
            Self::Wire => "a wire that is re-armed, off, less sensitive, or measured by another baseline",
            Self::Rearm => "re-arming a wire",
            Self::Rebase => "another baseline",
        }
    }

    /// The action with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// The state of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Standing {
    /// It waits for the second person.
    Waiting,
    /// It was approved, and the change was done.
    Approved,
    /// It was not approved in time.
    Expired,
    /// A newer engage or disable cancelled it. If it concerns less than the whole system, a wire that tripped or a
    /// change of the same subject may have cancelled it, too. Or the token that made it was revoked or has expired.
    Cancelled,
    /// It was rejected, or withdrawn by the person who made it.
    Rejected,
}

/// A request for a second person's approval.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApprovalRecord {
    /// The request's id: the sequence number of its event.
    pub id: i64,
    /// The requested change.
    pub action: ApprovalAction,
    /// The subject: an engine, a domain, a wire, or the event to correct; null for the whole system.
    pub subject: Option<String>,
    /// The input: the fields that were sent.
    #[schema(value_type = Object)]
    #[serde(serialize_with = "shown::input")]
    pub input: Box<RawValue>,
    /// Every field that the request changes, with its value at the time of the request; null if it is not an upsert, or
    /// comes from an older version.
    #[schema(value_type = Option<Vec<FieldChange>>)]
    pub changes: Option<Box<RawValue>>,
    /// The actor of the request, as the caller claims.
    pub actor: Option<String>,
    /// The reason, in the caller's words; null if none was given.
    pub reason: Option<String>,
    /// The authenticated principal of the request.
    pub requested_by: String,
    /// The owner of the token that made the request. Another owner must approve it.
    pub owner: String,
    /// The time of the request.
    pub requested_at: DateTime<Utc>,
    /// The time at which the request expires.
    pub expires_at: DateTime<Utc>,
    /// The time of the approval; null if it was not approved.
    pub approved_at: Option<DateTime<Utc>>,
    /// The person who approved; null if it was not approved.
    pub approved_by: Option<String>,
    /// The time of the rejection; null if it was not rejected.
    pub rejected_at: Option<DateTime<Utc>>,
    /// The person who rejected; null if it was not rejected.
    pub rejected_by: Option<String>,
    /// The event that cancelled it, as a text; null if none did.
    #[schema(value_type = Option<String>)]
    #[serde(serialize_with = "shown::end")]
    pub cancelled_by: Option<End>,
    /// The state of the request now.
    pub standing: Standing,
}

impl ApprovalRecord {
    /// The input, as the lever of the change takes it.
    pub fn parsed<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.input.get())
            .map_err(|error| Error::Inconsistent(format!("approval {} cannot be read: {error}", self.id)))
    }

    /// The end of the request and the next step, as a text; none while it waits.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let word = |at: Option<DateTime<Utc>>, by: Option<&str>| {
            format!("at {} by {}", time(at.unwrap_or(self.expires_at)), by.unwrap_or("somebody"))
        };
        Some(match self.standing {
            Standing::Waiting => return None,
            Standing::Approved => {
                let word = word(self.approved_at, self.approved_by.as_deref());
                format!("was approved {word}, and its change is done: there is nothing left to do")
            }
            Standing::Rejected => {
                let word = word(self.rejected_at, self.rejected_by.as_deref());
                format!("was rejected {word}: request the change again if it is still wanted")
            }
            Standing::Expired => {
                format!(
                    "expired at {}: request the change again, and approve it within {} minutes",
                    time(self.expires_at),
                    STANDS.num_minutes()
                )
            }
            Standing::Cancelled => {
                let by = self.cancelled_by.as_ref().map_or_else(String::new, |end| format!(" {end}"));
                format!("was cancelled{by}: check what has changed, and request the change again if it is still wanted")
            }
        })
    }
}
