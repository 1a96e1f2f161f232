//! The changes that wait for a second person, and their status.

use super::end::End;
use super::shown;
use crate::audit::FieldChange;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A change that waits for a second person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub enum ApprovalAction {
    /// Switching production on.
    #[serde(rename = "GO_LIVE_ENABLE")]
    Enable,
    /// Releasing the kill switch.
    #[serde(rename = "KILL_SWITCH_RELEASE")]
    Release,
    /// A cap that is higher, or gone.
    #[serde(rename = "RISK_POLICY_UPSERT")]
    RaiseCap,
    /// A loss or an exposure that is corrected downwards.
    #[serde(rename = "RISK_ADJUST")]
    Correct,
    /// A domain that has to show less, or production use of it.
    #[serde(rename = "HEIMDALL_POLICY_UPSERT")]
    Charter,
    /// Production use of a domain, by its evidence.
    #[serde(rename = "HEIMDALL_PROMOTE")]
    Promote,
    /// A wire that is armed again, off or less sensitive.
    #[serde(rename = "REGRESSION_POLICY_UPSERT")]
    Wire,
    /// A wire that is armed again.
    #[serde(rename = "REGRESSION_REARM")]
    Rearm,
    /// Another baseline.
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

    /// Its name, that of the control event of the change; a correction's event is the ledger's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enable => "GO_LIVE_ENABLE",
            Self::Release => "KILL_SWITCH_RELEASE",
            Self::RaiseCap => "RISK_POLICY_UPSERT",
            Self::Correct => "RISK_ADJUST",
            Self::Charter => "HEIMDALL_POLICY_UPSERT",
            Self::Promote => "HEIMDALL_PROMOTE",
            Self::Wire => "REGRESSION_POLICY_UPSERT",
            Self::Rearm => "REGRESSION_REARM",
            Self::Rebase => "REGRESSION_BASELINE_RESET",
        }
    }

    /// Its description in a refusal.
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

    /// The action of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// How a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Standing {
    /// It waits for the second person.
    Waiting,
    /// It was approved, and done.
    Approved,
    /// Nobody agreed in time.
    Expired,
    /// Something was engaged or disabled since; of what is less than the whole system: a wire has tripped, or the same thing was
    /// changed. Or the token that asked was revoked or has expired.
    Cancelled,
    /// Somebody said no, or whoever asked took it back.
    Rejected,
}

/// A request for a second person's word.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApprovalRecord {
    /// Its id: the sequence number of its event.
    pub id: i64,
    /// The requested change.
    pub action: ApprovalAction,
    /// The subject: an engine, a domain, a wire, the event that is corrected; null for the whole system.
    pub subject: Option<String>,
    /// With what input: the fields that were sent.
    #[schema(value_type = Object)]
    #[serde(serialize_with = "shown::input")]
    pub input: Box<RawValue>,
    /// Every field that it moves, with what it was when it was asked for; null where it is no upsert, and of older versions' requests.
    #[schema(value_type = Option<Vec<FieldChange>>)]
    pub changes: Option<Box<RawValue>>,
    /// The actor of the request, as the caller claims.
    pub actor: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The authenticated principal of the request.
    pub requested_by: String,
    /// The person behind that; the approval needs another one.
    pub owner: String,
    /// Since when it waits.
    pub requested_at: DateTime<Utc>,
    /// Until when.
    pub expires_at: DateTime<Utc>,
    /// When it was approved; null while it was not.
    pub approved_at: Option<DateTime<Utc>>,
    /// By whom.
    pub approved_by: Option<String>,
    /// When it was rejected; null while it was not.
    pub rejected_at: Option<DateTime<Utc>>,
    /// By whom.
    pub rejected_by: Option<String>,
    /// The event that cancelled it, in words; null while none did.
    #[schema(value_type = Option<String>)]
    #[serde(serialize_with = "shown::end")]
    pub cancelled_by: Option<End>,
    /// How it stands now.
    pub standing: Standing,
}

impl ApprovalRecord {
    /// How it ended, and the next step; none while it waits.
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
                format!("was approved {word}, and what it asked for is done: there is nothing left to do")
            }
            Standing::Rejected => {
                let word = word(self.rejected_at, self.rejected_by.as_deref());
                format!("was rejected {word}: ask for the change anew if it is meant after all")
            }
            Standing::Expired => {
                format!(
                    "expired at {}: ask for the change anew, and approve it within {} minutes",
                    time(self.expires_at),
                    super::STANDS.num_minutes()
                )
            }
            Standing::Cancelled => {
                let by = self.cancelled_by.as_ref().map_or_else(String::new, |end| format!(" {end}"));
                format!("was cancelled{by}: see what has changed, and ask for the change anew if it is still meant")
            }
        })
    }
}
