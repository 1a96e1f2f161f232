//! The vocabulary: every name, text and number that crosses the edge. A value is parsed once and is then valid by
//! construction, so nothing inside checks it again.
//!
//! Each type has [`std::str::FromStr`] (the one parser, with a sentence for every refusal), `Deserialize` (a JSON
//! string or a bare token, so JSON, form and query read alike), `Serialize`, and an OpenAPI schema with the same bounds
//! as the parser.

mod access;
mod action;
mod block;
mod class;
mod cursor;
mod day;
mod finding;
mod hex;
mod near;
mod number;
mod path;
mod portion;
mod reservation_status;
mod scope;
mod stream;
mod text;
mod time;
mod token;

pub use access::{Lifetime, List, Rate};
pub use action::{ControlAction, HeimdallAction, RiskAction};
pub use block::Block;
pub use class::{ExecutionClass, RouteClass};
pub use cursor::{ParseCursorError, Place};
pub(crate) use cursor::{sealed, unsealed};
pub use day::{Day, DayPlace, DayRange, DayRangeError, ParseDayError, RANGE_DAYS_MAX};
pub use finding::{Finding, Tampering};
pub(crate) use hex::digest_of;
pub use hex::{append_hex, hex};
pub(crate) use near::letters_apart;
pub use number::{
    Amount, Confidence, Count, Flag, Fraction, Measured, PageSize, ParseNumberError, Ratio, Total, Ttl, divide,
    scaled_text,
};
pub use path::bounded;
pub use portion::{DaysRow, Portion, STRETCH, WantedNames};
pub use reservation_status::ReservationStatus;
pub use scope::{Scope, UnknownScope};
pub use stream::{Point, Stream};
pub use text::{
    Actor, CorrelationId, Detail, Domain, Engine, EventId, IdempotencyKey, JsonObject, Label, Metric, ModelVersion,
    PackId, ParseTextError, Principal, Reason, RequestId, TokenName,
};

pub(crate) use text::TEXT_PATTERN;
pub use time::{ReversedRange, Time, TimeRange};
pub use token::{ParseTokenIdError, TOKEN_PREFIX, TokenId};

use serde::de::Error as _;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The refusal of a required field that is null; it follows the field's name.
pub(crate) const IS_NULL: &str = "is null: leave the field out instead";

/// The text of a JSON scalar: the content of a string, or the token of a number or boolean.
///
/// Numbers are read from their own digits, never through a float, so amounts stay exact.
pub(crate) fn scalar_text<'de, D>(deserializer: D) -> Result<String, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let raw: Box<RawValue> = serde::Deserialize::deserialize(deserializer)?;
    scalar_of(&raw).map(Cow::into_owned).map_err(D::Error::custom)
}

/// The text of a raw JSON scalar. Objects, arrays and null are refused.
pub(crate) fn scalar_of(raw: &RawValue) -> Result<Cow<'_, str>, &'static str> {
    let token = raw.get();
    match token.as_bytes().first() {
        // Without escapes, the content is the text between the quotes.
        Some(b'"') if !token.contains('\\') => Ok(Cow::Borrowed(&token[1..token.len() - 1])),
        Some(b'"') => serde_json::from_str::<String>(token)
            .map(Cow::Owned)
            .map_err(|_| "is not a valid JSON string: check its escapes"),
        Some(b'{') => Err("is an object: send one value"),
        Some(b'[') => Err("is an array: send one value"),
        Some(b'n') | None => Err(IS_NULL),
        Some(_) => Ok(Cow::Borrowed(token)),
    }
}

/// `Deserialize` through `FromStr`, `Serialize` through `Display`, and an inline OpenAPI schema.
macro_rules! scalar {
    ($type:ty, $name:literal, $schema:expr) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::types::scalar_text(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::RefOr::T(utoipa::openapi::schema::Schema::Object($schema.build()))
            }
        }
        impl utoipa::ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed($name)
            }
        }
    };
}
pub(crate) use scalar;
