//! Turns for requests that read everything, one at a time. Principals take turns in order, and each has at most one, so
//! that a principal that asks repeatedly keeps nobody out.

use super::{Budget, Charge};
use crate::error::{Error, Result};
use crate::types::Principal;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns of one resource. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Turns {
    turn: Arc<Semaphore>,
    /// The principals that have a turn or wait for one, once each.
    asking: Budget,
}

impl Default for Turns {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), asking: Budget::new(usize::MAX, 1) }
    }
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    _asking: Charge,
}

impl Turns {
    /// True if nobody has a turn.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.turn.available_permits() > 0
    }

    /// Waits for a turn. Refused to a principal that has one or already waits.
    pub async fn take(&self, principal: Principal) -> Result<Turn> {
        let asking = self.asking.take(principal, 1)?;
        let permit = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| Error::Overloaded)?;
        Ok(Turn { _permit: permit, _asking: asking })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[tokio::test]
    async fn each_principal_has_a_turn_in_order_and_one_at_a_time() {
        let turns = Turns::default();
        let name = |name: &str| Principal::stored(name.to_owned());
        let first = turns.take(name("one")).await.unwrap();
        assert!(turns.take(name("one")).await.is_err());
        let mut other = pin!(turns.take(name("other")));
        let mut context = Context::from_waker(Waker::noop());
        assert!(other.as_mut().poll(&mut context).is_pending());
        drop(first);
        // A principal that comes back at once is behind the waiting ones.
        let mut again = pin!(turns.take(name("one")));
        assert!(again.as_mut().poll(&mut context).is_pending());
        drop(other.await.unwrap());
        again.await.unwrap();
    }
}
