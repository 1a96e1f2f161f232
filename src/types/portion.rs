//! A read of a list's rows, by their numbers, newest first.

/// Numbers that a page looks at where no index leads to the rows that are asked for: some milliseconds' work, however long the list is.
pub const STRETCH: i64 = 10_000;

/// Rows to read: the last of those that are numbered from `first` to below `before`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Only rows from this number on.
    pub first: i64,
    /// Only rows before this number.
    pub before: i64,
    /// At most so many.
    pub limit: i64,
}

impl Portion {
    /// The last rows of a list.
    #[must_use]
    pub const fn last(limit: i64) -> Self {
        Self { first: 1, before: i64::MAX, limit }
    }
}

/// A row of sums over days, both ends included, by its name, such as an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaysRow {
    /// The name.
    pub name: String,
    /// The first day.
    pub first: chrono::NaiveDate,
    /// The last day.
    pub last: chrono::NaiveDate,
}

/// Names to read: those of each of these spans of days, in order.
#[derive(Debug, Clone, Copy)]
pub struct WantedNames<'a> {
    /// The spans of days, first and last.
    pub days: &'a [(chrono::NaiveDate, chrono::NaiveDate)],
    /// In the first of them, only names after this one.
    pub after: &'a str,
    /// At most so many.
    pub limit: i64,
}
