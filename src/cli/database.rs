//! The database of a command: which one it is, whether it is started, and what is done with it as a whole.

use super::{Failure, print};
use crate::config::DatabaseConfig;
use crate::db::Database;
use crate::db::embedded::{self, Durability, EmbeddedPostgres, Lifetime, Settings};
use sqlx::postgres::PgConnectOptions;
use std::os::unix::process::CommandExt;
use std::str::FromStr;

/// The options of a URL.
pub(super) fn parse_url(url: &str) -> Result<PgConnectOptions, Failure> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("DATABASE_URL cannot be read: it must begin with postgres:// or postgresql://".into());
    }
    // The URL may hold a password: say what is wrong with it, not what it is.
    PgConnectOptions::from_str(url).map_err(|error| format!("DATABASE_URL cannot be read: {error}").into())
}

/// How the private PostgreSQL of this configuration is run.
pub(super) fn settings(config: &DatabaseConfig) -> Result<Settings, Failure> {
    Ok(Settings {
        data_dir: config.data_dir()?,
        durability: Durability::Full,
        lifetime: Lifetime::Kept,
        pg_bin_dir: config.pg_bin_dir(),
    })
}

/// The database for a command that runs beside a server, or alone: the URL's, the running private one, or that one started
/// for as long as the command takes. Where there is none it is made, so that only `migrate` begins with this.
async fn open_or_make(config: &DatabaseConfig) -> Result<(Database, Option<EmbeddedPostgres>), Failure> {
    if let Some(url) = config.url() {
        return Ok((Database::open(parse_url(url)?).await?, None));
    }
    if let Ok(options) = embedded::attach(&config.data_dir()?) {
        return Ok((Database::open(options).await?, None));
    }
    let postgres = EmbeddedPostgres::start(settings(config)?).await?;
    Ok((Database::open(postgres.connect_options()).await?, Some(postgres)))
}

/// The database for a command that is about what stands in it: never a new one. Also says which one it is.
pub(super) async fn open_existing(
    config: &DatabaseConfig,
) -> Result<(Database, Option<EmbeddedPostgres>, String), Failure> {
    if let Some(url) = config.url() {
        let options = parse_url(url)?;
        let name = format!("{}/{}", options.get_host(), options.get_database().unwrap_or_default());
        return Ok((Database::open(options).await?, None, name));
    }
    let dir = config.data_dir()?;
    let (db, postgres) = open_migrated(config).await?;
    Ok((db, postgres, format!("the private PostgreSQL of {}", dir.display())))
}

/// Refuses a data directory without a database: a command beside the server that made one would ask, and answer, about nothing.
fn refuse_none(config: &DatabaseConfig) -> Result<(), Failure> {
    if config.url().is_some() {
        return Ok(());
    }
    let dir = config.data_dir()?;
    if embedded::has_cluster(&dir) {
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
    refuse_none(config)?;
    let (db, postgres) = open_or_make(config).await?;
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
    let (db, postgres) = open_or_make(config).await?;
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
        None => embedded::psql_command(&config.data_dir()?, config.pg_bin_dir().as_deref())?,
    };
    // Only returns if it could not be started.
    Err(format!("cannot start psql: {}", command.exec()).into())
}
