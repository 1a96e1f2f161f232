//! The rights of a caller: those that a token grants its holder, or all.

use crate::error::{Error, Result};
use crate::types::{Actor, Amount, Domain, Engine, Principal, Scope};
use std::sync::Arc;

/// The rights of a token's holder.
#[derive(Debug)]
pub struct Grant {
    /// `name:id`, as events say it.
    pub principal: Principal,
    /// The person who answers for it.
    pub owner: Option<Actor>,
    /// The scopes that it carries.
    pub scopes: Vec<Scope>,
    /// The only engines that it may change; none for all.
    pub engines: Option<Vec<Engine>>,
    /// The only domains that it may change; none for all.
    pub domains: Option<Vec<Domain>>,
    /// The most that one settle or correction may lose; none for no bound.
    pub max_loss: Option<Amount>,
}

impl Grant {
    /// Whether it carries what is needed.
    #[must_use]
    pub fn holds(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.covers(needed))
    }
}

/// The rights of the caller of a change: all, or those of a token.
#[derive(Debug, Clone)]
pub enum Authority {
    /// The operator's shell, Holdfast itself, and everybody in open mode.
    Unlimited,
    /// The holder of a token.
    Token(Arc<Grant>),
}

impl Authority {
    /// Whether it is for some engines or domains alone.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Token(grant) => grant.engines.is_some() || grant.domains.is_some(),
        }
    }

    /// Whether it is for some engines alone.
    #[must_use]
    pub fn is_bounded_to_engines(&self) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Token(grant) => grant.engines.is_some(),
        }
    }

    /// Whether it includes this scope.
    #[must_use]
    pub fn holds(&self, needed: Scope) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Token(grant) => grant.holds(needed),
        }
    }

    /// Refuses what needs this scope; `what` names it.
    pub fn require(&self, needed: Scope, what: &'static str) -> Result<()> {
        if self.holds(needed) { Ok(()) } else { Err(Error::InsufficientScope { needed, what }) }
    }

    /// Whether it reaches this engine.
    #[must_use]
    pub fn reaches_engine(&self, engine: &Engine) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Token(grant) => grant.engines.as_ref().is_none_or(|engines| engines.contains(engine)),
        }
    }

    /// Refuses another engine than its own.
    pub fn require_engine(&self, engine: &Engine) -> Result<()> {
        let refused = || Error::OutOfReach { what: "engine", name: engine.to_string() };
        if self.reaches_engine(engine) { Ok(()) } else { Err(refused()) }
    }

    /// Whether it reaches this domain.
    #[must_use]
    pub fn reaches_domain(&self, domain: &Domain) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Token(grant) => grant.domains.as_ref().is_none_or(|domains| domains.contains(domain)),
        }
    }

    /// Refuses another domain than its own.
    pub fn require_domain(&self, domain: &Domain) -> Result<()> {
        let refused = || Error::OutOfReach { what: "domain", name: domain.to_string() };
        if self.reaches_domain(domain) { Ok(()) } else { Err(refused()) }
    }

    /// Refuses to book more at once than it may: a loss, or an exposure that was never reserved. Both count for all engines together.
    pub fn require_loss(&self, what: &'static str, amount: Amount) -> Result<()> {
        let bound = match self {
            Self::Unlimited => None,
            Self::Token(grant) => grant.max_loss,
        };
        bound.filter(|bound| amount > *bound).map_or(Ok(()), |bound| Err(Error::BeyondMaxLoss { what, amount, bound }))
    }

    /// The person behind it.
    #[must_use]
    pub fn owner(&self) -> Option<&Actor> {
        match self {
            Self::Unlimited => None,
            Self::Token(grant) => grant.owner.as_ref(),
        }
    }
}
