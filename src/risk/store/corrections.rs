//! The sums of the corrections of events.

use super::columns::total;
use crate::error::{Error, Result};
use crate::risk::model::Movement;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// An event with its corrections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Corrected {
    /// The sum of the corrections that name the event; for an original event, of all corrections that go back to it.
    pub added: Movement,
    /// For a correction, the original event that it goes back to; none for an original event.
    pub root: Option<i64>,
}

/// These events and their roots, with the corrections so far.
pub async fn corrected(conn: &mut PgConnection, seqs: &[i64]) -> Result<BTreeMap<i64, Corrected>> {
    if seqs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        "SELECT corrects_seq, loss, exposure, root
         FROM risk_correction
         WHERE corrects_seq = ANY($1) OR corrects_seq IN (SELECT root FROM risk_correction WHERE corrects_seq = ANY($1))",
        seqs
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let (exposure, loss) = (total(Some(row.exposure))?, total(Some(row.loss))?);
            Ok((
                row.corrects_seq,
                Corrected { added: Movement { exposure, loss, ..Movement::default() }, root: row.root },
            ))
        })
        .collect()
}

pub(super) async fn write(conn: &mut PgConnection, corrected: &BTreeMap<i64, Corrected>) -> Result<()> {
    let done = sqlx::query!(
        "INSERT INTO risk_correction (corrects_seq, loss, exposure, root)
         SELECT c.seq, c.loss, c.exposure, c.root
         FROM unnest($1::bigint[], $2::numeric[], $3::numeric[], $4::bigint[]) AS c (seq, loss, exposure, root)
         ON CONFLICT (corrects_seq) DO UPDATE
         SET loss = excluded.loss, exposure = excluded.exposure",
        &corrected.keys().copied().collect::<Vec<_>>(),
        &corrected.values().map(|one| one.added.loss.to_decimal()).collect::<Vec<_>>(),
        &corrected.values().map(|one| one.added.exposure.to_decimal()).collect::<Vec<_>>(),
        &corrected.values().map(|one| one.root).collect::<Vec<_>>() as &[Option<i64>]
    )
    .execute(conn)
    .await?;
    if usize::try_from(done.rows_affected()).ok() == Some(corrected.len()) {
        return Ok(());
    }
    Err(Error::Inconsistent(format!("{} of {} corrected events were written", done.rows_affected(), corrected.len())))
}
