//! The request that a key stands for, and the answer that is kept under it.

use crate::audit::archive;
use crate::error::{Error, Result};
use crate::types::Principal;
use chrono::{Days, NaiveDate};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The number of whole days for which a key is kept after the day of its effect.
pub const KEPT_DAYS: i64 = 7;
// A key points to its event, so no event is archived before its key expires.
const _: () = assert!(KEPT_DAYS < archive::DAYS_MIN.cast_signed());

/// Fields that are not part of the input that a key stands for.
const NOT_INPUT: [&str; 2] = ["idempotency_key", "dry_run"];

/// The meaning of a key.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The principal that owns the key.
    pub principal: Principal,
    /// The key as the caller sent it.
    pub key: String,
    /// The path of the request, with the operation if one path takes several.
    pub route: String,
    /// The digests of the input's fields.
    pub fields: Fields,
}

/// The input of a request, field by field: the first 64 bits of the SHA-256 of each value's JSON, as hex. It is
/// enough to compare two inputs of one key, and reveals no value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// The fields of a parsed input. Absent and blank fields are left out, so they are equal.
    #[must_use]
    pub fn of<T: Serialize>(input: &T) -> Self {
        let text = serde_json::to_string(input).expect("our own types have a JSON form");
        let values: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).expect("an input is an object");
        let given = values.into_iter().filter(|(name, value)| value.get() != "null" && !NOT_INPUT.contains(&&**name));
        Self(given.map(|(name, value)| (name, digest(value.get()))).collect())
    }

    /// The names of the fields that differ, or that only one of the two has.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a map of texts has a JSON form")
    }

    pub(super) fn from_text(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::Inconsistent(format!("kept fields cannot be read: {error}")))
    }
}

fn digest(json: &str) -> String {
    crate::types::hex(&Sha256::digest(json.as_bytes())[..8])
}

/// A kept key.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The day of the effect.
    pub day: NaiveDate,
    /// The path of the request.
    pub route: String,
    /// The digests of the input's fields.
    pub fields: Fields,
    /// The answer, or the place of it.
    pub answer: Answer,
}

/// The place of a kept answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// This event of the risk stream has the answer.
    RiskEvent(i64),
    /// The answer itself, as JSON.
    Text(String),
    /// The answer as JSON: the change waits for approval, whatever has become of it since.
    Waiting(String),
}

/// The first day whose keys are still valid.
pub(super) fn oldest(today: NaiveDate) -> NaiveDate {
    today.checked_sub_days(Days::new(KEPT_DAYS.unsigned_abs())).unwrap_or(NaiveDate::MIN)
}

impl Kept {
    /// True if the key is still valid.
    #[must_use]
    pub fn stands(&self, today: NaiveDate) -> bool {
        self.day >= oldest(today)
    }

    /// Refuses an intent with another input than the kept one.
    pub fn check(&self, intent: &Intent) -> Result<()> {
        let fields =
            if self.route == intent.route { self.fields.differing(&intent.fields) } else { vec!["route".to_owned()] };
        if fields.is_empty() {
            return Ok(());
        }
        Err(Error::IdempotencyKeyReused { key: intent.key.clone(), fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Sample {
        amount: crate::types::Amount,
        actor: Option<&'static str>,
        dry_run: Option<bool>,
        idempotency_key: Option<&'static str>,
    }

    fn fields(amount: &str, actor: Option<&'static str>, key: &'static str) -> Fields {
        Fields::of(&Sample { amount: amount.parse().unwrap(), actor, dry_run: Some(false), idempotency_key: Some(key) })
    }

    #[test]
    fn fields_are_those_that_were_given_by_their_value() {
        assert_eq!(fields("400", None, "a"), fields("4e2", None, "b"));
        assert_eq!(fields("400", None, "a").differing(&fields("401", Some("x"), "a")), ["actor", "amount"]);
        let kept = fields("400", Some("x"), "a");
        assert_eq!(Fields::from_text(&kept.to_text()).unwrap(), kept);
    }
}
