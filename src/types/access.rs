//! Settings of tokens: lists, lifetimes and rates.

use super::{Count, ParseNumberError};
use chrono::{DateTime, TimeDelta, Utc};
use serde::de::Error as _;
use serde_json::value::RawValue;
use std::fmt;
use std::str::FromStr;
use utoipa::PartialSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

/// A duration: a whole number with one of `s m h d w`, of at most 9, 7, 5, 4 and 3 digits, which is up to 31 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime(TimeDelta);

/// The refusal of a lifetime; it follows the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseLifetimeError {
    /// A lifetime of zero.
    #[error("is zero: send at least 1, for example 30d")]
    Zero,
    /// A number without a unit.
    #[error("is a number without a unit: append s, m, h, d or w, for example 30d")]
    Unitless,
    /// Any other text.
    #[error(
        "is not a lifetime: send a whole number with s, m, h, d or w, of at most 9, 7, 5, 4 or 3 digits, for example 30d"
    )]
    Unreadable,
}

impl Lifetime {
    /// The lifetime as the type that timers take.
    #[must_use]
    pub fn duration(self) -> std::time::Duration {
        self.0.to_std().unwrap_or_default()
    }

    /// The instant this long after `at`; none if it is out of the calendar's range.
    #[must_use]
    pub fn after(self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        at.checked_add_signed(self.0)
    }
}

impl FromStr for Lifetime {
    type Err = ParseLifetimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_matches([' ', '\t']);
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits(text) {
            return Err(ParseLifetimeError::Unitless);
        }
        let (number, unit) =
            text.split_at_checked(text.len().saturating_sub(1)).ok_or(ParseLifetimeError::Unreadable)?;
        let (seconds, most) = match unit {
            "s" => (1, 9),
            "m" => (60, 7),
            "h" => (3_600, 5),
            "d" => (86_400, 4),
            "w" => (604_800, 3),
            _ => return Err(ParseLifetimeError::Unreadable),
        };
        if digits(number) && number.bytes().all(|byte| byte == b'0') {
            return Err(ParseLifetimeError::Zero);
        }
        if !digits(number) || number.starts_with('0') || number.len() > most {
            return Err(ParseLifetimeError::Unreadable);
        }
        let number: i64 = number.parse().map_err(|_| ParseLifetimeError::Unreadable)?;
        TimeDelta::try_seconds(number * seconds).map(Self).ok_or(ParseLifetimeError::Unreadable)
    }
}

crate::types::scalar!(
    Lifetime,
    "Lifetime",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(
            r"^[ \t]*([1-9][0-9]{0,8}s|[1-9][0-9]{0,6}m|[1-9][0-9]{0,4}h|[1-9][0-9]{0,3}d|[1-9][0-9]{0,2}w)[ \t]*$"
        ))
        .description(Some("A duration: a whole number with s, m, h, d or w."))
);

/// A rate in requests a second, 1 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(i64);

/// The refusal of a rate; it follows the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseRateError {
    /// It is not a whole number.
    #[error(transparent)]
    Number(#[from] ParseNumberError),
    /// It is outside 1 to 1,000,000.
    #[error("is {0}: send 1 to 1000000 requests a second")]
    OutOfRange(i64),
}

impl Rate {
    /// The rate in requests a second.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count = text.parse::<Count>()?.get();
        if (1..=1_000_000).contains(&count) { Ok(Self(count)) } else { Err(ParseRateError::OutOfRange(count)) }
    }
}

crate::types::scalar!(
    Rate,
    "Rate",
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(1_000_000))
        .description(Some("Requests a second, counted by each instance."))
);

const LIST_MAX: usize = 100;

/// Distinct values in the order given, at most 100: a JSON array of strings, or one string with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr<Err: fmt::Display> + PartialEq> List<T> {
    fn read<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut list = Vec::new();
        for text in texts.filter(|text| !text.trim().is_empty()) {
            let value = text.parse().map_err(|error: T::Err| format!("{text:?} {error}"))?;
            if !list.contains(&value) {
                list.push(value);
            }
            if list.len() > LIST_MAX {
                return Err(format!("has more than {LIST_MAX} members"));
            }
        }
        Ok(Self(list))
    }
}

impl<T: FromStr<Err: fmt::Display> + PartialEq> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // In a form or a query, an array arrives as its text.
        if text.trim_start().starts_with('[') {
            let texts: Vec<String> =
                serde_json::from_str(text).map_err(|error| format!("is not a list of texts: {error}"))?;
            return Self::read(texts.iter().map(String::as_str));
        }
        Self::read(text.split(','))
    }
}

impl<'de, T: FromStr<Err: fmt::Display> + PartialEq> serde::Deserialize<'de> for List<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Box<RawValue> = serde::Deserialize::deserialize(deserializer)?;
        if raw.get().starts_with('[') {
            let texts: Vec<String> = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
            return Self::read(texts.iter().map(String::as_str)).map_err(D::Error::custom);
        }
        super::scalar_of(&raw).map_err(D::Error::custom)?.parse().map_err(D::Error::custom)
    }
}

impl<T: PartialSchema> List<T> {
    /// The OpenAPI schema: an array, or a string with commas.
    #[must_use]
    pub fn schema() -> RefOr<Schema> {
        let array = ArrayBuilder::new().items(T::schema()).max_items(Some(LIST_MAX)).build();
        let text =
            ObjectBuilder::new().schema_type(Type::String).description(Some("Names separated by commas.")).build();
        RefOr::T(Schema::OneOf(OneOfBuilder::new().item(Schema::Array(array)).item(Schema::Object(text)).build()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_one_unit_and_end() {
        let at = DateTime::UNIX_EPOCH;
        for (text, seconds) in [("1s", 1), ("90m", 5_400), (" 12h ", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)] {
            assert_eq!(text.parse::<Lifetime>().unwrap().after(at).unwrap().timestamp(), seconds, "{text}");
        }
        for bad in [
            "",
            "d",
            "0s",
            "-1d",
            "+1d",
            "1.5h",
            "30",
            "30D",
            "30 d",
            "9999999999999999999d",
            "1000w",
            "030d",
            "1d1h",
            "٣d",
        ] {
            assert!(bad.parse::<Lifetime>().is_err(), "{bad}");
        }
        for (bad, why) in [("0d", ParseLifetimeError::Zero), ("60", ParseLifetimeError::Unitless)] {
            assert_eq!(bad.parse::<Lifetime>(), Err(why), "{bad}");
        }
        assert!("1d".parse::<Lifetime>().unwrap().after(DateTime::<Utc>::MAX_UTC).is_none());
    }

    #[test]
    fn a_list_is_an_array_or_a_text_and_says_each_once() {
        let read = |json: &str| {
            serde_json::from_str::<List<Rate>>(json).map(|list| list.0.iter().map(|rate| rate.0).collect::<Vec<_>>())
        };
        assert_eq!(read(r#"["1","2","1"]"#).unwrap(), [1, 2]);
        assert_eq!(read(r#""1, 2,,1""#).unwrap(), [1, 2]);
        assert_eq!(read(r#""[\"1\",\"2\"]""#).unwrap(), [1, 2]);
        assert_eq!(read("[]").unwrap(), [0; 0]);
        assert!(read(r#"["0"]"#).is_err() && read(r#""x""#).is_err() && read("{}").is_err() && read("[1]").is_err());
    }
}
