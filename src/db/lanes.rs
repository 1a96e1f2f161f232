//! Shares of the switch connections: each principal uses at most half of them and waits only behind its own requests.
//! However often one principal engages, another finds a connection, and almost nobody is ahead of it at the control
//! head.

use super::{ACQUIRE_TIMEOUT, Database, SWITCH_POOL_SIZE};
use crate::error::{Error, Result};
use crate::types::Principal;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many of the connections one principal has at a time.
const WIDTH: usize = SWITCH_POOL_SIZE as usize / 2;

/// The lanes of all principals. Cheap to clone; all clones share one state.
#[derive(Debug, Clone, Default)]
pub(super) struct Lanes(Arc<Mutex<HashMap<Principal, Own>>>);

#[derive(Debug)]
struct Own {
    free: Arc<Semaphore>,
    /// Requests that hold a lane or wait for one.
    asking: usize,
}

/// A share of the connections, until it is dropped.
#[derive(Debug)]
pub struct Lane {
    _permit: Option<OwnedSemaphorePermit>,
    _asking: Asking,
}

/// A request that holds a lane or waits for one.
#[derive(Debug)]
struct Asking {
    lanes: Lanes,
    principal: Principal,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut by = self.lanes.lock();
        let Some(own) = by.get_mut(&self.principal) else { return };
        own.asking -= 1;
        if own.asking == 0 {
            by.remove(&self.principal);
        }
    }
}

impl Lanes {
    fn lock(&self) -> MutexGuard<'_, HashMap<Principal, Own>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a lane of this principal, in the order of its requests.
    async fn take(&self, principal: &Principal) -> Lane {
        let fresh = || Own { free: Arc::new(Semaphore::new(WIDTH)), asking: 0 };
        let free = {
            let mut by = self.lock();
            let own = by.entry(principal.clone()).or_insert_with(fresh);
            own.asking += 1;
            Arc::clone(&own.free)
        };
        let asking = Asking { lanes: self.clone(), principal: principal.clone() };
        // The semaphore is never closed.
        Lane { _permit: free.acquire_owned().await.ok(), _asking: asking }
    }

    async fn take_within(&self, limit: Duration, principal: &Principal) -> Result<Lane> {
        let taken = tokio::time::timeout(limit, self.take(principal)).await;
        taken.map_err(|_| Error::Unavailable(sqlx::Error::PoolTimedOut))
    }
}

impl Database {
    /// A principal's share of the switch connections. Take it before a connection and keep it until the connection is
    /// released. A principal waits at most as long for its own requests as a request waits for a connection.
    pub async fn switch_lane(&self, principal: &Principal) -> Result<Lane> {
        self.0.lanes.take_within(ACQUIRE_TIMEOUT, principal).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[tokio::test]
    async fn a_principal_waits_behind_its_own_requests_alone() {
        let lanes = Lanes::default();
        let (one, other) = (Principal::stored("one".to_owned()), Principal::stored("other".to_owned()));
        let (first, second) = (lanes.take(&one).await, lanes.take(&one).await);
        let mut third = pin!(lanes.take(&one));
        let mut context = Context::from_waker(Waker::noop());
        assert!(third.as_mut().poll(&mut context).is_pending());
        drop(lanes.take(&other).await);
        {
            let mut left = pin!(lanes.take(&one));
            assert!(left.as_mut().poll(&mut context).is_pending());
        }
        drop(first);
        drop((third.await, second));
        assert!(lanes.lock().is_empty());
    }

    #[tokio::test]
    async fn the_wait_for_a_lane_ends_and_leaves_nothing_behind() {
        let (lanes, one) = (Lanes::default(), Principal::stored("one".to_owned()));
        let limit = Duration::from_millis(10);
        let taken = (lanes.take_within(limit, &one).await.unwrap(), lanes.take_within(limit, &one).await.unwrap());
        let refused = lanes.take_within(limit, &one).await;
        assert!(matches!(refused, Err(Error::Unavailable(sqlx::Error::PoolTimedOut))), "{refused:?}");
        drop(taken);
        assert!(lanes.lock().is_empty());
    }
}
