//! The database of a command: finds, starts and leaves it, applies its migrations, and opens its shell.

use super::output::{Failure, print};
use super::words;
use crate::config::DatabaseConfig;
use crate::db::Database;
use crate::postgres::{self, DataLifetime, Durability, EmbeddedError, EmbeddedPostgres, OwnedBy, Settings};
use sqlx::postgres::PgConnectOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;

/// The time that a command waits for another command, whose PostgreSQL ends with it.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);
/// The time that a command waits for the PostgreSQL of a server that has just started. Both times count from the first
/// look, whoever owns the directory later.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Parses a database URL into the driver's options.
pub(super) fn parse_url(url: &str) -> Result<PgConnectOptions, Failure> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("DATABASE_URL cannot be read: it must begin with postgres:// or postgresql://".into());
    }
    // The URL may hold a password, so the error does not repeat it.
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        let hint = if holds_a_separator(url) {
            ": its user or password has one of / ? # [ ], which must be encoded; write / as %2F, ? as %3F, # as %23, [ as %5B, ] as %5D"
        } else {
            ""
        };
        format!("DATABASE_URL cannot be read: {error}{hint}")
    })?;
    // A URL writes an IPv6 address in brackets; everything else writes it without them.
    let bare = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    Ok(match bare {
        Some(host) => options.host(&host),
        None => options,
    })
}

/// Whether the text before the last `@` cannot be a user and a password.
fn holds_a_separator(url: &str) -> bool {
    let said = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    said.is_some_and(|(user, _)| user.contains(['/', '?', '#', '[', ']']))
}

/// The settings of the private PostgreSQL of this configuration.
fn settings(config: &DatabaseConfig, owner: OwnedBy) -> Result<Settings, Failure> {
    Ok(Settings {
        data_dir: config.data_dir()?,
        durability: Durability::Full,
        lifetime: DataLifetime::Kept,
        pg_bin_dir: config.pg_bin_dir(),
        owner,
    })
}

/// Starts the private PostgreSQL for a server; none if `stop` resolves first. A server waits for a command that uses
/// the directory as it waits for a database that is away.
pub(super) async fn own(
    config: &DatabaseConfig,
    patience: Duration,
    stop: impl Future<Output = ()>,
) -> Result<Option<EmbeddedPostgres>, Failure> {
    let mut stop = std::pin::pin!(stop);
    let (began, mut is_told) = (Instant::now(), false);
    loop {
        let started = EmbeddedPostgres::start_unless(&mut stop, settings(config, OwnedBy::Server)?).await;
        let Err(EmbeddedError::AlreadyOwned { pid, by: by @ OwnedBy::Command(_), .. }) = &started else {
            return Ok(started?);
        };
        if began.elapsed() >= patience {
            return Ok(started?);
        }
        if !is_told {
            is_told = true;
            let patience = patience.as_secs();
            tracing::warn!(
                pid,
                "{by} uses the data directory: waiting up to {patience} s until it ends (DATABASE_WAIT_SECONDS)"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_PAUSE) => {}
            () = &mut stop => return Ok(None),
        }
    }
}

/// The owners of a running PostgreSQL that a command may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// Only servers. A command waits until another command ends.
    Servers,
    /// Servers and other commands, with which the PostgreSQL may end at any time. The duration is the longest wait of
    /// the caller.
    Anybody(Duration),
}

/// Opens the database for a command: the URL's, or the private one, which is started for the command if it does not
/// run. A missing database is created, which only `migrate` may do at this point.
async fn open_or_make(
    config: &DatabaseConfig,
    beside: Beside,
) -> Result<(Database, Option<EmbeddedPostgres>), Failure> {
    if let Some(url) = config.url() {
        return Ok((Database::open(parse_url(url)?).await?, None));
    }
    let dir = config.data_dir()?;
    let (attach, command_timeout): (fn(&Path) -> _, _) = match beside {
        Beside::Servers => (postgres::attach, COMMAND_TIMEOUT),
        Beside::Anybody(timeout) => (postgres::attach_to_any, timeout),
    };
    let (began, mut is_told) = (Instant::now(), false);
    loop {
        match attach(&dir) {
            Ok(options) => return Ok((Database::open(options).await?, None)),
            Err(EmbeddedError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let (pid, by) = match EmbeddedPostgres::start(settings(config, OwnedBy::Command(words::command_name()))?).await
        {
            Ok(postgres) => return Ok((Database::open(postgres.connect_options()).await?, Some(postgres))),
            Err(EmbeddedError::AlreadyOwned { pid, by, .. }) => (pid, by),
            Err(error) => return Err(error.into()),
        };
        let timeout = if by == OwnedBy::Server { SERVER_TIMEOUT } else { command_timeout };
        if began.elapsed() >= timeout {
            return Err(still_owned(&dir, &pid, &by));
        }
        if by != OwnedBy::Server && !is_told {
            is_told = true;
            let seconds = timeout.as_secs();
            crate::log::say(&format!("holdfast: waiting up to {seconds} s for {by} (process {pid}) to end"));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// The error of a command when another process still owns the directory.
fn still_owned(dir: &Path, pid: &str, by: &OwnedBy) -> Failure {
    let dir = dir.display();
    match by {
        OwnedBy::Server => format!(
            "the server that owns {dir} (process {pid}) runs, but its PostgreSQL does not accept connections: try again when it does; \
             the server's log and postgres.log there say why it does not"
        ),
        OwnedBy::Command(_) => format!("{by} (process {pid}) still uses {dir}: wait for its end, or stop it, and try again"),
    }
    .into()
}

/// Opens the database for a command that reads or changes it, and returns its name. It never creates one.
pub(super) async fn open_existing(
    config: &DatabaseConfig,
) -> Result<(Database, Option<EmbeddedPostgres>, String), Failure> {
    open_beside(config, Beside::Servers).await
}

/// The same, with a choice of owners whose PostgreSQL may be used.
pub(super) async fn open_beside(
    config: &DatabaseConfig,
    beside: Beside,
) -> Result<(Database, Option<EmbeddedPostgres>, String), Failure> {
    if let Some(url) = config.url() {
        let options = parse_url(url)?;
        let name = format!("{}/{}", options.get_host(), options.get_database().unwrap_or_default());
        return Ok((Database::open(options).await?, None, name));
    }
    let dir = config.data_dir()?;
    let (db, postgres) = open_migrated_beside(config, beside).await?;
    Ok((db, postgres, format!("the private PostgreSQL of {}", dir.display())))
}

/// Refuses a data directory without a database, where a command would create an empty one and report on that.
fn refuse_none(config: &DatabaseConfig) -> Result<(), Failure> {
    if config.url().is_some() {
        return Ok(());
    }
    let dir = config.data_dir()?;
    if postgres::has_cluster(&dir)? {
        return Ok(());
    }
    Err(format!(
        "{} holds no database: set DATA_DIR or DATABASE_URL to the server's value; to make a new database there, run holdfast migrate or \
         start the server",
        dir.display()
    )
    .into())
}

/// Opens the database, never a new one. A schema of another version than this program's is an error.
pub(super) async fn open_migrated(config: &DatabaseConfig) -> Result<(Database, Option<EmbeddedPostgres>), Failure> {
    open_migrated_beside(config, Beside::Servers).await
}

async fn open_migrated_beside(
    config: &DatabaseConfig,
    beside: Beside,
) -> Result<(Database, Option<EmbeddedPostgres>), Failure> {
    refuse_none(config)?;
    let (db, postgres) = open_or_make(config, beside).await?;
    let pending = db.migration_status().await?.into_iter().filter(|(_, _, applied)| !applied).count();
    if pending > 0 {
        let error = format!("{pending} migrations are not applied: run holdfast migrate, or start the server");
        return close_after(Err(error.into()), db, postgres).await;
    }
    Ok((db, postgres))
}

/// Closes the database, and stops it if it was started for this command.
pub(super) async fn close(db: Database, postgres: Option<EmbeddedPostgres>) -> Result<(), Failure> {
    db.close().await;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    Ok(())
}

/// The same after a command has printed its result. A failure to stop is then only reported, so that it hides no other
/// failure.
pub(super) async fn close_after<T>(
    done: Result<T, Failure>,
    db: Database,
    postgres: Option<EmbeddedPostgres>,
) -> Result<T, Failure> {
    let closed = close(db, postgres).await;
    done.and_then(|done| closed.map(|()| done))
}

/// Applies pending migrations, unless only the status is requested, and prints every migration.
pub(super) async fn migrate(config: &DatabaseConfig, status: bool) -> Result<(), Failure> {
    if status {
        refuse_none(config)?;
    }
    let (db, postgres) = open_or_make(config, Beside::Servers).await?;
    let migrated = migrate_in(&db, status).await;
    close_after(migrated, db, postgres).await
}

async fn migrate_in(db: &Database, status: bool) -> Result<(), Failure> {
    if !status {
        db.migrate().await?;
    }
    let mut text = String::new();
    for (version, name, applied) in db.migration_status().await? {
        use std::fmt::Write as _;
        writeln!(text, "{version:04} {name:<12} {}", if applied { "applied" } else { "PENDING" })?;
    }
    print(&text)
}

/// Replaces this process with `psql` on this database.
pub(super) fn psql(config: &DatabaseConfig) -> Result<(), Failure> {
    let mut command = match config.url() {
        Some(url) => {
            let mut command = std::process::Command::new("psql");
            command.arg(url);
            command
        }
        None => postgres::psql_command(&config.data_dir()?, config.pg_bin_dir().as_deref())?,
    };
    // `exec` returns only if it failed.
    Err(format!("cannot start psql: {}", command.exec()).into())
}
