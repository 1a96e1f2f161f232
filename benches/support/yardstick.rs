//! The speed of one transaction per action on the same PostgreSQL: `hot-row.sql` in pgbench, with 1 and with 32 clients.

use super::Result;
use super::place::Place;
use sqlx::{Connection, Executor, PgConnection};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The database that it runs in: one of its own.
const DATABASE: &str = "yardstick";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/support/hot-row.sql");
const TABLES: &str = include_str!("hot-row-setup.sql");

/// The output of pgbench.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Yardstick {
    /// Transactions a second with 32 clients.
    pub(crate) tps_32: f64,
    /// Mean latency with 1 client, in milliseconds.
    pub(crate) latency_1_ms: f64,
    /// Transactions a second with 1 client.
    pub(crate) tps_1: f64,
}

impl Yardstick {
    /// Runs it, on fresh tables.
    pub(crate) async fn run(pgbench: &Path, place: &Place, db: &mut PgConnection, seconds: u64) -> Result<Self> {
        db.execute("DROP DATABASE IF EXISTS yardstick").await?;
        db.execute("CREATE DATABASE yardstick").await?;
        let mut own = PgConnection::connect(&place.url(DATABASE)).await?;
        own.execute(TABLES).await?;
        own.close().await?;
        let (tps_1, latency_1_ms) = run(pgbench, place, 1, seconds).await?;
        let (tps_32, _) = run(pgbench, place, 32, seconds).await?;
        Ok(Self { tps_32, latency_1_ms, tps_1 })
    }

    /// The best that it did, number by number; `None` of none. A machine that was disturbed while it ran would flatter every
    /// ratio, so the ratios are taken with this.
    pub(crate) fn best<'a>(all: impl Iterator<Item = &'a Self>) -> Option<Self> {
        all.copied().reduce(|one, other| Self {
            tps_32: one.tps_32.max(other.tps_32),
            latency_1_ms: one.latency_1_ms.min(other.latency_1_ms),
            tps_1: one.tps_1.max(other.tps_1),
        })
    }
}

/// Transactions a second, and mean latency in milliseconds.
async fn run(pgbench: &Path, place: &Place, clients: u32, seconds: u64) -> Result<(f64, f64)> {
    let output = Command::new(pgbench)
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=1", "--username=holdfast", "--file", SCRIPT])
        .args([format!("--client={clients}"), format!("--time={seconds}")])
        .arg("--host")
        .arg(place.socket_dir())
        .arg(DATABASE)
        .env_remove("PGOPTIONS")
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |line: &str| {
        let rest = text.lines().find_map(|found| found.strip_prefix(line))?;
        rest.trim_start_matches([' ', '=']).split(' ').next()?.parse::<f64>().ok()
    };
    match (output.status.success(), number("tps"), number("latency average")) {
        (true, Some(tps), Some(latency)) => Ok((tps, latency)),
        _ => Err(format!("pgbench failed: {text}{}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// pgbench from `PG_BIN_DIR`, `PATH`, or where packages put it.
#[expect(clippy::disallowed_methods, reason = "a benchmark has no configuration but this")]
pub(crate) fn pgbench() -> Result<PathBuf> {
    let named = std::env::var_os("PG_BIN_DIR").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut packaged: Vec<_> = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    let major = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().parse::<f64>().unwrap_or(0.0);
    packaged.sort_by(|one, other| major(other).total_cmp(&major(one)));
    let places = named.into_iter().chain(std::env::split_paths(&path));
    let places = places.chain(packaged.iter().map(|entry| entry.path().join("bin")));
    let mut programs = places.map(|place| place.join("pgbench"));
    programs.find(|program| program.is_file()).ok_or_else(|| {
        "there is no pgbench: it comes with PostgreSQL's server or contrib package; set PG_BIN_DIR to where it is"
            .into()
    })
}
