//! The life of a reservation, in four words.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ReservationStatus {
    /// Outstanding.
    Open,
    /// Done.
    Settled,
    /// Not done.
    Released,
    /// Not told in time; it may have been done.
    Expired,
}

impl ReservationStatus {
    /// The next step of whoever comes after the end.
    #[must_use]
    pub const fn next_step(self) -> &'static str {
        match self {
            Self::Released => "to act after all, reserve anew",
            Self::Expired => "if the action was done, settle it; to act now, reserve anew",
            Self::Settled | Self::Open => "what was settled stands in settled; to correct it, POST /risk/adjustments",
        }
    }

    /// The status in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Settled => "SETTLED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
        }
    }

    /// The status that the database wrote.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        [Self::Open, Self::Settled, Self::Released, Self::Expired].into_iter().find(|status| status.as_str() == text)
    }
}
