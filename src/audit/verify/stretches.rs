//! One stream verified by several connections at once, each a stretch of it.
//!
//! A stretch begins behind an event whose hash is taken from its row, and the stretch before it has to end at that very hash, one
//! event further on: so nothing lies between two stretches, neither a link of the chain nor the order of two times. That is
//! enough to say that all is right. What is wrong is left to one pass over the whole, which alone sees the rows on both sides
//! of every place and names what was done.

use super::{Asked, Point, Stream, Verified, point, read_head, verify};
use crate::error::{Error, Result};
use sqlx::{PgConnection, Postgres, Transaction};
use tokio::task::JoinSet;

/// Events that make a stretch of their own worth its while.
const STRETCH_MIN: i64 = 50_000;
/// Events that a stretch and the one after it both look at.
const OVERLAP: i64 = 1;

/// What [`verify`] finds, with the others' help; they must see the same instant of the database.
pub async fn verify_in_stretches(
    conn: &mut PgConnection,
    others: &mut Vec<Transaction<'static, Postgres>>,
    stream: Stream,
    asked: Asked,
) -> Result<Verified> {
    let last = read_head(&mut *conn, stream).await?.point.seq;
    let last = asked.to.map_or(last, |to| to.min(last));
    let most = i64::try_from(others.len()).unwrap_or(i64::MAX).saturating_add(1);
    let stretches = (last.saturating_sub(asked.from.seq) / STRETCH_MIN).min(most);
    if stretches < 2 {
        return verify(conn, stream, asked).await;
    }
    let Some(parts) = parts(conn, stream, asked, last, stretches).await? else {
        return verify(conn, stream, asked).await;
    };
    let (own, rest) = parts.split_first().ok_or_else(|| Error::Inconsistent("there are no stretches".into()))?;
    let mut tasks = JoinSet::new();
    for (place, part) in (1..).zip(rest.iter().copied()) {
        let other = others.pop().ok_or_else(|| Error::Inconsistent("a connection is missing".into()))?;
        tasks.spawn(async move {
            let mut other = other;
            let verified = verify(&mut other, stream, part).await;
            (place, other, verified)
        });
    }
    let own = verify(conn, stream, *own).await;
    let mut verified = vec![(0, own)];
    while let Some(joined) = tasks.join_next().await {
        let (place, other, part) = joined.map_err(|error| Error::Inconsistent(error.to_string()))?;
        others.push(other);
        verified.push((place, part));
    }
    verified.sort_by_key(|(place, _)| *place);
    let verified = verified.into_iter().map(|(_, part)| part).collect::<Result<Vec<_>>>()?;
    match whole(&verified) {
        Some(whole) => Ok(whole),
        None => verify(conn, stream, asked).await,
    }
}

/// The stretches of a stream up to `last`, of about the same length; none if an event is missing where one should begin.
async fn parts(
    conn: &mut PgConnection,
    stream: Stream,
    asked: Asked,
    last: i64,
    stretches: i64,
) -> Result<Option<Vec<Asked>>> {
    let length = (last - asked.from.seq) / stretches;
    let mut begins = vec![asked.from];
    for place in 1..stretches {
        match point(&mut *conn, stream, asked.from.seq + place * length).await {
            Ok(begin) => begins.push(begin),
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let parts = begins.iter().enumerate().map(|(place, from)| {
        let next = begins.get(place + 1);
        let is_here = |known: &Point| known.seq > from.seq && next.is_none_or(|next| known.seq <= next.seq);
        let to = next.map_or(asked.to, |next| Some(next.seq + OVERLAP));
        Asked { from: *from, to, known: asked.known.filter(is_here) }
    });
    Ok(Some(parts.collect()))
}

/// The whole of stretches in which nothing is wrong.
fn whole(parts: &[Verified]) -> Option<Verified> {
    let end = parts.last()?.end;
    if parts.iter().any(|part| part.finding.is_some()) {
        return None;
    }
    let overlaps = i64::try_from(parts.len() - 1).ok()? * OVERLAP;
    Some(Verified { events: parts.iter().map(|part| part.events).sum::<i64>() - overlaps, end, finding: None })
}
