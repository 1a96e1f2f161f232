//! What is asked of the ledger, as it is sent. Each is read alike alone and in a batch.

use crate::audit::Origin;
use crate::error::{Error, Result};
use crate::http::Caller;
use crate::risk::model::Words;
use crate::risk::model::adjust::Correction;
use crate::risk::operation::{AdjustRequest, ExtendRequest, Operation, ReleaseRequest, ReserveRequest, SettleRequest};
use crate::types::{
    Actor, Amount, CorrelationId, Count, Engine, Flag, IdempotencyKey, JsonObject, Measured, Reason, Ttl,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A reserve that is asked for, before the action is done.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckAndReserve {
    /// The engine that acts.
    engine: Engine,
    /// How much is put at risk; more than 0.
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 1_000_000_000_000_u64)]
    amount: Amount,
    /// Who acts.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's own thread; a settle can name it.
    correlation_id: Option<CorrelationId>,
    /// Whatever else belongs to it.
    metadata: Option<JsonObject>,
    /// Seconds after which the hold expires if nobody has ended it; left out, what the engine's policy says.
    ttl_seconds: Option<Ttl>,
    /// The id that the reservation shall have, chosen by the caller; left out, a new one. The same id and input is answered
    /// alike and reserves once.
    reservation_id: Option<Uuid>,
    /// Ask without reserving: the same decision, and nothing is written. Never blank: that could be meant either way.
    #[serde(default, deserialize_with = "some_flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Flag, required = false)]
    dry_run: Option<Flag>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// A flag that is there or not, but never blank.
fn some_flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Flag>, D::Error> {
    let blank = || serde::de::Error::custom("is blank: send true or false, or leave it out");
    Option::<Flag>::deserialize(deserializer)?.map(Some).ok_or_else(blank)
}

/// A hold that is named or not, but never blank: a denial's `reservation_id` is null, and would settle the hold of another.
fn some_hold<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Uuid>, D::Error> {
    let blank = || {
        serde::de::Error::custom(
            "is blank: a reservation that was denied has none, and nothing to settle; to settle by engine and amount, leave it out",
        )
    };
    Option::<Uuid>::deserialize(deserializer)?.map(Some).ok_or_else(blank)
}

impl CheckAndReserve {
    /// Whether it is only asked.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run.is_some_and(|flag| flag.0)
    }

    pub(super) fn read(self, caller: Caller) -> (ReserveRequest, Origin) {
        let request = ReserveRequest {
            engine: self.engine,
            amount: self.amount,
            ttl: self.ttl_seconds,
            reservation_id: self.reservation_id,
            words: Words { reason: self.reason, metadata: self.metadata },
        };
        (request, caller.origin(self.actor, self.correlation_id))
    }
}

/// The outcome of an action. Name the reservation; or, as the original did, engine and reserved amount.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleInput {
    /// The engine that acted; required without a `reservation_id`.
    engine: Option<Engine>,
    /// What was reserved; required without a `reservation_id`.
    reserved_amount: Option<Amount>,
    /// What was really used; left out, exactly what was reserved.
    settled_amount: Option<Amount>,
    /// What was lost; left out, nothing.
    realized_loss: Option<Amount>,
    /// Who acted.
    actor: Option<Actor>,
    /// What came of it.
    reason: Option<Reason>,
    /// The caller's own thread: without a `reservation_id`, its reservations are the ones that are matched.
    correlation_id: Option<CorrelationId>,
    /// The reservation. Never blank: a denial has none.
    #[serde(default, deserialize_with = "some_hold", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    reservation_id: Option<Uuid>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl SettleInput {
    pub(super) fn read(self, caller: Caller) -> (SettleRequest, Origin) {
        let request = SettleRequest {
            engine: self.engine,
            reservation_id: self.reservation_id,
            reserved_amount: self.reserved_amount,
            settled_amount: self.settled_amount,
            realized_loss: self.realized_loss.unwrap_or_default(),
            words: Words { reason: self.reason, metadata: None },
        };
        (request, caller.origin(self.actor, self.correlation_id))
    }
}

/// The outcome of the action that this reservation was for.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleReservation {
    /// The engine that acted; must be the reservation's.
    engine: Option<Engine>,
    /// What was reserved; must agree.
    reserved_amount: Option<Amount>,
    /// What was really used; left out, exactly what was reserved.
    settled_amount: Option<Amount>,
    /// What was lost; left out, nothing.
    realized_loss: Option<Amount>,
    /// Who acted.
    actor: Option<Actor>,
    /// What came of it.
    reason: Option<Reason>,
    /// The caller's own thread.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl SettleReservation {
    pub(super) fn read(self, id: Uuid, caller: Caller) -> (SettleRequest, Origin) {
        let request = SettleRequest {
            engine: self.engine,
            reservation_id: Some(id),
            reserved_amount: self.reserved_amount,
            settled_amount: self.settled_amount,
            realized_loss: self.realized_loss.unwrap_or_default(),
            words: Words { reason: self.reason, metadata: None },
        };
        (request, caller.origin(self.actor, self.correlation_id))
    }
}

/// The action did not happen.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseReservation {
    /// The engine; must be the reservation's.
    engine: Option<Engine>,
    /// Who says so.
    actor: Option<Actor>,
    /// Why it did not happen.
    reason: Option<Reason>,
    /// The caller's own thread.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl ReleaseReservation {
    pub(super) fn read(self, id: Uuid, caller: Caller) -> (ReleaseRequest, Origin) {
        let words = Words { reason: self.reason, metadata: None };
        let request = ReleaseRequest { reservation_id: id, engine: self.engine, words };
        (request, caller.origin(self.actor, self.correlation_id))
    }
}

/// The action takes longer.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtendReservation {
    /// Seconds that the hold stands from now; never shorter than it stood before.
    ttl_seconds: Ttl,
    /// The engine; must be the reservation's.
    engine: Option<Engine>,
    /// Who asks.
    actor: Option<Actor>,
    /// Why it takes longer.
    reason: Option<Reason>,
    /// The caller's own thread.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl ExtendReservation {
    pub(super) fn read(self, id: Uuid, caller: Caller) -> (ExtendRequest, Origin) {
        let words = Words { reason: self.reason, metadata: None };
        let request = ExtendRequest { reservation_id: id, engine: self.engine, ttl: self.ttl_seconds, words };
        (request, caller.origin(self.actor, self.correlation_id))
    }
}

/// A correction of what was booked, by one of the two deltas.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdjustInput {
    /// The event that is corrected: its `seq` in `GET /risk/events`.
    corrects_seq: Count,
    /// Added to today's loss; negative takes back.
    loss_delta: Option<Measured>,
    /// Added to today's exposure; negative takes back.
    exposure_delta: Option<Measured>,
    /// Why.
    reason: Reason,
    /// The engine; must be the event's.
    engine: Option<Engine>,
    /// Who corrects.
    actor: Option<Actor>,
    /// The caller's own thread.
    correlation_id: Option<CorrelationId>,
    /// Whatever else belongs to it.
    metadata: Option<JsonObject>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl AdjustInput {
    pub(super) fn read(self, caller: Caller) -> Result<(AdjustRequest, Origin)> {
        let not_zero = |delta: &Measured| *delta != Measured::ZERO;
        let correction = match (self.loss_delta.filter(not_zero), self.exposure_delta.filter(not_zero)) {
            (Some(loss), None) => Correction::Loss(loss),
            (None, Some(exposure)) => Correction::Exposure(exposure),
            _ => {
                return Err(Error::invalid(
                    "loss_delta",
                    "or exposure_delta is required, not both and not 0: send one",
                ));
            }
        };
        let words = Words { reason: Some(self.reason), metadata: self.metadata };
        let request = AdjustRequest { corrects_seq: self.corrects_seq.get(), engine: self.engine, correction, words };
        Ok((request, caller.origin(self.actor, self.correlation_id)))
    }
}

impl From<ReserveRequest> for Operation {
    fn from(request: ReserveRequest) -> Self {
        Self::reserve(request)
    }
}
