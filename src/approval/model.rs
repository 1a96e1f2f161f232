//! What waits for a second person, and how it stands.

use chrono::{DateTime, Utc};
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
}

impl ApprovalAction {
    /// Its name, that of the event of the change.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enable => "GO_LIVE_ENABLE",
            Self::Release => "KILL_SWITCH_RELEASE",
            Self::RaiseCap => "RISK_POLICY_UPSERT",
        }
    }

    /// The action of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Enable, Self::Release, Self::RaiseCap].into_iter().find(|action| action.as_str() == name)
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
    /// Something was engaged or disabled since; of a policy: a wire has tripped, or the policy was set anew. Or the token that asked
    /// was revoked or has expired.
    Cancelled,
}

impl Standing {
    /// Its name in sentences.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Expired => "expired",
            Self::Cancelled => {
                "cancelled by a newer engage, disable, trip or policy, or by the end of the token that asked"
            }
        }
    }
}

/// A request for a second person's word.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApprovalRecord {
    /// Its id: the sequence number of its event.
    pub id: i64,
    /// What is asked for.
    pub action: ApprovalAction,
    /// With what input.
    #[schema(value_type = Object)]
    pub input: Box<RawValue>,
    /// Who asks, as the caller claims.
    pub actor: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Who asks, as was authenticated.
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
    /// How it stands now.
    pub standing: Standing,
}
