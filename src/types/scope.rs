//! The ten scopes of a token. Another one needs a migration of `access_token_scopes_check`.

use serde::{Deserialize, Serialize};
use std::str::FromStr;
use utoipa::ToSchema;

/// The scopes that a token can carry. [`Scope::Operate`] includes [`Scope::Kill`], and [`Scope::Evidence`] includes
/// [`Scope::Measure`] and [`Scope::Recommend`]; no other scope includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every route that only reads.
    Read,
    /// Reserve, settle, release, extend, and requirements of holds.
    Reserve,
    /// Measurements and trials, from which grades are computed.
    Measure,
    /// Recommendations, which are graded.
    Recommend,
    /// Measure and Recommend together, for tokens that were made before the two were separate: the holder can grade
    /// itself.
    Evidence,
    /// Disable, engage, acknowledge, settle, release holds, and policies; loosening a policy needs [`Scope::Release`]
    /// as well.
    Operate,
    /// Enable, kill-switch release, and every loosening.
    Release,
    /// Forward authentication and OFREP.
    Proxy,
    /// Tokens and settings.
    Admin,
    /// Engage the kill switch, and nothing else.
    Kill,
}

/// The refusal of an unknown scope; it follows the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a scope: send read, reserve, measure, recommend, evidence, operate, release, proxy, admin or kill")]
pub struct UnknownScope;

impl Scope {
    /// All scopes, in the order in which answers list them.
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

    /// The name in requests and answers, for example `read`.
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

    /// True if the holder of this scope may do what needs the other.
    #[must_use]
    pub fn covers(self, needed: Self) -> bool {
        self == needed
            || matches!((self, needed), (Self::Operate, Self::Kill) | (Self::Evidence, Self::Measure | Self::Recommend))
    }

    /// True if a holder of these scopes can create the evidence that grades its own recommendations.
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
