//! One batch, from its start to its commit.

use super::{Batcher, End, Prepared, Proof};
use crate::audit::{self, Stream};
use crate::db;
use crate::error::{Error, Result};
use crate::panics;
use sqlx::{Executor, PgConnection};
use std::time::Duration;
use tokio::time::Instant;

/// How long a batch may take until its commit: a little more than the 4 s for its head.
pub(super) const PREPARE_TIMEOUT: Duration = Duration::from_millis(4_500);

/// How long the answer to a commit is awaited; after that the batch is looked up. With the 4 s that the look-up may
/// wait for the head, that is before the callers' deadline of 10 s, and a half-open connection does not block everybody
/// for ever.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a rollback is awaited: only the reuse of the connection depends on it.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// The end of a batch. The server's time limits do not apply: a commit that was cut short while it waits for a standby
/// would look safe.
const COMMIT: &str = "COMMIT";

/// The reason why a batch has no outcomes.
#[derive(Debug)]
pub enum Failure<Done, Note> {
    /// It failed before the commit: nothing of it happened.
    Refused(Error),
    /// It failed during the commit: the outcome is unknown.
    CommitBroke {
        /// The error of the connection.
        error: sqlx::Error,
        /// The proof that decides the outcome.
        proof: Proof,
        /// The outcomes if it was committed.
        outcomes: Vec<Result<Done>>,
        /// The note if it was committed.
        note: Note,
    },
}

impl<Done, Note> From<Error> for Failure<Done, Note> {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Awaits something without effect before the commit. A missing answer (a frozen server, a cut cable) is awaited only
/// as long as the callers can still be told the truth.
pub async fn by<T>(deadline: Instant, prepared: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout_at(deadline, prepared).await {
        Ok(prepared) => prepared,
        Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
    }
}

pub(super) struct Ended<D: Batcher> {
    /// An outcome for each item, in order.
    pub(super) outcomes: Vec<Result<D::Done>>,
    pub(super) note: D::Note,
    /// The last event that the outcomes depend on.
    pub(super) last: i64,
    /// True if the connection may be used again.
    pub(super) is_usable: bool,
}

/// Awaits the answer to a commit. If it is missing or unreadable, or if the wait for a standby was cancelled, the
/// outcome is unknown.
pub async fn committed<T, E: From<sqlx::Error>>(commit: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(COMMIT_TIMEOUT, panics::caught(db::confirmed(commit))).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panics::Panicked)) => {
            Err(sqlx::Error::Protocol("the answer to a commit could not be read".into()).into())
        }
        Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
    }
}

/// Runs a begun batch including its commit. Events up to `confirmed` are known to be durable.
pub(super) async fn run<D: Batcher>(
    batcher: &mut D,
    conn: &mut PgConnection,
    start: D::Start,
    items: &[&D::Item],
    deadline: Instant,
    confirmed: i64,
) -> Result<Ended<D>, Failure<D::Done, D::Note>> {
    let Prepared { outcomes, proof, last, end, note } =
        panics::caught(batcher.prepare(conn, start, items, deadline)).await.unwrap_or(Err(Error::Panicked.into()))?;
    let ended = match end {
        End::Commit => committed(conn.execute(COMMIT)).await,
        // The batch repeats what others did, and a standby may not have confirmed that.
        End::Discard if last > confirmed && !items.is_empty() => {
            by(deadline, db::mark(conn)).await?;
            committed(conn.execute(COMMIT)).await
        }
        // The decisions do not depend on the rollback; the reuse of the connection does.
        End::Discard => return Ok(Ended { outcomes, note, last: confirmed, is_usable: roll_back(conn).await.is_ok() }),
        End::Done => {
            return Ok(Ended { outcomes, note, last: if proof.is_some() { last } else { confirmed }, is_usable: true });
        }
    };
    match (ended, proof) {
        (Ok(_), _) => Ok(Ended { outcomes, note, last, is_usable: true }),
        (Err(error), Some(proof)) => Err(Failure::CommitBroke { error, proof, outcomes, note }),
        // Nothing was decided that a repetition would decide differently.
        (Err(error), None) => Err(Failure::Refused(Error::Unavailable(error))),
    }
}

/// Rolls back a refused batch on a connection that still answers.
pub(super) async fn roll_back(conn: &mut PgConnection) -> Result<()> {
    by(Instant::now() + ROLLBACK_TIMEOUT, async { Ok(conn.execute("ROLLBACK").await.map(drop)?) }).await
}

/// Confirms all earlier commits and returns the last event: everything that is read from here on is durable. The head
/// is locked, so that of many waiting processes only one waits for a standby, and the others for a lock, which has a
/// time limit.
pub(super) async fn confirm(conn: &mut PgConnection, stream: Stream) -> Result<i64> {
    let head = audit::begin(conn, stream).await?;
    db::mark(conn).await?;
    db::confirmed(conn.execute(COMMIT)).await?;
    Ok(head.seq())
}

/// Returns whether a batch was committed, and the last event. Waits for the batch's transaction to end. A transaction that has
/// not begun, still in a buffer on the way, never will: the head's revision moves, so its place is gone. A caller is
/// told of the commit only once a later commit is confirmed.
pub(super) async fn is_committed(conn: &mut PgConnection, stream: Stream, proof: &Proof) -> Result<(bool, i64)> {
    let head = audit::begin(conn, stream).await?;
    let is_there = match audit::verify::point(conn, stream, proof.seq).await {
        Ok(point) => point.hash[..] == proof.hash[..],
        Err(Error::NotFound { .. }) => false,
        Err(error) => return Err(error),
    };
    audit::revise(conn, stream).await?;
    db::confirmed(conn.execute(COMMIT)).await?;
    Ok((is_there, head.seq()))
}
