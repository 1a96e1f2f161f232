//! The machine that the figures were measured on. Linux says it in `/proc`; elsewhere it is left out.

use super::Result;
use rustix::process::Pid;
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Settings of PostgreSQL that decide what a commit costs.
const SETTINGS: [&str; 13] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "wal_level",
    "wal_compression",
    "commit_delay",
    "max_wal_size",
    "checkpoint_timeout",
    "shared_buffers",
    "autovacuum",
    "data_checksums",
];

/// The facts that a reader of the figures needs, by name.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<(String, String)>);

impl Facts {
    /// The machine and this commit, PostgreSQL's version and its settings of durability.
    pub(crate) async fn gather(directory: &Path, db: &mut PgConnection) -> Result<Self> {
        let mut facts = machine(directory);
        for name in SETTINGS {
            let row = sqlx::query(AssertSqlSafe(format!("SHOW {name}"))).fetch_one(&mut *db).await?;
            facts.push((format!("PostgreSQL {name}"), row.get(0)));
        }
        Ok(Self(facts))
    }

    pub(crate) fn push(&mut self, name: &str, value: String) {
        self.0.push((name.to_owned(), value));
    }

    pub(crate) fn print(&self) {
        for (name, value) in &self.0 {
            println!("{name}: {value}");
        }
    }

    /// As a table, with how busy the machine was.
    pub(crate) fn table<'a>(&self, busy: impl Iterator<Item = &'a str>) -> String {
        let mut text = String::from("| Machine | |\n|---|---|\n");
        let busy = ("load average before each round".to_owned(), busy.collect::<Vec<_>>().join(", "));
        text.extend(self.0.iter().chain([&busy]).map(|(name, value)| format!("| {name} | {value} |\n")));
        text
    }

    pub(crate) fn json(&self) -> Map<String, Value> {
        self.0.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
    }
}

fn machine(directory: &Path) -> Vec<(String, String)> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let kernel = read("/proc/sys/kernel/osrelease");
    let mut facts = vec![
        ("holdfast".to_owned(), format!("{} {}", env!("CARGO_PKG_VERSION"), commit())),
        ("cores".to_owned(), format!("{cores} ({model})")),
        ("memory".to_owned(), field("/proc/meminfo", "MemTotal").unwrap_or_default()),
        ("system".to_owned(), format!("{} {}", std::env::consts::OS, kernel.trim())),
        ("file system".to_owned(), file_system(directory).unwrap_or_default()),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// How busy the machine was during the last minute; 0.00 is a quiet one. Empty where the system does not say.
pub(crate) fn busy() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned()
}

/// How much memory a process has, in KiB, by its name in `/proc/PID/status`.
pub(crate) fn memory_kib(pid: impl Display, name: &str) -> Option<u64> {
    field(&format!("/proc/{pid}/status"), name)?.split(' ').next()?.parse().ok()
}

/// The processes that a process has started.
pub(crate) fn children(pid: Pid) -> Result<Vec<Pid>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .map_err(|error| format!("this system does not say which processes are PostgreSQL's: {error}"))?;
    Ok(text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect())
}

/// The text of a file; empty where there is none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `name : value`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn commit() -> String {
    let describe = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    describe.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The type of the file system that holds the directory: a commit on `tmpfs` is not durable, and its figures mean nothing.
fn file_system(directory: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let held = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        directory.starts_with(at).then_some((at, kind))
    });
    held.max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind.to_owned())
}
