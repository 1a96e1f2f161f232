//! `holdfast audit verify`: is the trail what was appended?

use super::{Failure, close, open_existing, print};
use crate::audit::Stream;
use crate::audit::canonical::hex;
use crate::audit::verify::{self, Asked, Point};
use crate::config::DatabaseConfig;
use crate::db::Database;
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Only this stream: control, heimdall, kpi or risk.
    #[arg(long, value_parser = stream)]
    stream: Option<Stream>,
    /// Begin with this event; the one before it is taken for right. Needs --stream.
    #[arg(long, requires = "stream", value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    from: Option<i64>,
    /// End with this event. Needs --stream.
    #[arg(long, requires = "stream", value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
    to: Option<i64>,
    /// Heads that were kept outside the database: lines of a stream, a sequence number and a hash, as this command prints them.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

fn stream(name: &str) -> Result<Stream, String> {
    Stream::named(name).ok_or_else(|| "it is one of control, heimdall, kpi, risk".to_owned())
}

/// Verifies; says whether nothing is wrong.
pub(super) async fn verify(args: VerifyArgs, config: &DatabaseConfig) -> Result<bool, Failure> {
    let known = match &args.checkpoint {
        Some(file) => read_heads(file)?,
        None => BTreeMap::new(),
    };
    let (db, postgres, name) = open_existing(config).await?;
    let verified = verify_all(&db, &args, &known).await;
    close(db, postgres).await?;
    let (mut text, whole) = verified?;
    let verdict = if whole { "the trail is whole" } else { "THE TRAIL IS DAMAGED" };
    let _ = writeln!(text, "{verdict}, in {name}");
    print(&text)?;
    Ok(whole)
}

async fn verify_all(
    db: &Database,
    args: &VerifyArgs,
    known: &BTreeMap<Stream, Point>,
) -> Result<(String, bool), Failure> {
    let mut tx = db.begin_unlimited_snapshot().await?;
    let (mut text, mut whole) = (String::new(), true);
    for stream in Stream::ALL.into_iter().filter(|stream| args.stream.is_none_or(|only| only == *stream)) {
        let from = match args.from.filter(|from| *from > 1) {
            Some(from) => verify::point(&mut tx, stream, from - 1).await?,
            None => Point::BEGINNING,
        };
        let asked = Asked { from, to: args.to, known: known.get(&stream).copied() };
        let verified = verify::verify(&mut tx, stream, asked).await?;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", stream.as_str(), verified.end.seq, hex(&verified.end.hash));
        if let Some(finding) = verified.finding {
            whole = false;
            let _ = writeln!(text, "DAMAGED {finding}");
        }
    }
    Ok((text, whole))
}

/// Lines of a stream, a number and a hash; others are passed over, so that a whole output of this command will do.
fn read_heads(file: &Path) -> Result<BTreeMap<Stream, Point>, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let mut heads = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(stream) = words.next().and_then(Stream::named) else { continue };
        let seq = words.next().and_then(|word| word.parse().ok());
        let hash = words.next().and_then(bytes_of);
        let (Some(seq), Some(hash), None) = (seq, hash, words.next()) else {
            return Err(format!("{shown}: {line:?} is no stream with a number and a hash of 64 digits").into());
        };
        heads.insert(stream, Point { seq, hash });
    }
    if heads.is_empty() {
        return Err(format!("{shown} names no head: it has lines of a stream, a number and a hash").into());
    }
    Ok(heads)
}

fn bytes_of(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
