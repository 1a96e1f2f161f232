//! The database of a command: which one it is, whether it is started, and what is done with it as a whole.

use super::{Failure, print, words};
use crate::config::DatabaseConfig;
use crate::db::Database;
use crate::postgres::{self, DataLifetime, Durability, EmbeddedError, EmbeddedPostgres, OwnedBy, Settings};
use sqlx::postgres::PgConnectOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;

/// How long a command waits for another one, whose PostgreSQL ends with it.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);
/// How long it waits for the PostgreSQL of a server that has just begun.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The options of a URL.
pub(super) fn parse_url(url: &str) -> Result<PgConnectOptions, Failure> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("DATABASE_URL cannot be read: it must begin with postgres:// or postgresql://".into());
    }
    // The URL may hold a password: say what is wrong with it, not what it is.
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        let hint = if holds_a_separator(url) {
            ": its user or password holds one of / ? # [ ], which end it there; write / as %2F, ? as %3F, # as %23, [ as %5B, ] as %5D"
        } else {
            ""
        };
        format!("DATABASE_URL cannot be read: {error}{hint}")
    })?;
    // An IPv6 address stands in brackets in a URL, and without them everywhere else.
    let bare = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    Ok(match bare {
        Some(host) => options.host(&host),
        None => options,
    })
}

/// Whether what stands before the last `@` cannot be a user and a password.
fn holds_a_separator(url: &str) -> bool {
    let said = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    said.is_some_and(|(user, _)| user.contains(['/', '?', '#', '[', ']']))
}

/// How the private PostgreSQL of this configuration is run, and by whom.
fn settings(config: &DatabaseConfig, owner: OwnedBy) -> Result<Settings, Failure> {
    Ok(Settings {
        data_dir: config.data_dir()?,
        durability: Durability::Full,
        lifetime: DataLifetime::Kept,
        pg_bin_dir: config.pg_bin_dir(),
        owner,
    })
}

/// The private PostgreSQL for a server; none if `stop` resolves first. A command that uses the directory ends by itself, and is waited
/// for as for a database that is away.
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
                "{by} uses the data directory: waiting for its end, for {patience} s (DATABASE_WAIT_SECONDS)"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_PAUSE) => {}
            () = &mut stop => return Ok(None),
        }
    }
}

/// Whose PostgreSQL a command uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// A server's; the end of another command is waited for.
    Servers,
    /// Also another command's, with which it may end at any time.
    Anybody,
}

/// The database for a command that runs beside a server, or alone: the URL's, the running private one, or that one started
/// for as long as the command takes. Where there is none it is made, so that only `migrate` begins with this.
async fn open_or_make(
    config: &DatabaseConfig,
    beside: Beside,
) -> Result<(Database, Option<EmbeddedPostgres>), Failure> {
    if let Some(url) = config.url() {
        return Ok((Database::open(parse_url(url)?).await?, None));
    }
    let dir = config.data_dir()?;
    let attach = match beside {
        Beside::Servers => postgres::attach,
        Beside::Anybody => postgres::attach_to_any,
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
        let timeout = if by == OwnedBy::Server { SERVER_TIMEOUT } else { COMMAND_TIMEOUT };
        if began.elapsed() >= timeout {
            return Err(still_owned(&dir, &pid, &by));
        }
        if by != OwnedBy::Server && !is_told {
            is_told = true;
            let seconds = timeout.as_secs();
            crate::log::say(&format!("holdfast: waiting for {by} (process {pid}) to end, for {seconds} s at most"));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// A command is no second server: the one that owns the directory is the right one.
fn still_owned(dir: &Path, pid: &str, by: &OwnedBy) -> Failure {
    let dir = dir.display();
    match by {
        OwnedBy::Server => format!(
            "the server that owns {dir} (process {pid}) runs, but its PostgreSQL does not accept connections: try again once it does; \
             the server's log and postgres.log there say why it does not"
        ),
        OwnedBy::Command(_) => format!("{by} (process {pid}) still uses {dir}: wait for its end, or stop it, and try again"),
    }
    .into()
}

/// The database for a command that is about what stands in it: never a new one. Also says which one it is.
pub(super) async fn open_existing(
    config: &DatabaseConfig,
) -> Result<(Database, Option<EmbeddedPostgres>, String), Failure> {
    open_beside(config, Beside::Servers).await
}

/// The same, and whose PostgreSQL it may be.
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

/// Refuses a data directory without a database: a command beside the server that made one would ask, and answer, about nothing.
fn refuse_none(config: &DatabaseConfig) -> Result<(), Failure> {
    if config.url().is_some() {
        return Ok(());
    }
    let dir = config.data_dir()?;
    if postgres::has_cluster(&dir)? {
        return Ok(());
    }
    Err(format!(
        "{} holds no database: set DATA_DIR or DATABASE_URL as the server has it; to make a new one there, run holdfast migrate or \
         start the server",
        dir.display()
    )
    .into())
}

/// The database, never a new one; refused where the schema is not this program's.
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
        close(db, postgres).await?;
        return Err(format!("{pending} migrations are not applied: run holdfast migrate, or start the server").into());
    }
    Ok((db, postgres))
}

/// Leaves the database, and stops it if it was started for this command.
pub(super) async fn close(db: Database, postgres: Option<EmbeddedPostgres>) -> Result<(), Failure> {
    db.close().await;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    Ok(())
}

/// Applies what is pending, unless only the status is asked for, and prints every migration.
pub(super) async fn migrate(config: &DatabaseConfig, status: bool) -> Result<(), Failure> {
    if status {
        refuse_none(config)?;
    }
    let (db, postgres) = open_or_make(config, Beside::Servers).await?;
    if !status {
        db.migrate().await?;
    }
    let mut text = String::new();
    for (version, name, applied) in db.migration_status().await? {
        use std::fmt::Write as _;
        writeln!(text, "{version:04} {name:<12} {}", if applied { "applied" } else { "PENDING" })?;
    }
    close(db, postgres).await?;
    print(&text)
}

/// Becomes `psql` on this database.
pub(super) fn psql(config: &DatabaseConfig) -> Result<(), Failure> {
    let mut command = match config.url() {
        Some(url) => {
            let mut command = std::process::Command::new("psql");
            command.arg(url);
            command
        }
        None => postgres::psql_command(&config.data_dir()?, config.pg_bin_dir().as_deref())?,
    };
    // Only returns if it could not be started.
    Err(format!("cannot start psql: {}", command.exec()).into())
}
