//! The SQL of the feed: one statement that proves that this database can commit, and that reads the state for the gate.

use crate::audit::Stream;
use crate::db::history::{Found, read_point};
use crate::db::{self, confirmed};
use crate::enforcement::instance::{Instance, Standing};
use crate::error::{Error, Result};
use crate::types::Point;
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Executor, PgConnection};

/// The state as one heartbeat found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) version: i64,
    pub(super) go_live_enabled: bool,
    pub(super) kill_switch_engaged: bool,
    /// The history of the database, and the points of its streams.
    pub(super) found: Found,
    /// The database's time.
    pub(super) now: DateTime<Utc>,
    /// The later of that and the time of the ledger's last event, limited to a century, so that any stored time can be
    /// read.
    pub(super) latest: DateTime<Utc>,
}

impl Reading {
    /// The point of the control stream.
    pub(super) fn control(&self) -> Point {
        self.found.heads.get(&Stream::Control).copied().unwrap_or(Point::BEGINNING)
    }
}

/// Writes this instance's row and reads the state, in one committed statement. Only the return of this function proves
/// the commit; the rows arrive before it.
pub(super) async fn heartbeat(
    conn: &mut PgConnection,
    instance: &Instance,
    standing: Standing,
    state_version: Option<i64>,
) -> Result<Reading> {
    let beat = sqlx::query!(
        r#"WITH beat AS (
               INSERT INTO instance
                   (id, name, version, configuration, standing, state_version, started_at, seen_at, newest_migration)
               VALUES ($1, $2, $3, $4, $5, $6, holdfast_now(), holdfast_now(), $7)
               ON CONFLICT (id) DO UPDATE
               SET standing = excluded.standing,
                   state_version = excluded.state_version,
                   seen_at = excluded.seen_at
           )
           SELECT state.version,
                  state.go_live_enabled,
                  state.kill_switch_engaged,
                  state.generation,
                  state.follows,
                  head.stream,
                  head.seq,
                  head.hash,
                  holdfast_now() AS "now!",
                  LEAST(GREATEST(risk.at, holdfast_now()), holdfast_now() + interval '100 years') AS "latest!"
           FROM go_live_state AS state, audit_head AS head, audit_head AS risk
           WHERE risk.stream = 'risk'"#,
        instance.id,
        instance.name,
        instance.version,
        instance.configuration.get(),
        standing.as_str(),
        state_version,
        db::newest_migration()
    )
    // All rows are fetched, since the end comes after the commit.
    .fetch_all(conn);
    let rows = confirmed(beat).await?;
    // One row a head.
    let row = rows.first().ok_or_else(|| Error::Inconsistent("there is no go-live state, or no head".into()))?;
    let (generation, follows) = (row.generation, row.follows);
    let (version, go_live_enabled, kill_switch_engaged) = (row.version, row.go_live_enabled, row.kill_switch_engaged);
    let (now, latest) = (row.now, row.latest);
    let heads = rows.into_iter().map(|row| read_point(&row.stream, row.seq, row.hash)).collect::<Result<_>>()?;
    let found = Found { generation, follows, heads };
    Ok(Reading { version, go_live_enabled, kill_switch_engaged, found, now, latest })
}

/// The channel of this book. Books that share a database have a schema each. The name fits for every schema name, and
/// stays the same when the schema is dropped and restored.
const CHANNEL: &str = "'holdfast_' || md5(current_schema())";

/// The name of the channel.
pub(super) async fn channel(conn: impl Executor<'_, Database = sqlx::Postgres>) -> Result<String> {
    Ok(sqlx::query_scalar(AssertSqlSafe(format!("SELECT {CHANNEL}"))).fetch_one(conn).await?)
}

/// Notifies every listener of the channel.
pub(super) async fn notify(conn: &mut PgConnection, payload: &str) -> Result<()> {
    let notify = AssertSqlSafe(format!("SELECT pg_notify({CHANNEL}, $1)"));
    sqlx::query(notify).bind(payload).execute(conn).await?;
    Ok(())
}
