//! The rights of a caller, in ten words.

use serde::{Deserialize, Serialize};
use std::str::FromStr;
use utoipa::ToSchema;

/// The scopes that a token can carry. None includes another, but for [`Scope::Operate`], which includes [`Scope::Kill`], and
/// [`Scope::Evidence`], which includes [`Scope::Measure`] and [`Scope::Recommend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Reads.
    Read,
    /// Reserve, settle, release, extend, require.
    Reserve,
    /// Measurements and trials, of which a grade is made.
    Measure,
    /// Recommendations, which are graded.
    Recommend,
    /// Both, as it was before they were apart: its holder can grade itself.
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
#[error("is no scope: read, reserve, measure, recommend, evidence, operate, release, proxy, admin or kill")]
pub struct UnknownScope;

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Reserve,
        Self::Measure,
        Self::Recommend,
        Self::Evidence,
        Self::Operate,
        Self::Release,
        Self::Proxy,
        Self::Admin,
        Self::Kill,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Reserve => "reserve",
            Self::Measure => "measure",
            Self::Recommend => "recommend",
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
        self == needed
            || matches!((self, needed), (Self::Operate, Self::Kill) | (Self::Evidence, Self::Measure | Self::Recommend))
    }

    /// Whether whoever holds these can make the evidence for what they recommend.
    #[must_use]
    pub fn grade_themselves(scopes: &[Self]) -> bool {
        [Self::Measure, Self::Recommend].into_iter().all(|needed| scopes.iter().any(|scope| scope.covers(needed)))
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim();
        Self::ALL.into_iter().find(|scope| scope.as_str().eq_ignore_ascii_case(name)).ok_or(UnknownScope)
    }
}
