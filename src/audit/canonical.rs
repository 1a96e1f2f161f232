//! The bytes that the chain covers. The format is final: it can never change for existing events.
//!
//! ```text
//! canonical = 0x01 ‖ field(stream name) ‖ field(column 1) ‖ field(column 2) ‖ …
//! field     = length of the value in bytes, 4 bytes big-endian ‖ value
//! null      = 0xFFFFFFFF
//! ```
//! Columns are in the order of the table, without `hash`. Every value is UTF-8 text: integers in decimal digits; times
//! in microseconds since 1970-01-01T00:00:00Z; decimals without exponent and trailing zeros (`trim_scale(x)::text`);
//! booleans `true`/`false`; days `YYYY-MM-DD`; uuids lower-case with hyphens. Free text (`reason`, `detail`,
//! `metadata`, `recommendation`, `evidence`) is the lower-case hex of its own SHA-256, so the chain still holds after
//! an erasure. psql can recompute all of it with `sha256` and `int4send`.

use crate::types::{Actor, CorrelationId, hex};
use chrono::{DateTime, NaiveDate, Utc};
use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::io::Write;

/// The version of this format, the first byte.
const VERSION: u8 = 1;
const NULL: [u8; 4] = [0xFF; 4];

/// A growing canonical form. Each method appends one column.
#[derive(Debug)]
pub struct Canonical(Vec<u8>);

impl Canonical {
    /// The columns that all streams begin with, for an event at this place by this origin.
    #[must_use]
    pub fn begin(stream: super::Stream, stamp: super::Stamp, origin: &super::Origin) -> Self {
        Self::head(Vec::with_capacity(512), stream, stamp.seq)
            .time(Some(stamp.at))
            .text(Some(origin.principal.as_str()))
            .text(origin.actor.as_ref().map(Actor::as_str))
            .text(origin.request_id.as_ref().map(crate::types::RequestId::as_str))
            .text(origin.correlation_id.as_ref().map(CorrelationId::as_str))
    }

    /// The version, the stream and the number, written into `bytes`, which must be empty.
    #[must_use]
    pub fn head(mut bytes: Vec<u8>, stream: super::Stream, seq: i64) -> Self {
        bytes.push(VERSION);
        Self(bytes).text(Some(stream.as_str())).shown(Some(seq))
    }

    /// Appends a text column.
    #[must_use]
    pub fn text(mut self, value: Option<&str>) -> Self {
        match value {
            None => self.0.extend_from_slice(&NULL),
            Some(text) => {
                // The parser and the CHECK of every column bound it far below 4 GiB.
                let length = u32::try_from(text.len()).expect("columns are bounded");
                self.0.extend_from_slice(&length.to_be_bytes());
                self.0.extend_from_slice(text.as_bytes());
            }
        }
        self
    }

    /// Appends an integer, a boolean, a uuid or an exact decimal: any value that displays as its canonical text.
    #[must_use]
    pub fn shown(mut self, value: Option<impl Display>) -> Self {
        let Some(value) = value else {
            return self.text(None);
        };
        // Written in place, and its length afterwards: an event has a dozen such columns.
        let begin = self.0.len() + NULL.len();
        self.0.extend_from_slice(&NULL);
        write!(self.0, "{value}").expect("writing to memory cannot fail");
        let length = u32::try_from(self.0.len() - begin).expect("columns are bounded");
        self.0[begin - NULL.len()..begin].copy_from_slice(&length.to_be_bytes());
        self
    }

    /// Appends a time column, in microseconds since 1970.
    #[must_use]
    pub fn time(self, value: Option<DateTime<Utc>>) -> Self {
        self.shown(value.map(|at| at.timestamp_micros()))
    }

    /// Appends a day column, as `YYYY-MM-DD`.
    #[must_use]
    pub fn day(self, value: Option<NaiveDate>) -> Self {
        self.shown(value.map(|day| day.format("%Y-%m-%d")))
    }

    /// Appends a free text column as the hex of its SHA-256.
    #[must_use]
    pub fn digest(self, value: Option<&str>) -> Self {
        let digest = value.map(|text| hex(&Sha256::digest(text.as_bytes())));
        self.text(digest.as_deref())
    }

    /// The bytes, for reuse of their buffer.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The bytes appended so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
