//! The `holdfast audit` commands: they verify the trail, sign its heads, export it, and erase a text without breaking
//! the trail.

use super::database::{close_after, open_existing};
use super::notary::{notary, verifiers};
use super::output::{Failure, fail, print};
use super::rewind::remember;
use crate::audit::checkpoint::{self, Notary};
use crate::audit::erase::{self, Erased, Target};
use crate::audit::export::{self, ExportError};
use crate::audit::note::{Note, NoteError, Verifier};
use crate::audit::verify::{self, Asked};
use crate::audit::{Origin, Stream};
use crate::audit::{archive, complete};
use crate::config::{CheckpointConfig, DatabaseConfig};
use crate::db::Database;
use crate::db::archived::{self, Segment};
use crate::db::history::{self, Judged};
use crate::types::{Actor, Point, Reason, Time, TimeRange, hex};
use clap::{ArgGroup, Args};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("outside").args(["checkpoint", "archive"]).multiple(true)))]
pub(super) struct VerifyArgs {
    /// Only this stream: control, heimdall, kpi or risk.
    #[arg(long, value_parser = stream)]
    stream: Option<Stream>,
    /// The first event to verify. The event before it is trusted. Needs --stream.
    #[arg(long, requires = "stream", value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    from: Option<i64>,
    /// The last event to verify. Needs --stream.
    #[arg(long, requires = "stream", value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    to: Option<i64>,
    /// A file that was kept outside the database: a signed checkpoint, or earlier output of this command.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Verify the archive in this directory, too, and that it and the database are one chain.
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// A key that checks signatures, as printed by holdfast audit key [default: this machine's].
    #[arg(long, requires = "outside", value_name = "KEY")]
    key: Vec<Verifier>,
    /// Verify only the events after the checkpoint, which is trusted.
    #[arg(long, requires = "checkpoint")]
    incremental: bool,
    #[command(flatten)]
    own: CheckpointConfig,
}

/// Signs the heads of the streams and prints the note.
pub(super) async fn checkpoint(args: &CheckpointConfig, config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres, name) = open_existing(config).await?;
    let signed = sign(args, config, &db, &name).await;
    let printed = signed.and_then(|note| {
        // A note is printed only once, so a closed pipe is an error: the note is lost.
        let written = io::stdout().write_all(note.as_bytes()).and_then(|()| io::stdout().flush());
        written.map_err(|error| format!("the checkpoint cannot be written to standard output: {error}").into())
    });
    close_after(printed, db, postgres).await
}

/// Signs the note of a trail that has every event that this machine knows of.
async fn sign(args: &CheckpointConfig, config: &DatabaseConfig, db: &Database, name: &str) -> Result<String, Failure> {
    remember(db, config).await?;
    let notary = notary(args, config).await?;
    let mut tx = db.begin_unlimited_snapshot().await?;
    archived::hold(&mut tx).await?;
    let history = db.history();
    let (asked, found) = (history.asked(), history::found(&mut tx).await?);
    if history.judge(&asked, &found) == Judged::Accepted {
        // A server does the same: marks of an earlier history do not count.
        history.restart(&found);
    }
    let lost = history::losses(&mut tx, &[history.asked().heads]).await?;
    if !lost.is_empty() {
        let lost = lost.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(format!(
            "{name} lacks events that this machine knew ({lost}), so nothing is signed; to accept the loss, run holdfast db accept-rewind"
        )
        .into());
    }
    Ok(notary.sign(&mut tx, history).await?.1)
}

/// Prints the key that checks this machine's checkpoints.
pub(super) async fn key(args: &CheckpointConfig, config: &DatabaseConfig) -> Result<(), Failure> {
    let (file, _) = args.paths(config)?;
    let notary = Notary::existing(&file, None).await;
    let notary =
        notary.map_err(|error| format!("the key of checkpoints cannot be read from {}: {error}", file.display()))?;
    print(&format!("{}\n", notary.verifier()))
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Only this stream: control, heimdall, kpi or risk.
    #[arg(long, value_parser = stream)]
    stream: Option<Stream>,
    /// Only events from this time on, RFC 3339.
    #[arg(long, value_name = "TIME")]
    from: Option<Time>,
    /// Only events before this time, RFC 3339.
    #[arg(long, value_name = "TIME")]
    to: Option<Time>,
}

#[derive(Debug, Args)]
pub(super) struct EraseArgs {
    /// The stream: control, heimdall, kpi or risk.
    #[arg(long, value_parser = stream)]
    stream: Stream,
    /// The sequence number of the event.
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    seq: i64,
    /// The text: reason, detail, metadata, recommendation or evidence.
    #[arg(long, value_parser = ["reason", "detail", "metadata", "recommendation", "evidence"])]
    field: String,
    /// The reason of the erasure. Do not repeat the erased text.
    #[arg(long)]
    reason: Reason,
    /// The actor who erases.
    #[arg(long)]
    actor: Option<Actor>,
}

fn stream(name: &str) -> Result<Stream, String> {
    Stream::named(name).ok_or_else(|| "it must be one of control, heimdall, kpi, risk".to_owned())
}

/// Verifies the trail. Returns whether nothing is wrong and nothing is missing.
pub(super) async fn verify(args: VerifyArgs, config: &DatabaseConfig) -> Result<bool, Failure> {
    let known = match &args.checkpoint {
        Some(file) => read_heads(file, &args, config).await?,
        None => BTreeMap::new(),
    };
    let (db, postgres, name) = open_existing(config).await?;
    let verified = verify_all(&db, &args, &known, config).await;
    let printed = verified.and_then(|verified| print_verdict(&args, verified, &name));
    close_after(printed, db, postgres).await
}

/// Prints the result of a verification. Returns whether nothing is wrong and nothing is missing.
fn print_verdict(
    args: &VerifyArgs,
    (mut text, whole, missing): (String, bool, Vec<String>),
    name: &str,
) -> Result<bool, Failure> {
    let is_part = args.stream.is_some() || args.incremental;
    let looked_at = if is_part { "the verified part of the trail" } else { "the trail" };
    for line in &missing {
        let _ = writeln!(text, "MISSING {line}");
    }
    let verdict = match (whole, missing.is_empty()) {
        (true, true) => format!("{looked_at} is whole"),
        (true, false) => format!("{looked_at} is whole, AND NOT EVERYTHING THAT BELONGS TO IT IS THERE"),
        (false, _) => "THE TRAIL IS DAMAGED".to_owned(),
    };
    let _ = writeln!(text, "{verdict}, in {name}");
    print(&text)?;
    Ok(whole && missing.is_empty())
}

async fn verify_all(
    db: &Database,
    args: &VerifyArgs,
    known: &BTreeMap<Stream, Point>,
    config: &DatabaseConfig,
) -> Result<(String, bool, Vec<String>), Failure> {
    let mut tx = db.begin_unlimited_snapshot().await?;
    archived::hold(&mut tx).await?;
    // Two connections for each processor: while one waits for PostgreSQL, another hashes.
    let connections = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let mut others = db.begin_beside(&mut tx, connections - 1).await?;
    let mut segments = archived::all(&mut tx).await?;
    segments.retain(|one| args.stream.is_none_or(|only| only == one.stream));
    let archive = match &args.archive {
        Some(dir) => {
            let verifiers = verifiers(&args.key, &args.own, config).await?;
            Some(archive::check::check(&mut tx, dir, &verifiers, (&segments, args.stream), known).await?)
        }
        None => None,
    };
    let (mut text, mut whole) = (String::new(), true);
    for stream in Stream::ALL.into_iter().filter(|stream| args.stream.is_none_or(|only| only == *stream)) {
        let kept = known.get(&stream).copied();
        let begin = verify::begin(&mut tx, stream, (args.from, args.to)).await?;
        let from = begin.or(kept.filter(|_| args.incremental)).unwrap_or(Point::BEGINNING);
        let asked = Asked { from, to: args.to, known: kept };
        let verified = verify::verify_kept(&mut tx, &mut others, stream, asked).await?;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", stream.as_str(), verified.end.seq, hex(&verified.end.hash));
        for line in archived_lines(&segments, stream, kept, archive.as_ref()) {
            let _ = writeln!(text, "{line}");
        }
        if let Some(finding) = verified.finding {
            whole = false;
            let _ = writeln!(text, "DAMAGED {finding}");
        }
        if let (Some(kept), Some(found)) = (kept, archive.as_ref().and_then(|archive| archive.known.get(&stream)))
            && *found != kept
        {
            whole = false;
            let _ = writeln!(
                text,
                "DAMAGED {} {}: rewritten: its hash in the archive differs from the one that is known from outside",
                stream.as_str(),
                kept.seq
            );
        }
    }
    for ignored in archive.iter().flat_map(|archive| &archive.ignored) {
        let _ =
            writeln!(text, "archive: {ignored}; the database has its events: archive them again, or remove the file");
    }
    for fault in archive.iter().flat_map(|archive| &archive.faults) {
        whole = false;
        let _ = writeln!(text, "DAMAGED archive: {fault}");
    }
    Ok((text, whole, complete::missing(&mut tx).await?))
}

/// The archived events of a stream, and whether they were verified.
fn archived_lines(
    segments: &[Segment],
    stream: Stream,
    kept: Option<Point>,
    archive: Option<&archive::check::Checked>,
) -> Vec<String> {
    let name = stream.as_str();
    if let Some(archive) = archive {
        let events = archive.events.get(&stream).copied().unwrap_or(0);
        return if events > 0 {
            vec![format!("{name}: {events} archived events are verified, too")]
        } else {
            Vec::new()
        };
    }
    let gone: Vec<_> = segments.iter().filter(|one| one.stream == stream && one.restored_at.is_none()).collect();
    let mut lines: Vec<_> = gone
        .chunk_by(|one, next| one.last.seq == next.before.seq)
        .filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            let files = match run.len() {
                1 => first.file.clone(),
                count => format!("{} to {} ({count} files)", first.file, last.file),
            };
            let (from, to) = (first.first(), last.last.seq);
            Some(format!("{name}: events {from} to {to} are archived in {files}: --archive DIR checks them, too"))
        })
        .collect();
    let of_kept = kept.and_then(|kept| {
        let holder = gone.iter().find(|one| (one.first()..one.last.seq).contains(&kept.seq))?;
        Some(format!("{name}: event {} of the checkpoint is in {}, and was not compared", kept.seq, holder.file))
    });
    lines.extend(of_kept);
    lines
}

/// The bytes of one write.
const WRITE_BYTES: usize = 256 * 1024;

/// Prints the events of each stream, as of one instant. It fails if its reader closes the pipe, since the export is
/// then not whole.
pub(super) async fn export(args: ExportArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let range = TimeRange::new(args.from, args.to)?;
    let (db, postgres, _) = open_existing(config).await?;
    let exported = export_all(&db, args.stream, range).await;
    close_after(exported.map_err(Failure::from), db, postgres).await
}

async fn export_all(db: &Database, only: Option<Stream>, TimeRange { from, to }: TimeRange) -> Result<(), ExportError> {
    let mut conn = db.connect_snapshot().await?;
    archived::hold(&mut conn).await?;
    let mut out = BufWriter::with_capacity(WRITE_BYTES, io::stdout());
    let streams: Vec<_> = Stream::ALL.into_iter().filter(|stream| only.is_none_or(|only| only == *stream)).collect();
    for stream in &streams {
        export::export(&mut conn, (*stream, &streams), from, to, &mut out).await?;
        let floor = archived::floor(&mut conn, *stream).await?.seq;
        if floor > 0 {
            fail(&format!(
                "{}: events up to {floor} are archived and not in this export: see holdfast archive list",
                stream.as_str()
            ));
        }
    }
    Ok(out.flush()?)
}

/// Erases a text, and prints the places where copies of it remain.
pub(super) async fn erase(args: EraseArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let target = Target::new(args.stream, args.seq, &args.field)?;
    let origin = Origin::system(args.actor);
    let (db, postgres, name) = open_existing(config).await?;
    let erased = erase::erase(&db, target, &args.reason, &origin).await;
    let printed = erased.map_err(Failure::from).and_then(|erased| print(&text_of(erased, &target.name(), &name)));
    close_after(printed, db, postgres).await
}

fn text_of(erased: Erased, target: &str, name: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    match erased {
        Erased::Already { digest } => {
            let _ = writeln!(text, "{target} was erased before in {name}; its SHA-256 is {digest}");
        }
        Erased::Now { digest, seq, columns, copies, as_of } => {
            let _ = writeln!(text, "{target} is erased in {name} (control event {seq}); its SHA-256 is {digest}");
            for column in columns {
                let _ = writeln!(text, "erased with it: {column}");
            }
            if as_of {
                let _ = writeln!(text, "WARNING: GET /audit/as-of cannot show any more what this event changed");
            }
            for copy in copies {
                let _ = writeln!(text, "STILL THERE: {} of {}{}", copy.column, copy.row, remedy(&copy.column));
            }
        }
    }
    text
}

/// The remedy for a remaining copy.
fn remedy(column: &str) -> &'static str {
    match column {
        "idempotency_key.answer" => ": it expires by itself after seven days",
        "heimdall_recommendation.policy_snapshot" => ": it stays, since a verdict depends on it",
        column if column.contains("_event.") => ": erase it, too",
        _ => ": the next change replaces it",
    }
}

/// Reads the heads from a signed checkpoint, or from lines of a stream, a number and a hash. Other lines are skipped,
/// so the whole output of this command is accepted.
async fn read_heads(
    file: &Path,
    args: &VerifyArgs,
    config: &DatabaseConfig,
) -> Result<BTreeMap<Stream, Point>, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    if let Ok(note) = Note::read(&text) {
        let names: Vec<_> = note.names().collect();
        let verifiers = verifiers(&args.key, &args.own, config).await.map_err(|_| {
            format!(
                "{shown} is signed by {}: give its key with --key, as printed by holdfast audit key on that machine",
                names.join(", ")
            )
        })?;
        let mut why = NoteError::Unsigned;
        for verifier in &verifiers {
            match checkpoint::believe(&text, verifier) {
                Ok(checkpoint) => return Ok(checkpoint.heads),
                Err(error) => why = error,
            }
        }
        let tried = verifiers.iter().map(Verifier::name).collect::<Vec<_>>().join(", ");
        return Err(format!("{shown}: {why} ({tried})").into());
    }
    // A checkpoint without its signature proves nothing.
    if (!args.key.is_empty() && args.archive.is_none()) || text.contains(checkpoint::ORIGIN) {
        return Err(format!("{shown}: {}", NoteError::Form).into());
    }
    let mut heads = BTreeMap::new();
    for line in text.lines().filter(|line| line.split(' ').next().and_then(Stream::named).is_some()) {
        let (stream, point) = Point::head_line(line)
            .ok_or_else(|| format!("{shown}: {line:?} is not a stream, a number and a hash of 64 digits"))?;
        heads.insert(stream, point);
    }
    if heads.is_empty() {
        return Err(format!("{shown} names no head: it must have lines of a stream, a number and a hash").into());
    }
    Ok(heads)
}
