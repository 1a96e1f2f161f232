//! The text of a segment's signed note.
//!
//! ```text
//! holdfast audit archive
//! 2026-11-22T23:59:59.123456Z
//! risk 1 after <hash before event 1, hex>
//! risk 20 <hash of event 20, hex>
//! 2026-10-31T23:59:59.000001Z
//! risk-1-20.ndjson.zst 4711 <SHA-256 of the file, hex>
//! ```
//! The times are when it was made, and the last event's.

use super::file_name;
use crate::types::{Point, Stream, digest_of, hex};
use chrono::{DateTime, SecondsFormat, Utc};

const ORIGIN: &str = "holdfast audit archive";

/// The facts of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) at: DateTime<Utc>,
    pub(super) stream: Stream,
    pub(super) before: Point,
    pub(super) last: Point,
    pub(super) last_at: DateTime<Utc>,
    pub(super) bytes: i64,
    pub(super) sha256: String,
}

fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

impl Manifest {
    pub(super) fn first(&self) -> i64 {
        self.before.seq + 1
    }

    pub(super) fn file(&self) -> String {
        file_name(self.stream, self.first(), self.last.seq)
    }

    pub(super) fn text(&self) -> String {
        let Self { at, stream, before, last, last_at, bytes, sha256 } = self;
        let stream = stream.as_str();
        format!(
            "{ORIGIN}\n{}\n{stream} {} after {}\n{stream} {} {}\n{}\n{} {bytes} {sha256}\n",
            shown(*at),
            self.first(),
            hex(&before.hash),
            last.seq,
            hex(&last.hash),
            shown(*last_at),
            self.file()
        )
    }

    /// The manifest of a text; none if this program did not write it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        (lines.next()? == ORIGIN).then_some(())?;
        let time = |line: &str| Some(DateTime::parse_from_rfc3339(line).ok()?.with_timezone(&Utc));
        let at = time(lines.next()?)?;
        let mut first = lines.next()?.split(' ');
        let stream = Stream::named(first.next()?)?;
        let seq: i64 = first.next()?.parse().ok().filter(|seq| *seq > 0)?;
        let before = Point { seq: seq - 1, hash: digest_of(first.nth(1)?)? };
        let (_, last) = Point::head_line(lines.next()?)?;
        let last_at = time(lines.next()?)?;
        let mut file = lines.next()?.split(' ').skip(1);
        let (bytes, sha256) = (file.next()?.parse().ok()?, file.next()?.to_owned());
        digest_of(&sha256)?;
        let manifest = Self { at, stream, before, last, last_at, bytes, sha256 };
        // A segment has exactly one text.
        (manifest.text() == text).then_some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_nothing_else_is_one() {
        let at = DateTime::from_timestamp_micros(1_768_262_400_000_001).unwrap();
        let manifest = Manifest {
            at,
            stream: Stream::Risk,
            before: Point::BEGINNING,
            last: Point { seq: 20, hash: [7; 32] },
            last_at: at,
            bytes: 4711,
            sha256: "ab".repeat(32),
        };
        let text = manifest.text();
        assert_eq!(Manifest::read(&text), Some(manifest));
        for bad in [
            &text.replace("risk 1 ", "risk 2 "),
            &text.replace("risk-1-20", "risk-1-21"),
            &text.replace("4711", "04711"),
            &text.replace("after", "before"),
            &text.replace(ORIGIN, "holdfast audit checkpoint"),
            &text[..text.len() - 1],
        ] {
            assert_eq!(Manifest::read(bad), None, "{bad}");
        }
    }
}
