//! SQL of idempotency keys.

use super::key::{Answer, Fields, Intent, Kept, oldest};
use crate::audit::Stamp;
use crate::error::{Error, Result};
use chrono::NaiveDate;
use sqlx::PgConnection;

/// The kept keys of these intents, each with its index in the list; unknown keys are left out. A key that expired and
/// was used again occurs twice, with the later day last.
pub(crate) async fn find(conn: &mut PgConnection, intents: &[&Intent], today: NaiveDate) -> Result<Vec<(usize, Kept)>> {
    let keys: Vec<String> = intents.iter().map(|intent| intent.key.clone()).collect();
    let principals: Vec<String> = intents.iter().map(|intent| intent.principal.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"SELECT asked.place AS "place!",
                  kept.day,
                  kept.route,
                  kept.fields,
                  kept.risk_seq,
                  kept.answer,
                  kept.waits
           FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (key, principal, place)
           JOIN idempotency_key AS kept ON kept.key = asked.key AND kept.principal = asked.principal
           WHERE kept.day >= $3
           ORDER BY kept.day"#,
        &keys,
        &principals,
        oldest(today)
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let answer = match (row.risk_seq, row.answer) {
                (Some(seq), _) => Answer::RiskEvent(seq),
                (None, Some(text)) if row.waits => Answer::Waiting(text),
                (None, Some(text)) => Answer::Text(text),
                (None, None) => return Err(Error::Inconsistent(format!("a key of {} has no answer", row.route))),
            };
            let place = usize::try_from(row.place - 1).map_err(|_| Error::Inconsistent("a place below 1".into()))?;
            Ok((place, Kept { day: row.day, route: row.route, fields: Fields::from_text(&row.fields)?, answer }))
        })
        .collect()
}

/// Keeps one answer. A key that another route has taken meanwhile is refused.
pub(crate) async fn insert(conn: &mut PgConnection, intent: &Intent, stamp: Stamp, answer: &Answer) -> Result<()> {
    let (risk_seq, text, waits) = match answer {
        Answer::RiskEvent(seq) => (Some(*seq), None, false),
        Answer::Text(text) => (None, Some(text), false),
        Answer::Waiting(text) => (None, Some(text), true),
    };
    let inserted = sqlx::query!(
        "INSERT INTO idempotency_key (day, principal, key, route, fields, risk_seq, answer, waits, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT DO NOTHING",
        stamp.day(),
        intent.principal.as_str(),
        intent.key,
        intent.route,
        intent.fields.to_text(),
        risk_seq,
        text,
        waits,
        stamp.at
    )
    .execute(conn)
    .await?;
    if inserted.rows_affected() == 1 { Ok(()) } else { Err(taken(intent)) }
}

/// The refusal of a key that another route took while this operation was decided.
fn taken(intent: &Intent) -> Error {
    Error::IdempotencyKeyReused { key: intent.key.clone(), fields: vec!["route".to_owned()] }
}

/// The keys of a batch of ledger decisions, column by column.
#[derive(Debug, Default)]
pub struct NewKeys {
    pub(crate) principals: Vec<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) routes: Vec<String>,
    /// The digests of the inputs.
    pub(crate) fields: Vec<String>,
    /// The events that have the answers.
    pub(crate) seqs: Vec<i64>,
    /// The times of those events.
    pub(crate) ats: Vec<chrono::DateTime<chrono::Utc>>,
}

impl NewKeys {
    pub(crate) fn push(&mut self, intent: &Intent, stamp: Stamp) {
        self.principals.push(intent.principal.as_str().to_owned());
        self.keys.push(intent.key.clone());
        self.routes.push(intent.route.clone());
        self.fields.push(intent.fields.to_text());
        self.seqs.push(stamp.seq);
        self.ats.push(stamp.at);
    }

    /// The error of the statement that keeps them, with a name if another route has taken one of them.
    pub(crate) fn refused(&self, error: sqlx::Error) -> Error {
        let is_key = |error: &dyn sqlx::error::DatabaseError| {
            error.is_unique_violation() && error.table().is_some_and(|table| table.starts_with("idempotency_key"))
        };
        if !error.as_database_error().is_some_and(is_key) {
            return error.into();
        }
        let key = self.keys.first().cloned().unwrap_or_default();
        Error::IdempotencyKeyReused { key, fields: vec!["route".to_owned()] }
    }
}
