//! Connections to the private PostgreSQL and its one database.

use std::{path::Path, time::Duration};

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::layout::PORT;

/// The role that owns the database.
pub(super) const ROLE: &str = "holdfast";

pub(super) const DATABASE: &str = "holdfast";

/// The time limit of one connection over a local socket: a stuck server must not stall the wait for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const NO_SUCH_DATABASE: &str = "3D000";

/// SQLSTATE `cannot_connect_now`: the server is starting or stopping.
const NOT_NOW: &str = "57P03";

/// Options that ignore `PGSSLMODE` and similar variables of our environment; the command line removes `PGOPTIONS`.
pub(super) fn connect_options(socket_dir: &Path, port: u16) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("localhost")
        .socket(socket_dir)
        .port(port)
        .username(ROLE)
        .database(DATABASE)
        .ssl_mode(PgSslMode::Disable)
}

/// Connects to our database, and creates it the first time. `Ok(false)`: not ready yet, try again.
pub(super) async fn open_database(socket_dir: &Path) -> Result<bool, sqlx::Error> {
    let options = connect_options(socket_dir, PORT);
    let Err(error) = connect(&options).await else {
        return Ok(true);
    };
    match sql_state(&error).as_deref() {
        Some(NO_SUCH_DATABASE) => create_database(options.database("postgres")).await.map(|()| false),
        // No SQLSTATE: the socket itself failed.
        None | Some(NOT_NOW) => Ok(false),
        Some(_) => Err(error),
    }
}

async fn connect(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    bounded(async { PgConnection::connect_with(options).await?.close().await }).await
}

async fn create_database(maintenance: PgConnectOptions) -> Result<(), sqlx::Error> {
    bounded(async {
        let mut connection = PgConnection::connect_with(&maintenance).await?;
        // Names cannot be parameters; this is the value of DATABASE.
        sqlx::query("CREATE DATABASE holdfast").execute(&mut connection).await?;
        connection.close().await
    })
    .await
}

async fn bounded(work: impl Future<Output = Result<(), sqlx::Error>>) -> Result<(), sqlx::Error> {
    tokio::time::timeout(CONNECT_TIMEOUT, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

fn sql_state(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}
