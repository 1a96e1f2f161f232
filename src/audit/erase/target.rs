//! A text that may be erased, and a copy of it that stays.

use crate::audit::Stream;
use crate::audit::layout::Kind;
use crate::error::{Error, Result};

/// A text, by the column of its event.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The event's stream.
    pub stream: Stream,
    /// The event's number.
    pub seq: i64,
    /// The name of the column.
    pub field: &'static str,
}

impl Target {
    /// The text of this name, if the stream has it and it may be erased.
    pub fn new(stream: Stream, seq: i64, field: &str) -> Result<Self> {
        let known = stream.columns().iter().find(|column| column.kind == Kind::Free && column.name == field);
        let target = known.map(|column| Self { stream, seq, field: column.name });
        match target {
            // Replays are answered from this column.
            Some(_) if (stream, field) == (Stream::Risk, "detail") => Err(Error::NotFound {
                what: "text of a caller's",
                id: format!("{}/{seq}/{field}, which holds only numbers", stream.as_str()),
            }),
            Some(target) => Ok(target),
            None => Err(Error::NotFound { what: "free text", id: format!("{}/{seq}/{field}", stream.as_str()) }),
        }
    }

    /// The name in the trail: stream, number and column.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.stream.as_str(), self.seq, self.field)
    }
}

/// A copy of a text that was not erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// The table and the column, as `table.column`.
    pub column: String,
    /// The key of the row.
    pub row: String,
}
