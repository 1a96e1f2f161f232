//! SQL of the ledger's history: sums of the day rows. No event is read.

use super::columns::{engine, total};
use crate::error::Result;
use crate::types::{DaysRow, Engine, Total, WantedNames};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The current business day: the day of the believed time, or of the last event if that is later, for example just
/// after midnight or under a clock that went back.
pub async fn business_day(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<NaiveDate> {
    Ok(sqlx::query_scalar!(
        r#"SELECT (GREATEST($1::timestamptz, at) AT TIME ZONE 'UTC')::date AS "day!" FROM audit_head WHERE stream = 'risk'"#,
        now
    )
    .fetch_one(conn)
    .await?)
}

/// True if an engine has a policy, as each that ever reserved has, or had a denied reserve on these days.
pub async fn is_known(conn: &mut PgConnection, engine: &Engine, first: NaiveDate, last: NaiveDate) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM risk_policy WHERE engine = $1)
               OR EXISTS (SELECT FROM risk_denial_day WHERE engine = $1 AND day BETWEEN $2 AND $3) AS "known!""#,
        engine.as_str(),
        first,
        last
    )
    .fetch_one(conn)
    .await?)
}

/// The engines of each span of days: those with a policy, and those with a denied reserve on these days.
pub async fn engines_of(conn: &mut PgConnection, wanted: WantedNames<'_>) -> Result<Vec<DaysRow>> {
    let (first, last): (Vec<NaiveDate>, Vec<NaiveDate>) = wanted.days.iter().copied().unzip();
    Ok(sqlx::query_as!(
        DaysRow,
        r#"SELECT known.engine AS "name!",
                  span.first AS "first!",
                  span.last AS "last!"
           FROM unnest($1::date[], $2::date[]) WITH ORDINALITY AS span (first, last, place)
           CROSS JOIN LATERAL (
               SELECT engine FROM risk_policy
               UNION
               SELECT engine FROM risk_denial_day WHERE day BETWEEN span.first AND span.last) AS known
           WHERE span.place > 1 OR known.engine COLLATE "C" > $3
           ORDER BY span.place, known.engine COLLATE "C"
           LIMIT $4"#,
        &first,
        &last,
        wanted.after,
        wanted.limit
    )
    .fetch_all(conn)
    .await?)
}

/// A level of the ledger over days.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LedgerOfDays {
    /// The first UTC day that counts.
    pub from: NaiveDate,
    /// The last UTC day that counts.
    pub day: NaiveDate,
    /// The engine, or `GLOBAL`.
    pub engine: Engine,
    /// The amount reserved on these days, less the amounts that settles and releases of the same day gave back.
    pub exposure_used: Total,
    /// The outstanding amount at the end of the last day; now, if that day has not ended.
    pub open_risk_reserved: Total,
    /// The loss of these days.
    pub realized_loss: Total,
    /// The accepted reserves of these days.
    pub actions_count: i64,
    /// The denied reserves of this engine, at any level; for GLOBAL, of all engines.
    pub denied_count: i64,
    /// The denied reserves by first reason.
    pub denials_by_reason: BTreeMap<String, i64>,
}

/// The sums of each of these rows, in their order. Two statements, which reach each row of a day by its key.
pub async fn ledger_of(conn: &mut PgConnection, wanted: &[DaysRow]) -> Result<Vec<LedgerOfDays>> {
    let names: Vec<String> = wanted.iter().map(|row| row.name.clone()).collect();
    let first: Vec<NaiveDate> = wanted.iter().map(|row| row.first).collect();
    let last: Vec<NaiveDate> = wanted.iter().map(|row| row.last).collect();
    let mut denials = denials_of(&mut *conn, &names, &first, &last).await?;
    let rows = sqlx::query!(
        r#"SELECT span.place                         AS "place!",
                  span.engine                        AS "engine!",
                  span.first                         AS "first!",
                  span.last                          AS "last!",
                  flow.exposure                      AS exposure,
                  flow.loss                          AS loss,
                  COALESCE(flow.actions, 0)::bigint  AS "actions!",
                  -- The stock of the last day on which it moved is that of every later day.
                  CASE WHEN (stock.updated_at AT TIME ZONE 'UTC')::date <= span.last THEN stock.open_amount
                       ELSE (SELECT ended.open_amount
                             FROM risk_open_day AS ended
                             WHERE ended.engine = span.engine AND ended.day <= span.last
                             ORDER BY ended.day DESC
                             LIMIT 1)
                  END                                AS open
           FROM unnest($1::text[], $2::date[], $3::date[]) WITH ORDINALITY AS span (engine, first, last, place)
           LEFT JOIN risk_open AS stock ON stock.engine = span.engine
           LEFT JOIN LATERAL (
               SELECT sum(exposure_used) AS exposure, sum(realized_loss) AS loss, sum(actions_count) AS actions
               FROM generate_series(0, span.last - span.first) AS days (after)
               JOIN risk_ledger_day AS flow ON flow.day = span.first + days.after AND flow.engine = span.engine) AS flow ON true
           ORDER BY span.place"#,
        &names,
        &first,
        &last
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let denials_by_reason = denials.remove(&row.place).unwrap_or_default();
            Ok(LedgerOfDays {
                from: row.first,
                day: row.last,
                engine: engine(&row.engine)?,
                exposure_used: total(row.exposure)?,
                open_risk_reserved: total(row.open)?,
                realized_loss: total(row.loss)?,
                actions_count: row.actions,
                denied_count: denials_by_reason.values().sum(),
                denials_by_reason,
            })
        })
        .collect()
}

/// The denied reserves of each span by reason, by the place of the span from 1. GLOBAL's are those of all engines, which
/// include engines that never existed.
async fn denials_of(
    conn: &mut PgConnection,
    names: &[String],
    first: &[NaiveDate],
    last: &[NaiveDate],
) -> Result<BTreeMap<i64, BTreeMap<String, i64>>> {
    let rows = sqlx::query!(
        r#"SELECT span.place                AS "place!",
                  tally.reason              AS "reason!",
                  sum(tally.denied)::bigint AS "denied!"
           FROM unnest($1::text[], $2::date[], $3::date[]) WITH ORDINALITY AS span (engine, first, last, place)
           CROSS JOIN LATERAL (
               SELECT reason, denied
               FROM generate_series(0, span.last - span.first) AS days (after)
               JOIN risk_denial_day AS one ON one.day = span.first + days.after AND one.engine = span.engine
               WHERE span.engine <> 'GLOBAL'
               UNION ALL
               SELECT reason, denied
               FROM risk_denial_day
               WHERE span.engine = 'GLOBAL' AND day BETWEEN span.first AND span.last) AS tally
           GROUP BY span.place, tally.reason"#,
        names,
        first,
        last
    )
    .fetch_all(conn)
    .await?;
    let mut denials: BTreeMap<i64, BTreeMap<String, i64>> = BTreeMap::new();
    for row in rows {
        denials.entry(row.place).or_default().insert(row.reason, row.denied);
    }
    Ok(denials)
}
