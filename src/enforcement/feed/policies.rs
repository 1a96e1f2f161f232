//! The policies as this instance knows them, for flags and metrics. No gate uses them.
//!
//! They are read separately from the state, so that reading them never delays the lease, and only when the control
//! stream has moved. They are valid for the lease, as the state is: from the last heartbeat that found the control
//! stream at the same point, or from their own reading. Policies that may have changed and cannot be read are unknown
//! until the next successful read, however fresh the state is.

use super::{BoxFuture, Feed};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::panics;
use crate::types::Point;
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;

/// The pause before policies that could not be read are read again.
const RETRY: Duration = Duration::from_millis(500);

/// The policies that let something happen, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// Engines, and whether their reserves can pass.
    pub engines: Vec<(String, bool)>,
    /// AI domains, and whether production use is on.
    pub domains: Vec<(String, bool)>,
    /// Wires, and whether they are tripped.
    pub wires: Vec<(String, bool)>,
}

/// The policies as read, and the time at which they were last known to hold.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    policies: Arc<Policies>,
    /// The point of the control stream at their reading. They are read again only when it has moved.
    of: Point,
    /// The time at which their reading was sent, on the clock, plus one. A reading that was sent earlier changes
    /// nothing.
    read_ns: u64,
    /// The time at which they were last known to be current, on the clock, plus one; 0 after a failed read.
    held_ns: u64,
}

/// A function that reads the policies from the levers.
pub type PolicyReader = for<'a> fn(&'a mut PgConnection) -> BoxFuture<'a, Result<Policies>>;

impl Feed {
    /// The policies; none before the first read, and none if they may have changed more than a lease ago.
    #[must_use]
    pub fn policies(&self) -> Option<Arc<Policies>> {
        let now = self.now();
        let known = self.known();
        let kept = known.policies.as_ref()?;
        let is_held = kept.held_ns > 0 && now.saturating_sub(kept.held_ns) <= self.0.lease_ns;
        is_held.then(|| Arc::clone(&kept.policies))
    }

    /// The policies as last read, at any age; none before the first read.
    #[must_use]
    pub fn last_policies(&self) -> Option<Arc<Policies>> {
        self.known().policies.as_ref().map(|kept| Arc::clone(&kept.policies))
    }

    /// Takes over the point of the control stream from a heartbeat: policies of that point stay valid, others are read
    /// again.
    pub(super) fn hold_policies(&self, of: Point, sent_ns: u64) {
        let mut known = self.known();
        known.control = Some(of);
        let has_moved = match known.policies.as_mut().filter(|kept| kept.of == of) {
            Some(kept) if kept.held_ns > 0 => {
                kept.held_ns = kept.held_ns.max(sent_ns + 1);
                false
            }
            _ => true,
        };
        drop(known);
        if has_moved {
            self.0.moved.notify_one();
        }
    }

    /// Reads the policies if the control stream has moved since their last reading. Unreadable policies close no gate.
    /// Returns whether the policies are known.
    pub(super) async fn refresh_policies(&self, conn: &mut PgConnection) -> bool {
        // The time is taken before the statement, as for the state.
        let sent_ns = self.now();
        let of = {
            let known = self.known();
            let is_known = |of: &Point| known.policies.as_ref().is_some_and(|kept| kept.of == *of && kept.held_ns > 0);
            known.control.filter(|of| !is_known(of))
        };
        let (Some(of), Some(read)) = (of, self.0.policy_reader.get()) else { return true };
        match panics::caught(read(conn)).await.unwrap_or(Err(Error::Panicked)) {
            Ok(policies) => self.take_policies(policies, of, sent_ns),
            Err(error) => {
                tracing::error!(%error, "the policies cannot be read: their flags have the safe value until they are");
                self.withdraw_policies();
                return false;
            }
        }
        true
    }

    /// Makes the policies unknown until the next successful read.
    fn withdraw_policies(&self) {
        if let Some(kept) = &mut self.known().policies {
            kept.held_ns = 0;
        }
    }

    /// Takes over a reading, unless a later reading was quicker.
    fn take_policies(&self, policies: Policies, of: Point, sent_ns: u64) {
        let mut known = self.known();
        if known.policies.as_ref().is_none_or(|kept| kept.read_ns <= sent_ns) {
            known.policies = Some(Kept { policies: Arc::new(policies), of, read_ns: sent_ns, held_ns: sent_ns });
        }
    }

    /// Keeps the policies known. This runs apart from the lease, so that many policies do not delay it.
    pub(super) async fn keep_policies(&self, db: &Database) {
        loop {
            self.0.moved.notified().await;
            let read = async { Ok::<_, Error>(self.refresh_policies(&mut *db.work().await?).await) };
            if !matches!(panics::caught(read).await, Ok(Ok(true))) {
                tokio::time::sleep(RETRY).await;
                self.0.moved.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::feed;
    use super::*;
    use crate::clock::Clock;

    fn at(seq: i64) -> Point {
        Point { seq, hash: [0; 32] }
    }

    #[test]
    fn policies_that_may_have_changed_lapse_with_the_lease_and_are_back_with_the_next_good_read() {
        let clock = Clock::manual(10_000);
        let feed = feed(&clock);
        let read = |of: Point| feed.take_policies(Policies::default(), of, feed.now());
        read(at(1));
        clock.advance(1_500);
        feed.hold_policies(at(1), clock.now_ns());
        clock.advance(1_500);
        // A heartbeat at another event renews nothing until a read succeeds.
        feed.hold_policies(at(2), clock.now_ns());
        assert!(feed.policies().is_some());
        clock.advance(501);
        feed.hold_policies(at(2), clock.now_ns());
        assert!(feed.policies().is_none() && feed.last_policies().is_some());
        read(at(2));
        assert!(feed.policies().is_some());
        // After a failed read, a heartbeat at the same event renews nothing either.
        feed.withdraw_policies();
        feed.hold_policies(at(2), clock.now_ns());
        assert!(feed.policies().is_none() && feed.last_policies().is_some());
        read(at(2));
        clock.advance(2_000);
        feed.hold_policies(at(2), clock.now_ns());
        clock.advance(2_000);
        assert!(feed.policies().is_some());
    }

    #[test]
    fn a_reading_that_a_later_one_overtook_changes_nothing() {
        let clock = Clock::manual(10_000);
        let feed = feed(&clock);
        let sent_ns = feed.now();
        clock.advance(1);
        feed.take_policies(Policies::default(), at(2), feed.now());
        let older = Policies { engines: vec![("A".to_owned(), true)], ..Policies::default() };
        feed.take_policies(older, at(1), sent_ns);
        assert_eq!(feed.policies().as_deref(), Some(&Policies::default()));
    }
}
