//! Outcomes as their events store them, each fact once.
//!
//! The other columns of an event hold most of its outcome: the engine, the amount, the movements, the reservation, the
//! day and the first reason of a denial. The compact form leaves that out, and writes caps and counters as lists. The
//! long form is the whole outcome, as every answer shows it. Both forms stay readable for ever, since a hash covers them.
//!
//! [`store`] writes an outcome, [`recall`] reads it back, [`long`] shows it. An outcome with a fact that does not follow
//! from its event is stored in the long form, so that nothing is lost.

mod outcomes;
mod parts;

use super::adjust::Adjustment;
use super::expire::Expiry;
use super::extend::Extension;
use super::release::Released;
use super::reserve::Decision;
use super::settle::Settlement;
use super::{DenialReason, LedgerSnapshot, Movement, RiskAction};
use crate::db;
use crate::types::{Amount, Engine, Total};
use chrono::{DateTime, Utc};
use parts::{Counters, Moved};
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Error, Result};
use std::borrow::Cow;
use uuid::Uuid;

/// The form of an event's detail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// The outcome whole, as every version of Holdfast reads it.
    #[default]
    Long,
    /// Without the facts that the event's columns hold. The versions before schema 31 cannot read it.
    Compact,
}

/// The mark of the compact form.
const VERSION: u8 = 2;
/// The beginning of a detail in the compact form. No outcome in the long form begins so.
const BEGIN: &str = r#"{"v":2,"#;

/// The columns of an event that its outcome is read by.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// The engine asked for.
    pub engine: &'a Engine,
    /// The decision.
    pub action: RiskAction,
    /// The first reason and level of a denial.
    pub denial: Option<(DenialReason, &'a str)>,
    /// The amount: asked for, settled, released, expired, corrected.
    pub amount: Amount,
    /// The reservation, where there is one.
    pub reservation_id: Option<Uuid>,
    /// Its movements.
    pub movement: Movement,
    /// When.
    pub at: DateTime<Utc>,
}

impl Columns<'_> {
    /// The level whose policy and counters a decision shows: that of the first failure, GLOBAL or the engine.
    fn level(&self) -> Engine {
        if self.denial.is_some_and(|(_, scope)| scope == "GLOBAL") { Engine::global() } else { self.engine.clone() }
    }

    /// A level's counters, if the rest of the snapshot follows from the event.
    fn counters(&self, ledger: &LedgerSnapshot, engine: &Engine) -> Option<Counters> {
        let follows = ledger.engine == *engine && ledger.day == self.at.date_naive();
        let moved = if ledger.updated_at == Some(self.at) { Moved::ByIt } else { Moved::Before(ledger.updated_at) };
        follows.then_some(Counters {
            exposure: ledger.exposure_used,
            open: ledger.open_risk_reserved,
            loss: ledger.realized_loss,
            actions: ledger.actions_count,
            moved,
        })
    }

    fn ledger(&self, counters: Counters, engine: Engine) -> LedgerSnapshot {
        LedgerSnapshot {
            day: self.at.date_naive(),
            engine,
            exposure_used: counters.exposure,
            open_risk_reserved: counters.open,
            realized_loss: counters.loss,
            actions_count: counters.actions,
            updated_at: match counters.moved {
                Moved::ByIt => Some(self.at),
                Moved::Before(at) => at,
            },
        }
    }

    /// The counters of the engine and of GLOBAL.
    fn both(&self, engine: &LedgerSnapshot, global: &LedgerSnapshot) -> Option<(Counters, Counters)> {
        Some((self.counters(engine, self.engine)?, self.counters(global, &Engine::global())?))
    }

    fn ledgers(&self, engine: Counters, global: Counters) -> (LedgerSnapshot, LedgerSnapshot) {
        (self.ledger(engine, self.engine.clone()), self.ledger(global, Engine::global()))
    }

    fn reservation(&self) -> Result<Uuid> {
        self.reservation_id.ok_or_else(|| Error::custom("the event names no reservation"))
    }

    /// The outstanding amount that the event returned.
    fn returned(&self) -> Result<Total> {
        Total::ZERO.minus(self.movement.open).ok_or_else(|| Error::custom("the movement is out of range"))
    }

    /// The loss that a settle booked, which is an amount.
    fn loss(&self) -> Result<Amount> {
        Amount::from_units(self.movement.loss.units()).ok_or_else(|| Error::custom("the loss is no amount"))
    }
}

/// The text of an outcome in its event.
#[must_use]
pub fn store<O: Outcome>(outcome: &O, event: &Columns<'_>, form: Form) -> String {
    let compact = if form == Form::Compact { outcome.compact(event) } else { None };
    compact.unwrap_or_else(|| db::json_text(outcome))
}

/// The outcome that an event stores, in either form.
pub fn recall<O: Outcome>(text: &str, event: &Columns<'_>) -> Result<O> {
    if is_compact(text) { O::expand(text, event) } else { serde_json::from_str(text) }
}

/// Whether an outcome is stored in the compact form.
#[must_use]
pub fn is_compact(text: &str) -> bool {
    text.starts_with(BEGIN)
}

/// The outcome that an event stores in the long form, whichever form it has.
pub fn long<'t>(text: &'t str, event: &Columns<'_>) -> Result<Cow<'t, str>> {
    if !is_compact(text) {
        return Ok(Cow::Borrowed(text));
    }
    let text = match event.action {
        RiskAction::Deny if event.reservation_id.is_some() => long_of::<Extension>(text, event),
        RiskAction::Reserve | RiskAction::Deny => long_of::<Decision>(text, event),
        RiskAction::Settle => long_of::<Settlement>(text, event),
        RiskAction::Release => long_of::<Released>(text, event),
        RiskAction::Extend => long_of::<Extension>(text, event),
        RiskAction::Expire => long_of::<Expiry>(text, event),
        RiskAction::Adjust => long_of::<Adjustment>(text, event),
    };
    text.map(Cow::Owned)
}

fn long_of<O: Outcome>(text: &str, event: &Columns<'_>) -> Result<String> {
    O::expand(text, event).map(|outcome| db::json_text(&outcome))
}

/// An outcome that an event stores.
pub trait Outcome: Serialize + DeserializeOwned {
    /// The compact form; none if a fact does not follow from the event.
    fn compact(&self, event: &Columns<'_>) -> Option<String>;

    /// The outcome from its compact form.
    fn expand(text: &str, event: &Columns<'_>) -> Result<Self>;
}

#[cfg(test)]
mod tests;
