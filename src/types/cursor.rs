//! Cursors: a place in a list with a checksum of both. A cursor that was cut short, changed or taken from another list
//! is refused instead of being read as another place.

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::schema::{ObjectBuilder, Type};

/// Hex digits of the checksum. It guards against accidents, not against forgery.
const CHECK_DIGITS: usize = 8;

/// The refusal of a cursor; it follows the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor of this list: send next_cursor unchanged, or start again without cursor")]
pub struct ParseCursorError;

/// The cursor of a place in a list.
pub(crate) fn sealed(list: &str, place: &str) -> String {
    format!("{place}.{}", checksum(list, place))
}

/// The place of a cursor, if its checksum matches the list.
pub(crate) fn unsealed<'a>(list: &str, cursor: &'a str) -> Result<&'a str, ParseCursorError> {
    let (place, check) = cursor.rsplit_once('.').ok_or(ParseCursorError)?;
    if check == checksum(list, place) { Ok(place) } else { Err(ParseCursorError) }
}

fn checksum(list: &str, place: &str) -> String {
    let digest = Sha256::digest(format!("holdfast cursor {list} {place}").as_bytes());
    let mut text = super::hex(&digest);
    text.truncate(CHECK_DIGITS);
    text
}

/// The end of the last page, as the caller sent it. Only the list can check it, with [`Place::within`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    /// The place after the row with this sequence number, in the list of this name.
    #[must_use]
    pub fn new(list: &str, seq: i64) -> Self {
        Self(sealed(list, &seq.to_string()))
    }

    /// The sequence number, if the cursor belongs to the list of this name.
    pub fn within(&self, list: &str) -> Result<i64, ParseCursorError> {
        let place = unsealed(list, &self.0)?;
        let digits = (1..=18).contains(&place.len()) && place.bytes().all(|byte| byte.is_ascii_digit());
        place.parse().ok().filter(|_| digits).ok_or(ParseCursorError)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Place {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let check = text.rsplit_once('.').map(|(_, check)| check);
        let is_one = check.is_some_and(|check| check.len() == CHECK_DIGITS) && text.len() <= 18 + 1 + CHECK_DIGITS;
        if is_one { Ok(Self(text.to_owned())) } else { Err(ParseCursorError) }
    }
}

crate::types::scalar!(
    Place,
    "Cursor",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^[0-9]{1,18}\.[0-9a-f]{8}$"))
        .description(Some("The end of the last page, from next_cursor. Opaque."))
);

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "/a/list";

    fn read(text: &str) -> Result<i64, ParseCursorError> {
        text.parse::<Place>()?.within(LIST)
    }

    #[test]
    fn a_cursor_that_is_cut_short_or_changed_at_any_place_is_refused() {
        for place in [0, 7, 123_456, 999_999_999_999_999_999] {
            let cursor = Place::new(LIST, place).to_string();
            assert_eq!(read(&cursor), Ok(place));
            for end in 0..cursor.len() {
                assert_eq!(read(&cursor[..end]), Err(ParseCursorError), "{}", &cursor[..end]);
                assert_eq!(read(&cursor[end + 1..]), Err(ParseCursorError), "{}", &cursor[end + 1..]);
            }
            for at in 0..cursor.len() {
                let mut bytes = cursor.clone().into_bytes();
                bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
                let changed = String::from_utf8(bytes).unwrap();
                assert_eq!(read(&changed), Err(ParseCursorError), "{changed}");
            }
        }
        for old in ["5", "0", "1000000000000", "", ".", "5.", "-5", "x"] {
            assert_eq!(read(old), Err(ParseCursorError), "{old}");
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let cursor: Place = Place::new("/another/list", 7).to_string().parse().unwrap();
        assert_eq!(cursor.within(LIST), Err(ParseCursorError));
        assert_eq!(cursor.within("/another/list"), Ok(7));
    }
}
