//! The reasons for which the gate blocks.

/// Why a request is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Block {
    /// The kill switch is engaged.
    KillSwitchEngaged,
    /// This instance is stopped by hand, which callers are told as an engaged kill switch.
    KilledLocally,
    /// Go-live is not enabled.
    GoLiveDisabled,
    /// The state is unknown or too old.
    StateStale,
    /// The state went backwards.
    StateRewound,
}

impl Block {
    /// The message to the caller: why, and how the gate opens. No name and no reason of an operator's.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::KillSwitchEngaged => "the kill switch is engaged: everything is blocked until it is released",
            Self::KilledLocally => {
                "this instance is stopped by hand: everything is blocked until its kill file is removed"
            }
            Self::GoLiveDisabled => "go-live is disabled: this is blocked until it is enabled",
            Self::StateStale => "the go-live state was not read recently enough: everything is blocked until it is",
            Self::StateRewound => {
                "the database went back, as after a restore, and lacks what was answered: everything is blocked until somebody has \
                 looked and accepts it (holdfast db accept-rewind)"
            }
        }
    }
}
