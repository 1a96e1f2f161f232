//! Pages of sums over days: a row for each day, for each name over the whole range, or for each day and name. The newest
//! day is first, and within it the names are in order. A cursor is a day and a name, so it neither skips nor repeats
//! rows, even if another name appears.

use super::Page;
use crate::error::{Error, Result};
use crate::types::{DayPlace, DayRange, DaysRow, PageSize, WantedNames};
use chrono::NaiveDate;

/// The rows that each name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// One for each day.
    EachDay,
    /// One over the whole range.
    Whole,
}

/// Days whose names are read at once: usually enough for a page, and few where a page needs fewer.
const DAYS_AT_ONCE: usize = 16;

/// A page that is being filled with the names of its rows.
#[derive(Debug)]
pub struct DaysPage {
    /// The path and the grouping of the list that its cursors belong to.
    list: &'static str,
    limit: usize,
    /// The days of the rows that have not been looked for, in order.
    left: Vec<(NaiveDate, NaiveDate)>,
    /// Only names after this one in the first of them.
    after: String,
    items: Vec<DaysRow>,
}

impl DaysPage {
    /// Reads `limit` and `cursor` for this list. A cursor of another list is refused.
    pub fn new(
        list: &'static str,
        rows: Rows,
        range: DayRange,
        limit: Option<PageSize>,
        cursor: Option<&DayPlace>,
    ) -> Result<Self> {
        let place = cursor.map(|place| place.within(list)).transpose();
        let place = place.map_err(|error| Error::invalid("cursor", error.to_string()))?;
        let from = place.map_or(range.last, |(day, _)| day);
        let left = match rows {
            Rows::EachDay => range.newest_first().filter(|day| *day <= from).map(|day| (day, day)).collect(),
            Rows::Whole => vec![(range.first, range.last)],
        };
        // A range that ends earlier than the last page begins with its own first name.
        let after = place.filter(|(day, _)| rows == Rows::Whole || *day <= range.last);
        let after = after.map_or_else(String::new, |(_, name)| name.to_owned());
        let limit = usize::try_from(limit.unwrap_or(PageSize::DEFAULT).get()).unwrap_or(usize::MAX);
        Ok(Self { list, limit, left, after, items: Vec::new() })
    }

    /// The names to read next; none when the page is complete. One row more than the page holds shows whether another
    /// page follows.
    #[must_use]
    pub fn wants(&self) -> Option<WantedNames<'_>> {
        let missing = (self.limit + 1).saturating_sub(self.items.len());
        let limit = i64::try_from(missing).unwrap_or(i64::MAX);
        let days = &self.left[..self.left.len().min(DAYS_AT_ONCE)];
        (missing > 0 && !days.is_empty()).then_some(WantedNames { days, after: &self.after, limit })
    }

    /// Adds the rows of a read.
    pub fn take(&mut self, rows: Vec<DaysRow>) {
        self.left.drain(..self.left.len().min(DAYS_AT_ONCE));
        self.after.clear();
        self.items.extend(rows);
    }

    /// Fills the page with the rows of one name.
    pub fn take_all_of(&mut self, name: &str) {
        let (after, limit) = (std::mem::take(&mut self.after), self.limit);
        let of = |(first, last)| DaysRow { name: name.to_owned(), first, last };
        let rows = self.left.drain(..).map(of).enumerate();
        self.items
            .extend(rows.filter(|(place, _)| *place > 0 || name > after.as_str()).map(|(_, row)| row).take(limit + 1));
    }

    /// The rows of the page, and the cursor of the next one.
    #[must_use]
    pub fn end(mut self) -> (Vec<DaysRow>, Option<String>) {
        let is_more = self.items.len() > self.limit;
        self.items.truncate(self.limit);
        let cursor = |last: &DaysRow| DayPlace::new(self.list, last.last, &last.name).to_string();
        let next = self.items.last().filter(|_| is_more).map(cursor);
        (self.items, next)
    }
}

impl<T> Page<T> {
    /// The page of rows that were summed one by one.
    pub(crate) const fn of(items: Vec<T>, next_cursor: Option<String>) -> Self {
        Self { items, next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    /// A walk over all pages, with the names that each day has.
    fn walk(rows: Rows, limit: &str, names: impl Fn(usize) -> Vec<&'static str>) -> Vec<DaysRow> {
        let range = DayRange { first: day("2026-11-01"), last: day("2026-11-30") };
        let (mut seen, mut cursor) = (Vec::new(), None::<DayPlace>);
        for page in 0.. {
            let mut building = DaysPage::new("/a", rows, range, Some(limit.parse().unwrap()), cursor.as_ref()).unwrap();
            while let Some(wanted) = building.wants() {
                let days = wanted.days.iter().enumerate();
                let rows = days.flat_map(|(place, (first, last))| {
                    let after = if place == 0 { wanted.after } else { "" };
                    let names = names(page).into_iter().filter(move |name| *name > after);
                    names.map(|name| DaysRow { name: name.to_owned(), first: *first, last: *last })
                });
                let rows = rows.take(usize::try_from(wanted.limit).unwrap()).collect();
                building.take(rows);
            }
            let (rows, next) = building.end();
            seen.extend(rows);
            let Some(next) = next else { break };
            cursor = Some(next.parse().unwrap());
        }
        seen
    }

    #[test]
    fn a_walk_has_every_row_once_in_order_whatever_its_pages() {
        for limit in ["1", "2", "3", "7", "90", "1000"] {
            let rows = walk(Rows::EachDay, limit, |_| vec!["A", "B", "C"]);
            assert_eq!(rows.len(), 90, "{limit}");
            let key = |row: &DaysRow| (std::cmp::Reverse(row.last), row.name.clone());
            assert!(rows.is_sorted_by(|one, next| key(one) < key(next)), "{limit}");
            let rows = walk(Rows::Whole, limit, |_| vec!["A", "B", "C"]);
            assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["A", "B", "C"], "{limit}");
        }
    }

    #[test]
    fn a_name_that_appears_during_a_walk_moves_no_other_row() {
        let rows = walk(Rows::EachDay, "2", |page| if page == 0 { vec!["B", "D"] } else { vec!["A", "B", "C", "D"] });
        assert_eq!(rows.iter().filter(|row| row.name == "B").count(), 30);
        assert_eq!(rows.iter().filter(|row| row.name == "D").count(), 30);
    }
}
