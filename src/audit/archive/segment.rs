//! Reading of a segment's file: every line is recomputed and chained to the one before, in one pass with constant memory.

use super::super::export::{Closing, Opening, Place};
use crate::audit::layout::Kind;
use crate::audit::{Canonical, Stream, chain};
use crate::types::{Point, append_hex, digest_of, hex};
use chrono::{DateTime, SecondsFormat};
use rustix::fs::OFlags;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Longest line that is read, in bytes: more than any event has.
const LINE_MAX: u64 = 16 * 1024 * 1024;
/// Most bytes of a note that are read: more than any has.
const NOTE_MAX: u64 = 64 * 1024;

/// The result of reading a whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) stream: Stream,
    pub(super) before: Point,
    pub(super) last: Point,
    /// The time of the last event, in microseconds since 1970.
    pub(super) last_at: i64,
    pub(super) bytes: i64,
    pub(super) sha256: String,
}

/// An event of a line.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) point: Point,
    pub(super) at: i64,
    /// The columns' canonical texts.
    pub(super) values: Vec<Option<Cow<'a, str>>>,
}

/// A file that is being read.
pub(super) struct Reader {
    lines: BufReader<zstd::Decoder<'static, BufReader<Digested>>>,
    line: Vec<u8>,
    bytes: Vec<u8>,
    stream: Stream,
    before: Point,
    last: Point,
    last_at: i64,
}

/// A file whose bytes are hashed as they are read.
struct Digested {
    file: File,
    hasher: Sha256,
    bytes: i64,
}

impl Read for Digested {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.hasher.update(&into[..count]);
        self.bytes += i64::try_from(count).unwrap_or_default();
        Ok(count)
    }
}

/// Opens a file that is one: a pipe of this name would be waited for, and a device has no end.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(bad("it is not a file")) }
}

/// The text of a note.
pub(super) fn read_note(path: &Path) -> io::Result<String> {
    let mut note = String::new();
    open(path)?.take(NOTE_MAX).read_to_string(&mut note)?;
    Ok(note)
}

fn bad(sentence: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, sentence.into())
}

impl Reader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let digested = Digested { file: open(path)?, hasher: Sha256::new(), bytes: 0 };
        let mut reader = Self {
            lines: BufReader::new(zstd::Decoder::new(digested)?),
            line: Vec::new(),
            bytes: Vec::new(),
            stream: Stream::Risk,
            before: Point::BEGINNING,
            last: Point::BEGINNING,
            last_at: i64::MIN,
        };
        reader.read_line()?;
        let opening: Opening =
            serde_json::from_slice(&reader.line).map_err(|_| bad("its first line is not that of an export"))?;
        reader.stream = opening.stream;
        reader.before = point(&opening.before).ok_or_else(|| bad("its first line names no event"))?;
        reader.last = reader.before;
        Ok(reader)
    }

    fn read_line(&mut self) -> io::Result<()> {
        self.line.clear();
        (&mut self.lines).take(LINE_MAX).read_until(b'\n', &mut self.line)?;
        match self.line.pop() {
            Some(b'\n') => Ok(()),
            _ => Err(bad(format!("it ends after event {}, without its last line", self.last.seq))),
        }
    }

    /// The next event, if it follows the one before; none at the last line.
    pub(super) fn next_event(&mut self) -> io::Result<Option<Event<'_>>> {
        self.read_line()?;
        if serde_json::from_slice::<Closing>(&self.line).is_ok() {
            return Ok(None);
        }
        let (stream, expected) = (self.stream, self.last.seq + 1);
        let wrong = |why: &str| bad(format!("{} {expected}: {why}", stream.as_str()));
        let line = Columns(stream).deserialize(&mut serde_json::Deserializer::from_slice(&self.line));
        let Line { values, erased, time, hash } =
            line.map_err(|error| wrong(&format!("its line cannot be read: {error}")))?;
        if values[0].as_deref() != Some(&*expected.to_string()) {
            return Err(wrong(&format!("the line has event {}", values[0].as_deref().unwrap_or("null"))));
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut canonical = Canonical::head(bytes, stream, expected);
        let mut digest = Vec::new();
        for (column, value) in stream.columns().iter().zip(&values).skip(1) {
            canonical = match (column.kind, value) {
                (Kind::Free, Some(text)) => {
                    digest.clear();
                    append_hex(&mut digest, &Sha256::digest(text.as_bytes()));
                    canonical.text(std::str::from_utf8(&digest).ok())
                }
                (Kind::Free, None) => canonical.text(erased.get(column.name).map(AsRef::as_ref)),
                (_, value) => canonical.text(value.as_deref()),
            };
        }
        self.bytes = canonical.into_bytes();
        if chain(&self.last.hash, &self.bytes) != hash {
            return Err(wrong("its content does not match its hash"));
        }
        let at: i64 = values[1].as_deref().and_then(|at| at.parse().ok()).ok_or_else(|| wrong("it has no time"))?;
        let shown = DateTime::from_timestamp_micros(at).map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true));
        if shown.as_deref() != Some(&*time) {
            return Err(wrong("its time is not the one that is hashed"));
        }
        if at <= self.last_at {
            return Err(wrong("its time is not later than that of the event before"));
        }
        self.last = Point { seq: expected, hash };
        self.last_at = at;
        Ok(Some(Event { point: self.last, at, values }))
    }

    /// The facts of the file, once [`next_event`](Self::next_event) has returned the end.
    pub(super) fn end(mut self) -> io::Result<Contents> {
        let closing: Closing = serde_json::from_slice(&self.line).map_err(|_| bad("it was not read to its end"))?;
        if point(&closing.last) != Some(self.last) || closing.stream != self.stream {
            return Err(bad(format!("its last line names another event than {}", self.last.seq)));
        }
        if !self.lines.fill_buf()?.is_empty() {
            return Err(bad("it goes on behind its last line"));
        }
        let mut digested = self.lines.into_inner().finish().into_inner();
        // The frame's end may come in a read of its own.
        io::copy(&mut digested, &mut io::sink())?;
        Ok(Contents {
            stream: self.stream,
            before: self.before,
            last: self.last,
            last_at: self.last_at,
            bytes: digested.bytes,
            sha256: hex(&digested.hasher.finalize()),
        })
    }
}

/// Verifies a whole file, and shows each event.
pub(super) fn read(path: &Path, mut each: impl FnMut(&Event<'_>)) -> io::Result<Contents> {
    let mut reader = Reader::open(path)?;
    while let Some(event) = reader.next_event()? {
        each(&event);
    }
    reader.end()
}

fn point(place: &Place) -> Option<Point> {
    Some(Point { seq: place.seq.parse().ok().filter(|seq| *seq >= 0)?, hash: digest_of(&place.hash)? })
}

/// A text that borrows from its line where it can.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Line<'a> {
    values: Vec<Option<Cow<'a, str>>>,
    /// The digests of erased texts.
    erased: BTreeMap<String, String>,
    time: Cow<'a, str>,
    hash: [u8; 32],
}

/// Reads the line of an event of this stream. Its members must be those that the export writes, in their order.
struct Columns(Stream);

impl<'de> DeserializeSeed<'de> for Columns {
    type Value = Line<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Columns {
    type Value = Line<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event of {}", self.0.as_str())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        fn member<'de, T: Deserialize<'de>, A: MapAccess<'de>>(map: &mut A, name: &str) -> Result<T, A::Error> {
            match map.next_key::<&str>()? {
                Some(key) if key == name => map.next_value(),
                _ => Err(A::Error::custom(format!("{name} is not where it should be"))),
            }
        }
        let stream: Text<'_> = member(&mut map, "stream")?;
        if stream.0 != self.0.as_str() {
            return Err(A::Error::custom(format!("it is an event of {}", stream.0)));
        }
        let columns = self.0.columns();
        let (mut values, mut time) = (Vec::with_capacity(columns.len()), Cow::Borrowed(""));
        for column in columns {
            let value: Option<Text<'_>> = member(&mut map, column.name)?;
            values.push(value.map(|value| value.0));
            if column.kind == Kind::Time {
                time = member::<Text<'_>, A>(&mut map, "time")?.0;
            }
        }
        let (mut erased, mut key) = (BTreeMap::new(), map.next_key::<&str>()?);
        if key == Some("erased") {
            erased = map.next_value()?;
            key = map.next_key()?;
        }
        if key != Some("hash") {
            return Err(A::Error::custom("hash is not where it should be"));
        }
        let hash: Text<'_> = map.next_value()?;
        let hash = digest_of(&hash.0).ok_or_else(|| A::Error::custom("its hash is not a SHA-256"))?;
        if map.next_key::<&str>()?.is_some() {
            return Err(A::Error::custom("it has more members"));
        }
        Ok(Line { values, erased, time, hash })
    }
}
