//! The flat list of fields that JSON, form and query become, each with its original text.

use crate::error::{Error, FieldError, Result};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Most fields in one request; the largest request type has under 20.
const FIELDS_MAX: usize = 64;

/// A field with its original text.
#[derive(Debug)]
pub(crate) struct Field {
    pub(in crate::http) name: String,
    pub(in crate::http) value: Box<RawValue>,
    /// True if it was sent under its alias.
    pub(super) aliased: bool,
}

impl Field {
    fn new(name: String, value: Box<RawValue>) -> Self {
        let aliased = name == "changed_by";
        Self { name: if aliased { "actor".into() } else { name }, value, aliased }
    }

    /// A field that was sent as text.
    fn text(name: String, value: &str) -> Self {
        Self::new(name, serde_json::value::to_raw_value(value).expect("a string has a JSON form"))
    }

    /// True for the field of this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// True for null and blank, which count as left out.
    pub(in crate::http) fn is_blank(&self) -> bool {
        let token = self.value.get();
        token == "null" || (token.starts_with('"') && token[1..token.len() - 1].trim().is_empty())
    }

    /// True if two spellings have the same value: `400` and `"400"` do, and so do an object and its text.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        fn text(field: &Field) -> Cow<'_, str> {
            crate::types::scalar_of(&field.value).unwrap_or(Cow::Borrowed(field.value.get()))
        }
        text(self).trim() == text(other).trim()
    }
}

/// The fields of a JSON object in order, with unchanged values.
pub(super) fn json_fields(bytes: &[u8]) -> Result<Vec<Field>> {
    match json_fields_read(bytes) {
        (fields, None) => Ok(fields),
        (_, Some(error)) => Err(error),
    }
}

/// The fields of a JSON object up to the first fault, and the fault.
pub(super) fn json_fields_read(bytes: &[u8]) -> (Vec<Field>, Option<Error>) {
    struct Into<'a>(&'a mut Vec<Field>);

    impl<'de> serde::de::Visitor<'de> for Into<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
            while let Some((name, value)) = entries.next_entry::<String, Box<RawValue>>()? {
                if self.0.len() == FIELDS_MAX {
                    return Err(serde::de::Error::custom(format!("more than {FIELDS_MAX} fields")));
                }
                self.0.push(Field::new(name, value));
            }
            Ok(())
        }
    }

    let mut fields = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = serde::Deserializer::deserialize_map(&mut reader, Into(&mut fields)).and_then(|()| reader.end());
    let error = |error| Error::Malformed(format!("the body is not a JSON object: {error}"));
    (fields, read.err().map(error))
}

/// The fields of `a=1&b=2`, strictly decoded: bad percent-encoding or UTF-8 is refused, not repaired.
pub(super) fn pair_fields(text: &str, source: &str) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        // A bare name could mean yes, no or nothing: `?dry_run` must not reserve.
        let (name, value) = pair.split_once('=').ok_or_else(|| without_a_value(pair, source))?;
        let decoded =
            |part: &str| percent_decode(part.as_bytes(), Percent::Strict).ok_or_else(|| undecodable(pair, source));
        fields.push(Field::text(decoded(name)?, &decoded(value)?));
        if fields.len() > FIELDS_MAX {
            return Err(too_many(source));
        }
    }
    Ok(fields)
}

/// Each readable field of `a=1&b=2`, and the errors of the others. A `%` that encodes nothing counts as a typed
/// character.
pub(super) fn pair_fields_each(bytes: &[u8], source: &str) -> (Vec<Field>, Vec<Error>) {
    let (mut fields, mut errors) = (Vec::new(), Vec::new());
    for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        if fields.len() + errors.len() == FIELDS_MAX {
            errors.push(too_many(source));
            break;
        }
        let shown = String::from_utf8_lossy(pair);
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else {
            errors.push(without_a_value(&shown, source));
            continue;
        };
        let decoded =
            |percent| Some((percent_decode(&pair[..at], percent)?, percent_decode(&pair[at + 1..], percent)?));
        let strict = decoded(Percent::Strict);
        if strict.is_none() {
            errors.push(undecodable(&shown, source));
        }
        fields.extend(strict.or_else(|| decoded(Percent::AsTyped)).map(|(name, value)| Field::text(name, &value)));
    }
    (fields, errors)
}

/// The values of a name in a query, as far as it can be read.
pub(in crate::http) fn query_values(query: &str, name: &str) -> impl Iterator<Item = String> {
    let (fields, _) = pair_fields_each(query.as_bytes(), "query");
    let named = fields.into_iter().filter(move |field| field.is(name));
    named.filter_map(|field| crate::types::scalar_of(&field.value).ok().map(Cow::into_owned))
}

/// Characters of a caller's text that an answer repeats.
const SHOWN_MAX: usize = 200;

/// A caller's text in quotes, on one line. A long text is cut and its length added: escapes can make a text six times
/// as long.
fn shown(text: &str) -> String {
    let escaped: Vec<char> = text.escape_debug().take(SHOWN_MAX + 1).collect();
    if escaped.len() <= SHOWN_MAX {
        return format!("{text:?}");
    }
    let beginning: String = escaped.iter().take(SHOWN_MAX).collect();
    format!("\"{beginning}…\" ({} bytes)", text.len())
}

fn without_a_value(pair: &str, source: &str) -> Error {
    let pair = shown(pair);
    Error::Malformed(format!(
        "the {source} has {pair} without a value: write it as name=value, and an & inside a value as %26"
    ))
}

fn undecodable(pair: &str, source: &str) -> Error {
    let pair = shown(pair);
    Error::Malformed(format!(
        "the {source} has bad percent-encoding or UTF-8 in {pair}: write a % as %25, and other characters as UTF-8"
    ))
}

fn too_many(source: &str) -> Error {
    Error::Malformed(format!("the {source} has more than {FIELDS_MAX} fields"))
}

/// The treatment of a `%` without two hex digits after it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Percent {
    /// It is an error.
    Strict,
    /// It is the character itself.
    AsTyped,
}

pub(super) fn percent_decode(text: &[u8], percent: Percent) -> Option<String> {
    let hex = |at: usize| char::from(*text.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let encoded = if byte == b'%' { hex(at + 1).zip(hex(at + 2)) } else { None };
        decoded.push(match (byte, encoded, percent) {
            (_, Some((high, low)), _) => high * 16 + low,
            (b'%', None, Percent::Strict) => return None,
            (b'+', ..) => b' ',
            (other, ..) => other,
        });
        at += if encoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

/// Refuses a field that occurs twice. `changed_by` and `actor` are one field; both may be given with the same value.
pub(super) fn unique(fields: Vec<Field>, source: &str) -> Result<Vec<Field>> {
    let mut kept: Vec<Field> = Vec::with_capacity(fields.len());
    for field in fields {
        match kept.iter().find(|twin| twin.name == field.name) {
            None => kept.push(field),
            Some(twin) if twin.aliased != field.aliased && twin.says_the_same(&field) => {}
            Some(_) => {
                let error = FieldError::new(&field.name, format!("is given twice in the {source}: send it once"));
                return Err(Error::Contradictory(format!("{} {}", error.field, error.detail), error));
            }
        }
    }
    Ok(kept)
}

pub(super) fn merge(mut body: Vec<Field>, query: Vec<Field>) -> Result<Vec<Field>> {
    for field in query {
        match body.iter().find(|twin| twin.name == field.name) {
            Some(twin) if twin.says_the_same(&field) => {}
            Some(_) => {
                let error = FieldError::new(&field.name, "differs between body and query: send it once");
                return Err(Error::Contradictory(format!("{} {}", error.field, error.detail), error));
            }
            None => body.push(field),
        }
    }
    Ok(body)
}
