//! How long events stay in the database.

use crate::audit::archive::DAYS_MIN;
use clap::Args;
use std::path::PathBuf;

/// The retention of old events.
#[derive(Debug, Clone, Args)]
pub struct ArchiveConfig {
    /// `RETAIN_EVENTS`: the days for which events of the ledger and the charter stay in the database; older partitions are
    /// archived to `ARCHIVE_DIR` once an hour. Unset: for ever.
    #[arg(
        long,
        env = "RETAIN_EVENTS",
        requires = "archive_dir",
        value_name = "DAYS",
        value_parser = clap::value_parser!(u16).range(DAYS_MIN.cast_signed()..)
    )]
    pub retain_events: Option<u16>,

    /// `ARCHIVE_DIR`: the directory of the archive.
    #[arg(long, env = "ARCHIVE_DIR", value_name = "DIR", value_parser = directory)]
    pub archive_dir: Option<PathBuf>,
}

fn directory(text: &str) -> Result<PathBuf, String> {
    let text = text.trim();
    if text.is_empty() { Err("it is blank: name a directory, or unset it".to_owned()) } else { Ok(text.into()) }
}
