//! The ledger's rules: pure functions over a [`Book`], without I/O, clock or randomness.
//!
//! A book holds what one decision needs to know, read under the risk head. Each operation's `apply` decides and moves it; the
//! caller writes what changed. A decision is one event, whose detail is the outcome: a replay reads it back.
//!
//! The life of a reservation: `OPEN` → `SETTLED`, `RELEASED` or `EXPIRED`, once; only `EXPIRED` → `SETTLED` comes after, for an
//! action that was done and told late.

pub mod adjust;
pub mod expire;
pub mod extend;
pub mod policy;
pub mod release;
mod reservation;
pub mod reserve;
pub mod settle;

pub use crate::types::ReservationStatus;
pub use reservation::Reservation;

use crate::audit::{Canonical, Origin, Stamp, Stream};
use crate::types::{Amount, Count, Engine, JsonObject, Reason, Total, Ttl};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// How a flag ends that names a cap which the day's loss stands at.
pub const CAP_REACHED: &str = "daily loss cap reached";

/// A policy: the caps of an engine, or of all engines together (`GLOBAL`). A cap of 0 means no cap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RiskPolicy {
    /// The engine, or `GLOBAL`.
    pub engine: Engine,
    /// Realised loss of a day at which new reserves stop; reaching it stops them.
    pub max_daily_loss: Amount,
    /// Most that may be reserved in a day.
    pub max_daily_exposure: Amount,
    /// Most that may be outstanding at once.
    pub max_open_risk: Amount,
    /// Most reserves in a day.
    pub max_actions_per_day: Count,
    /// How long a hold stands that names no time of its own; none means until somebody ends it.
    pub default_ttl_seconds: Option<Ttl>,
    /// Whether reserves can pass: the human flag is set and no throttle stands.
    pub enabled: bool,
    /// The actor of the last change.
    pub changed_by: Option<String>,
    /// Why the last change was made.
    pub reason: Option<String>,
    /// When the last change was made.
    pub updated_at: DateTime<Utc>,
    /// Counts the changes, from 1.
    pub version: i64,
    /// The standing trips that hold the engine off.
    pub throttled_by: Vec<i64>,
    /// The human flag alone.
    #[serde(skip)]
    pub enabled_by_hand: bool,
}

impl RiskPolicy {
    /// Whether reserves can pass.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.enabled
    }

    /// The caps as they were when a decision was made.
    #[must_use]
    pub fn snapshot(&self) -> PolicySnapshot {
        PolicySnapshot {
            engine: self.engine.clone(),
            max_daily_loss: self.max_daily_loss,
            max_daily_exposure: self.max_daily_exposure,
            max_open_risk: self.max_open_risk,
            max_actions_per_day: self.max_actions_per_day,
            enabled: self.enabled,
            version: self.version,
        }
    }
}

/// The caps that a decision was made by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of RiskPolicy")]
pub struct PolicySnapshot {
    pub engine: Engine,
    pub max_daily_loss: Amount,
    pub max_daily_exposure: Amount,
    pub max_open_risk: Amount,
    pub max_actions_per_day: Count,
    pub enabled: bool,
    pub version: i64,
}

/// The use of a level: the day's flows, and the stock that is outstanding now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Reserved today, less what was settled for less or released today.
    pub exposure_used: Total,
    /// Outstanding now, whatever day it was reserved on.
    pub open_risk_reserved: Total,
    /// Lost today.
    pub realized_loss: Total,
    /// Reserves accepted today.
    pub actions_count: i64,
    /// When one of them last moved; none when nothing has yet.
    pub updated_at: Option<DateTime<Utc>>,
}

/// The counters of a level, as answers show them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the fields are those of Usage")]
pub struct LedgerSnapshot {
    /// The business day: a UTC day of the database clock.
    pub day: NaiveDate,
    pub engine: Engine,
    pub exposure_used: Total,
    pub open_risk_reserved: Total,
    pub realized_loss: Total,
    pub actions_count: i64,
    pub updated_at: Option<DateTime<Utc>>,
}

/// The movements of an operation, on its engine and on GLOBAL alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Movement {
    /// On the day's exposure.
    pub exposure: Total,
    /// On the stock.
    pub open: Total,
    /// On the day's loss.
    pub loss: Total,
    /// On the day's count.
    pub actions: i64,
}

impl Movement {
    /// Both together, or `None` beyond the largest total.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            exposure: self.exposure.plus(other.exposure)?,
            open: self.open.plus(other.open)?,
            loss: self.loss.plus(other.loss)?,
            actions: self.actions.checked_add(other.actions)?,
        })
    }
}

/// The treatment of a counter that would fall below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// Refuse the movement: it takes more than there is.
    Refuses,
    /// Stop at zero: a position is closed although the counter had lost it before. The book did not balance, and the
    /// reconciliation tells; whoever closes a position has to be able to.
    Holds,
}

/// One level of the two: what is allowed and what is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    /// The policy; none for an engine that nobody has set up.
    pub policy: Option<RiskPolicy>,
    /// The use.
    pub usage: Usage,
}

impl Level {
    /// The counters as an answer shows them.
    #[must_use]
    pub fn ledger(&self, engine: &Engine, day: NaiveDate) -> LedgerSnapshot {
        LedgerSnapshot {
            day,
            engine: engine.clone(),
            exposure_used: self.usage.exposure_used,
            open_risk_reserved: self.usage.open_risk_reserved,
            realized_loss: self.usage.realized_loss,
            actions_count: self.usage.actions_count,
            updated_at: self.usage.updated_at,
        }
    }
}

/// The switches, as the ledger asks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    /// Whether the kill switch is out.
    pub kill_switch_engaged: bool,
    /// Whether production is on.
    pub go_live_enabled: bool,
    /// Whether production has to be on for a reserve: not in a development environment.
    pub go_live_required: bool,
}

/// The facts of a decision. Read under the risk head, so that it stays true until the commit.
#[derive(Debug, Clone)]
pub struct Book {
    /// The switches.
    pub switches: Switches,
    /// GLOBAL and the engine asked for.
    pub levels: BTreeMap<Engine, Level>,
    /// The reservations asked for.
    pub reservations: BTreeMap<Uuid, Reservation>,
}

/// A sum left the range of a total, or a counter would fall below zero: the book cannot be right, and nothing is decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{counter} of {engine} would leave its range")]
pub struct OutOfRange {
    /// Which level.
    pub engine: Engine,
    /// Which counter.
    pub counter: &'static str,
}

impl Book {
    /// A level; one that was never used is empty.
    #[must_use]
    pub fn level(&self, engine: &Engine) -> Level {
        self.levels.get(engine).cloned().unwrap_or_default()
    }

    /// The most that can be taken from an engine's exposure of today: corrections may have taken some before.
    #[must_use]
    fn exposure_left(&self, engine: &Engine) -> i128 {
        self.levels.get(engine).map_or(0, |level| level.usage.exposure_used.units())
    }

    /// The counters of GLOBAL that a movement has just brought to their caps: from then on every engine is stopped.
    #[must_use]
    fn filled(&self, movement: Movement) -> Vec<&'static str> {
        let level = self.level(&Engine::global());
        let Some(policy) = &level.policy else { return Vec::new() };
        let usage = &level.usage;
        let amounts = [
            ("max_daily_exposure", policy.max_daily_exposure, usage.exposure_used, movement.exposure),
            ("max_open_risk", policy.max_open_risk, usage.open_risk_reserved, movement.open),
        ];
        let is_new = |cap: i128, used: i128, moved: i128| cap > 0 && used >= cap && used - moved < cap;
        let amounts = amounts
            .into_iter()
            .filter(|(_, cap, used, moved)| is_new(Total::from(*cap).units(), used.units(), moved.units()));
        let actions =
            is_new(policy.max_actions_per_day.get().into(), usage.actions_count.into(), movement.actions.into());
        amounts.map(|(name, ..)| name).chain(actions.then_some("max_actions_per_day")).collect()
    }

    /// The counters of an engine and of GLOBAL, as answers show them.
    #[must_use]
    pub fn ledgers(&self, engine: &Engine, day: NaiveDate) -> (LedgerSnapshot, LedgerSnapshot) {
        let global = Engine::global();
        (self.level(engine).ledger(engine, day), self.level(&global).ledger(&global, day))
    }

    /// The caps that the day's loss stands at, of GLOBAL and of the engine.
    #[must_use]
    fn loss_flags(&self, engine: &Engine) -> Vec<String> {
        let mut flags = Vec::new();
        for engine in [&Engine::global(), engine] {
            let level = self.level(engine);
            let cap = level.policy.as_ref().map_or(Total::ZERO, |policy| policy.max_daily_loss.into());
            if cap > Total::ZERO && level.usage.realized_loss >= cap {
                flags.push(format!("{engine} {CAP_REACHED}"));
            }
        }
        flags
    }

    /// Moves the counters of an engine and of GLOBAL, both or neither.
    pub fn post(
        &mut self,
        engine: &Engine,
        movement: Movement,
        floor: Floor,
        at: DateTime<Utc>,
    ) -> Result<(), OutOfRange> {
        let moved = [engine.clone(), Engine::global()]
            .into_iter()
            .map(|engine| {
                let mut level = self.level(&engine);
                let usage = &mut level.usage;
                let sum = |counter: Total, delta: Total, name| {
                    let out_of_range = || OutOfRange { engine: engine.clone(), counter: name };
                    let sum = counter.plus(delta).ok_or_else(out_of_range)?;
                    match floor {
                        Floor::Refuses if sum < Total::ZERO => Err(out_of_range()),
                        Floor::Holds => Ok(sum.max(Total::ZERO)),
                        Floor::Refuses => Ok(sum),
                    }
                };
                usage.exposure_used = sum(usage.exposure_used, movement.exposure, "exposure_used")?;
                usage.open_risk_reserved = sum(usage.open_risk_reserved, movement.open, "open_risk_reserved")?;
                usage.realized_loss = sum(usage.realized_loss, movement.loss, "realized_loss")?;
                usage.actions_count = usage
                    .actions_count
                    .checked_add(movement.actions)
                    .ok_or_else(|| OutOfRange { engine: engine.clone(), counter: "actions_count" })?;
                usage.updated_at = Some(at);
                Ok((engine, level))
            })
            .collect::<Result<Vec<_>, OutOfRange>>()?;
        self.levels.extend(moved);
        Ok(())
    }
}

/// The caller's own words about an event.
#[derive(Debug, Clone, Default)]
pub struct Annotations {
    /// Why.
    pub reason: Option<Reason>,
    /// Whatever else.
    pub metadata: Option<JsonObject>,
}

/// A decision on its way into the risk stream.
#[derive(Debug, Clone)]
pub struct RiskEvent {
    /// The engine asked for.
    pub engine: Engine,
    /// `RESERVE`, `DENY`, `SETTLE`, `RELEASE`, `EXTEND`, `EXPIRE`, `ADJUST`.
    pub action: &'static str,
    /// The amount: asked for, settled, released, expired, corrected.
    pub amount: Amount,
    /// The first reason and level of a denial.
    pub denial: Option<(&'static str, String)>,
    /// The reservation, where there is one.
    pub reservation_id: Option<Uuid>,
    /// Its movements.
    pub movement: Movement,
    /// The caller's words.
    pub annotations: Annotations,
    /// The facts and the outcome of the decision, as JSON.
    pub detail: String,
}

impl RiskEvent {
    /// The bytes that the chain covers, in column order.
    #[must_use]
    pub fn canonical(&self, stamp: Stamp, origin: &Origin) -> Canonical {
        let denial = self.denial.as_ref();
        Canonical::begin(Stream::Risk, stamp, origin)
            .text(Some(self.engine.as_str()))
            .text(Some(self.action))
            .shown(Some(denial.is_none()))
            .shown(Some(self.amount))
            .text(denial.map(|(reason, _)| *reason))
            .text(denial.map(|(_, scope)| scope.as_str()))
            .shown(self.reservation_id)
            .day(Some(stamp.day()))
            .shown(Some(self.movement.exposure))
            .shown(Some(self.movement.open))
            .shown(Some(self.movement.loss))
            .shown(Some(self.movement.actions))
            .digest(self.annotations.reason.as_ref().map(Reason::as_str))
            .digest(self.annotations.metadata.as_ref().map(JsonObject::as_str))
            .digest(Some(&self.detail))
    }
}

#[cfg(test)]
pub(crate) mod tests;
