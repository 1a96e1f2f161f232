//! Lists that grow: a page at a time, newest first, by the sequence number that the last page ended with. New rows come
//! before the first page, so a cursor neither skips nor repeats while they arrive. A page is bounded in bytes as well, so that
//! neither its answer nor the reading of it takes much memory.

use crate::error::{Error, Result};
use crate::types::{PageSize, Place};
use serde::Serialize;
use utoipa::ToSchema;

/// One page of a list. It ends early where its rows are large.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows, newest first.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last one. Opaque.
    pub next_cursor: Option<String>,
}

/// Which page is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    /// The list's path, which its cursors belong to.
    list: &'static str,
    /// Only rows before this sequence number.
    before: Option<i64>,
    limit: i64,
}

impl Paging {
    /// Reads `limit` and `cursor` of the list at this path. A cursor of another list is refused.
    pub fn new(list: &'static str, limit: Option<PageSize>, cursor: Option<Place>) -> Result<Self> {
        let before = cursor.map(|place| place.within(list)).transpose();
        let before = before.map_err(|error| Error::invalid("cursor", error.to_string()))?;
        Ok(Self { list, before, limit: limit.unwrap_or(PageSize::DEFAULT).get() })
    }

    /// Begins a page.
    #[must_use]
    pub const fn begin<T>(self) -> Building<T> {
        Building { of: self, items: Vec::new(), bytes: 0, before: self.before, reading: Reading::Rows }
    }
}

/// Bytes that a page has before it ends early, in JSON: the last row may go beyond.
pub(super) const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Rows that are read at once: all that is in memory of a list whose rows are large.
const PORTION: i64 = 128;

/// A page that is being read, a portion at a time, until it has as many rows or bytes as it may.
#[derive(Debug)]
pub struct Building<T> {
    of: Paging,
    items: Vec<T>,
    bytes: usize,
    before: Option<i64>,
    reading: Reading,
}

/// How far the reading of a page has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// There may be more rows for it.
    Rows,
    /// There are more, and they belong to the next one.
    Full,
    /// There are no more.
    Last,
}

impl<T: Serialize> Building<T> {
    /// The next read: before which row, and how many; none when the page is complete. One row more than the page has tells
    /// whether there is another page.
    #[must_use]
    pub fn wants(&self) -> Option<(Option<i64>, i64)> {
        let missing = self.of.limit + 1 - i64::try_from(self.items.len()).unwrap_or(i64::MAX);
        (self.reading == Reading::Rows).then_some((self.before, missing.min(PORTION)))
    }

    /// Takes what was read; `seq` is what the list is ordered by.
    pub fn take(&mut self, rows: Vec<T>, seq: impl Fn(&T) -> i64) {
        let Some((_, wanted)) = self.wants() else { return };
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < wanted);
        for row in rows {
            if i64::try_from(self.items.len()).is_ok_and(|count| count >= self.of.limit) || self.bytes >= PAGE_BYTES_MAX
            {
                self.reading = Reading::Full;
                return;
            }
            self.bytes += length(&row);
            self.before = Some(seq(&row));
            self.items.push(row);
        }
        if is_last {
            self.reading = Reading::Last;
        }
    }

    /// The page.
    #[must_use]
    pub fn end(self) -> Page<T> {
        let last = self.before.filter(|_| self.reading == Reading::Full);
        let next_cursor = last.map(|seq| Place::new(self.of.list, seq).to_string());
        Page { items: self.items, next_cursor }
    }
}

/// How long the JSON of a row is.
fn length(row: &impl Serialize) -> usize {
    struct Counted(usize);

    impl std::io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut counted = Counted(0);
    serde_json::to_writer(&mut counted, row).expect("our own types have a JSON form");
    counted.0
}
