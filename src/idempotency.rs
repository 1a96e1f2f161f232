//! One intent, one effect: a key that a caller gives to a change makes it safe to send again.
//!
//! Invariants:
//! - A key belongs to a principal and stands for one input of one route. The same key and input are answered alike and done
//!   once; another input is refused, naming the fields that differ.
//! - What a key stands for is committed together with the effect, never before and never after it. A twin in flight waits
//!   for the head that the effect takes, and then finds the key.
//! - Kept are answers of 2xx, those of 202 that something waits among them, and denials of the ledger, so that a denied key never
//!   becomes an approval. Not kept is what had
//!   no effect: refused input, conflicts, failed preconditions, 503s. A dry run neither looks nor keeps.
//! - A replay changes nothing and emits nothing.
//!
//! Kept for [`KEPT_DAYS`] days: a ledger decision as a pointer to its event, anything else as the answer itself. Engage and
//! disable take no notice of keys: they always act.
//!
//! Statements: one to look a key up, one to keep it; the writer does both for a whole batch at once.

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

/// How many whole days a key is kept after the day of its effect.
pub const KEPT_DAYS: i64 = 7;

/// Fields that are no part of what is asked for.
const NOT_INPUT: [&str; 2] = ["idempotency_key", "dry_run"];

/// What a caller means by a key.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Whose key it is.
    pub principal: Principal,
    /// The key.
    pub key: String,
    /// The path that was asked, with the operation where one path takes several.
    pub route: String,
    /// What was asked.
    pub fields: Fields,
}

/// Who asks, and what they call it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// By whom, as part of what.
    pub origin: Origin,
    /// The caller's key.
    pub intent: Option<Intent>,
    /// The request of another person that this carries out; none for a caller's own.
    pub approves: Option<i64>,
    /// Who agreed to it.
    pub approver: Option<Origin>,
}

impl Asked {
    /// A caller's own request.
    #[must_use]
    pub const fn new(origin: Origin, intent: Option<Intent>) -> Self {
        Self { origin, intent, approves: None, approver: None }
    }
}

/// What was asked, field by field: the first 64 bits of the SHA-256 of each parsed value's JSON, as hex. Enough to tell two
/// inputs of one key apart, too little to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// The fields of a parsed input. What was left out is no field, so that a blank and an absent one are the same.
    #[must_use]
    pub fn of<T: Serialize>(input: &T) -> Self {
        let text = serde_json::to_string(input).expect("our own types have a JSON form");
        let values: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).expect("an input is an object");
        let given = values.into_iter().filter(|(name, value)| value.get() != "null" && !NOT_INPUT.contains(&&**name));
        Self(given.map(|(name, value)| (name, digest(value.get()))).collect())
    }

    /// The fields that one has and the other has not, or says differently.
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

/// What a key was kept for.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The day of the effect.
    pub day: NaiveDate,
    /// The path that was asked.
    pub route: String,
    /// What was asked.
    pub fields: Fields,
    /// Where the answer is.
    pub answer: Answer,
}

/// Where the answer of a kept key is.
#[derive(Debug, Clone)]
pub enum Answer {
    /// In this event of the risk stream.
    RiskEvent(i64),
    /// Here, as JSON.
    Text(String),
    /// Here, as JSON: it says that the change waits for a second person, whatever became of that since.
    Waiting(String),
}

/// The first day whose keys still stand.
fn oldest(today: NaiveDate) -> NaiveDate {
    today.checked_sub_days(Days::new(KEPT_DAYS.unsigned_abs())).unwrap_or(NaiveDate::MIN)
}

impl Kept {
    /// Whether the key still stands.
    #[must_use]
    pub fn stands(&self, today: NaiveDate) -> bool {
        self.day >= oldest(today)
    }

    /// Refuses an intent that is not the one the key was kept for.
    pub fn check(&self, intent: &Intent) -> Result<()> {
        let fields =
            if self.route == intent.route { self.fields.differing(&intent.fields) } else { vec!["route".to_owned()] };
        if fields.is_empty() {
            return Ok(());
        }
        Err(Error::IdempotencyKeyReused { key: intent.key.clone(), fields })
    }
}

/// An answer that was made now, or that was given before under the same key.
#[derive(Debug)]
pub enum Once<T> {
    /// Made now.
    Done(T),
    /// Given before; nothing was done this time.
    Replayed(Earlier),
}

/// An answer that was given before, as JSON.
#[derive(Debug)]
pub enum Earlier {
    /// That it was done.
    Done(Box<RawValue>),
    /// That it waits for a second person.
    Waiting(Box<RawValue>),
}

/// An answer that was given before under the same key. It is told once a commit after it is confirmed.
#[derive(Debug)]
#[must_use]
pub struct Recalled(Earlier);

impl Recalled {
    /// Ends the transaction that found it, so that it may be told.
    pub async fn confirm<T>(self, tx: Transaction<'_, Postgres>) -> Result<Once<T>> {
        db::confirm(tx).await?;
        Ok(Once::Replayed(self.0))
    }
}

/// What an earlier request under this key was answered. Call it after the operation's first head is locked.
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

/// Keeps an answer for its key, before the commit of what it tells.
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

/// Keeps for its key that something waits for a second person.
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
