//! The SQL that only the review needs.

use super::blind::{BlindWire, Series};
use super::required::Lacking;
use crate::audit::{self, Stream};
use crate::error::{Error, Result};
use crate::go_live::model::GoLiveState;
use crate::regression::{self, model::series_name};
use crate::risk::model::RiskPolicy;
use crate::types::{ControlAction, Total};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The number of control events since a time.
pub(super) async fn count_changes(conn: &mut PgConnection, since: DateTime<Utc>) -> Result<usize> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM control_event WHERE at >= $1"#, since)
        .fetch_one(conn)
        .await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// The most series that are read.
const SERIES_MAX: usize = 1_000;

/// The series that were ever measured, by name.
pub async fn series(conn: &mut PgConnection) -> Result<Vec<Series>> {
    let pairs = regression::store::read_series(&mut *conn, SERIES_MAX).await?;
    let ends = regression::store::read_ends(conn, &pairs).await?;
    let series = ends.into_iter().filter_map(|((domain, metric), end)| {
        end.at.map(|last_at| Series { domain, metric, events: end.mark.events, last_at })
    });
    Ok(series.collect())
}

/// The old open holds of an engine that never expire.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OldHolds {
    /// The engine.
    pub engine: String,
    /// The number of holds, 1 to 1000.
    pub holds: i64,
    /// True if there are more than 1000; the other numbers are then of the oldest 1000.
    pub more: bool,
    /// The sum of their open amounts.
    pub open_amount: Total,
    /// The time of the oldest one.
    pub oldest_at: DateTime<Utc>,
}

/// The most old holds that are counted for an engine.
const OLD_HOLDS_MAX: i64 = 1_000;

/// The open holds that were made before a time and never expire. An engine that ever reserved keeps its policy.
pub async fn old_holds(conn: &mut PgConnection, before: DateTime<Utc>) -> Result<Vec<OldHolds>> {
    let (_, last) = audit::between(&mut *conn, Stream::Risk, None, Some(before)).await?;
    let rows = sqlx::query!(
        r#"SELECT policy.engine AS "engine!",
                  LEAST(count(*), $2::bigint) AS "holds!",
                  count(*) > $2::bigint AS "more!",
                  sum(oldest.open_amount) FILTER (WHERE oldest.place <= $2::bigint) AS "open_amount!",
                  min(oldest.created_at) AS "oldest_at!"
           FROM risk_policy AS policy
           CROSS JOIN LATERAL (
               SELECT open_amount, created_at, row_number() OVER (ORDER BY seq) AS place
               FROM risk_reservation
               WHERE risk_reservation.engine = policy.engine
                 AND status = 'OPEN' AND expires_at IS NULL AND seq <= $1
               ORDER BY seq
               LIMIT $2::bigint + 1) AS oldest
           GROUP BY policy.engine
           ORDER BY policy.engine"#,
        last,
        OLD_HOLDS_MAX
    )
    .fetch_all(conn)
    .await?;
    let broken = |amount| Error::Inconsistent(format!("{amount} is not a total"));
    rows.into_iter()
        .map(|row| {
            let open_amount = Total::from_decimal(row.open_amount).ok_or_else(|| broken(row.open_amount))?;
            let (holds, more) = (row.holds, row.more);
            Ok(OldHolds { engine: row.engine, holds, more, open_amount, oldest_at: row.oldest_at })
        })
        .collect()
}

/// A counter of the ledger that differed from its rows when the book was halted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LedgerDifference {
    /// The engine, or `GLOBAL`.
    pub engine: String,
    /// The name of the counter.
    pub counter: String,
    /// The value in the ledger.
    #[schema(value_type = f64)]
    pub recorded: Box<RawValue>,
    /// The value of the reservations or events.
    #[schema(value_type = f64)]
    pub computed: Box<RawValue>,
}

/// The counters that did not balance when the book was halted; empty while it is not halted.
pub async fn differences(conn: &mut PgConnection) -> Result<Vec<LedgerDifference>> {
    let text = sqlx::query_scalar!("SELECT differences FROM risk_halt").fetch_optional(conn).await?;
    let read = |text: String| {
        serde_json::from_str(&text).map_err(|error| {
            Error::Inconsistent(format!("the differences that halted the book cannot be read: {error}"))
        })
    };
    Ok(text.map(read).transpose()?.unwrap_or_default())
}

/// The authenticated principals of the last changes, by action and subject.
#[derive(Debug, Default)]
pub struct Principals(BTreeMap<(String, String), String>);

impl Principals {
    /// The principal of the last such change.
    #[must_use]
    pub fn of(&self, action: ControlAction, subject: &str) -> Option<&str> {
        self.0.get(&(action.as_str().to_owned(), subject.to_owned())).map(String::as_str)
    }
}

/// Reads the principals of the last engage, of the last upserts of these engines and wires, and of the last reports of
/// these components.
pub(super) async fn principals(
    conn: &mut PgConnection,
    state: &GoLiveState,
    engines: &[RiskPolicy],
    wires: &[BlindWire],
    components: &[Lacking],
) -> Result<Principals> {
    let subjects: Vec<String> = engines
        .iter()
        .map(|policy| policy.engine.to_string())
        .chain(wires.iter().map(|wire| series_name(&wire.domain, &wire.metric)))
        .chain(components.iter().map(|component| component.id.clone()))
        .collect();
    let rows = sqlx::query!(
        r#"SELECT DISTINCT ON (action, subject) action, COALESCE(subject, '') AS "subject!", principal
           FROM control_event
           WHERE ok
             AND ((action IN ('RISK_POLICY_UPSERT', 'REGRESSION_POLICY_UPSERT', 'PACK_REPORT') AND subject = ANY($1))
                  -- A repeated engage is an event as well; the first one counts.
                  OR (action = 'KILL_SWITCH_ENGAGE' AND at = $2))
           ORDER BY action, subject, seq DESC"#,
        &subjects,
        state.kill_switch.at
    )
    .fetch_all(conn)
    .await?;
    Ok(Principals(rows.into_iter().map(|row| ((row.action, row.subject), row.principal)).collect()))
}
