//! The findings of a verification of the trail.

use super::Stream;
use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

/// The tampering with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tampering {
    /// A row says something else than it did, or has another hash.
    Edited,
    /// A row is gone.
    Deleted,
    /// A row was put in.
    Inserted,
    /// Rows changed places.
    Reordered,
    /// The last rows are gone.
    Truncated,
    /// The head does not stand at the last row.
    HeadMoved,
    /// Every hash is right, and an event that is known from outside the database has another one.
    Rewritten,
}

impl Tampering {
    /// Its name.
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

/// The first thing that is wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// The stream.
    pub stream: Stream,
    /// Where: the first sequence number at which it is not what was appended.
    pub seq: i64,
    /// The tampering.
    pub kind: Tampering,
    /// The same in words.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.stream.as_str(), self.seq, self.kind.as_str(), self.detail)
    }
}
