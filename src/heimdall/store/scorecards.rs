//! The SQL of the sums of trials: one row per domain and day, and one more for each model version that a trial named.

use super::domain;
use crate::audit::Stamp;
use crate::error::{Error, Result};
use crate::heimdall::model::{Scorecard, Span, Tally};
use crate::types::{Confidence, DaysRow, Domain, ModelVersion, WantedNames};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

/// The decimals of a sum of confidences as it is read; the sum of their squares is rounded to the same number.
const CONFIDENCE_SCALE: u32 = 18;

/// A trial to add to the sums.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// Its domain.
    pub domain: &'a Domain,
    /// The version of the model that was tried; none if the report names none.
    pub model_version: Option<&'a ModelVersion>,
    /// The confidence that the model stated.
    pub confidence: Confidence,
    /// Whether the model was right.
    pub success: bool,
}

/// A row of sums.
struct Sums {
    trials: i64,
    successes: i64,
    confidence: Option<Decimal>,
    square: Option<Decimal>,
    success: Option<Decimal>,
}

impl Sums {
    fn tally(self) -> Result<Tally> {
        let units = |sum: Option<Decimal>| {
            let sum = sum.unwrap_or_default().normalize();
            CONFIDENCE_SCALE
                .checked_sub(sum.scale())
                .and_then(|shift| sum.mantissa().checked_mul(10_i128.pow(shift)))
                .ok_or_else(|| Error::Inconsistent(format!("{sum} is not a sum of confidences")))
        };
        Ok(Tally {
            trials: self.trials,
            successes: self.successes,
            confidence_sum: units(self.confidence)?,
            square_sum: units(self.square)?,
            success_sum: units(self.success)?,
        })
    }
}

/// Adds a trial to the sums of its day, and returns the domain's sums of the day. One statement, two if the trial names
/// a version.
pub async fn count_trial(conn: &mut PgConnection, trial: Trial<'_>, stamp: Stamp) -> Result<Tally> {
    let (name, confidence) = (trial.domain.as_str(), trial.confidence.to_decimal());
    if let Some(version) = trial.model_version {
        sqlx::query!(
            "INSERT INTO heimdall_scorecard_version AS card
                 (domain, model_version, day, trials, successes, confidence_sum, confidence_square_sum, confidence_success_sum,
                  updated_at)
             VALUES ($1, $2, $3, 1, $4::boolean::int, $5::numeric, $5 * $5, $5 * $4::boolean::int, $6)
             ON CONFLICT (domain, model_version, day) DO UPDATE
             SET trials = card.trials + 1,
                 successes = card.successes + excluded.successes,
                 confidence_sum = card.confidence_sum + excluded.confidence_sum,
                 confidence_square_sum = card.confidence_square_sum + excluded.confidence_square_sum,
                 confidence_success_sum = card.confidence_success_sum + excluded.confidence_success_sum,
                 updated_at = excluded.updated_at",
            name,
            version.as_str(),
            stamp.day(),
            trial.success,
            confidence,
            stamp.at
        )
        .execute(&mut *conn)
        .await?;
    }
    let row = sqlx::query!(
        r#"INSERT INTO heimdall_scorecard_day AS card
               (day, domain, trials, successes, confidence_sum, confidence_square_sum, confidence_success_sum, updated_at)
           VALUES ($1, $2, 1, $3::boolean::int, $4::numeric, $4 * $4, $4 * $3::boolean::int, $5)
           ON CONFLICT (day, domain) DO UPDATE
           SET trials = card.trials + 1,
               successes = card.successes + excluded.successes,
               confidence_sum = card.confidence_sum + excluded.confidence_sum,
               confidence_square_sum = card.confidence_square_sum + excluded.confidence_square_sum,
               confidence_success_sum = card.confidence_success_sum + excluded.confidence_success_sum,
               updated_at = excluded.updated_at
           RETURNING trials,
                     successes,
                     confidence_sum,
                     round(confidence_square_sum, 18) AS square,
                     confidence_success_sum"#,
        stamp.day(),
        name,
        trial.success,
        confidence,
        stamp.at
    )
    .fetch_one(conn)
    .await?;
    Sums {
        trials: row.trials,
        successes: row.successes,
        confidence: Some(row.confidence_sum),
        square: row.square,
        success: Some(row.confidence_success_sum),
    }
    .tally()
}

/// The sums of the trials of these spans, and the time of each last trial, in the order of the spans. One statement.
pub async fn read_tallies(conn: &mut PgConnection, spans: &[Span]) -> Result<Vec<(Tally, Option<DateTime<Utc>>)>> {
    let names: Vec<String> = spans.iter().map(|span| span.domain.to_string()).collect();
    let versions: Vec<Option<String>> =
        spans.iter().map(|span| span.model_version.as_ref().map(ToString::to_string)).collect();
    let first: Vec<NaiveDate> = spans.iter().map(|span| span.from).collect();
    let last: Vec<NaiveDate> = spans.iter().map(|span| span.day).collect();
    let rows = sqlx::query!(
        r#"SELECT COALESCE(sum(card.trials), 0)::bigint         AS "trials!",
                  COALESCE(sum(card.successes), 0)::bigint      AS "successes!",
                  sum(card.confidence_sum)                      AS confidence,
                  round(sum(card.confidence_square_sum), 18)    AS square,
                  sum(card.confidence_success_sum)              AS success,
                  max(card.updated_at)                          AS updated_at
           FROM unnest($1::text[], $2::text[], $3::date[], $4::date[]) WITH ORDINALITY
                AS span (domain, model_version, first, last, place)
           LEFT JOIN LATERAL (
               SELECT trials, successes, confidence_sum, confidence_square_sum, confidence_success_sum, updated_at
               FROM heimdall_scorecard_day AS day
               WHERE span.model_version IS NULL AND day.domain = span.domain AND day.day BETWEEN span.first AND span.last
               UNION ALL
               SELECT trials, successes, confidence_sum, confidence_square_sum, confidence_success_sum, updated_at
               FROM heimdall_scorecard_version AS version
               WHERE version.domain = span.domain AND version.model_version = span.model_version
                 AND version.day BETWEEN span.first AND span.last
           ) AS card ON true
           GROUP BY span.place
           ORDER BY span.place"#,
        &names,
        &versions as &[Option<String>],
        &first,
        &last
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let sums = Sums {
                trials: row.trials,
                successes: row.successes,
                confidence: row.confidence,
                square: row.square,
                success: row.success,
            };
            Ok((sums.tally()?, row.updated_at))
        })
        .collect()
}

/// The sums of the trials of a span, and the time of the last one.
pub async fn read_tally(conn: &mut PgConnection, span: &Span) -> Result<(Tally, Option<DateTime<Utc>>)> {
    let only = read_tallies(conn, std::slice::from_ref(span)).await?.pop();
    only.ok_or_else(|| Error::Inconsistent("a sum over trials has no row".into()))
}

/// The scorecards of a day: one for every policy, and for every other domain that has trials.
pub async fn scorecards_today(conn: &mut PgConnection, day: NaiveDate) -> Result<Vec<Scorecard>> {
    let names = sqlx::query_scalar!(
        r#"SELECT domain AS "domain!"
           FROM (SELECT domain FROM heimdall_policy UNION SELECT domain FROM heimdall_scorecard_day WHERE day = $1) AS known
           ORDER BY 1"#,
        day
    )
    .fetch_all(&mut *conn)
    .await?;
    let spans: Vec<Span> = names.iter().map(|name| Ok(Span::of_day(domain(name)?, day))).collect::<Result<Vec<_>>>()?;
    scorecards_of(conn, spans).await
}

/// The scorecard of each span.
pub async fn scorecards_of(conn: &mut PgConnection, spans: Vec<Span>) -> Result<Vec<Scorecard>> {
    let tallies = read_tallies(conn, &spans).await?;
    Ok(spans.into_iter().zip(tallies).map(|(span, (tally, at))| Scorecard::new(span, tally, at)).collect())
}

/// True if a domain has a policy, or ever had a trial.
pub async fn is_known(conn: &mut PgConnection, domain: &Domain) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM heimdall_policy WHERE domain = $1)
               OR EXISTS (SELECT FROM heimdall_scorecard_day WHERE domain = $1) AS "known!""#,
        domain.as_str()
    )
    .fetch_one(conn)
    .await?)
}

/// The domains of each span of days: those with a policy, and those with trials on these days.
pub async fn domains_of(conn: &mut PgConnection, wanted: WantedNames<'_>) -> Result<Vec<DaysRow>> {
    let (first, last): (Vec<NaiveDate>, Vec<NaiveDate>) = wanted.days.iter().copied().unzip();
    Ok(sqlx::query_as!(
        DaysRow,
        r#"SELECT known.domain AS "name!",
                  span.first AS "first!",
                  span.last AS "last!"
           FROM unnest($1::date[], $2::date[]) WITH ORDINALITY AS span (first, last, place)
           CROSS JOIN LATERAL (
               SELECT domain FROM heimdall_policy
               UNION
               SELECT domain FROM heimdall_scorecard_day WHERE day BETWEEN span.first AND span.last) AS known
           WHERE span.place > 1 OR known.domain COLLATE "C" > $3
           ORDER BY span.place, known.domain COLLATE "C"
           LIMIT $4"#,
        &first,
        &last,
        wanted.after,
        wanted.limit
    )
    .fetch_all(conn)
    .await?)
}

/// All trials of a row of a history.
pub fn trials_of(row: &DaysRow) -> Result<Span> {
    Ok(Span { domain: domain(&row.name)?, from: row.first, day: row.last, model_version: None })
}

/// The trials and successes of all domains since a day, for the review.
pub async fn trials_since(conn: &mut PgConnection, day: NaiveDate) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"SELECT COALESCE(sum(trials), 0)::bigint    AS "trials!",
                  COALESCE(sum(successes), 0)::bigint AS "successes!"
           FROM heimdall_scorecard_day
           WHERE day >= $1"#,
        day
    )
    .fetch_one(conn)
    .await?;
    Ok((row.trials, row.successes))
}

/// The number of domains with trials on a day.
pub async fn domains_tried(conn: &mut PgConnection, day: NaiveDate) -> Result<usize> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM heimdall_scorecard_day WHERE day = $1"#, day)
        .fetch_one(conn)
        .await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}
