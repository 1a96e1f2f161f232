//! The flat list of fields that JSON, form and query all become, each as it was sent.

use crate::error::{Error, FieldError, Result};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Most fields in one request; the richest request type has under 20.
const FIELDS_MAX: usize = 64;

/// One field as it was sent.
#[derive(Debug)]
pub(crate) struct Field {
    pub(in crate::http) name: String,
    pub(in crate::http) value: Box<RawValue>,
    /// Whether it was sent under the original's name for it.
    pub(super) aliased: bool,
}

impl Field {
    fn new(name: String, value: Box<RawValue>) -> Self {
        let aliased = name == "changed_by";
        Self { name: if aliased { "actor".into() } else { name }, value, aliased }
    }

    /// Whether it is the field of this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Null and blank mean "left out".
    pub(in crate::http) fn is_blank(&self) -> bool {
        let token = self.value.get();
        token == "null" || (token.starts_with('"') && token[1..token.len() - 1].trim().is_empty())
    }

    /// Whether two spellings say the same: `400` and `"400"` do, and so do an object and its text.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        fn text(field: &Field) -> Cow<'_, str> {
            crate::types::scalar_of(&field.value).unwrap_or(Cow::Borrowed(field.value.get()))
        }
        text(self).trim() == text(other).trim()
    }
}

/// The fields of a JSON object, in order, values untouched.
pub(super) fn json_fields(bytes: &[u8]) -> Result<Vec<Field>> {
    struct Fields;

    impl<'de> serde::de::Visitor<'de> for Fields {
        type Value = Vec<Field>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::new();
            while let Some((name, value)) = entries.next_entry::<String, Box<RawValue>>()? {
                fields.push(Field::new(name, value));
                if fields.len() > FIELDS_MAX {
                    return Err(serde::de::Error::custom(format!("more than {FIELDS_MAX} fields")));
                }
            }
            Ok(fields)
        }
    }

    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde::Deserializer::deserialize_map(&mut reader, Fields)
        .and_then(|fields| reader.end().map(|()| fields))
        .map_err(|error| Error::Malformed(format!("the body is not a JSON object: {error}")))
}

/// The fields of `a=1&b=2`, strictly decoded: bad percent-encoding or UTF-8 is refused, not repaired.
pub(super) fn pair_fields(text: &str, source: &str) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        // A bare name could mean yes, no or nothing: `?dry_run` must not reserve.
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Error::Malformed(format!("the {source} has {pair:.80?} without a value: write it as name=value"))
        })?;
        let decoded = |part: &str| {
            percent_decode(part).ok_or_else(|| {
                Error::Malformed(format!("the {source} has bad percent-encoding or UTF-8 in {pair:.80?}"))
            })
        };
        let (name, value) = (decoded(name)?, decoded(value)?);
        let value = serde_json::value::to_raw_value(&value).expect("a string has a JSON form");
        fields.push(Field::new(name, value));
        if fields.len() > FIELDS_MAX {
            return Err(Error::Malformed(format!("the {source} has more than {FIELDS_MAX} fields")));
        }
    }
    Ok(fields)
}

pub(super) fn percent_decode(text: &str) -> Option<String> {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? * 16 + hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// No field twice. `changed_by` and `actor` are one field, and may both be given if they agree.
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
                let error =
                    FieldError::new(&field.name, "says one thing in the body and another in the query: send it once");
                return Err(Error::Contradictory(format!("{} {}", error.field, error.detail), error));
            }
            None => body.push(field),
        }
    }
    Ok(body)
}
