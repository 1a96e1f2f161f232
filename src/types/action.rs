//! The actions of the streams of risk and of heimdall: a closed set each. The actions of control are texts, since each
//! change names its own.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kinds of decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RiskAction {
    /// A reserve was granted.
    Reserve,
    /// A reserve or an extension was denied.
    Deny,
    /// Reservations were settled.
    Settle,
    /// A reservation was released.
    Release,
    /// A reservation got a later expiry.
    Extend,
    /// A reservation expired.
    Expire,
    /// A counter was corrected.
    Adjust,
}

impl RiskAction {
    /// All of them. The database also accepts `REPAIR`, which no version wrote: a repair is an event of the control
    /// stream.
    pub const ALL: [Self; 7] =
        [Self::Reserve, Self::Deny, Self::Settle, Self::Release, Self::Extend, Self::Expire, Self::Adjust];

    /// The action in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserve => "RESERVE",
            Self::Deny => "DENY",
            Self::Settle => "SETTLE",
            Self::Release => "RELEASE",
            Self::Extend => "EXTEND",
            Self::Expire => "EXPIRE",
            Self::Adjust => "ADJUST",
        }
    }

    /// The action that the database wrote.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

/// The actions of the charter's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HeimdallAction {
    /// A sandbox trial was counted.
    Trial,
    /// A recommendation was judged.
    Recommend,
    /// A recommendation was asked for in production.
    Require,
    /// A recommendation was revoked.
    Revoke,
}

impl HeimdallAction {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Trial, Self::Recommend, Self::Require, Self::Revoke];

    /// The action in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "TRIAL",
            Self::Recommend => "RECOMMEND",
            Self::Require => "REQUIRE",
            Self::Revoke => "REVOKE",
        }
    }
}
