//! One batch from begin to commit.

use super::{Batcher, End, Prepared, Proof};
use crate::audit::{self, Stream};
use crate::db;
use crate::error::{Error, Result};
use crate::panics;
use sqlx::{Executor, PgConnection};
use std::time::Duration;
use tokio::time::Instant;

/// How long a batch may take up to its commit: a little more than the 4 s that its head may be waited for.
pub(super) const PREPARE_TIMEOUT: Duration = Duration::from_millis(4_500);

/// How long the answer to a commit is waited for. One that takes longer is looked up: with the 4 s that this may wait for the head, before the
/// callers' deadline of 10 s; and a connection that is half open does not keep everybody waiting for ever.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an end without a commit is waited for: nothing depends on it but the connection.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// Ends a batch. Without a limit of the server, which ends its own before it commits: a commit that was cut short while it waits for a
/// standby would look like one that is safe.
const COMMIT: &str = "COMMIT";

/// Why a batch was not answered with its outcomes.
#[derive(Debug)]
pub enum Failure<Done, Note> {
    /// Before the commit: nothing of it happened.
    Refused(Error),
    /// During the commit: it happened or it did not.
    CommitBroke {
        /// How it broke.
        error: sqlx::Error,
        /// What tells which.
        proof: Proof,
        /// What is answered if it happened.
        outcomes: Vec<Result<Done>>,
        /// What is noted if it happened.
        note: Note,
    },
}

impl<Done, Note> From<Error> for Failure<Done, Note> {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Waits for what has no effect before the commit: an answer that does not come (a frozen server, a cut cable) is waited for no
/// longer than the callers can be told the truth.
pub async fn by<T>(deadline: Instant, prepared: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout_at(deadline, prepared).await {
        Ok(prepared) => prepared,
        Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
    }
}

/// What came of a batch.
pub(super) struct Ended<D: Batcher> {
    /// An outcome for each item, in order.
    pub(super) outcomes: Vec<Result<D::Done>>,
    pub(super) note: D::Note,
    /// The last event that the outcomes rest on.
    pub(super) last: i64,
    /// Whether the connection may be used again.
    pub(super) is_usable: bool,
}

/// Waits for the answer to what commits. If it does not come or cannot be read, or came although the wait for a standby was
/// cancelled, it is not known what happened.
pub async fn committed<T, E: From<sqlx::Error>>(commit: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(COMMIT_TIMEOUT, panics::caught(db::confirmed(commit))).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panics::Panicked)) => {
            Err(sqlx::Error::Protocol("the answer to a commit could not be read".into()).into())
        }
        Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
    }
}

/// Runs a batch that has begun up to its commit. Events up to `confirmed` are known to last.
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
        // It tells what others did, and they may still wait for a standby, or have stopped waiting.
        End::Discard if last > confirmed && !items.is_empty() => {
            by(deadline, db::mark(conn)).await?;
            committed(conn.execute(COMMIT)).await
        }
        // What was decided does not depend on it; whether the connection may be used again does.
        End::Discard => return Ok(Ended { outcomes, note, last: confirmed, is_usable: roll_back(conn).await.is_ok() }),
        End::Done => {
            return Ok(Ended { outcomes, note, last: if proof.is_some() { last } else { confirmed }, is_usable: true });
        }
    };
    match (ended, proof) {
        (Ok(_), _) => Ok(Ended { outcomes, note, last, is_usable: true }),
        (Err(error), Some(proof)) => Err(Failure::CommitBroke { error, proof, outcomes, note }),
        // Nothing was decided that asking again would not decide alike.
        (Err(error), None) => Err(Failure::Refused(Error::Unavailable(error))),
    }
}

/// Undoes a refused batch on a connection that still answers.
pub(super) async fn roll_back(conn: &mut PgConnection) -> Result<()> {
    by(Instant::now() + ROLLBACK_TIMEOUT, async { Ok(conn.execute("ROLLBACK").await.map(drop)?) }).await
}

/// Confirms whatever was committed before, and gives the last event: what is read from here on lasts. Under the head, so that of
/// many who are not answered only one waits for a standby, and the others for a lock that has a limit.
pub(super) async fn confirm(conn: &mut PgConnection, stream: Stream) -> Result<i64> {
    let head = audit::begin(conn, stream).await?;
    db::mark(conn).await?;
    db::confirmed(conn.execute(COMMIT)).await?;
    Ok(head.seq())
}

/// Whether a batch was committed, and the last event; waits for its transaction to end. What has not begun yet, in a buffer on the
/// way, never will: the head counts up its revision, and finds nobody at the place where it was read. That it was committed is said once a
/// later commit is confirmed.
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
