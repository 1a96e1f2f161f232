//! The numbers of the period and of the week before it, from the rows of the days alone.

use crate::error::Result;
use crate::heimdall::model::{Scorecard, Span};
use crate::risk;
use crate::risk::store::{Denied, LedgerOfDays};
use crate::types::{DaysRow, Engine, WantedNames};
use chrono::{Days, NaiveDate};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// The numbers of some days.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Week {
    /// The first UTC day.
    pub from: NaiveDate,
    /// The last UTC day.
    pub day: NaiveDate,
    /// The ledger of each level with a policy, by engine.
    pub ledger: Vec<LedgerOfDays>,
    /// The sandbox trials of each domain, by domain.
    pub scorecards: Vec<Scorecard>,
}

impl Week {
    /// The reserves that were accepted and denied, and the trials and their successes.
    pub(super) fn counts(&self) -> Counts {
        let global = self.ledger.iter().find(|row| row.engine.is_global());
        Counts {
            reserved: global.map_or(0, |row| row.actions_count),
            denied: global.map_or(0, |row| row.denied_count),
            trials: self.scorecards.iter().map(|card| card.trials).sum(),
            successes: self.scorecards.iter().map(|card| card.successes).sum(),
        }
    }
}

/// The numbers from which the objectives of a week are computed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) reserved: i64,
    pub(super) denied: i64,
    pub(super) trials: i64,
    pub(super) successes: i64,
}

/// The days from a Monday to today, and the week before that Monday. Both have the same engines and domains.
pub(super) async fn weeks(
    conn: &mut PgConnection,
    engines: &[Engine],
    since: NaiveDate,
    today: NaiveDate,
) -> Result<(Week, Week)> {
    let (before, end) = before(since);
    let all = WantedNames { days: &[(before, today)], after: "", limit: i64::MAX };
    let domains = crate::heimdall::store::domains_of(&mut *conn, all).await?;
    let week = read(&mut *conn, engines, &domains, since, today).await?;
    Ok((week, read(conn, engines, &domains, before, end).await?))
}

/// The first and the last day of the week before a day.
fn before(since: NaiveDate) -> (NaiveDate, NaiveDate) {
    let earlier = |days| since.checked_sub_days(Days::new(days)).unwrap_or(since);
    (earlier(7), earlier(1))
}

async fn read(
    conn: &mut PgConnection,
    engines: &[Engine],
    domains: &[DaysRow],
    first: NaiveDate,
    last: NaiveDate,
) -> Result<Week> {
    let levels: Vec<DaysRow> = engines.iter().map(|engine| DaysRow { name: engine.to_string(), first, last }).collect();
    let ledger = risk::store::ledger_of(&mut *conn, &levels).await?;
    let of_these = |domain: &DaysRow| crate::heimdall::store::trials_of(&DaysRow { first, last, ..domain.clone() });
    let trials: Vec<Span> = domains.iter().map(of_these).collect::<Result<_>>()?;
    let scorecards = crate::heimdall::store::scorecards_of(conn, trials).await?;
    Ok(Week { from: first, day: last, ledger, scorecards })
}

/// The most frequent pairs of engine and reason for which reserves were denied since a day, at most `limit`, and the
/// number of further pairs.
pub(super) async fn denials(
    conn: &mut PgConnection,
    since: NaiveDate,
    today: NaiveDate,
    limit: usize,
) -> Result<(Vec<Denied>, usize)> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let (denials, pairs) = risk::store::worst_denials(conn, (since, today), before(since), limit).await?;
    let more = usize::try_from(pairs).unwrap_or(usize::MAX).saturating_sub(denials.len());
    Ok((denials, more))
}

/// A row of the period beside that of the week before.
pub(super) struct Beside<'a, T>(pub(super) &'a T, pub(super) Option<&'a T>);

impl<T> Beside<'_, T> {
    /// A number of both, as the review's text shows it.
    pub(super) fn show<N: Default + std::fmt::Display>(&self, number: impl Fn(&T) -> N) -> String {
        beside(&number(self.0), &self.1.map(number).unwrap_or_default())
    }
}

/// A number and that of the week before, unless both are 0.
pub(super) fn beside(now: &impl std::fmt::Display, before: &impl std::fmt::Display) -> String {
    let (now, before) = (now.to_string(), before.to_string());
    if now == "0" && before == "0" { now } else { format!("{now} (week before: {before})") }
}
