//! Limits of memory and places for all requests together, with a share for each principal.

pub mod turns;

use crate::error::Error;
use crate::types::Principal;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A shared amount of bytes or places. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    /// The most that one principal may have, so that one alone keeps nobody out.
    share: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    by: HashMap<Principal, usize>,
}

/// The refusal when the budget or the principal's share is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

impl From<Exhausted> for Error {
    fn from(_: Exhausted) -> Self {
        Self::Overloaded
    }
}

impl Budget {
    /// A budget of `limit`, of which one principal may have at most `share`.
    #[must_use]
    pub fn new(limit: usize, share: usize) -> Self {
        Self(Arc::new(Inner { limit, share, used: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.lock().total
    }

    /// An empty charge, to be grown.
    #[must_use]
    pub fn open(&self, principal: Principal) -> Charge {
        Charge { budget: self.clone(), principal, amount: 0 }
    }

    /// True if this principal may take at least one unit.
    #[must_use]
    pub fn has_room(&self, principal: &Principal) -> bool {
        let used = self.lock();
        let own = used.by.get(principal).copied().unwrap_or_default();
        used.total < self.0.limit && own < self.0.share
    }

    /// Charges this amount, or fails without charging anything.
    pub fn take(&self, principal: Principal, amount: usize) -> Result<Charge, Exhausted> {
        let mut charge = self.open(principal);
        charge.grow_to(amount)?;
        Ok(charge)
    }
}

/// A principal's part of a budget, until it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    principal: Principal,
    amount: usize,
}

impl Charge {
    /// Grows the charge to this amount, or leaves it unchanged if the budget has no more.
    pub fn grow_to(&mut self, amount: usize) -> Result<(), Exhausted> {
        self.grow(amount, |inner, total, own| total <= inner.limit && own <= inner.share)
    }

    /// Grows the charge to this amount even beyond the limit, for something that exists in any case.
    pub fn overdraw_to(&mut self, amount: usize) {
        let _ = self.grow(amount, |_, _, _| true);
    }

    fn grow(&mut self, amount: usize, may: impl Fn(&Inner, usize, usize) -> bool) -> Result<(), Exhausted> {
        let more = amount.saturating_sub(self.amount);
        if more == 0 {
            return Ok(());
        }
        let mut used = self.budget.lock();
        let own = used.by.get(&self.principal).copied().unwrap_or_default() + more;
        if !may(&self.budget.0, used.total + more, own) {
            return Err(Exhausted);
        }
        used.total += more;
        used.by.insert(self.principal.clone(), own);
        drop(used);
        self.amount = amount;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut used = self.budget.lock();
        used.total -= self.amount;
        let own = used.by.get(&self.principal).copied().unwrap_or_default() - self.amount;
        if own == 0 {
            used.by.remove(&self.principal);
        } else {
            used.by.insert(self.principal.clone(), own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_principal_has_a_share_and_all_together_the_limit_and_what_ends_is_free_again() {
        let budget = Budget::new(10, 6);
        let principal = |name: &str| Principal::stored(name.to_owned());
        let mut one = budget.take(principal("one"), 5).unwrap();
        assert_eq!(one.grow_to(7), Err(Exhausted));
        assert_eq!(one.grow_to(6), Ok(()));
        assert_eq!(budget.take(principal("one"), 1).err(), Some(Exhausted));
        let other = budget.take(principal("other"), 4).unwrap();
        assert_eq!(budget.take(principal("third"), 1).err(), Some(Exhausted));
        assert!(!budget.has_room(&principal("third")));
        drop(other);
        budget.take(principal("third"), 4).unwrap().overdraw_to(9);
        drop(one);
        budget.take(principal("third"), 6).unwrap();
        assert_eq!(budget.used(), 0);
        assert!(budget.lock().by.is_empty());
    }
}
