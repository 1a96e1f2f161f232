//! SQL of the feed: one statement that proves that this database can commit, and reads what the gate goes by.

use crate::db::confirmed;
use crate::enforcement::instance::{Instance, Standing};
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use uuid::Uuid;

/// The state as one heartbeat found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) version: i64,
    pub(super) go_live_enabled: bool,
    pub(super) kill_switch_engaged: bool,
    /// The history that it belongs to.
    pub(super) generation: Uuid,
    /// The history before that.
    pub(super) follows: Option<Uuid>,
    /// Where the control stream stands.
    pub(super) control_seq: i64,
    /// The database's time.
    pub(super) now: DateTime<Utc>,
    /// The later of that and the time of the ledger's last event, within a century: it can be read whatever a hand wrote there.
    pub(super) latest: DateTime<Utc>,
}

/// Writes this instance's row and reads the state, in one committed statement. It has happened only if this says so: an answer
/// that comes before the commit is not enough.
pub(super) async fn heartbeat(
    conn: &mut PgConnection,
    instance: &Instance,
    standing: Standing,
    state_version: Option<i64>,
) -> Result<Reading> {
    let beat = sqlx::query!(
        r#"WITH beat AS (
               INSERT INTO instance (id, name, version, configuration, standing, state_version, started_at, seen_at)
               VALUES ($1, $2, $3, $4, $5, $6, holdfast_now(), holdfast_now())
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
                  head.seq AS control_seq,
                  holdfast_now() AS "now!",
                  LEAST(GREATEST(risk.at, holdfast_now()), holdfast_now() + interval '100 years') AS "latest!"
           FROM go_live_state AS state, audit_head AS head, audit_head AS risk
           WHERE head.stream = 'control' AND risk.stream = 'risk'"#,
        instance.id,
        instance.name,
        instance.version,
        instance.configuration.get(),
        standing.as_str(),
        state_version
    )
    // To the end, which is after the commit.
    .fetch_all(conn);
    let rows = confirmed(beat).await?;
    let [row] = rows.as_slice() else {
        return Err(Error::Inconsistent(format!("there are {} go-live states", rows.len())));
    };
    Ok(Reading {
        version: row.version,
        go_live_enabled: row.go_live_enabled,
        kill_switch_engaged: row.kill_switch_engaged,
        generation: row.generation,
        follows: row.follows,
        control_seq: row.control_seq,
        now: row.now,
        latest: row.latest,
    })
}

/// The channel of this book: books that share a database have a schema each. A name that any schema's fits in, and that stays
/// when the schema is dropped and restored.
const CHANNEL: &str = "'holdfast_' || md5(current_schema())";

/// The name of the channel.
pub(super) async fn channel(conn: impl Executor<'_, Database = sqlx::Postgres>) -> Result<String> {
    Ok(sqlx::query_scalar(AssertSqlSafe(format!("SELECT {CHANNEL}"))).fetch_one(conn).await?)
}

/// Tells whoever listens.
pub(super) async fn notify(conn: &mut PgConnection, payload: &str) -> Result<()> {
    let notify = AssertSqlSafe(format!("SELECT pg_notify({CHANNEL}, $1)"));
    sqlx::query(notify).bind(payload).execute(conn).await?;
    Ok(())
}
