//! The schedule of checkpoints: verifies what came, and signs it, without getting in anybody's way.
//!
//! A trail may have millions of events since the last checkpoint: after a busy hour, or where an instance is new and has signed
//! nothing yet. Read at once, they would take a processor from the reserves for seconds, and the snapshot in which they are read
//! would keep every version of the ledger's hottest rows alive, which slows each reserve down. So they are read in portions, each
//! in a snapshot of its own, at a pace that gets there in half of the time between two checkpoints. The last portion, and what
//! came meanwhile, is verified in the snapshot that is signed.

use super::{Notary, keep};
use crate::audit::verify::{self, Asked, Point};
use crate::audit::{Stream, store};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::types::Lifetime;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Events of a portion.
const PORTION: i64 = 10_000;
/// The slowest pace, events a second: a hundredth of what one processor can read.
const PACE_MIN: i64 = 5_000;

impl Notary {
    /// Makes checkpoints, over and over, until the task is ended. `verifying` is the right to read more of the trail than a portion.
    pub async fn run(self, db: Database, every: Lifetime, verifying: Arc<Semaphore>) {
        let every = every.duration();
        let mut turns = tokio::time::interval(every);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            match self.advance(&db, every, &verifying).await {
                Ok(()) => {}
                Err(Error::TrailDamaged(finding)) => {
                    tracing::error!(%finding, "THE AUDIT TRAIL IS DAMAGED: no checkpoint is signed");
                }
                Err(error) => tracing::warn!(%error, "no checkpoint could be made: it is tried again"),
            }
        }
    }

    /// Signs the next checkpoint, logs and keeps it. Where nothing came since the last one that was kept, nothing is done.
    async fn advance(&self, db: &Database, every: Duration, verifying: &Semaphore) -> Result<()> {
        let (_, heads) = store::points(&mut *db.read().await?).await?;
        let unchanged = {
            let known = self.known();
            known.finding.is_none() && known.kept.as_ref() == Some(&heads)
        };
        if unchanged {
            return Ok(());
        }
        let verified = self.catch_up(db, every).await?;
        // It is closed with the process alone.
        let Ok(_turn) = verifying.acquire().await else { return Ok(()) };
        let mut tx = db.begin_unlimited_snapshot().await?;
        let (checkpoint, note) = self.sign_behind(&mut tx, &verified).await?;
        drop(tx);
        tracing::info!(note, "audit checkpoint");
        if let Some(dir) = &self.0.dir
            && let Err(error) = keep(dir, &checkpoint, self.verifier().name(), &note).await
        {
            tracing::error!(dir = %dir.display(), %error, "the checkpoint could not be kept: it is in the log alone");
        }
        self.known().kept = Some(checkpoint.heads);
        Ok(())
    }

    /// Verifies what came since the last checkpoint up to the last portion, and says how far that is. Stops before what is wrong: one
    /// pass over what is left names it.
    async fn catch_up(&self, db: &Database, every: Duration) -> Result<BTreeMap<Stream, Point>> {
        let mut verified = self.last_heads();
        for stream in Stream::ALL {
            let mut from = verified.get(&stream).copied().unwrap_or(Point::BEGINNING);
            loop {
                let began = Instant::now();
                let mut tx = db.begin_unlimited_snapshot().await?;
                let behind = crate::audit::head_seq(&mut tx, stream).await? - from.seq;
                if behind <= PORTION {
                    break;
                }
                let asked = Asked { from, to: Some(from.seq + PORTION), known: None };
                let portion = verify::verify(&mut tx, stream, asked).await?;
                if portion.finding.is_some() {
                    break;
                }
                // The next one looks at the last event again: so nothing lies between two, the order of their times neither.
                from = verify::point(&mut tx, stream, portion.end.seq - 1).await?;
                drop(tx);
                tokio::time::sleep_until(began + portion_time(behind, every)).await;
            }
            verified.insert(stream, from);
        }
        Ok(verified)
    }
}

/// How long a portion may take.
fn portion_time(behind: i64, every: Duration) -> Duration {
    let slowest = Duration::from_secs(u64::try_from(PORTION / PACE_MIN).unwrap_or(1));
    let portions = u32::try_from(behind / PORTION).unwrap_or(u32::MAX).max(1);
    slowest.min(every / 2 / portions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_reads_slowly_and_is_ready_in_half_of_its_time() {
        let hour = Duration::from_hours(1);
        assert_eq!(portion_time(PORTION + 1, hour), Duration::from_secs(2));
        assert_eq!(portion_time(9_000_000, hour), Duration::from_secs(2));
        assert_eq!(portion_time(36_000_000, hour), Duration::from_millis(500));
        for behind in [100_000_000, 1_000_000_000, i64::MAX] {
            let portions = u32::try_from(behind / PORTION).unwrap_or(u32::MAX);
            assert!(portion_time(behind, hour) * portions <= hour / 2, "{behind}");
        }
        assert_eq!(portion_time(2 * PORTION, Duration::from_millis(4)), Duration::from_millis(1));
    }
}
