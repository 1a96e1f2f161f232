//! The database: pools, migrations, transactions, and the private PostgreSQL.
//!
//! Three pools: `pool` for what changes something, `reads` for requests that only read, and `switch`, for engage and disable alone, so
//! that reads keep no change waiting, and tightening never queues behind anything else. The ledger's writer, the feed that the gate goes by and the listener have a connection each, so that nobody's flood can
//! keep them waiting.
//!
//! Every connection is made by [`session`], whoever it is for: what it relies on is set there and verified.

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

/// Oldest PostgreSQL that is supported, as `server_version_num`.
const SERVER_VERSION_MIN: i32 = 140_000;
/// Connections for changes. Writers of one stream take turns, so more would only queue inside PostgreSQL.
const POOL_SIZE: u32 = 10;
/// Connections for requests that only read.
const READS_POOL_SIZE: u32 = 6;
/// Connections for engage and disable. They take turns at the control head anyway.
const SWITCH_POOL_SIZE: u32 = 4;
/// How long a request waits for a connection before it is told that the database is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for the switches: an operator in a hurry wants to know.
const SWITCH_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an end waits for connections to be given back and to close: one whose other end has vanished never does.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Begins a transaction that sees one instant of the database.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
/// How long a request may take that reads everything: a little less than its deadline, 2 minutes.
const LONG: &str = "SET LOCAL statement_timeout = '115s'; SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// The database of one book. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Database(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pools: OnceLock<Pools>,
    /// The database's history as this process knows it: that may be before it was opened.
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
    /// The listener's place, to be closed with the others.
    listener: Arc<Mutex<Option<PgPool>>>,
}

/// Why the database cannot be used; the sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be reached.
    #[error("cannot connect to PostgreSQL: {0}: {advice}", advice = trouble::advice(.0))]
    Connect(sqlx::Error),
    /// It can be reached, and is not one that can be used.
    #[error("the database cannot be used: {0}")]
    Refused(Refusal),
    /// It is too old.
    #[error("PostgreSQL {0} is too old: 14 or newer is needed")]
    TooOld(String),
    /// Its texts are not in UTF-8.
    #[error(
        "the database is in {0}, which has no letter for much of what is recorded: make one in UTF8 (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
    )]
    Encoding(String),
    /// Somebody else's tables are where ours would be.
    #[error(
        "the schema {schema} holds tables of another application ({tables}), and none of Holdfast: nothing was written; give Holdfast a \
         database or a schema of its own (CREATE SCHEMA holdfast; ALTER ROLE … SET search_path = holdfast)"
    )]
    Foreign {
        /// The schema.
        schema: String,
        /// Some of the tables.
        tables: String,
    },
    /// A migration failed or was changed after it was applied.
    #[error("the migrations cannot be applied: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The schema does not say what it needs.
    #[error("the setting schema_minimum says {0}, not a migration's number: repair it before starting")]
    SchemaMinimum(String),
    /// The schema is for a newer server.
    #[error("the schema needs a server that knows migration {needed}, this one knows {known}: upgrade holdfast")]
    SchemaTooNew {
        /// What the schema says.
        needed: i64,
        /// What this binary brings.
        known: i64,
    },
}

impl OpenError {
    /// Whether the database may be there in a while by itself: nothing that was said of it is wrong.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Connect(error) if trouble::is_away(error))
    }
}

impl Database {
    /// Opens the pools and checks the server. Applies nothing.
    pub async fn open(options: PgConnectOptions) -> Result<Self, OpenError> {
        Self::open_knowing(options, History::default()).await
    }

    /// The same, where this is known of it.
    pub async fn open_knowing(options: PgConnectOptions, history: History) -> Result<Self, OpenError> {
        let sessions = Sessions::new(options, history.clone());
        // Plain connections first: a pool would try for its whole time and then only say that time ran out.
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
        // One is always there, from now on: on a machine that is busy enough to pull the switch for, connecting takes too long, and
        // where other clients have taken every place of the server, nobody connects any more.
        let switch = pool_of(&sessions, SWITCH_POOL_SIZE, SWITCH_ACQUIRE_TIMEOUT).min_connections(1);
        let switch = switch.idle_timeout(None).max_lifetime(None).connect_with(sessions.options()).await?;
        check_server(&pool).await?;
        let pools = OnceLock::from(Pools { sessions, pool, reads, switch, listener: Arc::default() });
        Ok(Self(Arc::new(Inner { pools, history, ..Inner::default() })))
    }

    /// One that is away until it [becomes](Self::become_opened) one that was opened: for what answers meanwhile.
    #[must_use]
    pub fn later() -> Self {
        Self(Arc::default())
    }

    /// Becomes a database that was opened [knowing](Self::open_knowing) what this one knows. The first one counts.
    pub fn become_opened(&self, opened: &Self) {
        if let Ok(pools) = opened.pools() {
            let _ = self.0.pools.set(pools.clone());
        }
    }

    fn pools(&self) -> Result<&Pools, sqlx::Error> {
        self.0.pools.get().ok_or(sqlx::Error::PoolClosed)
    }

    /// A connection of a request that only reads.
    pub async fn read(&self) -> Result<PoolConnection<Postgres>> {
        self.pools()?.reads.acquire().await.map_err(|error| self.explained(error))
    }

    /// A connection of what goes on beside the requests: however many read, it goes on.
    pub async fn work(&self) -> Result<PoolConnection<Postgres>> {
        self.pools()?.pool.acquire().await.map_err(|error| self.explained(error))
    }

    /// A connection for the feed: its own, and nobody's afterwards, since one whose other end has vanished is only to be left.
    pub async fn connect_feed(&self) -> Result<PgConnection> {
        if self.is_closed() {
            return Err(Error::Unavailable(sqlx::Error::PoolClosed));
        }
        Ok(self.pools()?.sessions.connect(Purpose::Feed).await?)
    }

    /// A place for one connection that listens: a new one each time, since one whose other end has vanished is only to be left.
    pub fn listener_pool(&self) -> Result<PgPool> {
        let Pools { sessions, listener, .. } = self.pools()?;
        let pool = pool_of(sessions, 1, SWITCH_ACQUIRE_TIMEOUT).connect_lazy_with(sessions.options());
        *listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(pool.clone());
        Ok(pool)
    }

    /// A transaction, where the database still has what this process knew of it.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        let tx = self.begin_on(&self.pools()?.pool, "BEGIN").await?;
        // After it was taken: a new connection may be to another server.
        self.history().require_whole()?;
        Ok(tx)
    }

    /// Where it is: the options of its connections, and the schema of our tables.
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

    /// Begins to the end, whether or not its caller still waits: a driver that is left in the middle of a beginning does not know
    /// of the transaction (sqlx 0.9.0), and gives its connection to the next caller.
    async fn begin_on(&self, pool: &PgPool, statement: &'static str) -> Result<Transaction<'static, Postgres>> {
        let pool = pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with(statement).await }).await;
        begun.unwrap_or(Err(sqlx::Error::WorkerCrashed)).map_err(|error| self.explained(error))
    }

    /// Why no connection was to be had: where each was refused, that says more than that time ran out.
    fn explained(&self, error: sqlx::Error) -> Error {
        match (error, self.pools().ok().and_then(|pools| pools.sessions.refusal())) {
            (sqlx::Error::PoolTimedOut, Some(refusal)) => sqlx::Error::from(refusal).into(),
            (error, _) => error.into(),
        }
    }

    /// A connection of the ledger's writer: its own, so that no report can keep it waiting. It does not wait for long either:
    /// a frozen instance must not hold the head.
    pub async fn connect_writer(&self) -> Result<PgConnection> {
        self.connect_within(SWITCH_ACQUIRE_TIMEOUT, Purpose::Writer).await
    }

    async fn connect_within(&self, timeout: Duration, purpose: Purpose) -> Result<PgConnection> {
        match tokio::time::timeout(timeout, self.pools()?.sessions.connect(purpose)).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// A transaction that sees one instant of the database, for reports.
    pub async fn begin_snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        self.begin_on(&self.pools()?.reads, SNAPSHOT).await
    }

    /// The same for as long as a request may take that reads everything.
    pub async fn begin_long_snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        let mut tx = self.begin_snapshot().await?;
        tx.execute(LONG).await?;
        Ok(tx)
    }

    /// The same for as long as it takes: for commands that read everything.
    pub async fn begin_unlimited_snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        let mut tx = self.begin_snapshot().await?;
        tx.execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        Ok(tx)
    }

    /// Further transactions that see the same instant as `tx`, which has to outlast their beginning, for as long as it takes:
    /// `count` of them, or as many as the pool has connections beside that of `tx`.
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
            // Its name is PostgreSQL's own: hexadecimal digits and dashes.
            other.execute(AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{snapshot}'"))).await?;
            beside.push(other);
        }
        Ok(beside)
    }

    /// A connection of its own in such a transaction, which may be left in the middle of an answer: it ends with whoever has it. In
    /// the pool, the rest of a `COPY` that nobody reads would be taken for the answer to whatever is asked next. Whoever reads it may
    /// be slow.
    pub async fn connect_snapshot(&self) -> Result<PgConnection> {
        let limits = "SET LOCAL statement_timeout = 0;
                      SET LOCAL idle_in_transaction_session_timeout = 0;
                      SET LOCAL tcp_user_timeout = 0";
        self.connect_snapshot_with(limits).await
    }

    /// The same for as long as a request may take that reads everything.
    pub async fn connect_long_snapshot(&self) -> Result<PgConnection> {
        self.connect_snapshot_with(LONG).await
    }

    async fn connect_snapshot_with(&self, limits: &'static str) -> Result<PgConnection> {
        let mut conn = self.connect_within(ACQUIRE_TIMEOUT, Purpose::Request).await?;
        conn.execute(SNAPSHOT).await?;
        conn.execute(limits).await?;
        Ok(conn)
    }

    /// A transaction on the connections of engage and disable.
    pub async fn begin_switch(&self) -> Result<Transaction<'static, Postgres>> {
        self.begin_on(&self.pools()?.switch, "BEGIN").await
    }

    /// Whether it was closed: nobody may use a connection that was opened before.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.pools().map_or(true, |pools| pools.pool.is_closed())
    }

    /// Closes every connection, after the work in flight; for a while. What is left ends with the process.
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
            tracing::warn!("connections to the database did not close within {seconds} s: leaving them");
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

/// A pool of connections that are admitted when they are made.
fn pool_of(sessions: &Sessions, size: u32, timeout: Duration) -> PgPoolOptions {
    let sessions = sessions.clone();
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(timeout)
        .after_connect(move |conn, _| {
            let sessions = sessions.clone();
            Box::pin(async move { sessions.admit(conn, Purpose::Request).await })
        })
        // Each is looked at before it is handed out: after a restart of PostgreSQL the next request works.
        .test_before_acquire(false)
        .before_acquire(|conn, _| Box::pin(async { Ok(session::may_be_used(conn).await) }))
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        Refusal::of(&error).cloned().map_or(Self::Connect(error), Self::Refused)
    }
}

/// Commits. A connection that breaks here leaves the outcome unknown, and so does a wait for a standby that was cancelled: that is
/// what the caller is told, never a success.
pub async fn commit(tx: Transaction<'_, Postgres>) -> Result<()> {
    confirmed(tx.commit())
        .await
        .map_err(|error| if is_unreachable(&error) { Error::OutcomeUnknown(error) } else { Error::Database(error) })
}

/// The database's time, believed or not.
pub async fn now(conn: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar!(r#"SELECT holdfast_now() AS "now!""#).fetch_one(conn).await?)
}
