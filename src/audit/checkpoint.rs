//! Checkpoints: the signed heads of all streams at an instant, to be kept where the database's owner has no access.
//!
//! ```text
//! holdfast audit checkpoint
//! 2026-11-22T23:59:59.123456Z
//! control 12 <hash of event 12, hex>
//! heimdall 3 …
//! kpi 0 0000…
//! risk 999 …
//!
//! — holdfast/host <signature>
//! ```
//! The text is signed as a C2SP note ([`super::note`]). It is not a C2SP tlog-checkpoint, because the hashes are those
//! of a chain and not of a Merkle tree.
//!
//! Invariants:
//! - Only verified events are signed: everything since the last checkpoint of this key, and that the events it names
//!   still exist. So no signature contradicts an earlier one.
//! - The key is a file outside the database. Each instance has its own.

mod schedule;

use super::note::{Note, NoteError, Signer, Verifier};
use super::verify::{self, Asked, Finding};
use super::{Stream, store};
use crate::db::history::{History, is_there};
use crate::error::{Error, Result};
use crate::owner;
use crate::types::{Point, hex};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use utoipa::ToSchema;

/// The first line of the text.
pub const ORIGIN: &str = "holdfast audit checkpoint";
/// Largest file that can be a kept checkpoint, in bytes; and the most files that are searched for the last one.
const NOTE_BYTES_MAX: u64 = 64 * 1024;
const LOOKED_AT_MAX: usize = 100;
/// The file name extension of a kept checkpoint.
const SUFFIX: &str = ".note";

/// The heads of all streams at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The instant, by the database's clock.
    pub at: DateTime<Utc>,
    /// The last event of each stream.
    pub heads: BTreeMap<Stream, Point>,
}

impl Checkpoint {
    /// Reads the heads of all streams in one snapshot.
    async fn take(conn: &mut PgConnection) -> Result<Self> {
        let (at, heads) = store::points(conn).await?;
        Ok(Self { at, heads })
    }

    /// The text to sign.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{ORIGIN}\n{}\n", self.at.to_rfc3339_opts(SecondsFormat::Micros, true));
        for stream in Stream::ALL {
            let point = self.heads.get(&stream).copied().unwrap_or(Point::BEGINNING);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {} {}", stream.as_str(), point.seq, hex(&point.hash));
        }
        text
    }

    /// The checkpoint of a signed text; none if the text is not one.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        (lines.next()? == ORIGIN).then_some(())?;
        let at = DateTime::parse_from_rfc3339(lines.next()?).ok()?.with_timezone(&Utc);
        let mut heads = BTreeMap::new();
        for line in lines {
            let (stream, point) = Point::head_line(line)?;
            heads.insert(stream, point);
        }
        let checkpoint = (heads.len() == Stream::ALL.len()).then_some(Self { at, heads })?;
        // A checkpoint has exactly one text: this program did not write any other spelling.
        (checkpoint.text() == text).then_some(checkpoint)
    }
}

/// The signer of checkpoints, their folder, and the last one. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Notary(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    signer: Signer,
    /// The folder of kept checkpoints; none if they are not kept.
    dir: Option<PathBuf>,
    known: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    last: Option<Checkpoint>,
    /// The heads of the last checkpoint that the schedule made.
    kept: Option<BTreeMap<Stream, Point>>,
    /// The damage that the last verification found.
    finding: Option<Finding>,
    /// The event of each stream up to which the schedule has verified since then.
    verified: BTreeMap<Stream, Point>,
}

/// The trail compared with the last checkpoint.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Witness {
    /// The instant of the last checkpoint, by the database's clock.
    pub at: DateTime<Utc>,
    /// The name of the key that signed it.
    pub signer: String,
    /// The last event of each stream in the checkpoint.
    pub heads: BTreeMap<String, i64>,
    /// True if each of these events still has the signed hash.
    pub holds: bool,
}

impl Notary {
    /// Opens the notary with the key of this file, which is created if missing, and with the last checkpoint of this
    /// directory.
    pub async fn open(key: &Path, name: &str, dir: Option<PathBuf>) -> io::Result<Self> {
        if !tokio::fs::try_exists(key).await? {
            make_key(key, name).await?;
        }
        Self::existing(key, dir).await
    }

    /// Opens the notary with an existing key.
    pub async fn existing(key: &Path, dir: Option<PathBuf>) -> io::Result<Self> {
        let signer: Signer = tokio::fs::read_to_string(key).await?.parse().map_err(io::Error::other)?;
        let last = match &dir {
            Some(dir) => {
                owner::remove_abandoned(dir).await;
                newest(dir, &signer.verifier()).await?
            }
            None => None,
        };
        Ok(Self::new(signer, dir, last))
    }

    /// A notary with this key and folder, and with its last signed checkpoint.
    #[must_use]
    pub fn new(signer: Signer, dir: Option<PathBuf>, last: Option<Checkpoint>) -> Self {
        Self(Arc::new(Parts {
            signer,
            dir,
            known: Mutex::new(Progress {
                kept: last.as_ref().map(|last| last.heads.clone()),
                last,
                finding: None,
                verified: BTreeMap::new(),
            }),
        }))
    }

    /// The verifier of its signatures.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        self.0.signer.verifier()
    }

    /// The last signed checkpoint; none before the first.
    #[must_use]
    pub fn last(&self) -> Option<Checkpoint> {
        self.known().last.clone()
    }

    /// The damage that the scheduled verification found; none if there is none.
    #[must_use]
    pub fn finding(&self) -> Option<Finding> {
        self.known().finding.clone()
    }

    /// A signed note of this text.
    pub(super) fn sign_text(&self, text: &str) -> String {
        self.0.signer.sign(text)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies the events since the last checkpoint and signs the heads, if everything that this process knew exists:
    /// a note of a trail that lost events would confirm the events that replaced them. The connection must be in a
    /// transaction that sees one instant of the database, without a time limit.
    pub async fn sign(&self, conn: &mut PgConnection, history: &History) -> Result<(Checkpoint, String)> {
        self.sign_behind(conn, history, &self.last_heads()).await
    }

    /// The events of the last checkpoint; empty before the first.
    fn last_heads(&self) -> BTreeMap<Stream, Point> {
        self.last().map(|last| last.heads).unwrap_or_default()
    }

    /// The same, if everything up to `verified` was verified already.
    async fn sign_behind(
        &self,
        conn: &mut PgConnection,
        history: &History,
        verified: &BTreeMap<Stream, Point>,
    ) -> Result<(Checkpoint, String)> {
        // The first statement takes the snapshot, which may lack events that become known later.
        let known_before = history.asked();
        let last = self.last_heads();
        let of = |points: &BTreeMap<Stream, Point>, stream| points.get(&stream).copied().unwrap_or(Point::BEGINNING);
        for stream in Stream::ALL {
            let asked = Asked { from: of(verified, stream), to: None, known: None };
            let finding = match verify::base_finding(&mut *conn, stream, of(&last, stream)).await? {
                Some(finding) => Some(finding),
                None => verify::verify_kept(&mut *conn, &mut Vec::new(), stream, asked).await?.finding,
            };
            if let Some(finding) = finding {
                metrics::gauge!("holdfast_audit_damaged").set(1.0);
                let mut known = self.known();
                known.verified.clear();
                known.finding = Some(finding.clone());
                drop(known);
                return Err(Error::TrailDamaged(Box::new(finding)));
            }
        }
        history.require(conn, &known_before).await?;
        let checkpoint = Checkpoint::take(conn).await?;
        let note = self.0.signer.sign(&checkpoint.text());
        metrics::gauge!("holdfast_audit_damaged").set(0.0);
        let mut known = self.known();
        known.finding = None;
        // If two are signed at once, the one with the later instant is the last.
        if known.last.as_ref().is_none_or(|last| last.at <= checkpoint.at) {
            known.last = Some(checkpoint.clone());
        }
        Ok((checkpoint, note))
    }

    /// The trail now, compared with the last checkpoint; none before the first.
    pub async fn witness(&self, conn: &mut PgConnection) -> Result<Option<Witness>> {
        let Some(last) = self.last() else { return Ok(None) };
        let holds = first_missing(conn, &last).await?.is_none();
        let heads = last.heads.iter().map(|(stream, point)| (stream.as_str().to_owned(), point.seq)).collect();
        Ok(Some(Witness { at: last.at, signer: self.verifier().name().to_owned(), heads, holds }))
    }
}

/// The first event of a checkpoint that is missing or has another hash.
async fn first_missing(conn: &mut PgConnection, checkpoint: &Checkpoint) -> Result<Option<(Stream, Point)>> {
    for (stream, point) in checkpoint.heads.iter().filter(|(_, point)| point.seq > 0) {
        if !is_there(&mut *conn, *stream, *point).await? {
            return Ok(Some((*stream, *point)));
        }
    }
    Ok(None)
}

/// Creates a key that only its owner can read. If two processes create one at once, one wins.
async fn make_key(path: &Path, name: &str) -> io::Result<()> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let signer =
        Signer::new(&key_name(name), seed).ok_or_else(|| io::Error::other("that name cannot be a key's name"))?;
    if let Some(dir) = path.parent() {
        owner::make_dir(dir).await?;
    }
    owner::create(path, format!("{}\n", signer.expose())).await.map(drop)
}

/// A host's name, reduced to the characters of a key's name.
fn key_name(host: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    let host: String = host.chars().map(letter).take(100).collect();
    format!("holdfast/{}", if host.is_empty() { "host" } else { &host })
}

/// Writes a checkpoint to a file named after its time and its signer.
async fn keep(dir: &Path, checkpoint: &Checkpoint, signer: &str, note: &str) -> io::Result<()> {
    owner::make_dir(dir).await?;
    let signer: String = signer.chars().map(|c| if c == '/' { '-' } else { c }).collect();
    let name = format!("{}-{signer}{SUFFIX}", checkpoint.at.format("%Y%m%dT%H%M%S%6fZ"));
    owner::replace(&dir.join(name), note.to_owned()).await
}

/// The last checkpoint in a directory that this key signed. Other files are skipped.
async fn newest(dir: &Path, verifier: &Verifier) -> io::Result<Option<Checkpoint>> {
    let mut names = Vec::new();
    let mut entries = match tokio::fs::read_dir(dir).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    while let Some(entry) = entries.next_entry().await? {
        // Reading a pipe would never end.
        let is_note = entry.metadata().await.is_ok_and(|file| file.is_file() && file.len() <= NOTE_BYTES_MAX);
        names.extend(entry.file_name().into_string().ok().filter(|name| is_note && name.ends_with(SUFFIX)));
    }
    // The names begin with their time, but only a valid signature counts.
    names.sort_unstable();
    let mut newest: Option<Checkpoint> = None;
    for name in names.into_iter().rev().take(LOOKED_AT_MAX) {
        let Ok(note) = tokio::fs::read_to_string(dir.join(name)).await else { continue };
        if let Ok(checkpoint) = believe(&note, verifier)
            && newest.as_ref().is_none_or(|newest| newest.at < checkpoint.at)
        {
            newest = Some(checkpoint);
        }
    }
    Ok(newest)
}

/// The checkpoint of a note, if this key signed it.
pub fn believe(note: &str, verifier: &Verifier) -> Result<Checkpoint, NoteError> {
    let text = Note::read(note)?.verify(verifier)?;
    Checkpoint::read(text).ok_or(NoteError::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() {
        let at = DateTime::from_timestamp_micros(1_768_262_400_000_001).unwrap();
        let heads =
            Stream::ALL.into_iter().zip(0_u8..).map(|(stream, n)| (stream, Point { seq: n.into(), hash: [n; 32] }));
        let checkpoint = Checkpoint { at, heads: heads.collect() };
        assert_eq!(Checkpoint::read(&checkpoint.text()), Some(checkpoint.clone()));
        let text = checkpoint.text();
        for bad in [
            &text.replace("kpi", "kip"),
            &text.replace("risk 3", "risk -3"),
            &text[..text.len() - 1],
            &text.replace(ORIGIN, "another"),
            &text.replace("000001Z", "0000010Z"),
            &text.replace("risk 3", "risk 03"),
        ] {
            assert_eq!(Checkpoint::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_host_of_any_name_has_a_key() {
        for host in ["", "a b+c", "höst", "plain.example"] {
            assert!(Signer::new(&key_name(host), [1; 32]).is_some(), "{host}");
        }
    }
}
