//! Lists that grow: a page at a time, newest first, by the sequence number that the last page ended with. New rows come
//! before the first page, so a cursor neither skips nor repeats while they arrive.

use crate::types::{PageSize, Place};
use serde::Serialize;
use utoipa::ToSchema;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows, newest first.
    pub items: Vec<T>,
    /// What to send as `cursor` for the next page; null on the last one. Opaque.
    pub next_cursor: Option<String>,
}

/// Which page is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    /// Only rows before this sequence number.
    pub before: Option<i64>,
    limit: i64,
}

impl Paging {
    /// Reads `limit` and `cursor`.
    #[must_use]
    pub fn new(limit: Option<PageSize>, cursor: Option<Place>) -> Self {
        Self { before: cursor.map(|place| place.0), limit: limit.unwrap_or(PageSize::DEFAULT).get() }
    }

    /// Rows of a page, at most.
    #[must_use]
    pub const fn limit(self) -> i64 {
        self.limit
    }

    /// Rows to read: one more than the page, which tells whether there is another.
    #[must_use]
    pub const fn fetch(self) -> i64 {
        self.limit + 1
    }

    /// The page of these rows; `seq` is what the list is ordered by.
    pub fn page<T>(self, mut rows: Vec<T>, seq: impl Fn(&T) -> i64) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|row| Place(seq(row)).to_string());
        Page { items: rows, next_cursor }
    }
}
