//! Callers: who was authenticated, what they may do, and as part of what they ask.

mod authority;

pub use authority::{Authority, Grant};

use crate::types::{Actor, CorrelationId, Principal, RequestId};

/// The caller that was authenticated, for the handler: among the request's extensions.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The authenticated caller.
    pub principal: Principal,
    /// The rights of the caller; none where nobody was, on a route that answers everybody.
    pub authority: Option<Authority>,
}

/// The caller of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The authenticated caller.
    pub principal: Principal,
    /// The rights of the caller.
    pub authority: Authority,
    /// The request.
    pub request_id: RequestId,
}

impl Caller {
    /// The caller as the origin of an event.
    #[must_use]
    pub fn origin(self, actor: Option<Actor>, correlation_id: Option<CorrelationId>) -> Origin {
        Origin {
            principal: self.principal,
            authority: self.authority,
            actor,
            request_id: Some(self.request_id),
            correlation_id,
        }
    }
}

/// The caller of an event, and the request that it is part of.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The authenticated caller.
    pub principal: Principal,
    /// The rights of the caller. No event carries them: the event that created a token does.
    pub authority: Authority,
    /// Who the caller says is acting.
    pub actor: Option<Actor>,
    /// The request it came with; none for commands of the shell.
    pub request_id: Option<RequestId>,
    /// The caller's own thread.
    pub correlation_id: Option<CorrelationId>,
}

impl Origin {
    /// Holdfast itself, or the operator's shell.
    #[must_use]
    pub fn system(actor: Option<Actor>) -> Self {
        Self {
            principal: Principal::system(),
            authority: Authority::Unlimited,
            actor,
            request_id: None,
            correlation_id: None,
        }
    }

    /// The same origin; where nobody claimed to act, this name does.
    #[must_use]
    pub fn or_actor(mut self, name: &'static str) -> Self {
        self.actor = self.actor.or_else(|| name.parse().ok());
        self
    }
}
