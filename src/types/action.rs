//! The actions of the streams of control, of risk and of heimdall: a closed set each. Events of kpi have none.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Defines the actions of the control stream with their texts in the database, and the list of them. Only this makes an
/// action, so none is missing in the list.
macro_rules! control_actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        /// The changes of the control plane, and the refused attempts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ControlAction {
            $($(#[$doc])* $name,)+
        }

        impl ControlAction {
            /// All of them.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$name),+];

            /// The action in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

control_actions! {
    /// Production was switched on.
    GoLiveEnable = "GO_LIVE_ENABLE";
    /// Production was switched off.
    GoLiveDisable = "GO_LIVE_DISABLE";
    /// Everything was stopped.
    KillSwitchEngage = "KILL_SWITCH_ENGAGE";
    /// The stop was ended.
    KillSwitchRelease = "KILL_SWITCH_RELEASE";
    /// A component reported its state.
    PackReport = "PACK_REPORT";
    /// A database whose state went backwards was accepted.
    GoLiveRewindAccept = "GO_LIVE_REWIND_ACCEPT";
    /// A clock that is behind the ledger was accepted.
    ClockAccept = "CLOCK_ACCEPT";
    /// The policy of an engine was set.
    RiskPolicyUpsert = "RISK_POLICY_UPSERT";
    /// The policy of an engine was removed.
    RiskPolicyRemove = "RISK_POLICY_REMOVE";
    /// The book does not balance, and reserves are halted.
    RiskHalt = "RISK_HALT";
    /// The counters of a halted book were repaired.
    RiskRepair = "RISK_REPAIR";
    /// The policy of a domain was set.
    HeimdallPolicyUpsert = "HEIMDALL_POLICY_UPSERT";
    /// The policy of a domain was removed.
    HeimdallPolicyRemove = "HEIMDALL_POLICY_REMOVE";
    /// Production may act on a domain.
    HeimdallPromote = "HEIMDALL_PROMOTE";
    /// Production may no longer act on a domain.
    HeimdallDemote = "HEIMDALL_DEMOTE";
    /// The policy of a wire was set.
    RegressionPolicyUpsert = "REGRESSION_POLICY_UPSERT";
    /// A wire was removed, or the declared kind of a series.
    RegressionPolicyRemove = "REGRESSION_POLICY_REMOVE";
    /// A wire tripped.
    RegressionTrip = "REGRESSION_TRIP";
    /// A SHADOW wire would have tripped.
    RegressionShadowTrip = "REGRESSION_SHADOW_TRIP";
    /// A wire was re-armed.
    RegressionRearm = "REGRESSION_REARM";
    /// The kind of a series was declared.
    RegressionKind = "REGRESSION_KIND";
    /// A trip was acknowledged.
    RegressionAcknowledge = "REGRESSION_ACKNOWLEDGE";
    /// A wire got another baseline.
    RegressionBaselineReset = "REGRESSION_BASELINE_RESET";
    /// A change waits for a second person.
    ApprovalRequest = "APPROVAL_REQUEST";
    /// A second person approved a change.
    ApprovalApprove = "APPROVAL_APPROVE";
    /// A request for approval was rejected.
    ApprovalReject = "APPROVAL_REJECT";
    /// A setting of the database was changed.
    SettingChange = "SETTING_CHANGE";
    /// A token was created.
    TokenCreate = "TOKEN_CREATE";
    /// A token was revoked.
    TokenRevoke = "TOKEN_REVOKE";
    /// A caller with a valid token was refused a change.
    AccessRefused = "ACCESS_REFUSED";
    /// A text of an event was erased.
    AuditErase = "AUDIT_ERASE";
    /// Events moved into a file.
    AuditArchive = "AUDIT_ARCHIVE";
    /// Events came back from a file.
    AuditRestore = "AUDIT_RESTORE";
}

impl ControlAction {
    /// The action that the database wrote; none for an action of a later version.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

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
