//! Ranges of business days in requests, and places in lists by day.

use super::cursor::{ParseCursorError, sealed, unsealed};
use chrono::{Datelike, Days, NaiveDate};
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

/// A UTC day of the years 1 to 9999, written `2026-01-13`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub NaiveDate);

/// The refusal of a day; it follows the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a day: send the UTC day alone, of the years 1 to 9999, for example 2026-01-13")]
pub struct ParseDayError;

impl FromStr for Day {
    type Err = ParseDayError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let shaped = text.len() == 10
            && text.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|day| shaped && day.year() >= 1);
        day.map(Self).ok_or(ParseDayError)
    }
}

crate::types::scalar!(
    Day,
    "Day",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Date)))
        .description(Some("A UTC day, for example 2026-01-13."))
);

/// The most days of a range: a leap year.
pub const RANGE_DAYS_MAX: i64 = 366;
/// The days of a range without `from`.
const RANGE_DAYS: u64 = 30;

/// Days that have begun, both ends included: at least one, and at most [`RANGE_DAYS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRange {
    /// The first day.
    pub first: NaiveDate,
    /// The last day.
    pub last: NaiveDate,
}

/// The refusal of a range of days, with the field that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DayRangeError {
    /// The range ends before it has a day.
    #[error("is not after from, and to itself is not in the range: send a later day, {next} for one day")]
    Empty {
        /// The day after `from`.
        next: NaiveDate,
    },
    /// No day is before the end of the range.
    #[error("has no day before it, and to itself is not in the range: send a later day")]
    NoDay,
    /// The range begins after today.
    #[error("is in the future: today is {today}, the last day that a range can begin with")]
    Future {
        /// The business day.
        today: NaiveDate,
    },
    /// The range has too many days.
    #[error(
        "is {days} days before the end of the range: send a later from, or an earlier to, for at most {RANGE_DAYS_MAX} days at once"
    )]
    TooLong {
        /// The days of the range.
        days: i64,
    },
}

impl DayRangeError {
    /// The name of the field.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Empty { .. } | Self::NoDay => "to",
            Self::Future { .. } | Self::TooLong { .. } => "from",
        }
    }
}

impl DayRange {
    /// The days from `from` to before `to`: without `to`, up to today; without `from`, the last 30 of them. Days that
    /// have not begun are left out.
    pub fn new(from: Option<Day>, to: Option<Day>, today: NaiveDate) -> Result<Self, DayRangeError> {
        if let (Some(Day(from)), Some(Day(to))) = (from, to)
            && to <= from
        {
            return Err(from.succ_opt().map_or(DayRangeError::NoDay, |next| DayRangeError::Empty { next }));
        }
        if from.is_some_and(|from| from.0 > today) {
            return Err(DayRangeError::Future { today });
        }
        let last = to.map_or(Some(today), |to| to.0.pred_opt()).filter(|last| last.year() >= 1);
        let last = last.ok_or(DayRangeError::NoDay)?.min(today);
        let first = from.map_or_else(|| back(last, RANGE_DAYS - 1), |from| from.0);
        let range = Self { first, last };
        let days = (last - first).num_days() + 1;
        if days > RANGE_DAYS_MAX { Err(DayRangeError::TooLong { days }) } else { Ok(range) }
    }

    /// The days, the last first.
    pub fn newest_first(self) -> impl Iterator<Item = NaiveDate> {
        self.last.iter_days().rev().take_while(move |day| *day >= self.first)
    }
}

/// The day so many days before another one, in the years that a database can hold.
fn back(day: NaiveDate, days: u64) -> NaiveDate {
    let first = NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or(day);
    day.checked_sub_days(Days::new(days)).unwrap_or(first).max(first)
}

/// The end of a page of a list by day, or by day and name, as the caller sent it. Only the list can check it, with
/// [`DayPlace::within`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayPlace(String);

/// The longest cursor in bytes: a day, the longest name, and a checksum.
const DAY_PLACE_BYTES_MAX: usize = 10 + 1 + 80 + 1 + 8;

impl DayPlace {
    /// The place after a row, in the list of this name. The name of a row that has none is empty.
    #[must_use]
    pub fn new(list: &str, day: NaiveDate, name: &str) -> Self {
        Self(sealed(list, &format!("{day}.{name}")))
    }

    /// The day and the name, if the cursor belongs to the list of this name.
    pub fn within(&self, list: &str) -> Result<(NaiveDate, &str), ParseCursorError> {
        let (day, name) = unsealed(list, &self.0)?.split_once('.').ok_or(ParseCursorError)?;
        Ok((day.parse::<Day>().map_err(|_| ParseCursorError)?.0, name))
    }
}

impl fmt::Display for DayPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DayPlace {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let is_one = text.len() <= DAY_PLACE_BYTES_MAX && text.bytes().all(is_name);
        if is_one { Ok(Self(text.to_owned())) } else { Err(ParseCursorError) }
    }
}

crate::types::scalar!(
    DayPlace,
    "DayCursor",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\.[A-Za-z0-9_.-]{0,80}\.[0-9a-f]{8}$"))
        .description(Some("The end of the last page, from next_cursor. Opaque."))
);

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse::<Day>().unwrap().0
    }

    #[test]
    fn a_day_is_written_in_one_way() {
        assert_eq!(" 2028-02-29 ".parse::<Day>().map(|day| day.0.to_string()), Ok("2028-02-29".into()));
        for bad in [
            "",
            "2026-1-13",
            "2026-02-29",
            "2026-13-01",
            "0000-01-01",
            "+2026-01-1",
            "10000-01-01",
            "2026-01-13T00:00:00Z",
            "20260113",
            "-001-01-01",
            "２026-01-1",
            "today",
        ] {
            assert_eq!(bad.parse::<Day>(), Err(ParseDayError), "{bad}");
        }
    }

    #[test]
    fn a_range_has_the_days_from_from_to_before_to_that_have_begun() {
        let today = day("2026-11-29");
        let range = |from: &str, to: &str| {
            let read = |text: &str| (!text.is_empty()).then(|| Day(day(text)));
            let range = DayRange::new(read(from), read(to), today);
            range.map(|range| (range.first.to_string(), range.last.to_string()))
        };
        let is = |first: &str, last: &str| Ok((first.to_owned(), last.to_owned()));
        assert_eq!(range("", ""), is("2026-10-31", "2026-11-29"));
        assert_eq!(range("2026-11-28", ""), is("2026-11-28", "2026-11-29"));
        assert_eq!(range("2026-11-28", "2026-11-29"), is("2026-11-28", "2026-11-28"));
        assert_eq!(range("2026-11-29", "2026-11-30"), is("2026-11-29", "2026-11-29"));
        assert_eq!(range("2026-11-28", "9999-12-31"), is("2026-11-28", "2026-11-29"));
        assert_eq!(range("", "2026-01-31"), is("2026-01-01", "2026-01-30"));
        assert_eq!(range("", "0001-01-03"), is("0001-01-01", "0001-01-02"));
        assert_eq!(range("2025-11-29", "2026-11-30"), is("2025-11-29", "2026-11-29"));
        assert_eq!(range("2025-11-28", "2026-11-29"), is("2025-11-28", "2026-11-28"));
        assert_eq!(range("2025-11-28", ""), Err(DayRangeError::TooLong { days: 367 }));
        assert_eq!(range("0001-01-01", "9999-12-31").unwrap_err().field(), "from");
        assert_eq!(range("2026-11-30", ""), Err(DayRangeError::Future { today }));
        let empty = |next: &str| Err(DayRangeError::Empty { next: day(next) });
        assert_eq!(range("2026-11-28", "2026-11-28"), empty("2026-11-29"));
        assert_eq!(range("2026-11-28", "2026-11-01"), empty("2026-11-29"));
        assert_eq!(range("2027-01-02", "2027-01-01"), empty("2027-01-03"));
        assert_eq!(range("", "0001-01-01"), Err(DayRangeError::NoDay));
    }

    #[test]
    fn a_place_is_read_back_only_by_its_list() {
        for name in ["", "GLOBAL", "A.B-C_1", "...", &"X".repeat(80)] {
            let place: DayPlace = DayPlace::new("/a", day("2026-11-29"), name).to_string().parse().unwrap();
            assert_eq!(place.within("/a"), Ok((day("2026-11-29"), name)));
            assert_eq!(place.within("/b"), Err(ParseCursorError));
        }
        for bad in ["", ".", "2026-11-29.GLOBAL", "2026-11-29.GLOBAL.00000000", "x y", &"1".repeat(200)] {
            assert!(bad.parse::<DayPlace>().and_then(|place| place.within("/a").map(|_| ())).is_err(), "{bad}");
        }
    }
}
