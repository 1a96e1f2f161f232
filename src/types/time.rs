//! Instants in requests.

use chrono::{DateTime, Datelike, Utc};
use std::str::FromStr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};

/// An RFC 3339 instant of the years 1 to 9999, which every reader of such texts can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub DateTime<Utc>);

/// The refusal of an instant; it follows the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTimeError {
    /// The text is not an instant.
    #[error("is not a time: send RFC 3339 of the years 1 to 9999, for example 2026-01-13T00:00:00Z")]
    NotATime,
    /// The `+` of the offset was decoded to a space.
    #[error(
        "has a space where the + of its offset belongs, since a + in a query or a form means a space: write the + as %2B, or \
         better send UTC with Z, for example 2026-01-13T00:00:00Z"
    )]
    PlusBecameSpace,
}

impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let Ok(time) = DateTime::parse_from_rfc3339(text) else {
            let with_plus = text.rsplit_once(' ').map(|(time, offset)| format!("{time}+{offset}"));
            let lost = with_plus.is_some_and(|text| DateTime::parse_from_rfc3339(&text).is_ok());
            return Err(if lost { ParseTimeError::PlusBecameSpace } else { ParseTimeError::NotATime });
        };
        let time = time.with_timezone(&Utc);
        if (1..=9999).contains(&time.year()) { Ok(Self(time)) } else { Err(ParseTimeError::NotATime) }
    }
}

/// A range of instants, half-open: `from` is in it, `to` is not. A bound that is none is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeRange {
    /// The first instant in the range.
    pub from: Option<DateTime<Utc>>,
    /// The first instant after the range.
    pub to: Option<DateTime<Utc>>,
}

/// The refusal of a range that ends before it begins; it follows `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is earlier than from, so the range is empty: send the earlier instant as from")]
pub struct ReversedRange;

impl TimeRange {
    /// The range between two instants. A range that ends before it begins is a mistake and is refused.
    pub fn new(from: Option<Time>, to: Option<Time>) -> Result<Self, ReversedRange> {
        if to < from && to.is_some() {
            return Err(ReversedRange);
        }
        Ok(Self { from: from.map(|time| time.0), to: to.map(|time| time.0) })
    }
}

crate::types::scalar!(
    Time,
    "Time",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some("An instant, RFC 3339."))
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused() {
        let time = |text: &str| Some(text.parse::<Time>().unwrap());
        let (early, late) = (time("2026-01-13T00:00:00Z"), time("2026-01-13T00:00:00.000001Z"));
        for (from, to) in [(early, late), (early, early), (early, None), (None, early), (None, None)] {
            assert!(TimeRange::new(from, to).is_ok(), "{from:?} {to:?}");
        }
        assert!(TimeRange::new(late, early).is_err());
    }

    #[test]
    fn times_are_rfc_3339_of_four_digit_years() {
        for good in
            ["2026-01-13T00:00:00Z", "2026-01-13T01:00:00+01:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
        {
            assert!(good.parse::<Time>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "2026-01-13",
            "yesterday",
            "-4800-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "+20000-01-01T00:00:00Z",
        ] {
            assert_eq!(bad.parse::<Time>(), Err(ParseTimeError::NotATime), "{bad}");
        }
        let lost = "2026-01-13T00:00:00 01:00".parse::<Time>();
        assert_eq!(lost, Err(ParseTimeError::PlusBecameSpace));
    }
}
