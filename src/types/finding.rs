//! Findings of a verification of the trail.

use super::Stream;
use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

/// A kind of tampering with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tampering {
    /// A row has other values or another hash than when it was appended.
    Edited,
    /// A row is missing.
    Deleted,
    /// A row was added.
    Inserted,
    /// Rows were swapped.
    Reordered,
    /// The last rows are missing.
    Truncated,
    /// The head does not point to the last row.
    HeadMoved,
    /// Every hash is right, but an event that is known from outside the database has another one.
    Rewritten,
}

impl Tampering {
    /// The name in answers, for example `edited`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Deleted => "deleted",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::HeadMoved => "head_moved",
            Self::Rewritten => "rewritten",
        }
    }
}

/// The first damage of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// The damaged stream.
    pub stream: Stream,
    /// The first sequence number at which the stream differs from what was appended.
    pub seq: i64,
    /// The kind of tampering that explains the difference.
    pub kind: Tampering,
    /// The finding as a sentence.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.stream.as_str(), self.seq, self.kind.as_str(), self.detail)
    }
}
