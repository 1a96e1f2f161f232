//! The correlation ids that were ever used, and by whom: an original settle with such an id matches only its own
//! reservations.

use crate::error::Result;
use crate::risk::operation::Submission;
use crate::types::{CorrelationId, Engine};
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// A correlation id that a caller uses with an engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Correlation {
    /// The correlation id itself.
    pub id: String,
    /// The engine of the operation.
    pub engine: Engine,
    /// The caller of the operation.
    pub principal: String,
}

impl Correlation {
    /// The correlation id of an operation on an engine, if it names one.
    pub fn of(item: &Submission, engine: &Engine) -> Option<Self> {
        let id = item.origin.correlation_id.as_ref().map(CorrelationId::as_str)?.to_owned();
        Some(Self { id, engine: engine.clone(), principal: item.origin.principal.as_str().to_owned() })
    }
}

/// Correlation ids of reserves, accepted or denied: on an engine, or of a caller on any engine. A stranger's use on
/// another engine does not count.
#[derive(Debug, Default)]
pub struct UsedCorrelations {
    of_engines: BTreeSet<(String, Engine)>,
    of_callers: BTreeSet<(String, String)>,
}

impl UsedCorrelations {
    /// Adds the id of a reserve, accepted or denied.
    pub fn add(&mut self, correlation: Correlation) {
        self.of_engines.insert((correlation.id.clone(), correlation.engine));
        self.of_callers.insert((correlation.id, correlation.principal));
    }

    /// True if its engine or its caller used it.
    #[must_use]
    pub fn contains(&self, correlation: &Correlation) -> bool {
        self.of_engines.contains(&(correlation.id.clone(), correlation.engine.clone()))
            || self.of_callers.contains(&(correlation.id.clone(), correlation.principal.clone()))
    }

    /// The requested ids that were used.
    pub async fn read(conn: &mut PgConnection, asked: &[Correlation]) -> Result<Self> {
        let mut used = Self::default();
        if asked.is_empty() {
            return Ok(used);
        }
        let texts =
            |column: fn(&Correlation) -> &str| asked.iter().map(|one| column(one).to_owned()).collect::<Vec<_>>();
        let rows = sqlx::query!(
            r#"SELECT asked.correlation_id AS "correlation_id!",
                      asked.engine AS "engine!",
                      asked.principal AS "principal!",
                      EXISTS (SELECT FROM risk_reservation AS held
                              WHERE held.correlation_id = asked.correlation_id AND held.engine = asked.engine)
                      OR EXISTS (SELECT FROM risk_event AS denial
                                 WHERE denial.correlation_id = asked.correlation_id AND denial.engine = asked.engine
                                   AND denial.action = 'DENY') AS "of_engine!",
                      EXISTS (SELECT FROM risk_event AS denial
                              WHERE denial.correlation_id = asked.correlation_id AND denial.principal = asked.principal
                                AND denial.action = 'DENY')
                      -- Strangers may have made any number of them.
                      OR EXISTS (SELECT FROM (SELECT seq FROM risk_reservation WHERE correlation_id = asked.correlation_id LIMIT 1000) AS held
                                 LEFT JOIN risk_event AS made ON made.seq = held.seq
                                 -- An archived reserve may have been this caller's.
                                 WHERE made.principal = asked.principal OR made.seq IS NULL) AS "of_caller!"
               FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (correlation_id, engine, principal)"#,
            &texts(|one| &one.id),
            &texts(|one| one.engine.as_str()),
            &texts(|one| &one.principal)
        )
        .fetch_all(conn)
        .await?;
        for row in rows {
            if row.of_engine {
                used.of_engines.insert((row.correlation_id.clone(), super::columns::engine(&row.engine)?));
            }
            if row.of_caller {
                used.of_callers.insert((row.correlation_id, row.principal));
            }
        }
        Ok(used)
    }
}
