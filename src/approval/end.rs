//! The events that cancel a request for a second person.

use chrono::{DateTime, SecondsFormat, Utc};
use std::fmt;

/// The event that cancelled a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A newer event of the control stream.
    Event {
        /// Its sequence number.
        seq: i64,
        /// Its time.
        at: DateTime<Utc>,
        /// Its action.
        action: String,
        /// Its subject; none for the whole system.
        subject: Option<String>,
        /// The caller, as authenticated.
        principal: String,
        /// The caller, as claimed.
        actor: Option<String>,
    },
    /// A correction of the same event.
    Correction {
        /// The id of its request.
        id: i64,
        /// When it was approved.
        at: DateTime<Utc>,
        /// By whom.
        by: Option<String>,
    },
    /// The token that asked was revoked.
    Revoked {
        /// When.
        at: DateTime<Utc>,
        /// By whom.
        by: String,
    },
    /// The token that asked has expired.
    Expired {
        /// When.
        at: DateTime<Utc>,
    },
    /// The caller who asked has no token.
    NoToken,
}

impl End {
    /// The end of the token that asked, up to an instant; none while it was valid.
    pub(super) fn of_token(
        exists: bool,
        revoked: Option<(DateTime<Utc>, String)>,
        expires_at: Option<DateTime<Utc>>,
        until: DateTime<Utc>,
    ) -> Option<Self> {
        match (exists, revoked, expires_at) {
            (false, ..) => Some(Self::NoToken),
            (true, Some((at, by)), _) if at <= until => Some(Self::Revoked { at, by }),
            (true, _, Some(at)) if at <= until => Some(Self::Expired { at }),
            (true, ..) => None,
        }
    }

    /// When; of a token that is not there it is not known, and everything else says more.
    pub(super) const fn at(&self) -> DateTime<Utc> {
        match self {
            Self::Event { at, .. } | Self::Correction { at, .. } | Self::Revoked { at, .. } | Self::Expired { at } => {
                *at
            }
            Self::NoToken => DateTime::<Utc>::MAX_UTC,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at().to_rfc3339_opts(SecondsFormat::Secs, true);
        match self {
            Self::Event { seq, action, subject, principal, actor, .. } => {
                let of = subject.as_ref().map_or_else(String::new, |subject| format!(" of {subject}"));
                write!(f, "by {action}{of} (control event {seq}) at {at} by {principal}")?;
                let claimed = actor.as_ref().filter(|actor| *actor != principal);
                claimed.map_or(Ok(()), |actor| write!(f, " (says {actor})"))
            }
            Self::Correction { id, by, .. } => {
                let by = by.as_deref().unwrap_or("somebody");
                write!(f, "by another correction of the same event (approval {id}) at {at} by {by}")
            }
            Self::Revoked { by, .. } => {
                write!(f, "by the end of the token that asked, which was revoked at {at} by {by}")
            }
            Self::Expired { .. } => write!(f, "by the end of the token that asked, which expired at {at}"),
            Self::NoToken => f.write_str("by the end of the token that asked, which is not there"),
        }
    }
}
