//! The rights of a caller: those of a token, or all.

use crate::error::{Error, Result};
use crate::types::{Actor, Amount, Domain, Engine, Principal, Scope};
use std::sync::Arc;

/// The rights of a token's holder.
#[derive(Debug)]
pub struct Grant {
    /// The principal of the token, `name:id`, as in events.
    pub principal: Principal,
    /// The person who is responsible for the token; none if it was created without one.
    pub owner: Option<Actor>,
    /// The scopes of the token.
    pub scopes: Vec<Scope>,
    /// The only engines that the token may change; none for all.
    pub engines: Option<Vec<Engine>>,
    /// The only domains that the token may change; none for all.
    pub domains: Option<Vec<Domain>>,
    /// The largest loss of one settle or correction; none for no limit.
    pub max_loss: Option<Amount>,
}

impl Grant {
    /// True if one of the scopes covers the needed one.
    #[must_use]
    pub fn holds(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.covers(needed))
    }
}

/// The rights of the caller of a change.
#[derive(Debug, Clone)]
pub enum Authority {
    /// All rights: the operator's shell, Holdfast itself, and every caller in open mode.
    Unlimited,
    /// The rights of a token's holder.
    Token(Arc<Grant>),
}

impl Authority {
    /// True if the rights are limited to some engines or domains.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Token(grant) => grant.engines.is_some() || grant.domains.is_some(),
        }
    }

    /// True if the rights are limited to some engines.
    #[must_use]
    pub fn is_bounded_to_engines(&self) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Token(grant) => grant.engines.is_some(),
        }
    }

    /// True if the rights include this scope.
    #[must_use]
    pub fn holds(&self, needed: Scope) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Token(grant) => grant.holds(needed),
        }
    }

    /// Refuses a caller without this scope; `what` names the change.
    pub fn require(&self, needed: Scope, what: &'static str) -> Result<()> {
        if self.holds(needed) { Ok(()) } else { Err(Error::InsufficientScope { needed, what }) }
    }

    /// True if the caller may change this engine.
    #[must_use]
    pub fn reaches_engine(&self, engine: &Engine) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Token(grant) => grant.engines.as_ref().is_none_or(|engines| engines.contains(engine)),
        }
    }

    /// Refuses an engine that the token does not reach.
    pub fn require_engine(&self, engine: &Engine) -> Result<()> {
        let refused = || Error::OutOfReach { what: "engine", name: engine.to_string() };
        if self.reaches_engine(engine) { Ok(()) } else { Err(refused()) }
    }

    /// True if the caller may change this domain.
    #[must_use]
    pub fn reaches_domain(&self, domain: &Domain) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Token(grant) => grant.domains.as_ref().is_none_or(|domains| domains.contains(domain)),
        }
    }

    /// Refuses a domain that the token does not reach.
    pub fn require_domain(&self, domain: &Domain) -> Result<()> {
        let refused = || Error::OutOfReach { what: "domain", name: domain.to_string() };
        if self.reaches_domain(domain) { Ok(()) } else { Err(refused()) }
    }

    /// Refuses a loss, or an exposure that was never reserved, above the token's limit. The limit covers all engines
    /// together.
    pub fn require_loss(&self, what: &'static str, amount: Amount) -> Result<()> {
        let bound = match self {
            Self::Unlimited => None,
            Self::Token(grant) => grant.max_loss,
        };
        bound.filter(|bound| amount > *bound).map_or(Ok(()), |bound| Err(Error::BeyondMaxLoss { what, amount, bound }))
    }

    /// The person who is responsible for the caller; none without a token or an owner.
    #[must_use]
    pub fn owner(&self) -> Option<&Actor> {
        match self {
            Self::Unlimited => None,
            Self::Token(grant) => grant.owner.as_ref(),
        }
    }
}
