//! The reasons for which the gate blocks.

/// The reason why a request is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Block {
    /// The kill switch is engaged.
    KillSwitchEngaged,
    /// This instance is stopped by its kill file. Callers see it as an engaged kill switch.
    KilledLocally,
    /// Go-live is not enabled.
    GoLiveDisabled,
    /// The go-live state is unknown or too old.
    StateStale,
    /// The database went back, as after a restore.
    StateRewound,
}

impl Block {
    /// The message to the caller: the reason, and the condition under which the gate opens. It has no operator's name
    /// or reason.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::KillSwitchEngaged => "the kill switch is engaged: everything is blocked until it is released",
            Self::KilledLocally => {
                "an operator stopped this instance: everything is blocked until its kill file is removed"
            }
            Self::GoLiveDisabled => "go-live is disabled: this is blocked until it is enabled",
            Self::StateStale => "the go-live state is unknown or too old: everything is blocked until it is read again",
            Self::StateRewound => {
                "the database went back, as after a restore, and lacks events that were answered: everything is \
                 blocked until somebody has \
                 checked it and accepts it (holdfast db accept-rewind)"
            }
        }
    }
}
