//! What corrections have added to what an event booked.

use super::read::total;
use crate::error::Result;
use crate::risk::model::Movement;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// By the number of the corrected event: what all its corrections add to the day's loss and exposure.
pub type Corrected = BTreeMap<i64, Movement>;

/// What these events were corrected by until now.
pub async fn corrected(conn: &mut PgConnection, seqs: &[i64]) -> Result<Corrected> {
    let rows =
        sqlx::query!("SELECT corrects_seq, loss, exposure FROM risk_correction WHERE corrects_seq = ANY($1)", seqs)
            .fetch_all(conn)
            .await?;
    rows.into_iter()
        .map(|row| {
            let movement =
                Movement { loss: total(Some(row.loss))?, exposure: total(Some(row.exposure))?, ..Movement::default() };
            Ok((row.corrects_seq, movement))
        })
        .collect()
}

/// Writes what they were corrected by, with what a batch adds.
pub(super) async fn write(conn: &mut PgConnection, corrected: &Corrected) -> Result<()> {
    sqlx::query!(
        "INSERT INTO risk_correction (corrects_seq, loss, exposure)
         SELECT c.seq, c.loss, c.exposure
         FROM unnest($1::bigint[], $2::numeric[], $3::numeric[]) AS c (seq, loss, exposure)
         ON CONFLICT (corrects_seq) DO UPDATE
         SET loss = excluded.loss, exposure = excluded.exposure",
        &corrected.keys().copied().collect::<Vec<_>>(),
        &corrected.values().map(|one| one.loss.to_decimal()).collect::<Vec<_>>(),
        &corrected.values().map(|one| one.exposure.to_decimal()).collect::<Vec<_>>()
    )
    .execute(conn)
    .await?;
    Ok(())
}
