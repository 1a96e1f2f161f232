//! Sessions: the settings that every connection of this program relies on, and the checks before it is used.
//!
//! Every connection goes through [`Sessions::admit`]: those of the pools, the feed, the listener, the batchers, reports
//! and commands. It sets everything by statements, because a pooler may drop start-up options, and a role, a database
//! or the URL may set something else. One statement then verifies the settings and that the server can record. Finally
//! the connection is compared with the history that this process knows ([`crate::db::history`]). An admitted connection
//! costs nothing more.

use crate::db::history::{History, Look};
use crate::error::{Error, Refusal};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The use of a connection, which decides how long it may wait for others and delay others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Requests (the switches too), commands, and the listener.
    Request,
    /// The feed of the gate.
    Feed,
    /// The batcher of a stream.
    Writer,
    /// Migrations.
    Migration,
}

/// The name of a setting, and its value as PostgreSQL shows it.
type Setting = (&'static str, &'static str);

/// Settings of every session: the text forms of values, the meaning of statements, and the durability of every answer.
const MEANING: [Setting; 17] = [
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    ("array_nulls", "on"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    // A warning during a commit says that no standby has it.
    ("client_min_messages", "notice"),
    // The pools decide about idle connections.
    ("idle_session_timeout", "0"),
    // Each statement is planned for its values. A plan for any value does not know which filter of a list is absent, and
    // reads the whole list from the sixth call of a session on.
    ("plan_cache_mode", "force_custom_plan"),
    // No statement here runs long enough for compilation to pay: with it, one of `audit verify` took seconds instead of
    // a tenth of one.
    ("jit", "off"),
];

/// Limits on waiting for a lock, on a statement, and on an idle transaction: a frozen instance cannot hold a head for
/// ever.
const REQUEST: [Setting; 3] =
    [("lock_timeout", "4s"), ("statement_timeout", "5s"), ("idle_in_transaction_session_timeout", "2s")];

/// The feed abandons a read after less than half a second; its session must not keep waiting for a lock. The statement
/// has no time limit of its own: a commit that is cut short while it waits for a standby would look safe.
const FEED: [Setting; 3] =
    [("lock_timeout", "400ms"), ("statement_timeout", "5s"), ("idle_in_transaction_session_timeout", "2s")];

/// The limits of a batcher, whose batches take milliseconds.
///
/// Its few statements are planned once: planning the write for each batch costs more than a small batch itself. All of
/// them reach their rows by an index, and a plan that was made while a table was small must not scan it when it is
/// large.
const WRITER: [Setting; 7] = [
    ("lock_timeout", "4s"),
    ("statement_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "1s"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

/// No limits: an index on a large table may take longer than any request, and another instance may be building it.
const MIGRATION: [Setting; 3] =
    [("lock_timeout", "0"), ("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")];

/// When a connection whose peer has vanished is given up, so that it holds no lock for nobody. These settings are not
/// verified, because a socket on the same machine has none of them.
const SOCKET: [Setting; 4] = [
    ("tcp_keepalives_idle", "2"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "5000"),
];

/// Settings that may be stricter, or that only a superuser can set: verified, and raised where possible.
const VERIFIED: [(&str, &[&str]); 3] = [
    ("synchronous_commit", &["on", "remote_apply"]),
    ("session_replication_role", &["origin"]),
    ("transaction_read_only", &["off"]),
];

/// An answer is sent only after a durable commit, which includes a synchronous standby if there is one. A stricter
/// setting is kept.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
                       WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')";

/// The server process of the session.
const PROCESS: &str = "SELECT pg_backend_pid()";

/// The first PostgreSQL with a time limit for whole transactions, as `server_version_num`.
const LIMITS_TRANSACTIONS: u32 = 170_000;

impl Purpose {
    const fn limits(self) -> &'static [Setting] {
        match self {
            Self::Request => &REQUEST,
            Self::Feed => &FEED,
            Self::Writer => &WRITER,
            Self::Migration => &MIGRATION,
        }
    }

    /// Every setting, with the purpose's own value last, so that it wins.
    fn settings(self) -> impl Iterator<Item = Setting> {
        let own = self.limits();
        let general = MEANING.into_iter().filter(|(name, _)| own.iter().all(|(special, _)| special != name));
        general.chain(own.iter().copied())
    }
}

/// The shared settings and target of all connections.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: PgConnectOptions,
    /// The schema of our tables, as the first connection found it. A schema that is created later does not change it.
    schema: OnceLock<String>,
    /// The reason why the last connection was refused, if it was.
    refusal: Mutex<Option<Refusal>>,
    history: History,
}

impl Sessions {
    /// Connections to the target of `options`, compared with the known history of the database there.
    #[must_use]
    pub fn new(options: PgConnectOptions, history: History) -> Self {
        // A statement sets this; poolers refuse the option.
        let options = options.application_name("holdfast").extra_float_digits(None);
        Self(Arc::new(Shared { options, schema: OnceLock::new(), refusal: Mutex::default(), history }))
    }

    /// The target, for a pool, whose connections must be admitted.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.0.options.clone()
    }

    /// A new admitted connection outside the pools.
    pub async fn connect(&self, purpose: Purpose) -> Result<PgConnection, sqlx::Error> {
        let mut conn = PgConnection::connect_with(&self.0.options).await?;
        self.admit(&mut conn, purpose).await?;
        Ok(conn)
    }

    /// Makes a new connection ready for use. A connection that fails here is never used.
    pub async fn admit(&self, conn: &mut PgConnection, purpose: Purpose) -> Result<(), sqlx::Error> {
        let admitted = self.prepare(conn, purpose).await;
        match admitted.as_ref().map_err(Refusal::of) {
            Ok(()) => self.note(None),
            Err(Some(refusal)) => self.note(Some(refusal)),
            // The connection broke.
            Err(None) => {}
        }
        admitted
    }

    /// The reason why connections are refused; none if the last one was accepted.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.0.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs once when connections begin to be refused, and once when they no longer are.
    fn note(&self, refusal: Option<&Refusal>) {
        let mut noted = self.0.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        match refusal {
            Some(refusal) if noted.as_ref() != Some(refusal) => tracing::error!(%refusal, "connections are refused"),
            None if noted.is_some() => tracing::info!("connections are no longer refused"),
            _ => {}
        }
        *noted = refusal.cloned();
    }

    async fn prepare(&self, conn: &mut PgConnection, purpose: Purpose) -> Result<(), sqlx::Error> {
        let schema = self.schema(conn).await?;
        let rows = conn.fetch_all(AssertSqlSafe(set(conn.server_version_num(), purpose, schema))).await?;
        let set_by = rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        verify(conn, purpose, schema, set_by).await?;
        self.compare(conn, purpose).await
    }

    /// Compares the connection with the known history. The result is noted, and later appends are refused because of
    /// it.
    async fn compare(&self, conn: &mut PgConnection, purpose: Purpose) -> Result<(), sqlx::Error> {
        let look = match purpose {
            // The feed checks the events itself after it has renewed the lease: a lock on their table closes no gate.
            Purpose::Request | Purpose::Feed => Look::Heads,
            Purpose::Writer => Look::Events,
            Purpose::Migration => return Ok(()),
        };
        self.0.history.check(conn, look).await.map_err(|error| match error {
            Error::Unavailable(error) | Error::Database(error) => error,
            other => sqlx::Error::Protocol(other.to_string()),
        })
    }

    /// The schema of our tables; empty before the first connection.
    #[must_use]
    pub fn known_schema(&self) -> &str {
        self.0.schema.get().map_or("", String::as_str)
    }

    async fn schema(&self, conn: &mut PgConnection) -> Result<&str, sqlx::Error> {
        if let Some(schema) = self.0.schema.get() {
            return Ok(schema);
        }
        let row = conn
            .fetch_one(
                "SELECT COALESCE((SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
                                  WHERE pg_class.oid = to_regclass('audit_head')),
                                 current_schema())::text,
                        current_setting('search_path')",
            )
            .await?;
        let schema: Option<String> = row.try_get(0)?;
        let schema = schema.ok_or(Refusal::NoSchema(row.try_get(1)?))?;
        Ok(self.0.schema.get_or_init(|| schema))
    }
}

/// True if an idle connection may be used: its server answers and is not a standby, and it has no open transaction. One
/// short query replaces the driver's own.
pub async fn may_be_used(conn: &mut PgConnection) -> bool {
    // The two times of one statement are equal, unless its transaction began earlier.
    let row = conn.fetch_one("SELECT pg_is_in_recovery(), transaction_timestamp() = statement_timestamp()").await;
    match row.and_then(|row| Ok((row.try_get::<bool, _>(0)?, row.try_get::<bool, _>(1)?))) {
        Ok((is_standby, is_idle)) => !is_standby && is_idle,
        Err(error) => {
            tracing::info!(%error, "an idle connection is gone");
            false
        }
    }
}

/// Refuses a pooler in transaction mode, which no single connection can detect: while `other` has a transaction open,
/// `conn` gets another session than before.
pub async fn refuse_shared(conn: &mut PgConnection, other: &mut PgConnection) -> Result<(), sqlx::Error> {
    let had: i32 = conn.fetch_one(PROCESS).await?.try_get(0)?;
    other.execute("BEGIN").await?;
    let has: i32 = conn.fetch_one(PROCESS).await?.try_get(0)?;
    other.execute("ROLLBACK").await?;
    if had == has { Ok(()) } else { Err(Refusal::Shared.into()) }
}

fn set(server_version: Option<u32>, purpose: Purpose, schema: &str) -> String {
    let mut text = format!("SET search_path = \"{}\"; {DURABLE}", schema.replace('"', "\"\""));
    for (name, value) in purpose.settings().chain(SOCKET) {
        write!(text, "; SET {name} = '{value}'").expect("a string takes what it is given");
    }
    if server_version.is_some_and(|version| version >= LIMITS_TRANSACTIONS) {
        text.push_str("; SET transaction_timeout = 0");
    }
    text + "; " + PROCESS
}

/// Verifies, in a transaction of its own, the settings of the session and that server process `set_by` still has it.
async fn verify(conn: &mut PgConnection, purpose: Purpose, schema: &str, set_by: i32) -> Result<(), sqlx::Error> {
    let exactly = purpose.settings().map(|(name, value)| format!("('{name}', '{{{}}}'::text[])", quoted(&[value])));
    let one_of = VERIFIED.iter().map(|(name, values)| format!("('{name}', '{{{}}}'::text[])", quoted(values)));
    let wanted = exactly.chain(one_of).collect::<Vec<_>>().join(", ");
    let row = conn
        .fetch_one(AssertSqlSafe(format!(
            "SELECT pg_is_in_recovery(),
                    current_schema()::text,
                    (SELECT string_agg(format('%s is %s', name, COALESCE(current_setting(name, true), 'unknown')), ', ')
                     FROM (VALUES {wanted}) AS wanted (name, good)
                     WHERE (current_setting(name, true) = ANY (good)) IS NOT TRUE),
                    pg_backend_pid()"
        )))
        .await?;
    if row.try_get::<i32, _>(3)? != set_by {
        return Err(Refusal::Shared.into());
    }
    if row.try_get(0)? {
        return Err(Refusal::Standby.into());
    }
    if row.try_get::<Option<&str>, _>(1)? != Some(schema) {
        return Err(Refusal::SchemaLost(schema.to_owned()).into());
    }
    match row.try_get(2)? {
        Some(differing) => Err(Refusal::Settings(differing).into()),
        None => Ok(()),
    }
}

fn quoted(values: &[&str]) -> String {
    values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(",")
}
