//! Parallel verification of one stream: several connections at once, range by range.
//!
//! A range begins after an event whose hash is taken from its row, and the range before it must end at that hash, one
//! event later. So nothing falls between two ranges, neither a link of the chain nor the order of two times. That
//! proves an intact stream. If there is a fault, one pass over the whole stream finds it, because only that sees the
//! rows on both sides of every place.

use super::{Asked, Point, Stream, Verified, point, read_head, verify};
use crate::error::{Error, Result};
use sqlx::{PgConnection, Postgres, Transaction};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

/// Fewest events that are worth a range of their own.
const RANGE_MIN: i64 = 2_000;
/// Ranges per connection: an idle connection takes the next one, so that all of them finish at about the same time.
const EACH: usize = 8;
/// Events that two neighbouring ranges both verify.
const OVERLAP: i64 = 1;

/// The result of [`verify`], computed with several connections, which must see the same instant of the database.
pub async fn verify_in_parallel(
    conn: &mut PgConnection,
    others: &mut Vec<Transaction<'static, Postgres>>,
    stream: Stream,
    asked: Asked,
) -> Result<Verified> {
    let last = match read_head(&mut *conn, stream).await {
        Err(Error::TrailDamaged(_)) => return verify(conn, stream, asked).await,
        head => head?.point.seq,
    };
    let last = asked.to.map_or(last, |to| to.min(last));
    let most = i64::try_from((others.len() + 1) * EACH).unwrap_or(i64::MAX);
    let count = (last.saturating_sub(asked.from.seq) / RANGE_MIN).min(most);
    if others.is_empty() || count < 2 {
        return verify(conn, stream, asked).await;
    }
    let Some(ranges) = split(conn, stream, asked, last, count).await? else {
        return verify(conn, stream, asked).await;
    };
    let left = Left { ranges: ranges.into(), next: Arc::default() };
    let mut helping = JoinSet::new();
    for mut other in others.drain(..) {
        let left = left.clone();
        helping.spawn(async move { (left.verify(&mut other, stream).await, other) });
    }
    let mut verified = left.verify(conn, stream).await;
    while let Some(joined) = helping.join_next().await {
        let (more, other) = joined.map_err(|error| Error::Inconsistent(error.to_string()))?;
        others.push(other);
        verified = verified.and_then(|verified| Ok([verified, more?].concat()));
    }
    let mut verified = verified?;
    verified.sort_by_key(|(place, _)| *place);
    match whole(verified) {
        Some(whole) => Ok(whole),
        None => verify(conn, stream, asked).await,
    }
}

/// Ranges that no connection has taken yet.
#[derive(Clone)]
struct Left {
    ranges: Arc<[Asked]>,
    next: Arc<AtomicUsize>,
}

impl Left {
    /// Verifies one range after the other, with its index, until none is left or one has a fault.
    async fn verify(&self, conn: &mut PgConnection, stream: Stream) -> Result<Vec<(usize, Verified)>> {
        let mut verified = Vec::new();
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(range) = self.ranges.get(place) else {
                return Ok(verified);
            };
            let part = verify(&mut *conn, stream, *range).await;
            if !part.as_ref().is_ok_and(|part| part.finding.is_none()) {
                self.next.fetch_max(self.ranges.len(), Ordering::Relaxed);
            }
            verified.push((place, part?));
        }
    }
}

/// The ranges of a stream up to `last`, of about the same length; none if the event at the start of one, or its hash,
/// is missing.
async fn split(
    conn: &mut PgConnection,
    stream: Stream,
    asked: Asked,
    last: i64,
    count: i64,
) -> Result<Option<Vec<Asked>>> {
    let length = (last - asked.from.seq) / count;
    let mut begins = vec![asked.from];
    for place in 1..count {
        match point(&mut *conn, stream, asked.from.seq + place * length).await {
            Ok(begin) => begins.push(begin),
            Err(Error::NotFound { .. } | Error::TrailDamaged(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let ranges = begins.iter().enumerate().map(|(place, from)| {
        let next = begins.get(place + 1);
        let is_here = |known: &Point| known.seq > from.seq && next.is_none_or(|next| known.seq <= next.seq);
        let to = next.map_or(asked.to, |next| Some(next.seq + OVERLAP));
        Asked { from: *from, to, known: asked.known.filter(is_here) }
    });
    Ok(Some(ranges.collect()))
}

/// The ranges joined in their order; none if one has a fault.
fn whole(parts: Vec<(usize, Verified)>) -> Option<Verified> {
    let overlaps = i64::try_from(parts.len().checked_sub(1)?).ok()? * OVERLAP;
    let mut whole: Option<Verified> = None;
    for (_, part) in parts {
        if part.finding.is_some() {
            return None;
        }
        let before = whole.map_or(-overlaps, |whole| whole.events);
        whole = Some(Verified { events: before + part.events, ..part });
    }
    whole
}
