//! The schedule of checkpoints: verifies what came, and signs it, without getting in anybody's way.
//!
//! A trail may have millions of events since the last checkpoint: after a busy hour, or where an instance is new and has signed
//! nothing yet. Read at once, they would take a processor from the reserves for seconds, and the snapshot in which they are read
//! would keep every version of the ledger's hottest rows alive, which slows each reserve down. So they are read in portions, each
//! in a snapshot of its own, at a pace that gets there in half of the time between two checkpoints; what comes meanwhile likewise, in
//! half of what is left. The last portion is verified in the snapshot that is signed.

use super::{Notary, keep};
use crate::audit::verify::{self, Asked};
use crate::audit::{Stream, store};
use crate::budget::turns::Turns;
use crate::db::Database;
use crate::error::{Error, Result};
use crate::types::{Lifetime, Point, Principal};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Events of a portion.
const PORTION: i64 = 10_000;
/// The slowest pace, events a second: a hundredth of what one processor can read.
const PACE_MIN: i64 = 5_000;

impl Notary {
    /// Makes checkpoints, over and over, until the task is ended. `verifying` is the right to read more of the trail than a portion.
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
                Err(error) => tracing::warn!(%error, "no checkpoint could be made: it is tried again"),
            }
        }
    }

    /// Signs the next checkpoint, logs and keeps it. Where nothing came since the last one that was kept, nothing is done.
    async fn advance(&self, db: &Database, every: Duration, verifying: &Turns) -> Result<()> {
        let heads = match store::points(&mut *db.work().await?).await {
            // A head that cannot be read is damage, which the verification names.
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
        let (checkpoint, note) = self.sign_behind(&mut conn, db.history(), &verified).await?;
        drop(conn);
        tracing::info!(note, "audit checkpoint");
        if let Some(dir) = &self.0.dir
            && let Err(error) = keep(dir, &checkpoint, self.verifier().name(), &note).await
        {
            tracing::error!(dir = %dir.display(), %error, "the checkpoint could not be kept: it is in the log alone");
        }
        self.known().kept = Some(checkpoint.heads);
        Ok(())
    }

    /// Verifies the events since the last checkpoint up to the last portion, and says how far that is. Events that come meanwhile have half of
    /// the time again, and so on: with less and less time for it the pace comes to whatever it takes.
    async fn catch_up(&self, db: &Database, every: Duration) -> Result<BTreeMap<Stream, Point>> {
        let mut time = every / 2;
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

    /// How far a stream is verified.
    fn verified(&self, stream: Stream) -> Point {
        let known = self.known();
        let last = known.last.as_ref().and_then(|last| last.heads.get(&stream));
        let further = [last, known.verified.get(&stream)].into_iter().flatten().max_by_key(|point| point.seq);
        further.copied().unwrap_or(Point::BEGINNING)
    }

    /// Verifies up to the last portion before these heads by about this time. Stops at what is wrong, and says so: one pass over what is
    /// left names it.
    async fn catch_up_to(&self, db: &Database, heads: &BTreeMap<Stream, Point>, until: Instant) -> Result<bool> {
        let behind = |stream: Stream| heads.get(&stream).map_or(0, |head| head.seq - self.verified(stream).seq);
        for stream in Stream::ALL {
            while behind(stream) > PORTION {
                let began = Instant::now();
                let portions = Stream::ALL.into_iter().map(|stream| behind(stream).max(0) / PORTION).sum();
                let mut conn = db.connect_snapshot().await?;
                let from = self.verified(stream);
                let asked = Asked { from, to: Some(from.seq + PORTION), known: None };
                let portion = verify::verify(&mut conn, stream, asked).await?;
                if portion.finding.is_some() {
                    return Ok(false);
                }
                // The next one looks at the last event again: so nothing lies between two, the order of their times neither.
                let next = verify::point(&mut conn, stream, portion.end.seq - 1).await?;
                drop(conn);
                self.known().verified.insert(stream, next);
                tokio::time::sleep_until(began + portion_time(portions, until.saturating_duration_since(began))).await;
            }
        }
        Ok(true)
    }
}

/// How long a portion may take, of so many that have to be done in this time.
fn portion_time(portions: i64, left: Duration) -> Duration {
    let slowest = Duration::from_secs(u64::try_from(PORTION / PACE_MIN).unwrap_or(1));
    slowest.min(left / u32::try_from(portions).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long so many portions take where reading takes nothing.
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
