//! JSON of this crate's own types, for answers and rows.

use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::value::RawValue;

pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("our own types have a JSON form")
}

/// The JSON as text.
pub(crate) fn json_text<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types have a JSON form")
}

/// JSON that this program stored, as raw text.
pub(crate) fn stored_json(text: String) -> Result<Box<RawValue>> {
    RawValue::from_string(text).map_err(|error| Error::Inconsistent(format!("stored JSON cannot be read: {error}")))
}
