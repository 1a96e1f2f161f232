//! Names and texts: bounded, printable, and in one spelling.

mod json;

pub use json::JsonObject;

use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use utoipa::openapi::schema::{ObjectBuilder, Type};

/// The refusal of a text: the sentence says the fix and follows the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTextError {
    /// The text is empty or only white space.
    #[error("is empty: send 1 to {0} characters")]
    Empty(usize),
    /// The text is longer than its limit.
    #[error("has {0} {2}, at most {1}: shorten it")]
    TooLong(usize, usize, &'static str),
    /// The name has a character that is not allowed.
    #[error("has the character {0:?}: use letters, digits, _ . and -")]
    NameCharacter(char),
    /// The free text has a control character.
    #[error("has the control character {0:?}: remove it")]
    ControlCharacter(char),
    /// The text is not a JSON object.
    #[error("is not a JSON object: {0}")]
    NotAnObject(String),
}

struct NameRule {
    max: usize,
    case: Case,
}

#[derive(Clone, Copy)]
enum Case {
    Upper,
    Lower,
    Kept,
}

impl NameRule {
    fn read(&self, text: &str) -> Result<String, ParseTextError> {
        let name = text.trim_matches([' ', '\t']);
        if name.is_empty() {
            return Err(ParseTextError::Empty(self.max));
        }
        if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))) {
            return Err(ParseTextError::NameCharacter(bad));
        }
        if name.len() > self.max {
            return Err(ParseTextError::TooLong(name.len(), self.max, "characters"));
        }
        Ok(match self.case {
            Case::Upper => name.to_ascii_uppercase(),
            Case::Lower => name.to_ascii_lowercase(),
            Case::Kept => name.to_owned(),
        })
    }
}

/// Free text of 1 to `max` characters without control characters. White space alone is refused.
fn read_text(text: &str, max: usize) -> Result<String, ParseTextError> {
    // Bytes first, so that a megabyte is refused without counting its characters.
    if text.len() > max * 4 || text.chars().count() > max {
        return Err(ParseTextError::TooLong(text.chars().count(), max, "characters"));
    }
    if let Some(bad) = text.chars().find(|&c| c.is_control() || is_layout_control(c)) {
        return Err(ParseTextError::ControlCharacter(bad));
    }
    if text.trim().is_empty() {
        return Err(ParseTextError::Empty(max));
    }
    Ok(text.to_owned())
}

/// Characters that break lines or reorder the displayed text, and have no meaning in a name or a sentence: line and
/// paragraph separators, bidirectional marks, embeddings, overrides and isolates.
const fn is_layout_control(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

macro_rules! text_type {
    ($(#[$doc:meta])* $type:ident, $name:literal, $about:literal, $max:expr, $pattern:expr, $read:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Box<str>);

        impl $type {
            /// The text as parsed: trimmed, and in the case of its kind.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = ParseTextError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let read: fn(&str) -> Result<String, ParseTextError> = $read;
                read(text).map(|text| Self(text.into_boxed_str()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        $crate::types::scalar!(
            $type,
            $name,
            {
                let (max, pattern): (Option<usize>, Option<&str>) = ($max, $pattern);
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some($about))
                    .min_length(Some(1))
                    .max_length(max)
                    .pattern(pattern)
            }
        );
    };
}

/// The pattern of a name. White space around a name is trimmed and does not count.
macro_rules! name_pattern {
    ($max:literal) => {
        concat!(r"^[ \t]*[A-Za-z0-9_.-]{1,", $max, r"}[ \t]*$")
    };
}
/// The pattern of a free text: no control characters, and none of [`is_layout_control`].
pub(crate) const TEXT_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]*$";

text_type!(
    /// A business engine: 1 to 50 letters, digits, `_ . -`, in upper case. `GLOBAL` is the level above all of them.
    Engine, "Engine", "A business engine; trimmed and upper-cased.", None, Some(name_pattern!(50)),
    |text| NameRule { max: 50, case: Case::Upper }.read(text)
);
text_type!(
    /// A domain of AI advice or of measurements: 1 to 80 letters, digits, `_ . -`, in upper case.
    Domain, "Domain", "A domain; trimmed and upper-cased.", None, Some(name_pattern!(80)),
    |text| NameRule { max: 80, case: Case::Upper }.read(text)
);
text_type!(
    /// A measured quantity of a domain: 1 to 64 letters, digits, `_ . -`, in lower case.
    Metric, "Metric", "A metric of a domain; trimmed and lower-cased.", None, Some(name_pattern!(64)),
    |text| NameRule { max: 64, case: Case::Lower }.read(text)
);
text_type!(
    /// A component that reports itself to the go-live checklist: 1 to 64 letters, digits, `_ . -`, in lower case.
    PackId, "PackId", "A component's id; trimmed and lower-cased.", None, Some(name_pattern!(64)),
    |text| NameRule { max: 64, case: Case::Lower }.read(text)
);
text_type!(
    /// The actor that the caller names: 1 to 200 characters. It is a claim; the authenticated caller is the
    /// [`Principal`].
    Actor, "Actor", "The acting person or program, as the caller claims.", Some(200), Some(TEXT_PATTERN), |text| read_text(text, 200)
);
text_type!(
    /// A reason: 1 to 1000 characters.
    Reason, "Reason", "The reason, in the caller's words.", Some(1000), Some(TEXT_PATTERN), |text| read_text(text, 1000)
);
text_type!(
    /// The caller's own id for several requests that belong together: 1 to 200 characters.
    CorrelationId, "CorrelationId", "The caller's own id for requests that belong together.", Some(200), Some(TEXT_PATTERN), |text| read_text(text, 200)
);
text_type!(
    /// The caller's own id of one measurement: 1 to 200 characters.
    EventId, "EventId", "The caller's own id of this measurement, which makes it idempotent.", Some(200), Some(TEXT_PATTERN), |text| read_text(text, 200)
);
text_type!(
    /// The version of a model that advises: 1 to 200 characters, trimmed, as its owner writes it.
    ModelVersion, "ModelVersion", "The version of a model; trimmed.", Some(200), Some(TEXT_PATTERN), |text| read_text(text.trim(), 200)
);
text_type!(
    /// The caller's name of one intent: 1 to 200 characters. The same key is the same intent, however often it is sent.
    IdempotencyKey, "IdempotencyKey", "Names one intent: requests with the same key and input are carried out once and get the same answer.", Some(200), Some(TEXT_PATTERN),
    |text| read_text(text.trim(), 200)
);
text_type!(
    /// A short name or version for people: 1 to 64 characters.
    Label, "Label", "A short name or version.", Some(64), Some(TEXT_PATTERN), |text| read_text(text, 64)
);
text_type!(
    /// A token's name in events: 1 to 64 letters, digits, `_ . -`.
    TokenName, "TokenName", "A token's name in events.", None, Some(name_pattern!(64)),
    |text| NameRule { max: 64, case: Case::Kept }.read(text)
);
text_type!(
    /// Remarks on a measurement: up to 4 KiB.
    Detail, "Detail", "Remarks, up to 4 KiB.", Some(4096), Some(TEXT_PATTERN),
    |text| {
        if text.len() > 4096 {
            return Err(ParseTextError::TooLong(text.len(), 4096, "bytes"));
        }
        read_text(text, 4096)
    }
);

impl Engine {
    /// The level above the engines, `GLOBAL`: it covers all of them together.
    #[must_use]
    pub fn global() -> Self {
        Self("GLOBAL".into())
    }

    /// True for the level above the engines.
    #[must_use]
    pub fn is_global(&self) -> bool {
        &*self.0 == "GLOBAL"
    }

    /// True for the name that events use for Holdfast itself.
    #[must_use]
    pub fn is_system(&self) -> bool {
        &*self.0 == "SYSTEM"
    }
}

/// The authenticated principal: the holder of a token, the operator's shell, or an unauthenticated caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Principal(Cow<'static, str>);

impl Principal {
    /// An unauthenticated caller of a service in open mode, on a loopback address.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self("UNAUTHENTICATED".into())
    }

    /// The holder of a token, as `name:id`.
    #[must_use]
    pub fn token(name: &str, id: super::TokenId) -> Self {
        Self(format!("{name}:{id}").into())
    }

    /// A principal that was read from the database.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text.into())
    }

    /// Holdfast itself, or a command of the operator's shell.
    #[must_use]
    pub fn system() -> Self {
        Self("SYSTEM".into())
    }

    /// The name in events and answers.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of one request: the caller's `X-Request-Id` if it has 1 to 64 characters of `A-Z a-z 0-9 _ -`, else a new
/// one. Cheap to clone, because it accompanies everything that the request does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's id, if it has only characters that are safe everywhere; else none.
    #[must_use]
    pub fn from_header(text: &str) -> Option<Self> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        ((1..=64).contains(&text.len()) && text.bytes().all(harmless)).then(|| Self(text.into()))
    }

    /// A new id, ordered by time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes request ids")]
    pub fn generate() -> Self {
        let mut text = uuid::Uuid::encode_buffer();
        Self((*uuid::Uuid::now_v7().simple().encode_lower(&mut text)).into())
    }

    /// The id as text, 1 to 64 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests;
