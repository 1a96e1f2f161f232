//! What a caller may do, in eight words.

use serde::{Deserialize, Serialize};
use std::str::FromStr;
use utoipa::ToSchema;

/// What a token can carry. None includes another, but for [`Scope::Operate`], which includes [`Scope::Kill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Reads.
    Read,
    /// Reserve, settle, release, extend, require.
    Reserve,
    /// KPI events, trials, recommendations: apart, so that an AI cannot grade itself.
    Evidence,
    /// Disable, engage, acknowledge, settle, release holds, and policies; loosening one needs [`Scope::Release`] as well.
    Operate,
    /// Enable, kill-switch release, and every loosening.
    Release,
    /// Forward-auth and OFREP.
    Proxy,
    /// Tokens and settings.
    Admin,
    /// Engage, and nothing else.
    Kill,
}

/// There is no such scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no scope: read, reserve, evidence, operate, release, proxy, admin or kill")]
pub struct UnknownScope;

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 8] =
        [Self::Read, Self::Reserve, Self::Evidence, Self::Operate, Self::Release, Self::Proxy, Self::Admin, Self::Kill];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Reserve => "reserve",
            Self::Evidence => "evidence",
            Self::Operate => "operate",
            Self::Release => "release",
            Self::Proxy => "proxy",
            Self::Admin => "admin",
            Self::Kill => "kill",
        }
    }

    /// Whether whoever holds this one may do what needs the other.
    #[must_use]
    pub fn covers(self, needed: Self) -> bool {
        self == needed || (self, needed) == (Self::Operate, Self::Kill)
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim();
        Self::ALL.into_iter().find(|scope| scope.as_str().eq_ignore_ascii_case(name)).ok_or(UnknownScope)
    }
}
