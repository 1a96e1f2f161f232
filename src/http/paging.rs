//! Pages of lists that grow: newest first, by the sequence number at the end of the last page. New rows come before the
//! first page, so a cursor neither skips nor repeats rows. A page is also limited in bytes, so that neither its answer
//! nor the reading takes much memory.

use crate::db::archived::ArchivedEvents;
use crate::error::{Error, Result};
use crate::types::{PageSize, Place, Portion, STRETCH};
use serde::Serialize;
use utoipa::ToSchema;

/// One page of a list. It ends early if its rows are large.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows, newest first.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last page. Opaque. A page with few rows, or none, is not the last one
    /// while it has a cursor.
    pub next_cursor: Option<String>,
}

/// One page of a list whose oldest rows may be archived.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArchivedPage<T> {
    #[serde(flatten)]
    page: Page<T>,
    /// The archived events in the asked time, which the list lacks; null if there are none.
    archived: Option<ArchivedEvents>,
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

    /// An empty page, to be filled portion by portion. An index leads to its rows.
    #[must_use]
    pub fn begin<T>(self) -> Building<T> {
        self.begin_between(1, i64::MAX - 1)
    }

    /// The same for rows numbered `lowest` to `last`.
    #[must_use]
    pub fn begin_between<T>(self, lowest: i64, last: i64) -> Building<T> {
        let before = self.before.unwrap_or(i64::MAX).min(last.saturating_add(1));
        Building { of: self, items: Vec::new(), bytes: 0, before, first: lowest, lowest, reading: Reading::Rows }
    }

    /// The same for rows without an index: the page reads at most [`STRETCH`] numbers, and the next page continues there.
    #[must_use]
    pub fn begin_within<T>(self, lowest: i64, last: i64) -> Building<T> {
        let page = self.begin_between(lowest, last);
        Building { first: page.before.saturating_sub(STRETCH).max(lowest), ..page }
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
    /// The rest of it is before this number.
    before: i64,
    /// The first number that it looks at.
    first: i64,
    /// The first number of the list's wanted rows.
    lowest: i64,
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// There may be more rows.
    Rows,
    /// The page is full, or has read its stretch, and the next page continues.
    Full,
    /// There are no more rows.
    Last,
}

impl<T: Serialize> Building<T> {
    /// The next read; none when the page is complete. One row more than the page holds shows whether another page follows.
    #[must_use]
    pub fn wants(&self) -> Option<Portion> {
        let missing = self.of.limit + 1 - i64::try_from(self.items.len()).unwrap_or(i64::MAX);
        let portion = Portion { before: self.before, first: self.first, limit: missing.min(PORTION) };
        (self.reading == Reading::Rows).then_some(portion)
    }

    /// Adds the rows of a read; `seq` is the sequence number that orders the list.
    pub fn take(&mut self, rows: Vec<T>, seq: impl Fn(&T) -> i64) {
        let Some(Portion { limit, .. }) = self.wants() else { return };
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < limit);
        for row in rows {
            if i64::try_from(self.items.len()).is_ok_and(|count| count >= self.of.limit) || self.bytes >= PAGE_BYTES_MAX
            {
                self.reading = Reading::Full;
                return;
            }
            self.bytes += length(&row);
            self.before = seq(&row);
            self.items.push(row);
        }
        if is_last {
            self.before = self.first;
            self.reading = if self.first > self.lowest { Reading::Full } else { Reading::Last };
        }
    }

    /// The finished page, with the cursor of the next one.
    #[must_use]
    pub fn end(self) -> Page<T> {
        let is_more = self.reading == Reading::Full;
        Page { items: self.items, next_cursor: is_more.then(|| Place::new(self.of.list, self.before).to_string()) }
    }

    /// The same, with what the list lacks.
    #[must_use]
    pub fn end_beside(self, archived: Option<ArchivedEvents>) -> ArchivedPage<T> {
        ArchivedPage { page: self.end(), archived }
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
