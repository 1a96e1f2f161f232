//! The `holdfast archive` commands: they move old events into signed files, and bring them back.

use super::database::{close_after, open_existing};
use super::notary::{notary, verifiers};
use super::output::{Failure, print};
use crate::audit::archive::restore::restore;
use crate::audit::archive::{self, Directory, Plan, Selection};
use crate::audit::note::Verifier;
use crate::config::{CheckpointConfig, DatabaseConfig, path};
use crate::db::Database;
use crate::db::archived::{self, Segment};
use chrono::{NaiveDate, SecondsFormat};
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct ArchiveArgs {
    #[command(subcommand)]
    command: Option<ArchiveCommand>,
    /// Archive the partitions whose every event is before this UTC day, as 2026-10-01.
    #[arg(long, value_name = "DAY", required = true, value_parser = day)]
    before: Option<NaiveDate>,
    /// The directory of the archive.
    #[arg(long, value_name = "DIR", required = true, value_parser = path)]
    to: Option<PathBuf>,
    /// Only show what would be archived.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    own: CheckpointConfig,
}

#[derive(Debug, Subcommand)]
pub(super) enum ArchiveCommand {
    /// Show the archived segments, by the database's table.
    List,
    /// Bring the events of a segment back into the database, for reading.
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The segment: a file of the archive, with its note beside it.
    #[arg(value_name = "FILE", value_parser = path)]
    file: PathBuf,
    /// The key that checks the note's signature, as printed by holdfast audit key [default: this machine's].
    #[arg(long, value_name = "KEY")]
    key: Vec<Verifier>,
    #[command(flatten)]
    own: CheckpointConfig,
}

fn day(text: &str) -> Result<NaiveDate, String> {
    text.parse().map_err(|_| "it is not a day: write it as 2026-10-01".to_owned())
}

fn tell(sentence: &str) {
    // A reader that has gone does not stop the work.
    let _ = print(&format!("{sentence}\n"));
}

pub(super) async fn run(args: ArchiveArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let ArchiveArgs { command, before, to, dry_run, own } = args;
    let (db, postgres, name) = open_existing(config).await?;
    let selection = before.map(|before| Selection { before, with_restored: true });
    let done = match (command, selection, to) {
        (Some(ArchiveCommand::List), ..) => list(&db).await,
        (Some(ArchiveCommand::Restore(args)), ..) => bring_back(&db, args, config).await,
        (None, Some(selection), Some(_)) if dry_run => archive::plan(&db, selection)
            .await
            .map_err(Failure::from)
            .and_then(|plan| print(&text(&plan, "would be archived in", &name))),
        (None, Some(selection), Some(path)) => move_out(&db, (selection, path), &own, config, &name).await,
        // Clap requires both.
        (None, ..) => Err("--before and --to are needed".into()),
    };
    close_after(done, db, postgres).await
}

async fn move_out(
    db: &Database,
    (selection, path): (Selection, PathBuf),
    own: &CheckpointConfig,
    config: &DatabaseConfig,
    name: &str,
) -> Result<(), Failure> {
    let notary = notary(own, config).await?;
    let data_dir = if config.url().is_some() { None } else { Some(config.data_dir()?) };
    let directory = Directory { path, data_dir };
    let plan = archive::archive(db, &notary, &directory, selection, &mut tell).await?;
    print(&text(&plan, "are archived in", name))
}

/// The parts of a plan and what stays.
fn text(plan: &Plan, verb: &str, name: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for part in &plan.parts {
        let (first, last, at) = (part.first(), part.last, part.last_at.to_rfc3339_opts(SecondsFormat::Secs, true));
        let stream = part.stream.as_str();
        let _ = writeln!(text, "{stream}: events {first} to {last} (until {at}) {verb} {}", part.file());
    }
    for staying in &plan.staying {
        let (stream, first, head) = (staying.stream.as_str(), staying.first, staying.head);
        let _ = writeln!(text, "{stream}: events {first} to {head} stay: {}", staying.why);
    }
    let count = plan.parts.len();
    let what = if count == 0 { "no partition is old enough".to_owned() } else { format!("partitions: {count}") };
    let _ = writeln!(text, "{what}, in {name}");
    text
}

async fn list(db: &Database) -> Result<(), Failure> {
    let segments = archived::all(&mut *db.read().await?).await?;
    if segments.is_empty() {
        return print("nothing is archived\n");
    }
    let line = |one: &Segment| {
        let shown = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let restored = one.restored_at.map_or_else(String::new, |at| format!(", restored {}", shown(at)));
        format!(
            "{} {} to {} (until {}): {}, {} bytes, archived {}{restored}\n",
            one.stream.as_str(),
            one.first(),
            one.last.seq,
            shown(one.last_at),
            one.file,
            one.bytes,
            shown(one.archived_at)
        )
    };
    print(&segments.iter().map(line).collect::<String>())
}

async fn bring_back(db: &Database, args: RestoreArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let verifiers = verifiers(&args.key, &args.own, config).await?;
    let restored = restore(db, &args.file, &verifiers, &mut tell).await?;
    let (stream, first, last) = (restored.stream.as_str(), restored.first(), restored.last.seq);
    print(&format!("{stream}: events {first} to {last} are in the database again, until they are archived again\n"))
}
