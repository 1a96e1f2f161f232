//! Idempotency keys: a change that carries a key is safe to send again.
//!
//! Invariants:
//! - A key belongs to a principal and to one input of one route. The same key and input are carried out once and get
//!   the same answer; another input is refused, with the fields that differ.
//! - A key is committed together with the effect, never before or after it. A concurrent request with the same key
//!   waits for the head that the effect takes, and then finds the key.
//! - Answers of 2xx are kept (also a 202 of a change that waits for approval), and denials of the ledger, so that a
//!   denied key never becomes an approval. Answers without effect are not kept: refused input, conflicts, failed
//!   preconditions, 503s. A dry run neither looks up a key nor keeps one.
//! - A replay changes nothing and emits nothing.
//!
//! Keys are kept for [`KEPT_DAYS`] days: a ledger decision as a pointer to its event, any other answer as its text.
//! Engage and disable ignore keys: they always act.
//!
//! Statements: one to look up a key, one to keep it; the batcher does both for a whole batch at once.

pub(crate) mod store;
mod upkeep;

pub use upkeep::{forget, run};

use crate::audit::{Origin, Stamp};
use crate::db;
use crate::error::{Error, Result};
use crate::types::Principal;
use chrono::{Days, NaiveDate};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, Postgres, Transaction};
use std::collections::BTreeMap;

/// The number of whole days for which a key is kept after the day of its effect.
pub const KEPT_DAYS: i64 = 7;

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

/// The caller of a change, and its key.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The caller and its request.
    pub origin: Origin,
    /// The intent of the caller's key; none without a key.
    pub intent: Option<Intent>,
    /// The approval request that this carries out; none for a caller's own change.
    pub approves: Option<i64>,
    /// The person who approved it; none without an approval.
    pub approver: Option<Origin>,
}

impl Asked {
    /// A caller's own change, without an approval.
    #[must_use]
    pub const fn new(origin: Origin, intent: Option<Intent>) -> Self {
        Self { origin, intent, approves: None, approver: None }
    }
}

/// The input of a request, field by field: the first 64 bits of the SHA-256 of each value's JSON, as hex. That is
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

    fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a map of texts has a JSON form")
    }

    fn from_text(text: &str) -> Result<Self> {
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
fn oldest(today: NaiveDate) -> NaiveDate {
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

/// A new answer, or an earlier one under the same key.
#[derive(Debug)]
pub enum Once<T> {
    /// The change was carried out now.
    Done(T),
    /// The answer was given before; nothing was done this time.
    Replayed(Earlier),
}

/// An earlier answer, as JSON.
#[derive(Debug)]
pub enum Earlier {
    /// The change was done.
    Done(Box<RawValue>),
    /// The change waits for approval.
    Waiting(Box<RawValue>),
}

/// An earlier answer under the same key. It may be sent once a later commit is confirmed.
#[derive(Debug)]
#[must_use]
pub struct Recalled(Earlier);

impl Recalled {
    /// Ends the transaction that found the answer, so that it may be sent.
    pub async fn confirm<T>(self, tx: Transaction<'_, Postgres>) -> Result<Once<T>> {
        db::confirm(tx).await?;
        Ok(Once::Replayed(self.0))
    }
}

/// The earlier answer under this key, if there is one. Call it after the operation's first head is locked.
pub async fn recall(conn: &mut PgConnection, intent: Option<&Intent>, stamp: Stamp) -> Result<Option<Recalled>> {
    let Some(intent) = intent else {
        return Ok(None);
    };
    let Some(kept) = store::find(conn, &[intent], stamp.day()).await?.pop().map(|(_, kept)| kept) else {
        return Ok(None);
    };
    kept.check(intent)?;
    match kept.answer {
        Answer::Text(text) => crate::db::stored_json(text).map(|answer| Some(Recalled(Earlier::Done(answer)))),
        Answer::Waiting(text) => crate::db::stored_json(text).map(|request| Some(Recalled(Earlier::Waiting(request)))),
        Answer::RiskEvent(seq) => Err(Error::Inconsistent(format!("key {} points to event {seq}", intent.key))),
    }
}

/// Keeps an answer for its key. Call it before the commit of the effect.
pub async fn keep<T: Serialize>(
    conn: &mut PgConnection,
    intent: Option<&Intent>,
    stamp: Stamp,
    answer: &T,
) -> Result<()> {
    let Some(intent) = intent else {
        return Ok(());
    };
    store::insert(conn, intent, stamp, &Answer::Text(db::json_text(answer))).await
}

/// Keeps for its key that the change waits for approval.
pub async fn keep_waiting<T: Serialize>(
    conn: &mut PgConnection,
    intent: Option<&Intent>,
    stamp: Stamp,
    request: &T,
) -> Result<()> {
    let Some(intent) = intent else {
        return Ok(());
    };
    store::insert(conn, intent, stamp, &Answer::Waiting(db::json_text(request))).await
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
