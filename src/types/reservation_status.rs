//! The four statuses of a reservation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The status of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ReservationStatus {
    /// It counts against the caps.
    Open,
    /// The action was done and its outcome is booked.
    Settled,
    /// The action was not done.
    Released,
    /// It ended without a settle or a release in time; the action may have been done.
    Expired,
}

impl ReservationStatus {
    /// The next step for a caller that finds the reservation closed, as part of a sentence.
    #[must_use]
    pub const fn next_step(self) -> &'static str {
        match self {
            Self::Released => "to act after all, reserve again",
            Self::Expired => "if the action was done, settle it; to act now, reserve again",
            Self::Settled | Self::Open => {
                "the settled amounts are in `settled`; to correct them, POST /risk/adjustments"
            }
        }
    }

    /// The name in the database and in answers, for example `OPEN`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Settled => "SETTLED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
        }
    }

    /// The status of this name; none for an unknown name.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        [Self::Open, Self::Settled, Self::Released, Self::Expired].into_iter().find(|status| status.as_str() == text)
    }
}
