//! Cursors: a place and its checksum, so that one that was cut short or changed is refused instead of read as another place.

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::schema::{ObjectBuilder, Type};

/// Hex digits of the checksum: enough against accidents, which is all that it is for.
const CHECK_DIGITS: usize = 8;

/// Why a text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no cursor of this list: send next_cursor whole, as it was answered, or begin again without cursor")]
pub struct ParseCursorError;

/// A place with its checksum.
pub(crate) fn sealed(place: &str) -> String {
    format!("{place}.{}", checksum(place))
}

/// The place of a cursor, if its checksum is right.
pub(crate) fn unsealed(cursor: &str) -> Result<&str, ParseCursorError> {
    let (place, check) = cursor.rsplit_once('.').ok_or(ParseCursorError)?;
    if check == checksum(place) { Ok(place) } else { Err(ParseCursorError) }
}

fn checksum(place: &str) -> String {
    let digest = Sha256::digest(format!("holdfast cursor {place}").as_bytes());
    let mut text = super::hex(&digest);
    text.truncate(CHECK_DIGITS);
    text
}

/// Where the last page of a list ended: a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub i64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sealed(&self.0.to_string()))
    }
}

impl FromStr for Place {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place = unsealed(text)?;
        let digits = (1..=18).contains(&place.len()) && place.bytes().all(|byte| byte.is_ascii_digit());
        place.parse().ok().filter(|_| digits).map(Self).ok_or(ParseCursorError)
    }
}

crate::types::scalar!(
    Place,
    "Cursor",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^[0-9]{1,18}\.[0-9a-f]{8}$"))
        .description(Some("Where the last page ended. Opaque."))
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_is_cut_short_or_changed_at_any_place_is_refused() {
        for place in [0, 7, 123_456, 999_999_999_999_999_999] {
            let cursor = Place(place).to_string();
            assert_eq!(cursor.parse(), Ok(Place(place)));
            for end in 0..cursor.len() {
                assert_eq!(cursor[..end].parse::<Place>(), Err(ParseCursorError), "{}", &cursor[..end]);
                assert_eq!(cursor[end + 1..].parse::<Place>(), Err(ParseCursorError), "{}", &cursor[end + 1..]);
            }
            for at in 0..cursor.len() {
                let mut bytes = cursor.clone().into_bytes();
                bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
                let changed = String::from_utf8(bytes).unwrap();
                assert_eq!(changed.parse::<Place>(), Err(ParseCursorError), "{changed}");
            }
        }
        for old in ["5", "0", "1000000000000", "", ".", "5.", "-5", "x"] {
            assert_eq!(old.parse::<Place>(), Err(ParseCursorError), "{old}");
        }
    }
}
