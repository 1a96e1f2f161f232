//! Pages of lists that grow: newest first, by the sequence number at the end of the last page. New rows come before the
//! first page, so a cursor neither skips nor repeats rows. A page is also limited in bytes, so that neither its answer
//! nor the reading takes much memory.

use crate::error::{Error, Result};
use crate::types::{PageSize, Place};
use serde::Serialize;
use utoipa::ToSchema;

/// One page of a list. It ends early if its rows are large.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows, newest first.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last page. Opaque.
    pub next_cursor: Option<String>,
}

/// The requested page.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    /// The path of the list that its cursors belong to.
    list: &'static str,
    /// Only rows before this sequence number; none for the first page.
    before: Option<i64>,
    limit: i64,
}

impl Paging {
    /// Reads `limit` and `cursor` for the list at this path. A cursor of another list is refused.
    pub fn new(list: &'static str, limit: Option<PageSize>, cursor: Option<Place>) -> Result<Self> {
        let before = cursor.map(|place| place.within(list)).transpose();
        let before = before.map_err(|error| Error::invalid("cursor", error.to_string()))?;
        Ok(Self { list, before, limit: limit.unwrap_or(PageSize::DEFAULT).get() })
    }

    /// An empty page, to be filled portion by portion.
    #[must_use]
    pub const fn begin<T>(self) -> Building<T> {
        Building { of: self, items: Vec::new(), bytes: 0, before: self.before, reading: Reading::Rows }
    }
}

/// Bytes of JSON at which a page ends early; the last row may exceed it.
pub(super) const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Rows that are read at once, which limits the memory for lists with large rows.
const PORTION: i64 = 128;

/// A page that is filled portion by portion, up to its limits of rows and bytes.
#[derive(Debug)]
pub struct Building<T> {
    of: Paging,
    items: Vec<T>,
    bytes: usize,
    before: Option<i64>,
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// There may be more rows.
    Rows,
    /// The page is full, and more rows follow.
    Full,
    /// There are no more rows.
    Last,
}

impl<T: Serialize> Building<T> {
    /// The next read: before which row, and how many; none when the page is complete. One row more than the page holds
    /// shows whether another page follows.
    #[must_use]
    pub fn wants(&self) -> Option<(Option<i64>, i64)> {
        let missing = self.of.limit + 1 - i64::try_from(self.items.len()).unwrap_or(i64::MAX);
        (self.reading == Reading::Rows).then_some((self.before, missing.min(PORTION)))
    }

    /// Adds the rows of a read; `seq` is the sequence number that orders the list.
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

    /// The finished page, with the cursor of the next one.
    #[must_use]
    pub fn end(self) -> Page<T> {
        let last = self.before.filter(|_| self.reading == Reading::Full);
        let next_cursor = last.map(|seq| Place::new(self.of.list, seq).to_string());
        Page { items: self.items, next_cursor }
    }
}

/// The length of a row as JSON, in bytes.
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
