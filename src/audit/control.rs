//! The control stream's events: changes of the control plane, and refused attempts.

use super::{Canonical, Origin, Stamp, Stream};
use crate::db::json_text;
use crate::types::{ControlAction, Reason};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A change or a refusal, before it has a place in the stream.
#[derive(Debug)]
pub struct ControlEvent<'a> {
    /// The action, done or attempted.
    pub(super) action: ControlAction,
    /// The subject: an engine, a domain, a wire or a component; none for the go-live state.
    pub(super) subject: Option<&'a str>,
    /// The error code of a refusal; none for a change.
    pub(super) error: Option<&'static str>,
    /// The reason in the caller's words.
    pub(super) reason: Option<&'a Reason>,
    /// The state before and after, as JSON.
    pub(super) detail: Option<String>,
}

impl<'a> ControlEvent<'a> {
    /// A change of the go-live state without a reason; the methods below add to it.
    #[must_use]
    pub const fn new(action: ControlAction) -> Self {
        Self { action, subject: None, error: None, reason: None, detail: None }
    }

    /// Sets the subject: an engine, a domain, a wire or a component.
    #[must_use]
    pub const fn about(mut self, subject: &'a str) -> Self {
        self.subject = Some(subject);
        self
    }

    /// Makes it an attempt that was refused with this code.
    #[must_use]
    pub const fn refused(mut self, error: &'static str) -> Self {
        self.error = Some(error);
        self
    }

    /// Sets the caller's reason.
    #[must_use]
    pub fn because(self, reason: impl Into<Option<&'a Reason>>) -> Self {
        Self { reason: reason.into(), ..self }
    }

    /// Sets the detail, as JSON.
    #[must_use]
    pub fn detail(self, detail: &impl Serialize) -> Self {
        Self { detail: Some(json_text(detail)), ..self }
    }

    pub(super) fn canonical(&self, stamp: Stamp, origin: &Origin) -> Canonical {
        Canonical::begin(Stream::Control, stamp, origin)
            .text(Some(self.action.as_str()))
            .text(self.subject)
            .shown(Some(self.error.is_none()))
            .text(self.error)
            .digest(self.reason.map(Reason::as_str))
            .digest(self.detail.as_deref())
    }
}

/// A control event as it is read back.
#[derive(Debug, Serialize, ToSchema)]
pub struct ControlRecord {
    /// The number in the control stream.
    pub seq: i64,
    /// The time of the event.
    pub at: DateTime<Utc>,
    /// The authenticated principal.
    pub principal: String,
    /// The actor, as the caller claimed.
    pub actor: Option<String>,
    /// The id of the request; null for commands of the shell.
    pub request_id: Option<String>,
    /// The caller's own id for requests that belong together.
    pub correlation_id: Option<String>,
    /// The action, done or attempted.
    pub action: String,
    /// The engine, domain, wire or component; null for the go-live state.
    pub subject: Option<String>,
    /// True for a change; false for a refused attempt.
    pub ok: bool,
    /// The error code of a refusal; null for a change.
    pub error: Option<String>,
    /// The reason in the caller's words; null if none was given, or it was erased.
    pub reason: Option<String>,
    /// The state before and after; null if there is none, or it was erased.
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Box<RawValue>>,
    /// The event's hash, lower-case hex.
    pub hash: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Principal;
    use crate::types::hex;

    /// These bytes are fixed for ever: events of any version verify with any later one. `sha256sum` alone computes the
    /// same value; it is in docs/ARCHITECTURE.md.
    #[test]
    fn golden_vector_of_a_control_event() {
        let origin = Origin {
            principal: Principal::unauthenticated(),
            authority: crate::identity::Authority::Unlimited,
            actor: Some("bryan".parse().unwrap()),
            request_id: crate::types::RequestId::from_header("req-1"),
            correlation_id: None,
        };
        let stamp = Stamp { seq: 1, at: DateTime::from_timestamp_micros(1_768_262_400_000_001).unwrap() };
        let reason = "verify".parse().unwrap();
        let event = ControlEvent {
            action: ControlAction::GoLiveDisable,
            subject: None,
            error: None,
            reason: Some(&reason),
            detail: Some(r#"{"version":2}"#.into()),
        };
        let canonical = event.canonical(stamp, &origin);
        let expected = concat!(
            "01",
            "00000007636f6e74726f6c",
            "0000000131",
            "0000001031373638323632343030303030303031",
            "0000000f554e41555448454e54494341544544",
            "00000005627279616e",
            "000000057265712d31",
            "ffffffff",
            "0000000f474f5f4c4956455f44495341424c45",
            "ffffffff",
            "0000000474727565",
            "ffffffff",
        );
        assert!(hex(canonical.bytes()).starts_with(expected), "{}", hex(canonical.bytes()));
        let hash = super::super::chain(&[0; 32], canonical.bytes());
        assert_eq!(hex(&hash), "29565bb2a44a07946eff43ef1b7861025e86881f79ef59fc3ba4b80c7b99a86e");
    }
}
