//! The ledger's rules: pure functions over a [`Book`], without I/O, clock or randomness.
//!
//! A book has the facts of one decision, read under the risk head. Each operation's `apply` decides and moves the book;
//! the caller writes the changes. A decision is one event, whose detail is the outcome as [`stored`] writes it, so that a
//! replay can read it back.
//!
//! The life of a reservation: `OPEN` → `SETTLED`, `RELEASED` or `EXPIRED`, once. Only `EXPIRED` → `SETTLED` can follow,
//! for an action that was done and reported late.

pub mod adjust;
mod denial;
pub mod expire;
pub mod extend;
pub mod policy;
pub mod release;
mod reservation;
pub mod reserve;
pub mod settle;
pub mod stored;

pub use crate::types::{ReservationStatus, RiskAction};
pub use denial::DenialReason;
pub use reservation::Reservation;

use crate::audit::{Canonical, Origin, Stamp, Stream};
use crate::types::{Amount, Count, Engine, JsonObject, Reason, Total, Ttl};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use stored::{Columns, Form};
use utoipa::ToSchema;
use uuid::Uuid;

/// The end of a flag that names a cap which the day's loss has reached.
pub const CAP_REACHED: &str = "daily loss cap reached";

/// A policy: the caps of an engine, or of all engines together (`GLOBAL`). A cap of 0 means no cap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RiskPolicy {
    /// The engine, or `GLOBAL`.
    pub engine: Engine,
    /// The realised loss of a day at which new reserves stop; reaching it stops them.
    pub max_daily_loss: Amount,
    /// The most that may be reserved in a day.
    pub max_daily_exposure: Amount,
    /// The most that may be outstanding at once.
    pub max_open_risk: Amount,
    /// The most reserves in a day.
    pub max_actions_per_day: Count,
    /// The lifetime in seconds of a hold that names none; null for holds without expiry.
    pub default_ttl_seconds: Option<Ttl>,
    /// True if reserves can pass: an operator has enabled the policy, and no throttle is active.
    pub enabled: bool,
    /// The actor of the last change.
    pub changed_by: Option<String>,
    /// The reason of the last change.
    pub reason: Option<String>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
    /// The number of changes, from 1.
    pub version: i64,
    /// The active trips that throttle the engine.
    pub throttled_by: Vec<i64>,
    /// True if an operator has enabled the policy, whether or not it is throttled.
    #[serde(skip)]
    pub enabled_by_hand: bool,
}

impl RiskPolicy {
    /// True if reserves can pass.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.enabled
    }

    /// The caps at the time of a decision.
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

/// The caps that a decision used.
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

/// The use of a level: the day's flows, and the outstanding amount now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The amount reserved today, less the amounts that today's settles and releases gave back.
    pub exposure_used: Total,
    /// The outstanding amount now, from any day.
    pub open_risk_reserved: Total,
    /// The loss of today.
    pub realized_loss: Total,
    /// The accepted reserves of today.
    pub actions_count: i64,
    /// The time of the last movement; none if there is none yet.
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

/// The changes of an operation to the counters of its engine and of GLOBAL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Movement {
    /// The change of the day's exposure.
    pub exposure: Total,
    /// The change of the outstanding amount.
    pub open: Total,
    /// The change of the day's loss.
    pub loss: Total,
    /// The change of the day's actions.
    pub actions: i64,
}

impl Movement {
    /// The sum of both, or `None` beyond the largest total.
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
    /// The movement is refused: it takes more than there is.
    Refuses,
    /// The counter stops at zero: a position is closed although the counter had already lost it. The book did not
    /// balance, which the reconciliation reports; closing a position must always be possible.
    Holds,
}

/// The policy and the use of one of the two levels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    /// The policy; none for an engine without one.
    pub policy: Option<RiskPolicy>,
    /// The counters.
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

/// The switches, as the ledger uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    /// True while the kill switch is engaged.
    pub kill_switch_engaged: bool,
    /// True while go-live is enabled.
    pub go_live_enabled: bool,
    /// True if a reserve requires go-live; false in a development environment.
    pub go_live_required: bool,
}

/// The facts of a decision. They are read under the risk head, so they stay true until the commit.
#[derive(Debug, Clone)]
pub struct Book {
    /// The switches at the time of the read.
    pub switches: Switches,
    /// The levels of GLOBAL and the requested engines.
    pub levels: BTreeMap<Engine, Level>,
    /// The requested reservations, by id.
    pub reservations: BTreeMap<Uuid, Reservation>,
    /// The form in which events store their outcome.
    pub form: Form,
}

/// A sum left the range of a total, or a counter would fall below zero: the book cannot be right, and nothing is
/// decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{counter} of {engine} would leave its range")]
pub struct OutOfRange {
    /// The level of the counter.
    pub engine: Engine,
    /// The name of the counter.
    pub counter: &'static str,
}

impl Book {
    /// A level; empty if it was never used.
    #[must_use]
    pub fn level(&self, engine: &Engine) -> Level {
        self.levels.get(engine).cloned().unwrap_or_default()
    }

    /// The most that can be taken back from an engine's exposure of today: earlier corrections may have reduced it.
    #[must_use]
    fn exposure_left(&self, engine: &Engine) -> i128 {
        self.levels.get(engine).map_or(0, |level| level.usage.exposure_used.units())
    }

    /// The counters of GLOBAL that a movement has just brought to their caps, which stops every engine.
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

    /// The flags of the caps that the day's loss has reached, for GLOBAL and for the engine.
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

/// The caller's reason and further data of an event. Further texts belong into `metadata`: `detail` is what a replay
/// answers, and cannot be erased.
#[derive(Debug, Clone, Default)]
pub struct Annotations {
    /// The reason, if the caller gave one.
    pub reason: Option<Reason>,
    /// Further data, if the caller gave any.
    pub metadata: Option<JsonObject>,
}

/// A decision before it is written to the risk stream.
#[derive(Debug, Clone)]
pub struct RiskEvent {
    /// The requested engine.
    pub engine: Engine,
    /// The action.
    pub action: RiskAction,
    /// The amount that was requested, settled, released, expired or corrected.
    pub amount: Amount,
    /// The first reason and level of a denial.
    pub denial: Option<(DenialReason, String)>,
    /// The reservation; none if there is none.
    pub reservation_id: Option<Uuid>,
    /// The changes to the counters.
    pub movement: Movement,
    /// The caller's reason and metadata.
    pub annotations: Annotations,
    /// The outcome of the decision, as JSON in one of its forms.
    pub detail: String,
}

impl RiskEvent {
    /// The event with its outcome.
    fn telling(mut self, outcome: &impl stored::Outcome, form: Form, stamp: Stamp) -> Self {
        self.detail = stored::store(outcome, &self.columns(stamp.at), form);
        self
    }

    /// The columns that its outcome is read by.
    #[must_use]
    pub fn columns(&self, at: DateTime<Utc>) -> Columns<'_> {
        Columns {
            engine: &self.engine,
            action: self.action,
            denial: self.denial.as_ref().map(|(reason, scope)| (*reason, scope.as_str())),
            amount: self.amount,
            reservation_id: self.reservation_id,
            movement: self.movement,
            at,
        }
    }

    /// The bytes that the chain covers, in column order.
    #[must_use]
    pub fn canonical(&self, stamp: Stamp, origin: &Origin) -> Canonical {
        let denial = self.denial.as_ref();
        Canonical::begin(Stream::Risk, stamp, origin)
            .text(Some(self.engine.as_str()))
            .text(Some(self.action.as_str()))
            .shown(Some(denial.is_none()))
            .shown(Some(self.amount))
            .text(denial.map(|(reason, _)| reason.as_str()))
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
