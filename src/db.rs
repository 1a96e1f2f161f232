//! The database: pools, migrations, transactions, and connections of their own. SQL about levers is in their stores.
//!
//! Three pools: `pool` for changes, `reads` for requests that only read, and `switch` for engage and disable alone.
//! Reads therefore never delay a change, and nothing delays a tightening. The ledger's batcher, the gate's feed and the
//! listener have a connection each, so that no flood of requests delays them.
//!
//! [`session`] makes every connection: it sets and verifies all settings that the program relies on.

pub mod archived;
mod confirm;
pub mod disk;
pub mod history;
pub mod json;
mod lanes;
mod migrate;
pub mod session;

pub use confirm::confirm;
pub(crate) use confirm::{confirmed, mark};
pub use migrate::{Migrating, installed_at, pending_migrations};
pub(crate) use migrate::{newest_migration, require_migration};

use crate::db::history::History;
use crate::error::Refusal;
use crate::error::database::{self as trouble, is_unreachable};
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use disk::Disk;
pub(crate) use json::{json_text, stored_json, to_json};
use lanes::Lanes;
use session::{Purpose, Sessions};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Postgres, Transaction};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Oldest supported PostgreSQL, as `server_version_num`.
const SERVER_VERSION_MIN: i32 = 140_000;
/// Connections for changes. Writers of one stream take turns, so more connections would only queue inside PostgreSQL.
const POOL_SIZE: u32 = 10;
const READS_POOL_SIZE: u32 = 6;
/// Connections for engage and disable, which take turns at the control head.
const SWITCH_POOL_SIZE: u32 = 4;
/// How long a request waits for a connection before it fails with 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for engage and disable, whose operator needs an answer quickly.
const SWITCH_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long `close` waits for connections to be returned and closed: a connection whose peer has vanished never closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Begins a transaction that sees one instant of the database.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
/// The time limit of a request that reads everything: a little less than its deadline, 2 minutes.
const LONG: &str = "SET LOCAL statement_timeout = '115s'; SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// The database of one book. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Database(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pools: OnceLock<Pools>,
    /// The history of the database as this process knows it, possibly from before it was opened.
    history: History,
    disk: Disk,
    lanes: Lanes,
}

#[derive(Debug, Clone)]
struct Pools {
    sessions: Sessions,
    pool: PgPool,
    reads: PgPool,
    switch: PgPool,
    /// The pool of the listener's connection, kept so that it can be closed.
    listener: Arc<Mutex<Option<PgPool>>>,
}

/// The reason why the database cannot be used; the message includes the fix.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server cannot be reached.
    #[error("cannot connect to PostgreSQL: {0}: {advice}", advice = trouble::advice(.0))]
    Connect(sqlx::Error),
    /// The server can be reached but is not usable.
    #[error("the database cannot be used: {0}")]
    Refused(Refusal),
    /// The server is too old.
    #[error("PostgreSQL {0} is too old: 14 or newer is needed")]
    TooOld(String),
    /// The database's encoding is not UTF-8.
    #[error(
        "the database is in {0}, which cannot hold every text that is recorded: create a database in UTF8 (CREATE \
         DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
    )]
    Encoding(String),
    /// The schema holds the tables of another application.
    #[error(
        "the schema {schema} holds tables of another application ({tables}) and none of Holdfast: nothing was written; \
         give Holdfast a \
         database or a schema of its own (CREATE SCHEMA holdfast; ALTER ROLE … SET search_path = holdfast)"
    )]
    Foreign {
        /// The schema's name.
        schema: String,
        /// The names of some of the tables.
        tables: String,
    },
    /// A migration failed, or was changed after it was applied.
    #[error("the migrations cannot be applied: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The setting that says which server the schema needs is not a number.
    #[error("the setting schema_minimum is {0}, which is not a migration's number: repair it before starting")]
    SchemaMinimum(String),
    /// The schema is for a newer server.
    #[error(
        "the schema needs a server that knows migration {needed}, and this one knows only up to {known}: upgrade holdfast"
    )]
    SchemaTooNew {
        /// The migration that the schema needs.
        needed: i64,
        /// The newest migration of this binary.
        known: i64,
    },
}

impl OpenError {
    /// True if the database may become reachable without a change to its configuration.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Connect(error) if trouble::is_away(error))
    }
}

impl Database {
    /// Opens the pools and checks the server. Applies no migration.
    pub async fn open(options: PgConnectOptions) -> Result<Self, OpenError> {
        Self::open_knowing(options, History::default()).await
    }

    /// Opens the database with a history that this process already knows.
    pub async fn open_knowing(options: PgConnectOptions, history: History) -> Result<Self, OpenError> {
        let sessions = Sessions::new(options, history.clone());
        // Plain connections first: a pool would retry until its timeout and then report only the timeout.
        let look = async {
            let (mut first, mut second) =
                (sessions.connect(Purpose::Request).await?, sessions.connect(Purpose::Request).await?);
            session::refuse_shared(&mut first, &mut second).await?;
            second.close().await?;
            first.close().await
        };
        tokio::time::timeout(ACQUIRE_TIMEOUT, look).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        let pool = pool_of(&sessions, POOL_SIZE, ACQUIRE_TIMEOUT).connect_with(sessions.options()).await?;
        let reads = pool_of(&sessions, READS_POOL_SIZE, ACQUIRE_TIMEOUT).connect_lazy_with(sessions.options());
        // One connection is always open: on a machine that is busy enough to need the switch, connecting takes too
        // long, and once other clients hold every connection slot of the server, nobody can connect.
        let switch = pool_of(&sessions, SWITCH_POOL_SIZE, SWITCH_ACQUIRE_TIMEOUT).min_connections(1);
        let switch = switch.idle_timeout(None).max_lifetime(None).connect_with(sessions.options()).await?;
        check_server(&pool).await?;
        let pools = OnceLock::from(Pools { sessions, pool, reads, switch, listener: Arc::default() });
        Ok(Self(Arc::new(Inner { pools, history, ..Inner::default() })))
    }

    /// A database that is away until it [becomes](Self::become_opened) one that was opened: for requests that come
    /// before that.
    #[must_use]
    pub fn later() -> Self {
        Self(Arc::default())
    }

    /// Becomes a database that was opened with the [history](Self::open_knowing) of this one. Only the first call
    /// counts.
    pub fn become_opened(&self, opened: &Self) {
        if let Ok(pools) = opened.pools() {
            let _ = self.0.pools.set(pools.clone());
        }
    }

    fn pools(&self) -> Result<&Pools, sqlx::Error> {
        self.0.pools.get().ok_or(sqlx::Error::PoolClosed)
    }

    /// A connection for a request that only reads.
    pub async fn read(&self) -> Result<PoolConnection<Postgres>> {
        self.pools()?.reads.acquire().await.map_err(|error| self.explained(error))
    }

    /// A connection for background work. Reading requests cannot exhaust its pool.
    pub async fn work(&self) -> Result<PoolConnection<Postgres>> {
        self.pools()?.pool.acquire().await.map_err(|error| self.explained(error))
    }

    /// A new connection for the feed. It belongs to no pool, because a connection whose peer has vanished can only be
    /// abandoned.
    pub async fn connect_feed(&self) -> Result<PgConnection> {
        if self.is_closed() {
            return Err(Error::Unavailable(sqlx::Error::PoolClosed));
        }
        Ok(self.pools()?.sessions.connect(Purpose::Feed).await?)
    }

    /// A pool for one connection that listens: new each time, because a connection whose peer has vanished can only be
    /// abandoned.
    pub fn listener_pool(&self) -> Result<PgPool> {
        let Pools { sessions, listener, .. } = self.pools()?;
        let pool = pool_of(sessions, 1, SWITCH_ACQUIRE_TIMEOUT).connect_lazy_with(sessions.options());
        *listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(pool.clone());
        Ok(pool)
    }

    /// Begins a transaction, if the database still has everything that this process knew.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        let tx = self.begin_on(&self.pools()?.pool, "BEGIN").await?;
        // Checked after the connection was taken: a new connection may lead to another server.
        self.history().require_whole()?;
        Ok(tx)
    }

    /// The options of the connections, and the schema of the tables.
    pub fn place(&self) -> Result<(PgConnectOptions, &str)> {
        let sessions = &self.pools()?.sessions;
        Ok((sessions.options(), sessions.known_schema()))
    }

    /// The database's disk as this process knows it.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.0.disk
    }

    /// The database's history as this process knows it.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// Begins a transaction in a task of its own, which runs to its end even if the caller gives up: a driver that is
    /// interrupted in the middle does not know of the transaction (sqlx 0.9.0), and gives the connection to the next
    /// caller.
    async fn begin_on(&self, pool: &PgPool, statement: &'static str) -> Result<Transaction<'static, Postgres>> {
        let pool = pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with(statement).await }).await;
        begun.unwrap_or(Err(sqlx::Error::WorkerCrashed)).map_err(|error| self.explained(error))
    }

    /// The reason why there was no connection: the refusal, if connections are refused, instead of the timeout.
    fn explained(&self, error: sqlx::Error) -> Error {
        match (error, self.pools().ok().and_then(|pools| pools.sessions.refusal())) {
            (sqlx::Error::PoolTimedOut, Some(refusal)) => sqlx::Error::from(refusal).into(),
            (error, _) => error.into(),
        }
    }

    /// A connection for the ledger's batcher. It belongs to no pool, so that no report delays it, and its time limits
    /// are short: a frozen instance must not hold the head.
    pub async fn connect_writer(&self) -> Result<PgConnection> {
        self.connect_within(SWITCH_ACQUIRE_TIMEOUT, Purpose::Writer).await
    }

    async fn connect_within(&self, timeout: Duration, purpose: Purpose) -> Result<PgConnection> {
        match tokio::time::timeout(timeout, self.pools()?.sessions.connect(purpose)).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Begins a transaction that sees one instant of the database, for reports.
    pub async fn begin_snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        self.begin_on(&self.pools()?.reads, SNAPSHOT).await
    }

    /// The same with the time limit of a request that reads everything.
    pub async fn begin_long_snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        let mut tx = self.begin_snapshot().await?;
        tx.execute(LONG).await?;
        Ok(tx)
    }

    /// The same without a time limit, for commands that read everything.
    pub async fn begin_unlimited_snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        let mut tx = self.begin_snapshot().await?;
        tx.execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        Ok(tx)
    }

    /// Begins further transactions that see the same instant as `tx`, without a time limit. `tx` must stay open until
    /// they have begun. There are `count` of them, or fewer if the pool has fewer connections left.
    pub async fn begin_beside(
        &self,
        tx: &mut PgConnection,
        count: usize,
    ) -> Result<Vec<Transaction<'static, Postgres>>> {
        let count = count.min(self.pools()?.reads.options().get_max_connections() as usize - 1);
        if count == 0 {
            return Ok(Vec::new());
        }
        let snapshot: String = sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(tx).await?;
        let mut beside = Vec::with_capacity(count);
        for _ in 0..count {
            let mut other = self.begin_unlimited_snapshot().await?;
            // PostgreSQL makes the name: hexadecimal digits and dashes.
            other.execute(AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{snapshot}'"))).await?;
            beside.push(other);
        }
        Ok(beside)
    }

    /// A connection outside the pools in such a transaction. It may be dropped in the middle of an answer; in a pool,
    /// the unread rest of a `COPY` would be taken for the answer to the next query. Its reader may be slow.
    pub async fn connect_snapshot(&self) -> Result<PgConnection> {
        let limits = "SET LOCAL statement_timeout = 0;
                      SET LOCAL idle_in_transaction_session_timeout = 0;
                      SET LOCAL tcp_user_timeout = 0";
        self.connect_snapshot_with(limits).await
    }

    /// The same with the time limit of a request that reads everything.
    pub async fn connect_long_snapshot(&self) -> Result<PgConnection> {
        self.connect_snapshot_with(LONG).await
    }

    async fn connect_snapshot_with(&self, limits: &'static str) -> Result<PgConnection> {
        let mut conn = self.connect_within(ACQUIRE_TIMEOUT, Purpose::Request).await?;
        conn.execute(SNAPSHOT).await?;
        conn.execute(limits).await.map(|_| conn).map_err(Error::from)
    }

    /// Begins a transaction on the connections of engage and disable.
    pub async fn begin_switch(&self) -> Result<Transaction<'static, Postgres>> {
        self.begin_on(&self.pools()?.switch, "BEGIN").await
    }

    /// True once `close` was called: no connection from before may be used.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.pools().map_or(true, |pools| pools.pool.is_closed())
    }

    /// Closes every connection after the work in flight, for at most a few seconds. The end of the process closes the
    /// rest.
    pub async fn close(&self) {
        let Ok(Pools { pool, reads, switch, listener, .. }) = self.pools() else { return };
        let listener = listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let of_listener = async {
            if let Some(listener) = listener {
                listener.close().await;
            }
        };
        let all = async { tokio::join!(pool.close(), reads.close(), switch.close(), of_listener) };
        if tokio::time::timeout(CLOSE_TIMEOUT, all).await.is_err() {
            let seconds = CLOSE_TIMEOUT.as_secs();
            tracing::warn!("connections to the database did not close within {seconds} s: abandoning them");
        }
    }
}

async fn check_server(pool: &PgPool) -> Result<(), OpenError> {
    let version: String = sqlx::query_scalar("SHOW server_version_num").fetch_one(pool).await?;
    if version.parse::<i32>().is_ok_and(|number| number >= SERVER_VERSION_MIN) {
        let encoding: String = sqlx::query_scalar("SHOW server_encoding").fetch_one(pool).await?;
        return if encoding == "UTF8" { Ok(()) } else { Err(OpenError::Encoding(encoding)) };
    }
    let name: String = sqlx::query_scalar("SHOW server_version").fetch_one(pool).await?;
    Err(OpenError::TooOld(name))
}

/// A pool whose connections are admitted when they are made.
fn pool_of(sessions: &Sessions, size: u32, timeout: Duration) -> PgPoolOptions {
    let sessions = sessions.clone();
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(timeout)
        .after_connect(move |conn, _| {
            let sessions = sessions.clone();
            Box::pin(async move { sessions.admit(conn, Purpose::Request).await })
        })
        // Each is checked before it is handed out, so that the first request after a restart of PostgreSQL succeeds.
        .test_before_acquire(false)
        .before_acquire(|conn, _| Box::pin(async { Ok(session::may_be_used(conn).await) }))
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        Refusal::of(&error).cloned().map_or(Self::Connect(error), Self::Refused)
    }
}

/// Commits. If the connection breaks here, or a wait for a standby is cancelled, the outcome is unknown: the caller
/// gets that error, never a success.
pub async fn commit(tx: Transaction<'_, Postgres>) -> Result<()> {
    confirmed(tx.commit())
        .await
        .map_err(|error| if is_unreachable(&error) { Error::OutcomeUnknown(error) } else { Error::Database(error) })
}

/// The database's time as it shows it, whether or not this process believes it.
pub async fn now(conn: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar!(r#"SELECT holdfast_now() AS "now!""#).fetch_one(conn).await?)
}
