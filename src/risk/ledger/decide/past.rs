//! Recorded events, of this batch or an earlier one, for replays and corrections.

use crate::error::{Error, Result};
use crate::risk::ledger::read::correlation_id_of;
use crate::risk::model::stored::{self, Columns};
use crate::risk::model::{Movement, Reservation, reserve};
use crate::risk::operation::{Answered, Operation, Outcome, ReserveRequest, Reserved, Submission};
use crate::risk::store::{PastEvent, Recorded};
use crate::types::{Actor, Engine, JsonObject, Reason, RiskAction};
use chrono::{DateTime, Utc};
use std::borrow::Cow;
use uuid::Uuid;

/// A recorded event, from this batch or from the database.
pub(super) struct Past<'a> {
    pub(super) engine: &'a Engine,
    pub(super) action: RiskAction,
    pub(super) amount: crate::types::Amount,
    principal: &'a str,
    actor: Option<&'a str>,
    correlation_id: Option<&'a str>,
    reason: Option<&'a str>,
    metadata: Option<&'a str>,
    pub(super) reservation_id: Option<Uuid>,
    pub(super) movement: Movement,
    at: DateTime<Utc>,
    event: Columns<'a>,
    /// The outcome, as the event stores it.
    detail: &'a str,
}

impl<'a> Past<'a> {
    pub(super) fn of(recorded: &'a Recorded<'_>) -> Self {
        let event = &recorded.event;
        Self {
            engine: &event.engine,
            action: event.action,
            amount: event.amount,
            principal: recorded.origin.principal.as_str(),
            actor: recorded.origin.actor.as_ref().map(Actor::as_str),
            correlation_id: recorded.origin.correlation_id.as_ref().map(crate::types::CorrelationId::as_str),
            reason: event.annotations.reason.as_ref().map(Reason::as_str),
            metadata: event.annotations.metadata.as_ref().map(JsonObject::as_str),
            reservation_id: event.reservation_id,
            movement: event.movement,
            at: recorded.stamp.at,
            event: event.columns(recorded.stamp.at),
            detail: &event.detail,
        }
    }

    pub(super) fn read(event: &'a PastEvent) -> Self {
        Self {
            engine: &event.engine,
            action: event.action,
            amount: event.amount,
            principal: &event.principal,
            actor: event.actor.as_deref(),
            correlation_id: event.correlation_id.as_deref(),
            reason: event.reason.as_deref(),
            metadata: event.metadata.as_deref(),
            reservation_id: event.reservation_id,
            movement: event.movement,
            at: event.at,
            event: event.columns(),
            detail: &event.detail,
        }
    }

    fn outcome<O: stored::Outcome>(&self) -> Result<O> {
        stored::recall(self.detail, &self.event).map_err(|error| self.unreadable(&error))
    }

    /// The outcome in its long form, as answers show it.
    pub(super) fn long(&self) -> Result<Cow<'a, str>> {
        stored::long(self.detail, &self.event).map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &serde_json::Error) -> Error {
        Error::Inconsistent(format!("the outcome of {} cannot be read: {error}", self.action.as_str()))
    }

    /// Refuses a reserve whose id belongs to another reservation.
    pub(super) fn refuse_other(&self, item: &Submission, request: &ReserveRequest, made: &Reservation) -> Result<()> {
        let Reservation { id, engine, amount, .. } = made;
        let original: reserve::Decision = self.outcome()?;
        let ttl = original.expires_at.map(|due| (due - self.at).num_seconds());
        let annotations = &request.annotations;
        let same = [
            ("engine", *engine == request.engine),
            ("amount", *amount == request.amount),
            ("ttl_seconds", request.ttl.is_none_or(|asked| Some(asked.seconds()) == ttl)),
            ("principal", self.principal == item.origin.principal.as_str()),
            ("actor", self.actor == item.origin.actor.as_ref().map(Actor::as_str)),
            ("reason", self.reason == annotations.reason.as_ref().map(Reason::as_str)),
            ("correlation_id", self.correlation_id == correlation_id_of(item)),
            ("metadata", self.metadata == annotations.metadata.as_ref().map(JsonObject::as_str)),
        ];
        let fields: Vec<_> = same.into_iter().filter_map(|(field, same)| (!same).then_some(field)).collect();
        if fields.is_empty() { Ok(()) } else { Err(Error::ReservationExists { reservation_id: *id, fields }) }
    }
}

/// The recorded outcome, for an operation with the same input.
pub(super) fn replay(item: &Submission, past: &Past<'_>) -> Result<Answered> {
    let outcome = match &item.operation {
        Operation::Reserve { .. } => Outcome::Reserved(Reserved {
            engine: past.engine.clone(),
            amount: past.amount,
            decision: past.outcome()?,
            reservation_id: past.reservation_id,
        }),
        Operation::Settle(_) => Outcome::Settled(past.outcome()?),
        Operation::Release(_) => Outcome::Released(past.outcome()?),
        Operation::Extend(_) => Outcome::Extended(past.outcome()?),
        Operation::Adjust(_) => Outcome::Adjusted(past.outcome()?),
    };
    Ok(Answered { outcome, replayed: true, standing: None, stops: Vec::new() })
}
