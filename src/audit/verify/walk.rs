//! The pass over the rows of a stream, and the meaning of the first bad row.

use crate::audit::layout::Kind;
use crate::audit::{Canonical, Stream, binary, chain};
use crate::types::{Finding, Point, Tampering};
use std::collections::BTreeMap;

/// The scope of a verification.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The event after which it begins, which is trusted.
    pub from: Point,
    /// The last event that is verified; none for all, including the head.
    pub to: Option<i64>,
    /// An event whose hash is known from outside.
    pub known: Option<Point>,
}

impl Asked {
    /// A whole stream, with nothing known from outside.
    pub const ALL: Self = Self { from: Point::BEGINNING, to: None, known: None };
}

/// The head of a stream as it is stored.
pub(in crate::audit) struct Head {
    pub(in crate::audit) point: Point,
    pub(in crate::audit) at: i64,
}

/// Digests of the erased texts, by number and column. Erased texts are rare, so this is small.
pub(in crate::audit) type Erased = BTreeMap<(i64, String), String>;

/// The facts of a row that are needed once the next one is read.
#[derive(Debug, Clone)]
pub(super) struct Link {
    seq: i64,
    at: i64,
    bytes: Vec<u8>,
    /// The offset of the columns after version, stream and number.
    tail: usize,
    hash: [u8; 32],
}

impl Link {
    /// True if the row's hash follows this one.
    fn follows(&self, before: &[u8; 32]) -> bool {
        chain(before, &self.bytes) == self.hash
    }

    /// True if it would follow, had it this number.
    fn would_follow(&self, stream: Stream, before: &[u8; 32], seq: i64) -> bool {
        let mut bytes = Canonical::head(Vec::new(), stream, seq).into_bytes();
        bytes.extend_from_slice(&self.bytes[self.tail..]);
        chain(before, &bytes) == self.hash
    }
}

pub(super) struct Walk<'a> {
    stream: Stream,
    erased: &'a Erased,
    /// The last intact row, or the start of the pass.
    pub(super) before: Point,
    last_at: i64,
    /// The head's number; none if only a part is verified.
    head_seq: Option<i64>,
    /// A row with a wrong hash, until the next row shows the reason.
    bad: Option<Link>,
    pub(super) events: i64,
    bytes: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// A pass that begins after `asked.from`.
    pub(super) fn new(stream: Stream, asked: Asked, head: &Head, erased: &'a Erased) -> Self {
        Self {
            stream,
            erased,
            before: asked.from,
            last_at: i64::MIN,
            head_seq: asked.to.is_none().then_some(head.point.seq),
            bad: None,
            events: 0,
            bytes: Vec::new(),
        }
    }

    /// A row's values as a link of the chain.
    pub(super) fn link(&mut self, values: &[Option<&[u8]>]) -> Result<Link, binary::Unreadable> {
        let columns = self.stream.columns();
        let (Some((hash, values)), true) = (values.split_last(), values.len() == columns.len() + 1) else {
            return Err(binary::Unreadable);
        };
        let hash = hash.and_then(|hash| <[u8; 32]>::try_from(hash).ok()).ok_or(binary::Unreadable)?;
        let seq = binary::integer(values[0].ok_or(binary::Unreadable)?)?;
        let at = binary::micros(values[1].ok_or(binary::Unreadable)?)?;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut bytes = Canonical::head(bytes, self.stream, seq).into_bytes();
        let tail = bytes.len();
        for (column, value) in columns.iter().zip(values).skip(1) {
            let digest = if column.kind == Kind::Free && value.is_none() && !self.erased.is_empty() {
                self.erased.get(&(seq, column.name.to_owned())).map(String::as_str)
            } else {
                None
            };
            binary::append(&mut bytes, *column, *value, digest)?;
        }
        Ok(Link { seq, at, bytes, tail, hash })
    }

    pub(super) fn finding(&self, seq: i64, kind: Tampering, detail: impl Into<String>) -> Finding {
        Finding { stream: self.stream, seq, kind, detail: detail.into() }
    }

    /// The finding for a row with a value that no event can hold.
    pub(super) fn impossible(&self, values: &[Option<&[u8]>]) -> Finding {
        let seq = values.first().copied().flatten().and_then(|seq| binary::integer(seq).ok());
        let seq = seq.unwrap_or(self.before.seq + 1);
        self.finding(seq, Tampering::Edited, "it holds a value that no event can hold")
    }

    /// Takes the next row. Returns the finding as soon as it is certain.
    pub(super) fn step(&mut self, link: Link) -> Option<Finding> {
        self.events += 1;
        if let Some(bad) = self.bad.take() {
            return Some(self.explain(&bad, &link));
        }
        let expected = self.before.seq + 1;
        if self.head_seq.is_some_and(|head| link.seq > head)
            && (link.seq != expected || !link.follows(&self.before.hash))
        {
            let detail = "it is beyond the head, and no event leads to it";
            return Some(self.finding(link.seq, Tampering::Inserted, detail));
        }
        if link.seq > expected {
            let detail = format!("events {expected} to {} are missing", link.seq - 1);
            return Some(self.finding(expected, Tampering::Deleted, detail));
        }
        if link.seq < expected {
            return Some(self.finding(link.seq, Tampering::Inserted, "the number occurs twice"));
        }
        if !link.follows(&self.before.hash) {
            self.bad = Some(link);
            return None;
        }
        if link.at <= self.last_at {
            return Some(self.finding(
                link.seq,
                Tampering::Edited,
                "its time is not later than that of the event before",
            ));
        }
        self.before = Point { seq: link.seq, hash: link.hash };
        self.last_at = link.at;
        self.bytes = link.bytes;
        None
    }

    /// The tampering with a row whose hash is wrong, as the row after it shows.
    fn explain(&self, bad: &Link, next: &Link) -> Finding {
        let (stream, seq) = (self.stream, bad.seq);
        if next.seq == seq {
            return self.finding(seq, Tampering::Inserted, "the number occurs twice");
        }
        if next.follows(&bad.hash) {
            return self.finding(
                seq,
                Tampering::Edited,
                "its content does not match its hash, and the next event follows it",
            );
        }
        if bad.at >= next.at {
            return self.finding(seq, Tampering::Reordered, format!("it is not earlier than event {}", next.seq));
        }
        if next.would_follow(stream, &self.before.hash, seq) {
            let detail = format!("the row at {} is the one that was appended at {seq}", next.seq);
            return self.finding(seq, Tampering::Inserted, detail);
        }
        if next.would_follow(stream, &bad.hash, next.seq + 1) {
            let detail = format!("the row at {} was appended after another event", next.seq);
            return self.finding(seq, Tampering::Deleted, detail);
        }
        self.finding(seq, Tampering::Edited, "its content does not match its hash")
    }

    /// The finding at the end of the rows, with the head.
    pub(super) fn end(&self, asked: Asked, head: &Head) -> Option<Finding> {
        let last = self.before.seq;
        if let Some(bad) = &self.bad {
            let behind = bad.seq > head.point.seq && asked.to.is_none();
            let (kind, detail) = if behind {
                (Tampering::Inserted, "it is beyond the head, and no event leads to it")
            } else {
                (Tampering::Edited, "its content does not match its hash")
            };
            return Some(self.finding(bad.seq, kind, detail));
        }
        if let Some(to) = asked.to.filter(|to| *to <= head.point.seq) {
            let detail = format!("events {} to {to} are missing", last + 1);
            return (last < to).then(|| self.finding(last + 1, Tampering::Deleted, detail));
        }
        if head.point.seq > last && head.point.hash != self.before.hash {
            let detail = format!("the head is at {}, and the last event is {last}", head.point.seq);
            return Some(self.finding(last + 1, Tampering::Truncated, detail));
        }
        // Before the first event a head has the time 1970.
        let at = match (self.last_at, last) {
            (i64::MIN, 0) => Some(0),
            (i64::MIN, _) => None,
            (at, _) => Some(at),
        };
        if head.point != self.before || at.is_some_and(|at| at != head.at) {
            let detail = format!("the head is at {}, or has another hash or time than event {last}", head.point.seq);
            return Some(self.finding(last, Tampering::HeadMoved, detail));
        }
        asked.known.filter(|known| known.seq > last).map(|known| {
            let detail = format!("event {} is known from outside, but the last event is {last}", known.seq);
            self.finding(last + 1, Tampering::Truncated, detail)
        })
    }
}
