//! The reasons of a denial.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The reasons of a denial, in the order of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DenialReason {
    /// The kill switch is engaged.
    KillSwitchEngaged,
    /// Go-live is disabled.
    GoLiveDisabled,
    /// The level has no policy.
    PolicyMissing,
    /// The level is disabled, by an operator or by a throttle.
    PolicyDisabled,
    /// The day has no room for another action.
    DailyActionsExceeded,
    /// The day has no room for the amount.
    DailyExposureExceeded,
    /// The outstanding amount would exceed its cap.
    OpenRiskExceeded,
    /// The day's loss has reached its cap.
    DailyLossReached,
    /// The reserve was allowed before, and its hold has ended since.
    HoldEnded,
}

impl DenialReason {
    /// The reasons of a first decision, in their order. [`Self::HoldEnded`] is only of a repeated one.
    pub const ALL: [Self; 8] = [
        Self::KillSwitchEngaged,
        Self::GoLiveDisabled,
        Self::PolicyMissing,
        Self::PolicyDisabled,
        Self::DailyActionsExceeded,
        Self::DailyExposureExceeded,
        Self::OpenRiskExceeded,
        Self::DailyLossReached,
    ];

    /// The stable name, for example `kill_switch_engaged`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KillSwitchEngaged => "kill_switch_engaged",
            Self::GoLiveDisabled => "go_live_disabled",
            Self::PolicyMissing => "policy_missing",
            Self::PolicyDisabled => "policy_disabled",
            Self::DailyActionsExceeded => "daily_actions_exceeded",
            Self::DailyExposureExceeded => "daily_exposure_exceeded",
            Self::OpenRiskExceeded => "open_risk_exceeded",
            Self::DailyLossReached => "daily_loss_reached",
            Self::HoldEnded => "hold_ended",
        }
    }

    /// The reason that an event has.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}
