//! The schedule of checkpoints: verifies the new events and signs the heads without slowing requests.
//!
//! A trail may have millions of events since the last checkpoint: after a busy hour, or when a new instance has signed
//! nothing yet. Read at once, they would take a processor from the reserves for seconds, and the snapshot would keep
//! every version of the ledger's hottest rows alive, which slows each reserve. So they are read in portions, each in a
//! snapshot of its own, at a pace that finishes in half of the time between two checkpoints. Events that arrive
//! meanwhile are read the same way in half of the remaining time. The last portion is verified in the snapshot that is
//! signed.

use super::{Notary, keep};
use crate::audit::verify::{self, Asked};
use crate::audit::{Stream, store};
use crate::budget::turns::Turns;
use crate::db::{Database, archived};
use crate::error::{Error, Result};
use crate::types::{Lifetime, Point, Principal};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const PORTION: i64 = 10_000;
/// The slowest pace, in events a second: a hundredth of the reading speed of one processor.
const PACE_MIN: i64 = 5_000;

impl Notary {
    /// Makes checkpoints repeatedly until the task is cancelled. `verifying` is the permit to read more of the trail
    /// than a portion.
    pub async fn run(self, db: Database, every: Lifetime, verifying: Turns) {
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
                Err(error) => tracing::warn!(%error, "the checkpoint could not be made: trying again"),
            }
        }
    }

    /// Signs, logs and keeps the next checkpoint. Does nothing if there are no new events since the last one that was
    /// kept.
    async fn advance(&self, db: &Database, every: Duration, verifying: &Turns) -> Result<()> {
        let heads = match store::points(&mut *db.work().await?).await {
            // An unreadable head is damage; the verification reports it.
            Err(Error::Inconsistent(_)) => None,
            points => Some(points?.1),
        };
        let unchanged = {
            let known = self.known();
            known.finding.is_none() && known.kept.is_some() && known.kept == heads
        };
        if unchanged {
            return Ok(());
        }
        let verified = match heads {
            Some(_) => self.catch_up(db, every).await?,
            None => Stream::ALL.into_iter().map(|stream| (stream, self.verified(stream))).collect(),
        };
        let _turn = verifying.take(Principal::system()).await?;
        let mut conn = db.connect_snapshot().await?;
        archived::hold(&mut conn).await?;
        let (checkpoint, note) = self.sign_behind(&mut conn, db.history(), &verified).await?;
        drop(conn);
        tracing::info!(note, "audit checkpoint");
        if let Some(dir) = &self.0.dir
            && let Err(error) = keep(dir, &checkpoint, self.verifier().name(), &note).await
        {
            tracing::error!(dir = %dir.display(), %error, "the checkpoint could not be kept: only this log has it");
        }
        self.known().kept = Some(checkpoint.heads);
        Ok(())
    }

    /// Verifies the events since the last checkpoint up to the last portion, and returns how far that is. Events that
    /// arrive meanwhile get half of the remaining time, and so on; the pace rises as far as needed.
    async fn catch_up(&self, db: &Database, every: Duration) -> Result<BTreeMap<Stream, Point>> {
        let mut time = every / 2;
        {
            let mut conn = db.work().await?;
            for stream in Stream::ALL {
                let floor = archived::floor(&mut conn, stream).await?;
                if floor.seq > self.verified(stream).seq {
                    self.known().verified.insert(stream, floor);
                }
            }
        }
        loop {
            let (_, heads) = store::points(&mut *db.work().await?).await?;
            if heads.iter().all(|(stream, head)| head.seq - self.verified(*stream).seq <= PORTION) {
                break;
            }
            if !self.catch_up_to(db, &heads, Instant::now() + time).await? {
                break;
            }
            time /= 2;
        }
        Ok(Stream::ALL.into_iter().map(|stream| (stream, self.verified(stream))).collect())
    }

    /// The event up to which a stream is verified.
    fn verified(&self, stream: Stream) -> Point {
        let known = self.known();
        let last = known.last.as_ref().and_then(|last| last.heads.get(&stream));
        let further = [last, known.verified.get(&stream)].into_iter().flatten().max_by_key(|point| point.seq);
        further.copied().unwrap_or(Point::BEGINNING)
    }

    /// Verifies up to the last portion before these heads by about this time. Stops at damage and returns false: one
    /// pass over the rest then names it.
    async fn catch_up_to(&self, db: &Database, heads: &BTreeMap<Stream, Point>, until: Instant) -> Result<bool> {
        let behind = |stream: Stream| heads.get(&stream).map_or(0, |head| head.seq - self.verified(stream).seq);
        for stream in Stream::ALL {
            while behind(stream) > PORTION {
                let began = Instant::now();
                let portions = Stream::ALL.into_iter().map(|stream| behind(stream).max(0) / PORTION).sum();
                let mut conn = db.connect_snapshot().await?;
                archived::hold(&mut conn).await?;
                let from = self.verified(stream);
                let asked = Asked { from, to: Some(from.seq + PORTION), known: None };
                let portion = verify::verify(&mut conn, stream, asked).await?;
                if portion.finding.is_some() {
                    return Ok(false);
                }
                // The next portion starts at the last event of this one, so that nothing, not even the order of two
                // times, falls between them.
                let next = verify::point(&mut conn, stream, portion.end.seq - 1).await?;
                drop(conn);
                self.known().verified.insert(stream, next);
                tokio::time::sleep_until(began + portion_time(portions, until.saturating_duration_since(began))).await;
            }
        }
        Ok(true)
    }
}

/// The time of one portion, if so many must be done in `left`.
fn portion_time(portions: i64, left: Duration) -> Duration {
    let slowest = Duration::from_secs(u64::try_from(PORTION / PACE_MIN).unwrap_or(1));
    slowest.min(left / u32::try_from(portions).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time that so many portions take if reading takes none.
    fn time(portions: i64, all: Duration) -> Duration {
        (1..=portions)
            .rev()
            .fold(Duration::ZERO, |passed, left| passed + portion_time(left, all.saturating_sub(passed)))
    }

    #[test]
    fn the_schedule_reads_slowly_and_is_ready_in_half_of_its_time() {
        let half = Duration::from_mins(30);
        assert_eq!(portion_time(1, half), Duration::from_secs(2));
        assert_eq!(time(100, half), Duration::from_secs(200), "5,000 events a second");
        for portions in [900, 10_000, 100_000] {
            let time = time(portions, half);
            assert!(time <= half && time > half * 99 / 100, "{portions} portions took {time:?}");
        }
        assert_eq!(portion_time(i64::MAX, half), half / u32::MAX);
        assert_eq!(portion_time(7, Duration::ZERO), Duration::ZERO);
    }
}
