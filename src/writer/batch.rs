//! One batch from begin to commit.

use super::{Decider, Prepared, Proof};
use crate::audit::{self, Stream};
use crate::error::{Error, Result};
use sqlx::{Executor, PgConnection};
use std::time::Duration;

/// How long a batch may take up to its commit: a little more than the 4 s that its head may be waited for.
const PREPARE_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Ends a batch. Without a limit: a commit that was cut short while it waits for a standby would look like one that is safe.
const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// Why a batch was not answered with its outcomes.
#[derive(Debug)]
pub(super) enum Failure<Done, Note> {
    /// Before the commit: nothing of it happened.
    Refused(Error),
    /// During the commit: it happened or it did not.
    CommitBroke { error: sqlx::Error, proof: Proof, outcomes: Vec<Result<Done>>, note: Note },
}

/// What came of a batch: an outcome for each item, in order, and its note.
type Ended<D> = (Vec<Result<<D as Decider>::Done>>, <D as Decider>::Note);

/// Runs a batch from begin to commit.
pub(super) async fn run<D: Decider>(
    decider: &mut D,
    conn: &mut PgConnection,
    items: &[&D::Item],
) -> Result<Ended<D>, Failure<D::Done, D::Note>> {
    // Until the commit nothing has happened: an answer that does not come (a frozen server, a cut cable) is waited for no
    // longer than the callers can be told the truth.
    let prepared = tokio::time::timeout(PREPARE_TIMEOUT, decider.prepare(conn, items)).await;
    let Prepared { outcomes, proof, writes, note } = match prepared {
        Ok(prepared) => prepared.map_err(Failure::Refused)?,
        Err(_) => return Err(Failure::Refused(Error::Unavailable(sqlx::Error::PoolTimedOut))),
    };
    if !writes {
        conn.execute("ROLLBACK").await.map_err(|error| Failure::Refused(error.into()))?;
        return Ok((outcomes, note));
    }
    match (conn.execute(COMMIT).await, proof) {
        (Ok(_), _) => Ok((outcomes, note)),
        (Err(error), Some(proof)) => Err(Failure::CommitBroke { error, proof, outcomes, note }),
        // Nothing was decided that asking again would not decide alike.
        (Err(error), None) => Err(Failure::Refused(Error::Unavailable(error))),
    }
}

/// Undoes a refused batch on a connection that still answers.
pub(super) async fn roll_back(conn: &mut PgConnection) -> Result<()> {
    conn.execute("ROLLBACK").await?;
    Ok(())
}

/// Whether a batch was committed; waits for its transaction to end.
pub(super) async fn is_committed(conn: &mut PgConnection, stream: Stream, proof: &Proof) -> Result<bool> {
    audit::begin(conn, stream).await?;
    let stands = audit::verify::point(conn, stream, proof.seq).await;
    conn.execute("ROLLBACK").await?;
    match stands {
        Ok(point) => Ok(point.hash[..] == proof.hash[..]),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
