//! SQL of the reconciliation: the counters, the sums of the rows, and the repair of a counter.

use super::columns::total;
use crate::audit::{self, Stream};
use crate::error::Result;
use crate::risk::reconcile::Difference;
use crate::types::Total;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// The flows of an engine's day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// The reserved amount, less the returned one.
    pub exposure: Total,
    /// The loss of the day.
    pub loss: Total,
    /// The accepted reserves.
    pub actions_count: i64,
}

impl Flow {
    /// The sum of both. A sum beyond the largest total is shown as a value that no counter has.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            exposure: self.exposure.plus(other.exposure).unwrap_or_default(),
            loss: self.loss.plus(other.loss).unwrap_or_default(),
            actions_count: self.actions_count.saturating_add(other.actions_count),
        }
    }

    /// The count as a total, to show it beside the others.
    #[must_use]
    pub fn actions(&self) -> Total {
        Total::from_units(i128::from(self.actions_count) * 1_000_000).unwrap_or_default()
    }
}

/// The business day, the last event, and since when the book is halted.
pub async fn reconciled_at(conn: &mut PgConnection) -> Result<(NaiveDate, i64, Option<DateTime<Utc>>)> {
    let row = sqlx::query!(
        r#"SELECT (GREATEST(holdfast_now(), at) AT TIME ZONE 'UTC')::date AS "day!",
                  seq,
                  (SELECT at FROM risk_halt) AS "halted_at?"
           FROM audit_head
           WHERE stream = 'risk'"#
    )
    .fetch_one(conn)
    .await?;
    Ok((row.day, row.seq, row.halted_at))
}

/// The first event that may be of a day.
pub async fn first_of(conn: &mut PgConnection, day: NaiveDate) -> Result<i64> {
    Ok(audit::between(conn, Stream::Risk, Some(day.and_time(NaiveTime::MIN).and_utc()), None).await?.0)
}

/// The movements of the events behind `after`, up to `to`, by engine: the flows of a day, and of the stock those of every day.
pub async fn sum_events(
    conn: &mut PgConnection,
    day: NaiveDate,
    after: i64,
    to: i64,
) -> Result<Vec<(String, Flow, Total)>> {
    let rows = sqlx::query!(
        r#"SELECT engine,
                  COALESCE(sum(exposure_delta) FILTER (WHERE day = $1), 0)        AS "exposure!",
                  COALESCE(sum(loss_delta) FILTER (WHERE day = $1), 0)            AS "loss!",
                  COALESCE(sum(actions_delta) FILTER (WHERE day = $1), 0)::bigint AS "actions!",
                  sum(open_delta)                                                 AS "open!"
           FROM risk_event
           WHERE seq > $2 AND seq <= $3
           GROUP BY engine"#,
        day,
        after,
        to
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let (exposure, loss) = (total(Some(row.exposure))?, total(Some(row.loss))?);
            Ok((row.engine, Flow { exposure, loss, actions_count: row.actions }, total(Some(row.open))?))
        })
        .collect()
}

/// The sum of the open reservations, by engine.
pub async fn sum_open(conn: &mut PgConnection) -> Result<BTreeMap<String, Total>> {
    let held = sqlx::query!(
        r#"SELECT engine,
                  sum(open_amount) AS "open!"
           FROM risk_reservation
           WHERE status = 'OPEN'
           GROUP BY engine"#
    )
    .fetch_all(conn)
    .await?;
    held.into_iter().map(|row| Ok((row.engine, total(Some(row.open))?))).collect()
}

/// The counters of the ledger: what is outstanding, and the flows of a day, by engine.
pub async fn recorded(
    conn: &mut PgConnection,
    day: NaiveDate,
) -> Result<(BTreeMap<String, Total>, BTreeMap<String, Flow>)> {
    let stocks = sqlx::query!("SELECT engine, open_amount FROM risk_open").fetch_all(&mut *conn).await?;
    let flows = sqlx::query!(
        "SELECT engine,
                exposure_used,
                realized_loss,
                actions_count
         FROM risk_ledger_day
         WHERE day = $1",
        day
    )
    .fetch_all(conn)
    .await?;
    let stocks = stocks.into_iter().map(|row| Ok((row.engine, total(Some(row.open_amount))?)));
    let flows = flows.into_iter().map(|row| {
        let (exposure, loss) = (total(Some(row.exposure_used))?, total(Some(row.realized_loss))?);
        Ok((row.engine, Flow { exposure, loss, actions_count: row.actions_count }))
    });
    Ok((stocks.collect::<Result<_>>()?, flows.collect::<Result<_>>()?))
}

/// Refuses new reserves from now on.
pub async fn halt(conn: &mut PgConnection, at: DateTime<Utc>, differences: &str) -> Result<()> {
    sqlx::query!("INSERT INTO risk_halt (at, differences) VALUES ($1, $2)", at, differences).execute(conn).await?;
    Ok(())
}

/// Lets reserves resume.
pub async fn lift_halt(conn: &mut PgConnection) -> Result<()> {
    sqlx::query!("DELETE FROM risk_halt").execute(conn).await?;
    Ok(())
}

/// Sets a counter to the sum of its rows.
pub async fn set_counter(
    conn: &mut PgConnection,
    day: NaiveDate,
    difference: &Difference,
    at: DateTime<Utc>,
) -> Result<()> {
    let Difference { engine, counter, computed, .. } = difference;
    let value = computed.to_decimal();
    if *counter == "open_risk_reserved" {
        sqlx::query!(
            "INSERT INTO risk_open (engine, open_amount, updated_at)
             VALUES ($1, $2, $3)
             ON CONFLICT (engine) DO UPDATE
             SET open_amount = excluded.open_amount, updated_at = excluded.updated_at",
            engine,
            value,
            at
        )
        .execute(conn)
        .await?;
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO risk_ledger_day (day, engine, exposure_used, realized_loss, actions_count, updated_at)
         VALUES ($1, $2, CASE WHEN $3 = 'exposure_used' THEN $4::numeric ELSE 0 END,
                 CASE WHEN $3 = 'realized_loss' THEN $4::numeric ELSE 0 END,
                 CASE WHEN $3 = 'actions_count' THEN $4::numeric::bigint ELSE 0 END, $5)
         ON CONFLICT (day, engine) DO UPDATE
         SET exposure_used = CASE WHEN $3 = 'exposure_used' THEN $4::numeric ELSE risk_ledger_day.exposure_used END,
             realized_loss = CASE WHEN $3 = 'realized_loss' THEN $4::numeric ELSE risk_ledger_day.realized_loss END,
             actions_count = CASE WHEN $3 = 'actions_count' THEN $4::numeric::bigint ELSE risk_ledger_day.actions_count END,
             updated_at = excluded.updated_at",
        day,
        engine,
        *counter,
        value,
        at
    )
    .execute(conn)
    .await?;
    Ok(())
}
