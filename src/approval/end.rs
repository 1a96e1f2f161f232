//! The events that cancel a request for a second person.

use chrono::{DateTime, SecondsFormat, Utc};
use std::fmt;

/// The event that cancelled a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A newer event of the control stream.
    Event {
        /// The event's sequence number.
        seq: i64,
        /// The event's time.
        at: DateTime<Utc>,
        /// The event's action.
        action: String,
        /// The event's subject; none for the whole system.
        subject: Option<String>,
        /// The authenticated caller.
        principal: String,
        /// The actor, as the caller claimed.
        actor: Option<String>,
    },
    /// A correction of the same event.
    Correction {
        /// The id of that correction's request.
        id: i64,
        /// The time of its approval.
        at: DateTime<Utc>,
        /// The person who approved it.
        by: Option<String>,
    },
    /// The revocation of the token that made the request.
    Revoked {
        /// The time of the revocation.
        at: DateTime<Utc>,
        /// The caller who revoked the token.
        by: String,
    },
    /// The expiry of the token that made the request.
    Expired {
        /// The time of the expiry.
        at: DateTime<Utc>,
    },
    /// The token that made the request does not exist.
    NoToken,
}

impl End {
    /// The end of the requesting token before an instant; none while it was valid.
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

    /// The time of the end. It is unknown for a missing token; every other end is more specific.
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
                write!(f, "by the end of the token that made the request, which was revoked at {at} by {by}")
            }
            Self::Expired { .. } => write!(f, "by the end of the token that made the request, which expired at {at}"),
            Self::NoToken => f.write_str("by the end of the token that made the request, which does not exist"),
        }
    }
}
