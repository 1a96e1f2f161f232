//! Callers: the principal that was authenticated, its rights, and the request that it made.

mod authority;

pub use authority::{Authority, Grant};

use crate::types::{Actor, CorrelationId, Principal, RequestId};

/// The authenticated caller, as the guard puts it into the request's extensions.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The authenticated principal.
    pub principal: Principal,
    /// The rights; none for an unauthenticated caller of a route that answers everybody.
    pub authority: Option<Authority>,
}

/// The caller of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The authenticated principal.
    pub principal: Principal,
    /// The rights of the principal.
    pub authority: Authority,
    /// The id of the request.
    pub request_id: RequestId,
}

impl Caller {
    /// The origin of an event that this caller makes.
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

/// The caller of an event and its request, as events record them.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The authenticated principal.
    pub principal: Principal,
    /// The rights. Events do not record them: the event that created the token does.
    pub authority: Authority,
    /// The person or program that acts, as the caller claims.
    pub actor: Option<Actor>,
    /// The id of the request; none for commands of the shell.
    pub request_id: Option<RequestId>,
    /// The caller's own id for requests that belong together.
    pub correlation_id: Option<CorrelationId>,
}

impl Origin {
    /// The origin of Holdfast itself, or of the operator's shell.
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

    /// The origin with this actor, if it has none.
    #[must_use]
    pub fn or_actor(mut self, name: &'static str) -> Self {
        self.actor = self.actor.or_else(|| name.parse().ok());
        self
    }
}
