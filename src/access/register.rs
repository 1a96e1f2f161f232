//! The register of tokens as this instance knows it: in memory, so that a request costs no statement, and renewed by the feed
//! with every read of the state.
//!
//! Invariants:
//! - A token that was revoked, or is not in the database, opens nothing longer than the state lease after that: what is known
//!   counts for the lease from the instant before its read was sent.
//! - Only the switches that tighten go by an older register: an operator stops everything also while the database is away.
//! - What was seen revoked stays so until the process ends, also where a restored database knows nothing of it.
//! - A change reads the tokens that are valid and `ENDED_MAX` of the last that ended, however many there ever were. One that ended
//!   before those is not known any more, and opens nothing either.
//! - Once a token was seen, the open mode is over until the process ends, whatever the database says later.
//! - The time that tokens expire by never runs back: a database whose clock does revives none. Nor does it jump: one that is not
//!   [believed](crate::clock::belief) expires none.

use super::meter::{Meter, RefusalKind};
use super::rate::{Bucket, RATE_DEFAULT};
use super::store;
use super::token::Token;
use crate::clock::Clock;
use crate::enforcement::feed::{BoxFuture, Follower};
use crate::error::{Error, Result};
use crate::identity::Grant;
use crate::types::{Point, TokenId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Tokens that ended and are still known, so that their holders are told how they did.
const ENDED_MAX: i64 = 1_000;

/// The known tokens. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Register(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    lease_ns: u64,
    known: RwLock<Arc<KnownTokens>>,
    /// Every token that was ever seen revoked, whatever the rows say later: a database that was restored may lack the row for a
    /// while, and show it as it was before.
    revoked: Mutex<HashMap<TokenId, DateTime<Utc>>>,
    /// The instant before the last renewal was sent, on `clock`, plus one; 0 before the first.
    renewed_ns: AtomicU64,
    /// How far the database's time is ahead of `clock`, microseconds. Only ever more.
    ahead_us: AtomicI64,
}

/// The tokens as they were read.
#[derive(Debug, Default)]
struct KnownTokens {
    /// Where the control stream stood: tokens are read again only when that moved. By its hash as well: in another history the same
    /// number is another event. None before the first read.
    version: Option<Point>,
    /// Whether a token was ever created.
    closed: bool,
    holders: HashMap<TokenId, Arc<Holder>>,
}

/// The holder of a token, as this instance knows it.
#[derive(Debug)]
pub(super) struct Holder {
    /// The token.
    pub(super) id: TokenId,
    /// SHA-256 of the token.
    pub(super) digest: [u8; 32],
    pub(super) grant: Arc<Grant>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) revoked_at: Option<DateTime<Utc>>,
    /// Its use of its rates, and its last use.
    pub(super) meter: Arc<Meter>,
}

impl Holder {
    /// Whether this is its token, in a time that tells nothing of how much of it is right.
    fn shows(&self, token: &Token) -> bool {
        self.id == token.id() && bool::from(self.digest[..].ct_eq(&token.digest()[..]))
    }
}

/// The callers that are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody: it is not known which tokens there are.
    Unknown,
    /// Everybody: no token was ever created.
    Open,
    /// Holders of tokens.
    Tokens,
}

/// How old the register may be for what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Within the lease.
    Fresh,
    /// As it was last known: for what only tightens.
    Any,
}

impl Register {
    /// A register that knows nothing yet, and so lets nobody in.
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

    /// The callers that are let in. Tokens never end, so the answer holds however old the register is. The open mode lasts until a read tells otherwise: it
    /// protects nothing but a machine from its own web pages, and what it lets do needs the database that would have told.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.known().closed {
            true => Mode::Tokens,
            false if self.is_known(Age::Any) => Mode::Open,
            false => Mode::Unknown,
        }
    }

    /// Whether what is known is young enough.
    fn is_known(&self, age: Age) -> bool {
        let renewed = self.0.renewed_ns.load(Ordering::Acquire);
        renewed > 0 && (age == Age::Any || self.0.clock.now_ns().saturating_sub(renewed - 1) <= self.0.lease_ns)
    }

    /// The database's time.
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
        // The end of a token is told to a caller that holds all of it.
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

    /// Takes one from a token's rate.
    pub(super) fn meter(&self, holder: &Holder) -> Result<()> {
        holder.meter.bucket.take(self.0.clock.now_ns()).map_err(|wait| Error::RateLimited { wait })
    }

    /// Takes one from a token's refusals that are written down.
    pub(super) fn meter_refusal(&self, holder: &Holder, kind: RefusalKind) -> Result<()> {
        holder.meter.refusals(kind).take(self.0.clock.now_ns()).map_err(|wait| Error::RateLimited { wait })
    }

    /// Writes down which tokens were used since the last time.
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
                // First, and whatever stands in the rows: that there is one ends the open mode.
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
