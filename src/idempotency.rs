//! Idempotency keys: a change that carries a key is safe to send again.
//!
//! Invariants:
//! - A key belongs to a principal and to one input of one route. The same key and input are carried out once and get
//!   the same answer; another input is refused, with the fields that differ.
//! - A key is committed together with the effect, never before or after it. A concurrent request with the same key
//!   waits for the head that the effect takes, and then finds the key; or it is refused by the unique index, and tried
//!   again. The index is per day: at midnight, two routes could each take the same key.
//! - Answers of 2xx are kept (also a 202 of a change that waits for approval), and denials of the ledger, so that a
//!   denied key never becomes an approval. Answers without effect are not kept: refused input, conflicts, failed
//!   preconditions, 503s. A dry run neither looks up a key nor keeps one.
//! - A replay changes nothing and emits nothing.
//!
//! Keys are kept for [`KEPT_DAYS`] days: a ledger decision as a pointer to its event, any other answer as its text.
//! Engage and disable ignore keys: they always act.
//!
//! Statements: one to look up a key, one to keep it. The ledger looks up those of a whole batch at once, and keeps them
//! in the statement that writes the batch.

mod key;
pub(crate) mod store;
mod upkeep;

pub use key::{Answer, Fields, Intent, KEPT_DAYS, Kept};
pub use upkeep::{forget, run};

use crate::audit::{Origin, Stamp};
use crate::db;
use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{PgConnection, Postgres, Transaction};

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
