//! The tokens as this instance knows them: in memory, so that a request costs no statement. The feed renews them with
//! every read of the state.
//!
//! Invariants:
//! - A token that is revoked, or missing from the database, is refused after the state lease at the latest: knowledge
//!   counts for the lease, from the instant before its read was sent.
//! - Only the switches that tighten use an older register, so that an operator can stop everything while the database
//!   is away.
//! - A token that was seen revoked stays revoked until the process ends, even if a restored database does not know of
//!   it.
//! - A change reads all valid tokens, and the last `ENDED_MAX` that ended, however many there ever were. A token that
//!   ended before those is unknown, and is refused as well.
//! - Once a token was seen, the open mode is over until the process ends, whatever the database says later.
//! - The time by which tokens expire never runs back, so a database clock that does revives no token. It does not jump
//!   ahead either: a clock that is not [believed](crate::clock::belief) expires no token.

use super::holder::Holder;
use super::meter::{Meter, RefusalKind};
use super::rate::{Bucket, RATE_DEFAULT};
use super::store;
use super::token::Token;
use crate::clock::Clock;
use crate::enforcement::feed::{BoxFuture, Follower};
use crate::error::{Error, Result};
use crate::types::{Point, TokenId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// The ended tokens that are still known, so that their holders are told why they are refused.
const ENDED_MAX: i64 = 1_000;

/// The known tokens. Cheap to clone: all clones share them.
#[derive(Debug, Clone)]
pub struct Register(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    lease_ns: u64,
    known: RwLock<Arc<KnownTokens>>,
    /// Every token that was ever seen revoked. A restored database may lack its row for a while, and then show it as it
    /// was before.
    revoked: Mutex<HashMap<TokenId, DateTime<Utc>>>,
    /// The instant before the last renewal was sent, on `clock`, plus one; 0 before the first.
    renewed_ns: AtomicU64,
    /// The difference between the database's time and `clock`, microseconds. It only grows.
    ahead_us: AtomicI64,
}

/// The tokens as they were read.
#[derive(Debug, Default)]
struct KnownTokens {
    /// The point of the control stream at the read. Tokens are read again only when it has moved. The point includes
    /// the hash, since in another history the same number is another event. None before the first read.
    version: Option<Point>,
    /// Whether a token was ever created.
    closed: bool,
    holders: HashMap<TokenId, Arc<Holder>>,
}

/// The callers that are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No caller: the tokens are not known yet.
    Unknown,
    /// Every caller: no token was ever created.
    Open,
    /// Holders of a valid token.
    Tokens,
}

/// The age of the register that a check accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// At most the lease.
    Fresh,
    /// Any age, for requests that only tighten.
    Any,
}

impl Register {
    /// A register that knows nothing yet, so it admits no caller.
    #[must_use]
    pub fn new(clock: Clock, lease: Duration) -> Self {
        Self(Arc::new(Inner {
            clock,
            lease_ns: u64::try_from(lease.as_nanos()).unwrap_or(0),
            known: RwLock::default(),
            revoked: Mutex::default(),
            renewed_ns: AtomicU64::new(0),
            ahead_us: AtomicI64::new(i64::MIN),
        }))
    }

    /// Ends the open mode.
    fn close(&self) {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.closed {
            *known = Arc::new(KnownTokens { version: known.version, closed: true, holders: known.holders.clone() });
        }
    }

    fn take(&self, version: Point, rows: Vec<store::GrantRow>) {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        let meter = |row: &store::GrantRow| {
            let kept = known.holders.get(&row.id).map(|holder| Arc::clone(&holder.meter));
            kept.unwrap_or_else(|| Arc::new(Meter::new(Bucket::new(row.rate_per_second.unwrap_or(RATE_DEFAULT)))))
        };
        let mut revoked = self.0.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let holders: HashMap<_, _> = rows
            .into_iter()
            .map(|mut row| {
                let meter = meter(&row);
                if let Some(at) = row.revoked_at {
                    revoked.entry(row.id).or_insert(at);
                }
                row.revoked_at = row.revoked_at.or_else(|| revoked.get(&row.id).copied());
                (row.id, Arc::new(row.holder(meter)))
            })
            .collect();
        let closed = known.closed || !holders.is_empty();
        *known = Arc::new(KnownTokens { version: Some(version), closed, holders });
    }

    fn known(&self) -> Arc<KnownTokens> {
        Arc::clone(&self.0.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The callers that are admitted. The mode with tokens never ends, so the answer holds at any age of the register.
    /// The open mode lasts until a read shows a token: it only protects a machine from its own web pages, and every
    /// change in it needs the database that would show the token.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.known().closed {
            true => Mode::Tokens,
            false if self.is_known(Age::Any) => Mode::Open,
            false => Mode::Unknown,
        }
    }

    /// Whether the register is fresh enough.
    fn is_known(&self, age: Age) -> bool {
        let renewed = self.0.renewed_ns.load(Ordering::Acquire);
        renewed > 0 && (age == Age::Any || self.0.clock.now_ns().saturating_sub(renewed - 1) <= self.0.lease_ns)
    }

    /// The believed time of the database.
    fn now(&self) -> DateTime<Utc> {
        let now = micros(self.0.clock.now_ns()).saturating_add(self.0.ahead_us.load(Ordering::Acquire));
        DateTime::from_timestamp_micros(now).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The holder of a token that is valid now.
    pub(super) fn check(&self, token: &Token, age: Age) -> Result<Arc<Holder>> {
        if !self.is_known(age) {
            return Err(Error::AccessUnknown);
        }
        let known = self.known();
        // The reason of a token's end is only told to a caller with the whole token.
        let holder = known.holders.get(&token.id()).filter(|holder| holder.shows(token));
        let holder = holder.ok_or(Error::InvalidToken("is not known: check it, or create one"))?;
        if holder.revoked_at.is_some() {
            return Err(Error::InvalidToken("was revoked: create another"));
        }
        let now = self.now();
        if holder.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(Error::InvalidToken("has expired: create another"));
        }
        holder.meter.note_use(now);
        Ok(Arc::clone(holder))
    }

    /// Takes one request from a token's rate.
    pub(super) fn meter(&self, holder: &Holder) -> Result<()> {
        holder.meter.bucket.take(self.0.clock.now_ns()).map_err(|wait| Error::RateLimited { wait })
    }

    /// Takes one refusal from a token's rate of recorded refusals.
    pub(super) fn meter_refusal(&self, holder: &Holder, kind: RefusalKind) -> Result<()> {
        holder.meter.refusals(kind).take(self.0.clock.now_ns()).map_err(|wait| Error::RateLimited { wait })
    }

    /// Writes the uses of tokens since the last write.
    pub async fn note_uses(&self, conn: &mut PgConnection) -> Result<()> {
        let known = self.known();
        let used: Vec<_> =
            known.holders.values().filter_map(|holder| Some((holder, holder.meter.unnoted_use()?))).collect();
        if used.is_empty() {
            return Ok(());
        }
        store::note_uses(conn, used.iter().map(|(holder, at)| (holder.id, *at))).await?;
        for (holder, at) in used {
            holder.meter.noted(at);
        }
        Ok(())
    }
}

impl Follower for Register {
    fn renew<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        control: Point,
        now: DateTime<Utc>,
        sent_ns: u64,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.known().version != Some(control) {
                // This comes first, whatever the rows hold: one token ends the open mode.
                if store::any(conn).await? {
                    self.close();
                }
                let grants = store::grants(conn, now, ENDED_MAX).await?;
                self.take(control, grants);
            }
            let ahead = now.timestamp_micros().saturating_sub(micros(sent_ns));
            self.0.ahead_us.fetch_max(ahead, Ordering::AcqRel);
            self.0.renewed_ns.fetch_max(sent_ns + 1, Ordering::AcqRel);
            Ok(())
        })
    }
}

fn micros(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000).unwrap_or(i64::MAX)
}
