//! A session: what every connection of this program relies on, whoever it is for, and what is asked of it before it is used.
//!
//! [`Sessions::admit`] is the one place that every connection goes through: of the pools, the feed, the listener, the writers,
//! reports and commands. It sets everything by statements, since a pooler may drop options of the start-up, and a role, a
//! database or the URL may say something else; then one statement verifies it all, and that this is a server that can record
//! anything; and it is compared with what this process knew of the database ([`crate::db::history`]). A
//! connection that has been admitted costs nothing more.

use crate::db::history::{History, Look};
use crate::error::{Error, Refusal};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Whose connection it is: that decides how long it may wait for others, and keep others waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Requests, the switches among them, commands, and what listens.
    Request,
    /// The feed that the gate goes by.
    Feed,
    /// A writer of a stream.
    Writer,
    /// Migrations.
    Migration,
}

/// A setting, and its value as PostgreSQL shows it.
type Setting = (&'static str, &'static str);

/// What every session relies on: the forms of values that are sent as text, what a statement means, and that what is answered was
/// recorded.
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
    // A warning beside a commit says that no standby has it.
    ("client_min_messages", "notice"),
    // Idle connections are the pools' business.
    ("idle_session_timeout", "0"),
    // A plan that is right for some other program of this role must not decide how long ours take.
    ("plan_cache_mode", "auto"),
    // No statement of ours runs for so long that compiling it pays: one of `audit verify` took seconds instead of a tenth of one.
    ("jit", "off"),
];

/// How long a statement may wait for a lock, run, and a transaction idle: a frozen instance cannot hold a head for ever.
const REQUEST: [Setting; 3] =
    [("lock_timeout", "4s"), ("statement_timeout", "5s"), ("idle_in_transaction_session_timeout", "2s")];

/// The feed gives a read up after less than half a second: a session that waits for a lock then is nobody's. No limit of its own on
/// the statement: a commit that was cut short while it waits for a standby would look like one that is safe.
const FEED: [Setting; 3] =
    [("lock_timeout", "400ms"), ("statement_timeout", "5s"), ("idle_in_transaction_session_timeout", "2s")];

/// The same for a writer, whose batches take milliseconds.
///
/// Its few statements are planned once: planning the write anew for each batch costs more than a small batch itself. All of
/// them reach their rows by an index, and a plan that was made while a table was small must not scan it when it is large.
const WRITER: [Setting; 7] = [
    ("lock_timeout", "4s"),
    ("statement_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "1s"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

/// Unbounded: an index on a large table may take longer than any request, and another instance may be at it.
const MIGRATION: [Setting; 3] =
    [("lock_timeout", "0"), ("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")];

/// When a connection whose other end has vanished is given up: what it holds is held for nobody. Not verified, since a socket of the
/// same machine has none of them.
const SOCKET: [Setting; 4] = [
    ("tcp_keepalives_idle", "2"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "5000"),
];

/// What may be stricter, or is only a superuser's to set: verified, and where it can be, raised.
const VERIFIED: [(&str, &[&str]); 3] = [
    ("synchronous_commit", &["on", "remote_apply"]),
    ("session_replication_role", &["origin"]),
    ("transaction_read_only", &["off"]),
];

/// An answer is only sent after a durable commit, which a synchronous standby has, if there is one; a stricter setting is left alone.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false)
                       WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')";

/// Which process of the server has the session.
const PROCESS: &str = "SELECT pg_backend_pid()";

/// The first PostgreSQL that limits whole transactions, as `server_version_num`.
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

    /// Everything that is set; of two values the purpose's own.
    fn settings(self) -> impl Iterator<Item = Setting> {
        let own = self.limits();
        let general = MEANING.into_iter().filter(|(name, _)| own.iter().all(|(special, _)| special != name));
        general.chain(own.iter().copied())
    }
}

/// How connections are made, and where: shared by everything that makes one.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: PgConnectOptions,
    /// Where our tables are, or will be: what the first connection found. A schema that is made later does not move them.
    schema: OnceLock<String>,
    /// Why the last connection was refused, if it was.
    refusal: Mutex<Option<Refusal>>,
    /// The database's history as this process knows it.
    history: History,
}

impl Sessions {
    /// Connections to where `options` say, compared with what is known of the database there.
    #[must_use]
    pub fn new(options: PgConnectOptions, history: History) -> Self {
        // Set by a statement; poolers refuse the option.
        let options = options.application_name("holdfast").extra_float_digits(None);
        Self(Arc::new(Shared { options, schema: OnceLock::new(), refusal: Mutex::default(), history }))
    }

    /// Where they go, for a pool, whose connections have to be admitted.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.0.options.clone()
    }

    /// A connection of its own.
    pub async fn connect(&self, purpose: Purpose) -> Result<PgConnection, sqlx::Error> {
        let mut conn = PgConnection::connect_with(&self.0.options).await?;
        self.admit(&mut conn, purpose).await?;
        Ok(conn)
    }

    /// Makes a connection that was just made one that may be used. One that fails here is never used.
    pub async fn admit(&self, conn: &mut PgConnection, purpose: Purpose) -> Result<(), sqlx::Error> {
        let admitted = self.prepare(conn, purpose).await;
        match admitted.as_ref().map_err(Refusal::of) {
            Ok(()) => self.note(None),
            Err(Some(refusal)) => self.note(Some(refusal)),
            // It broke.
            Err(None) => {}
        }
        admitted
    }

    /// Why connections are refused, if the last one was.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.0.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says once when connections begin to be refused, and when they no longer are.
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

    /// Looks whether this is the history that this process knew. The result is noted, and appends are refused by it.
    async fn compare(&self, conn: &mut PgConnection, purpose: Purpose) -> Result<(), sqlx::Error> {
        let look = match purpose {
            // The feed looks at the events itself, after it has renewed the lease: a lock on their table closes no gate.
            Purpose::Request | Purpose::Feed => Look::Heads,
            Purpose::Writer => Look::Events,
            Purpose::Migration => return Ok(()),
        };
        self.0.history.check(conn, look).await.map_err(|error| match error {
            Error::Unavailable(error) | Error::Database(error) => error,
            other => sqlx::Error::Protocol(other.to_string()),
        })
    }

    /// The schema of our tables; blank before the first connection.
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

/// Whether a connection that idled may be used: its server answers and has not become a standby, and nobody left a transaction open
/// on it. One short question, in place of the driver's own.
pub async fn may_be_used(conn: &mut PgConnection) -> bool {
    // Two instants of one statement, unless its transaction began before it.
    let row = conn.fetch_one("SELECT pg_is_in_recovery(), transaction_timestamp() = statement_timestamp()").await;
    match row.and_then(|row| Ok((row.try_get::<bool, _>(0)?, row.try_get::<bool, _>(1)?))) {
        Ok((is_standby, is_idle)) => !is_standby && is_idle,
        Err(error) => {
            tracing::info!(%error, "a connection that idled is gone");
            false
        }
    }
}

/// Refuses a pooler in transaction mode, which no single connection may notice: while `other` has a transaction open, `conn` is given
/// another session than it had.
pub async fn refuse_shared(conn: &mut PgConnection, other: &mut PgConnection) -> Result<(), sqlx::Error> {
    let had: i32 = conn.fetch_one(PROCESS).await?.try_get(0)?;
    other.execute("BEGIN").await?;
    let has: i32 = conn.fetch_one(PROCESS).await?.try_get(0)?;
    other.execute("ROLLBACK").await?;
    if had == has { Ok(()) } else { Err(Refusal::Shared.into()) }
}

/// The statements that set everything, sent as one.
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

/// Asks, in a transaction of its own, what the session has become that process `set_by` has set.
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
