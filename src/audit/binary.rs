//! Rows as `COPY … (FORMAT binary)` sends them, and their canonical bytes: the fastest way to read every event.
//!
//! One message of the stream is one row. Values are read by their fixed binary forms; any other form is an error, never
//! a guess.

use super::layout::{Column, Kind};
use crate::types::append_hex;
use sha2::{Digest, Sha256};
use std::io::Write;

/// The first bytes of the stream.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// The signature, the flags, and the length of an unused extension.
const HEADER: usize = 19;
/// Microseconds from 1970 to 2000, the epoch of PostgreSQL.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Days from the era of the formula below to 2000-01-01.
const EPOCH_DAYS: i64 = 730_425;
/// The length that encodes null, in the stream and in the canonical bytes.
const NULL: [u8; 4] = [0xFF; 4];

/// The bytes are not a row in COPY's binary format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row in COPY's binary format cannot be read")]
pub struct Unreadable;

/// The unread rest of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        self.take(N)?.try_into().map_err(|_| Unreadable)
    }

    /// A value with its length before it; none for null.
    fn value(&mut self) -> Result<Option<&'a [u8]>, Unreadable> {
        match i32::from_be_bytes(self.array()?) {
            -1 => Ok(None),
            length => self.take(usize::try_from(length).map_err(|_| Unreadable)?).map(Some),
        }
    }
}

/// Reads the values of a row in the order of the query. False at the end of the stream.
pub fn values<'a>(message: &'a [u8], into: &mut Vec<Option<&'a [u8]>>) -> Result<bool, Unreadable> {
    let message = if message.starts_with(SIGNATURE) { message.get(HEADER..).ok_or(Unreadable)? } else { message };
    into.clear();
    if message.is_empty() {
        // The header may come in a message of its own.
        return Ok(true);
    }
    let mut reader = Reader(message);
    let count = i16::from_be_bytes(reader.array()?);
    if count == -1 {
        return Ok(false);
    }
    for _ in 0..count {
        into.push(reader.value()?);
    }
    if reader.0.is_empty() { Ok(true) } else { Err(Unreadable) }
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], Unreadable> {
    value.try_into().map_err(|_| Unreadable)
}

/// The value of a bigint.
pub fn integer(value: &[u8]) -> Result<i64, Unreadable> {
    Ok(i64::from_be_bytes(fixed(value)?))
}

/// The value of a timestamptz, in microseconds since 1970.
pub fn micros(value: &[u8]) -> Result<i64, Unreadable> {
    integer(value)?.checked_add(EPOCH_MICROS).ok_or(Unreadable)
}

/// Appends a column as the chain covers it. `digest` replaces a free text that was erased.
pub fn append(
    bytes: &mut Vec<u8>,
    column: Column,
    value: Option<&[u8]>,
    digest: Option<&str>,
) -> Result<(), Unreadable> {
    let begin = bytes.len() + NULL.len();
    bytes.extend_from_slice(&NULL);
    match (column.kind, value) {
        (Kind::Free, None) if digest.is_some() => bytes.extend_from_slice(digest.unwrap_or_default().as_bytes()),
        (_, None) => return Ok(()),
        (Kind::Free, Some(value)) => append_hex(bytes, &Sha256::digest(value)),
        (kind, Some(value)) => text(bytes, kind, value)?,
    }
    let length = u32::try_from(bytes.len() - begin).map_err(|_| Unreadable)?;
    bytes[begin - NULL.len()..begin].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Appends a value in its canonical text; a free text unchanged.
pub fn text(bytes: &mut Vec<u8>, kind: Kind, value: &[u8]) -> Result<(), Unreadable> {
    match (kind, value) {
        (Kind::Text | Kind::Free, value) => bytes.extend_from_slice(value),
        (Kind::Integer, value) => show(bytes, integer(value)?),
        (Kind::Time, value) => show(bytes, micros(value)?),
        (Kind::Boolean, [0]) => bytes.extend_from_slice(b"false"),
        (Kind::Boolean, [1]) => bytes.extend_from_slice(b"true"),
        (Kind::Boolean, _) => return Err(Unreadable),
        (Kind::Uuid, value) => {
            let mut buffer = uuid::Uuid::encode_buffer();
            bytes.extend_from_slice(
                uuid::Uuid::from_bytes(fixed(value)?).hyphenated().encode_lower(&mut buffer).as_bytes(),
            );
        }
        (Kind::Day, value) => day(bytes, i32::from_be_bytes(fixed(value)?)),
        (Kind::Decimal, value) => decimal(bytes, value)?,
    }
    Ok(())
}

fn show(bytes: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(bytes, "{value}").expect("writing to memory cannot fail");
}

/// Appends a date, from days since 2000-01-01: the civil calendar by Howard Hinnant's `civil_from_days`.
fn day(bytes: &mut Vec<u8>, days: i32) {
    // Days since 0000-03-01.
    let shifted = i64::from(days) + EPOCH_DAYS;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    write!(bytes, "{year:04}-{month:02}-{day:02}").expect("writing to memory cannot fail");
}

fn group(bytes: &mut Vec<u8>, number: u16) {
    for place in [1_000, 100, 10, 1] {
        // A digit is one byte.
        bytes.push(b'0' + u8::try_from(number / place % 10).unwrap_or_default());
    }
}

/// Appends a numeric without exponent and trailing zeros, from its base-10,000 digits.
fn decimal(bytes: &mut Vec<u8>, value: &[u8]) -> Result<(), Unreadable> {
    let mut reader = Reader(value);
    let count = i16::from_be_bytes(reader.array()?);
    let weight = i16::from_be_bytes(reader.array()?);
    let sign = u16::from_be_bytes(reader.array()?);
    let scale = i16::from_be_bytes(reader.array()?);
    if count < 0
        || scale < 0
        || !(sign == 0 || sign == 0x4000)
        || reader.0.len() != 2 * usize::from(count.unsigned_abs())
    {
        // NaN and infinities have signs of their own; no column of ours holds them.
        return Err(Unreadable);
    }
    let digit = |place: i32| -> u16 {
        let index = i32::from(weight) - place;
        let at = usize::try_from(index).ok().map(|index| index * 2);
        at.and_then(|at| reader.0.get(at..at + 2)).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]))
    };
    if sign == 0x4000 && count > 0 {
        bytes.push(b'-');
    }
    if weight < 0 {
        bytes.push(b'0');
    } else {
        show(bytes, digit(i32::from(weight)));
        for place in (0..i32::from(weight)).rev() {
            group(bytes, digit(place));
        }
    }
    let point = bytes.len();
    bytes.push(b'.');
    let places = (i32::from(scale) + 3) / 4;
    for place in 1..=places {
        group(bytes, digit(-place));
    }
    while bytes.last() == Some(&b'0') {
        bytes.pop();
    }
    if bytes.len() == point + 1 {
        bytes.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(kind: Kind, value: &[u8]) -> String {
        let mut bytes = Vec::new();
        text(&mut bytes, kind, value).expect("a value");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, day) in [
            (0, "2000-01-01"),
            (-1, "1999-12-31"),
            (59, "2000-02-29"),
            (60, "2000-03-01"),
            (9_822, "2026-11-22"),
            (-10_957, "1970-01-01"),
            (36_584, "2100-03-01"),
        ] {
            assert_eq!(shown(Kind::Day, &i32::to_be_bytes(days)), day);
        }
    }

    #[test]
    fn a_decimal_of_the_largest_scale_is_read() {
        let value = [0, 0, 0, 0, 0, 0, 0x7f, 0xff];
        assert_eq!(shown(Kind::Decimal, &value), "0");
    }

    #[test]
    fn decimals_have_neither_exponent_nor_trailing_zeros() {
        let numeric = |weight: i16, sign: u16, scale: i16, digits: &[u16]| {
            let count = i16::try_from(digits.len()).expect("few");
            let mut value =
                [count.to_be_bytes(), weight.to_be_bytes(), sign.to_be_bytes(), scale.to_be_bytes()].concat();
            value.extend(digits.iter().flat_map(|digit| digit.to_be_bytes()));
            shown(Kind::Decimal, &value)
        };
        assert_eq!(numeric(0, 0, 6, &[]), "0");
        assert_eq!(numeric(0, 0, 6, &[7]), "7");
        assert_eq!(numeric(1, 0, 6, &[1]), "10000");
        assert_eq!(numeric(1, 0x4000, 6, &[12, 34, 5_600]), "-120034.56");
        assert_eq!(numeric(-1, 0, 6, &[1, 2_300]), "0.000123");
        assert_eq!(numeric(-2, 0, 6, &[2_300]), "0.000023");
        assert_eq!(numeric(2, 0, 0, &[1]), "100000000");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(message: Vec<u8>) {
            let mut row = Vec::new();
            let _ = values(&message, &mut row);
            for kind in [Kind::Decimal, Kind::Day, Kind::Time, Kind::Uuid, Kind::Boolean, Kind::Integer] {
                let _ = append(&mut Vec::new(), Column { name: "x", kind }, Some(&message), None);
            }
        }
    }
}
