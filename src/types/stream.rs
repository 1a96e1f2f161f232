//! The streams of the audit trail, and places in them.

use super::hex::digest_of;
use serde::{Deserialize, Serialize};

/// An event stream, in lock order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Measurements.
    Kpi,
    /// Trials, recommendations and their use.
    Heimdall,
    /// Risk decisions.
    Risk,
    /// Changes of the control plane, and refused attempts.
    Control,
}

impl Stream {
    /// The stream's name in the database and in the hashed bytes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kpi => "kpi",
            Self::Heimdall => "heimdall",
            Self::Risk => "risk",
            Self::Control => "control",
        }
    }

    /// All streams, in the order of their names.
    pub const ALL: [Self; 4] = [Self::Control, Self::Heimdall, Self::Kpi, Self::Risk];

    /// The name of its table in the database.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Kpi => "kpi_event",
            Self::Heimdall => "heimdall_event",
            Self::Risk => "risk_event",
            Self::Control => "control_event",
        }
    }

    /// The stream of this name; none for an unknown name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.as_str() == name)
    }
}

/// An event that is known from outside the database, by its number and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The sequence number; 0 for the beginning of a stream.
    pub seq: i64,
    /// The hash; zeros at the beginning of a stream.
    pub hash: [u8; 32],
}

impl Point {
    /// The place before the first event of a stream.
    pub const BEGINNING: Self = Self { seq: 0, hash: [0; 32] };

    /// Reads a line of a checkpoint or of a marks file: stream, number and hash. None if it is not one.
    #[must_use]
    pub fn head_line(line: &str) -> Option<(Stream, Self)> {
        let mut words = line.split(' ');
        let (stream, seq, hash) = (words.next()?, words.next()?, words.next()?);
        let point = Self { seq: seq.parse().ok().filter(|seq| *seq >= 0)?, hash: digest_of(hash)? };
        words.next().is_none().then_some((Stream::named(stream)?, point))
    }
}
