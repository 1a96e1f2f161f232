//! Lever 2, the risk guard: is there room under GLOBAL and under this engine for this action, today?
//!
//! Invariants, after every commit:
//! - open(engine) is the sum of `open_amount` of its open reservations; open(GLOBAL) is the sum over the engines.
//! - The flows of a day are the sums of that day's events; a closed day's row never changes again.
//! - Nothing is below zero; after an accepted reserve no cap is exceeded, on either level.
//! - A reservation ends once. A decision is one event; a denial moves no counter.
//!
//! Reserves and settles are decided by the [`writer`]: one transaction for everything that waits, holding the risk head:
//! lock, read the book, decide purely ([`model`]), write, commit; only then are they answered. Policies are read inside it, so
//! an upsert or a throttle binds the very next decision.
//!
//! Statements: a batch takes 6 (begin, lock, time and switches, levels, write, commit), and a few more for what its settles
//! name ([`writer`]).

pub mod http;
pub mod model;
pub mod store;
pub mod writer;

use crate::audit::{self, Changes, ControlEvent, Origin, Stamp, Stream};
use crate::clock::Clock;
use crate::config::EnforcementConfig;
use crate::db::{self, Database, to_json};
use crate::error::{Error, Result};
use crate::types::{Actor, Amount, Engine, Reason};
use model::policy::{self, PolicyUpsert};
use model::reserve::{self, Decision, Reserve};
use model::settle::Settlement;
use model::{Book, OutOfRange, RiskPolicy, Switches, Words};
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;
use writer::{Operation, Outcome, Writer};

/// The lever's service.
#[derive(Debug, Clone)]
pub struct Risk {
    db: Database,
    writer: Writer,
    go_live_required: bool,
}

/// A reserve as it was asked for.
#[derive(Debug)]
pub struct ReserveRequest {
    /// For which engine.
    pub engine: Engine,
    /// How much.
    pub amount: Amount,
    /// The caller's words.
    pub words: Words,
    /// Whether it is meant.
    pub run: Run,
}

/// Whether an operation is meant or only asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Decide and record.
    Real,
    /// Decide, and write nothing.
    Dry,
}

/// A decision with the id of what it made.
#[derive(Debug)]
pub struct Reserved {
    /// What was decided.
    pub decision: Decision,
    /// The reservation; none when denied or dry.
    pub reservation_id: Option<Uuid>,
}

/// A settle as it was asked for.
#[derive(Debug)]
pub struct SettleRequest {
    /// The engine; required without a reservation.
    pub engine: Option<Engine>,
    /// The reservation.
    pub reservation_id: Option<Uuid>,
    /// What the caller reserved; required without a reservation.
    pub reserved_amount: Option<Amount>,
    /// What was really used.
    pub settled_amount: Option<Amount>,
    /// What was lost.
    pub realized_loss: Amount,
    /// The caller's words.
    pub words: Words,
}

impl From<OutOfRange> for Error {
    fn from(error: OutOfRange) -> Self {
        Self::Inconsistent(error.to_string())
    }
}

impl Risk {
    /// The lever on this database. In a development environment nobody has to go live before a reserve.
    #[must_use]
    pub fn new(db: Database, clock: Clock, config: &EnforcementConfig) -> Self {
        let go_live_required = !config.is_development();
        Self { writer: Writer::start(db.clone(), clock, go_live_required), db, go_live_required }
    }

    /// Decides a reserve.
    pub async fn reserve(&self, request: ReserveRequest, origin: &Origin) -> Result<Reserved> {
        if request.engine.is_global() {
            return Err(Error::invalid("engine", "GLOBAL is the level above the engines: name the engine that acts"));
        }
        if request.amount.is_zero() {
            return Err(Error::invalid("amount", "must be more than 0"));
        }
        match request.run {
            Run::Real => self.reserve_for_real(request, origin).await,
            Run::Dry => self.reserve_dry(&request).await,
        }
    }

    async fn reserve_for_real(&self, request: ReserveRequest, origin: &Origin) -> Result<Reserved> {
        let ReserveRequest { engine, amount, words, .. } = request;
        match self.writer.submit(Operation::Reserve { engine, amount, id: reservation_id(), words }, origin).await? {
            Outcome::Reserved(reserved) => Ok(reserved),
            Outcome::Settled(_) => Err(Error::Inconsistent("a reserve was settled".into())),
        }
    }

    /// The same decision on one instant of the database, without the lock and without a trace.
    async fn reserve_dry(&self, request: &ReserveRequest) -> Result<Reserved> {
        let mut tx = self.db.begin_snapshot().await?;
        let (stamp, clock_went_back) = audit::peek(&mut tx, Stream::Risk).await?;
        if let Some(seconds) = clock_went_back {
            return Err(Error::ClockWentBack(seconds));
        }
        let mut book = self.read_book(&mut tx, &request.engine, stamp).await?;
        let reserve =
            Reserve { engine: request.engine.clone(), amount: request.amount, id: Uuid::nil(), correlation_id: None };
        let (decision, _) = reserve::apply(&mut book, &reserve, Words::default(), stamp)?;
        Ok(Reserved { decision, reservation_id: None })
    }

    /// Settles, by reservation or as the original did. Always allowed: positions must be closable, whatever the switches say.
    pub async fn settle(&self, request: SettleRequest, origin: &Origin) -> Result<Settlement> {
        if request.reservation_id.is_none() && request.engine.as_ref().is_some_and(Engine::is_global) {
            return Err(Error::invalid("engine", "GLOBAL is the level above the engines: name the engine that acted"));
        }
        match self.writer.submit(Operation::Settle(request), origin).await? {
            Outcome::Settled(settlement) => Ok(settlement),
            Outcome::Reserved(_) => Err(Error::Inconsistent("a settle was reserved".into())),
        }
    }

    async fn read_book(&self, conn: &mut PgConnection, engine: &Engine, stamp: Stamp) -> Result<Book> {
        let state = crate::go_live::store::read_state(&mut *conn).await?;
        let switches = Switches {
            kill_switch_engaged: state.kill_switch_engaged,
            go_live_enabled: state.go_live_enabled,
            go_live_required: self.go_live_required,
        };
        let levels = store::read_levels(conn, &[Engine::global(), engine.clone()], stamp.day()).await?;
        Ok(Book { switches, levels, reservations: BTreeMap::new() })
    }

    /// Sets caps. Nothing changed means nothing written.
    pub async fn upsert_policy(
        &self,
        request: &PolicyUpsert,
        reason: Option<&Reason>,
        origin: &Origin,
    ) -> Result<(RiskPolicy, Changes)> {
        let mut tx = self.db.begin().await?;
        // Lock order: risk, control. The risk head makes the upsert bind the very next decision.
        let risk_head = audit::lock(&mut tx, Stream::Risk).await?;
        let existing = store::read_policies(&mut tx).await?.into_iter().find(|policy| policy.engine == request.engine);
        let (policy, changes) =
            policy::upsert(existing.as_ref(), request, origin.actor.as_ref(), reason, risk_head.next().at)?;
        if let (true, Some(existing)) = (changes.is_empty(), existing) {
            return Ok((existing, changes));
        }
        if changes.0.iter().any(|change| change.field == "throttled_by") {
            store::lift_throttles(&mut tx, &policy.engine).await?;
        }
        store::upsert_policy(&mut tx, &policy).await?;
        let detail = Some(to_json(&PolicyDetail { changes: &changes, policy: &policy }).get().to_owned());
        let subject = Some(policy.engine.as_str());
        let event = ControlEvent { action: "RISK_POLICY_UPSERT", subject, error: None, reason, detail };
        let mut control_head = audit::lock(&mut tx, Stream::Control).await?;
        event.append(&mut tx, &mut control_head, origin).await?;
        db::commit(tx).await?;
        Ok((policy, changes))
    }

    /// All policies, by engine.
    pub async fn policies(&self) -> Result<Vec<RiskPolicy>> {
        store::read_policies(&mut *self.db.read().await?).await
    }

    /// The database, for the lever's reads.
    #[must_use]
    pub const fn db(&self) -> &Database {
        &self.db
    }
}

/// What an upsert did, for the audit trail.
#[derive(Serialize)]
struct PolicyDetail<'a> {
    changes: &'a Changes,
    policy: &'a RiskPolicy,
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that makes reservation ids; v7 keeps the index local"
)]
fn reservation_id() -> Uuid {
    Uuid::now_v7()
}

/// Puts a trip's throttle on an engine, inside a transaction that holds the risk head.
pub async fn throttle_in_tx(
    conn: &mut PgConnection,
    engine: &Engine,
    trip_id: i64,
    why: &str,
    by: Option<&Actor>,
    at: chrono::DateTime<chrono::Utc>,
) -> Result<()> {
    store::note_policy(&mut *conn, engine, by.map(Actor::as_str), why, at).await?;
    store::add_throttle(conn, engine, trip_id, at).await
}

/// Lifts a trip's throttle, inside a transaction that holds the risk head. The engine is on again if nothing else holds it.
pub async fn lift_throttle_in_tx(
    conn: &mut PgConnection,
    trip_id: i64,
    why: &str,
    by: Option<&Actor>,
    at: chrono::DateTime<chrono::Utc>,
) -> Result<()> {
    let Some(engine) = store::lift_throttle(&mut *conn, trip_id).await? else {
        return Ok(());
    };
    let engine = engine.parse().map_err(|_| Error::Inconsistent(format!("{engine} is not an engine")))?;
    store::note_policy(conn, &engine, by.map(Actor::as_str), why, at).await
}
