//! A request as the second person reads it: the fields that were sent, and the old and new value of each.
//!
//! The stored form of a request is final, since any later version may approve it and must read it.

use super::end::End;
use crate::audit::Changes;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// An upsert as it is stored: its request, and the changes that it would make.
#[derive(Debug, Serialize)]
pub(crate) struct WithChanges<'a, T> {
    #[serde(flatten)]
    pub(crate) request: &'a T,
    pub(crate) changes: &'a Changes,
}

type Fields = BTreeMap<String, Box<RawValue>>;

/// A setting that gets a value, in the stored form of the charter's upserts.
#[derive(Deserialize)]
struct Set {
    #[serde(rename = "Set")]
    value: Box<RawValue>,
}

/// The changes that a stored request would make; none if it is not an upsert, or was stored without them.
pub(super) fn changes(stored: &RawValue) -> Option<Box<RawValue>> {
    serde_json::from_str::<Fields>(stored.get()).ok()?.remove("changes")
}

/// Serialises a stored request as it was sent. An unreadable one is shown as it is stored.
pub(super) fn input<S: Serializer>(stored: &RawValue, serializer: S) -> Result<S::Ok, S::Error> {
    match serde_json::from_str::<Fields>(stored.get()) {
        Ok(fields) => sent(fields).serialize(serializer),
        Err(_) => stored.serialize(serializer),
    }
}

fn sent(stored: Fields) -> Fields {
    let yes = || RawValue::from_string("true".to_owned()).expect("a constant of this file");
    let mut sent = Fields::new();
    for (field, value) in stored {
        let kept = matches!(field.as_str(), "engine" | "approved_model_version");
        match (field.as_str(), value.get()) {
            (_, "null") | ("changes", _) | ("zero_cap", r#""Refused""#) => {}
            ("zero_cap", _) => drop(sent.insert("allow_unlimited".into(), yes())),
            (_, r#""Keep""#) if kept => {}
            (_, r#""Remove""#) if kept => drop(sent.insert(format!("remove_{field}"), yes())),
            (_, set) if kept && set.starts_with('{') => {
                let value = serde_json::from_str::<Set>(set).map_or(value, |set| set.value);
                sent.insert(field, value);
            }
            ("wire", wire) => match serde_json::from_str(wire) {
                Ok(fields) => sent.extend(self::sent(fields)),
                Err(_) => drop(sent.insert(field, value)),
            },
            _ => drop(sent.insert(field, value)),
        }
    }
    sent
}

/// The text of an end.
#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
pub(super) fn end<S: Serializer>(end: &Option<End>, to: S) -> Result<S::Ok, S::Error> {
    end.as_ref().map(ToString::to_string).serialize(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_request_of_any_version_is_shown_as_it_was_sent() {
        for (stored, shown) in [
            (
                r#"{"domain":"D","engine":"Keep","approved_model_version":"Keep","single_use":null}"#,
                r#"{"domain":"D"}"#,
            ),
            (
                r#"{"domain":"D","engine":{"Set":"CAPITAL"},"approved_model_version":{"Set":"v \"2\""}}"#,
                r#"{"approved_model_version":"v \"2\"","domain":"D","engine":"CAPITAL"}"#,
            ),
            (r#"{"domain":"D","engine":"Remove"}"#, r#"{"domain":"D","remove_engine":true}"#),
            (
                r#"{"engine":"A","max_open_risk":999999999999.999999,"enabled":null,"zero_cap":"Refused","changes":[]}"#,
                r#"{"engine":"A","max_open_risk":999999999999.999999}"#,
            ),
            (r#"{"engine":"A","zero_cap":"RemovesTheCap"}"#, r#"{"allow_unlimited":true,"engine":"A"}"#),
            (
                r#"{"wire":{"domain":"D","metric":"m","engine":"A","mode":null},"force":false}"#,
                r#"{"domain":"D","engine":"A","force":false,"metric":"m"}"#,
            ),
            (r#"{"domain":"D","metric":"m","baseline":"KEEP"}"#, r#"{"baseline":"KEEP","domain":"D","metric":"m"}"#),
            ("{}", "{}"),
            ("7", "7"),
        ] {
            let stored = RawValue::from_string(stored.to_owned()).unwrap();
            let mut text = Vec::new();
            input(&stored, &mut serde_json::Serializer::new(&mut text)).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), shown);
        }
    }
}
