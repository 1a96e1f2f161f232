//! The limits of all requests together, in memory or places, and the part of one principal.

pub mod turns;

use crate::error::Error;
use crate::types::Principal;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An amount that is shared: of bytes, or of places. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    /// The part that one principal may have, so that nobody is kept out by one alone.
    share: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    by: HashMap<Principal, usize>,
}

/// There is no more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

impl From<Exhausted> for Error {
    fn from(_: Exhausted) -> Self {
        Self::Overloaded
    }
}

impl Budget {
    /// So much, of which one principal has `share` at most.
    #[must_use]
    pub fn new(limit: usize, share: usize) -> Self {
        Self(Arc::new(Inner { limit, share, used: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of it is used.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.lock().total
    }

    /// Nothing of it yet, to be grown.
    #[must_use]
    pub fn open(&self, principal: Principal) -> Charge {
        Charge { budget: self.clone(), principal, amount: 0 }
    }

    /// Whether there is any of it left for this principal.
    #[must_use]
    pub fn has_room(&self, principal: &Principal) -> bool {
        let used = self.lock();
        let own = used.by.get(principal).copied().unwrap_or_default();
        used.total < self.0.limit && own < self.0.share
    }

    /// So much of it, or none.
    pub fn take(&self, principal: Principal, amount: usize) -> Result<Charge, Exhausted> {
        let mut charge = self.open(principal);
        charge.grow_to(amount)?;
        Ok(charge)
    }
}

/// The part of a budget that somebody has, until it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    principal: Principal,
    amount: usize,
}

impl Charge {
    /// Grows to this amount, or stays as it is where there is no more.
    pub fn grow_to(&mut self, amount: usize) -> Result<(), Exhausted> {
        self.grow(amount, |inner, total, own| total <= inner.limit && own <= inner.share)
    }

    /// Grows to this amount, also where there is no more of it: for what exists whether or not it counts.
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
