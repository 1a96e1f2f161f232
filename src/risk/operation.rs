//! The parsed operations of the ledger, and their outcomes.

use super::model::Annotations;
use super::model::ReservationStatus;
use super::model::adjust::{Adjustment, Correction};
use super::model::extend::Extension;
use super::model::release::Released;
use super::model::reserve::{Decision, Failure};
use super::model::settle::Settlement;
use crate::audit::Origin;
use crate::error::{Error, Result};
use crate::idempotency::Intent;
use crate::identity::Authority;
use crate::types::Scope;
use crate::types::{Amount, CorrelationId, Engine, Measured, Reason, Ttl};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// A reserve, before an action.
#[derive(Debug, Clone)]
pub struct ReserveRequest {
    /// The engine that will act; never GLOBAL.
    pub engine: Engine,
    /// The amount at risk; more than zero.
    pub amount: Amount,
    /// The lifetime of the hold; none for the default of the engine's policy.
    pub ttl: Option<Ttl>,
    /// The id that the caller chose; none for a new one.
    pub reservation_id: Option<Uuid>,
    /// The caller's reason and metadata.
    pub annotations: Annotations,
}

/// A settle, after an action.
#[derive(Debug, Clone)]
pub struct SettleRequest {
    /// The engine; required without a reservation.
    pub engine: Option<Engine>,
    /// The reservation; none to match by engine and amount.
    pub reservation_id: Option<Uuid>,
    /// The reserved amount; required without a reservation.
    pub reserved_amount: Option<Amount>,
    /// The used amount; none for the reserved amount.
    pub settled_amount: Option<Amount>,
    /// The loss; zero if there is none.
    pub realized_loss: Amount,
    /// The caller's reason and metadata.
    pub annotations: Annotations,
}

/// A release: the action was not done.
#[derive(Debug, Clone)]
pub struct ReleaseRequest {
    /// The id of the reservation.
    pub reservation_id: Uuid,
    /// The engine, if the caller names it.
    pub engine: Option<Engine>,
    /// The caller's reason and metadata.
    pub annotations: Annotations,
}

/// An extension: the action takes longer.
#[derive(Debug, Clone)]
pub struct ExtendRequest {
    /// The id of the reservation.
    pub reservation_id: Uuid,
    /// The engine, if the caller names it.
    pub engine: Option<Engine>,
    /// The new lifetime, counted from now.
    pub ttl: Ttl,
    /// The caller's reason and metadata.
    pub annotations: Annotations,
}

/// A correction of booked amounts.
#[derive(Debug, Clone)]
pub struct AdjustRequest {
    /// The number of the event to correct.
    pub corrects_seq: i64,
    /// The engine, if the caller names it.
    pub engine: Option<Engine>,
    /// The correction; never zero.
    pub correction: Correction,
    /// The caller's metadata and the required reason.
    pub annotations: Annotations,
}

/// An operation of the ledger.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Reserves before an action.
    Reserve {
        /// The parsed request.
        request: ReserveRequest,
        /// The reservation's id, chosen by the caller or new.
        id: Uuid,
    },
    /// Settles after the action.
    Settle(SettleRequest),
    /// Releases: the action was not done.
    Release(ReleaseRequest),
    /// Extends: the action takes longer.
    Extend(ExtendRequest),
    /// Corrects booked amounts.
    Adjust(AdjustRequest),
}

/// A correction that waits for approval, without its reason.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CorrectionAsked {
    corrects_seq: i64,
    pub(crate) engine: Engine,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_delta: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposure_delta: Option<Measured>,
    pub(crate) correlation_id: Option<CorrelationId>,
    metadata: Option<String>,
}

impl CorrectionAsked {
    /// The request, with the engine of the corrected event.
    pub(crate) fn of(request: &AdjustRequest, engine: Engine, origin: &Origin) -> Self {
        let (loss_delta, exposure_delta) = match request.correction {
            Correction::Loss(delta) => (Some(delta), None),
            Correction::Exposure(delta) => (None, Some(delta)),
        };
        Self {
            corrects_seq: request.corrects_seq,
            engine,
            loss_delta,
            exposure_delta,
            correlation_id: origin.correlation_id.clone(),
            metadata: request.annotations.metadata.as_ref().map(|one| one.as_str().to_owned()),
        }
    }

    /// The correction as it was requested; none if it corrects nothing.
    pub(crate) fn request(&self, reason: Reason) -> Option<AdjustRequest> {
        let correction = match (self.loss_delta, self.exposure_delta) {
            (Some(loss), None) => Correction::Loss(loss),
            (None, Some(exposure)) => Correction::Exposure(exposure),
            _ => return None,
        };
        let metadata = self.metadata.as_deref().map(str::parse).transpose().ok()?;
        let annotations = Annotations { reason: Some(reason), metadata };
        Some(AdjustRequest {
            corrects_seq: self.corrects_seq,
            engine: Some(self.engine.clone()),
            correction,
            annotations,
        })
    }
}

impl Operation {
    /// True for a correction that makes room under a cap.
    #[must_use]
    pub fn loosens(&self) -> bool {
        match self {
            Self::Adjust(request) => request.correction.loosening().is_some(),
            _ => false,
        }
    }

    /// A reserve with the caller's id, or a new one.
    #[must_use]
    pub fn reserve(request: ReserveRequest) -> Self {
        let id = request.reservation_id.unwrap_or_else(new_id);
        Self::Reserve { request, id }
    }

    /// The engine, if the caller names it.
    fn engine(&self) -> Option<&Engine> {
        match self {
            Self::Reserve { request, .. } => Some(&request.engine),
            Self::Settle(request) => request.engine.as_ref(),
            Self::Release(request) => request.engine.as_ref(),
            Self::Extend(request) => request.engine.as_ref(),
            Self::Adjust(request) => request.engine.as_ref(),
        }
    }

    /// Refuses an operation that is invalid in any book, or that the caller may not do. For a reservation that is named
    /// by its id, the book shows the engine.
    pub fn check(&self, authority: &Authority) -> Result<()> {
        match self {
            Self::Reserve { .. } => authority.require(Scope::Reserve, "a reserve")?,
            Self::Extend(_) => authority.require(Scope::Reserve, "an extension")?,
            // An operator may close holds that a service left open.
            Self::Settle(_) | Self::Release(_) if authority.holds(Scope::Operate) => {}
            Self::Settle(_) => authority.require(Scope::Reserve, "a settle")?,
            Self::Release(_) => authority.require(Scope::Reserve, "a release")?,
            Self::Adjust(request) => {
                authority.require(Scope::Operate, "a correction")?;
                if let Some(action) = request.correction.loosening() {
                    authority.require(Scope::Release, action.what())?;
                }
            }
        }
        if let Some(engine) = self.engine() {
            authority.require_engine(engine)?;
        }
        match self {
            Self::Settle(request) => authority.require_loss("losses", request.realized_loss)?,
            Self::Adjust(AdjustRequest { correction, .. }) if !correction.is_downwards() => {
                let amount = Amount::from_units(correction.delta().units()).unwrap_or_default();
                authority.require_loss("corrections", amount)?;
            }
            _ => {}
        }
        let above = |field| Error::invalid(field, "is GLOBAL, the level above the engines: name the engine that acts");
        match self {
            Self::Reserve { request, .. } if request.engine.is_global() => Err(above("engine")),
            Self::Reserve { request, .. } if request.amount.is_zero() => {
                Err(Error::invalid("amount", "must be more than 0: send at least 0.000001"))
            }
            Self::Reserve { request, .. } if request.reservation_id.is_some_and(|id| id.is_nil()) => {
                Err(Error::invalid("reservation_id", "is the nil UUID: choose a random one"))
            }
            Self::Settle(request)
                if request.reservation_id.is_none() && request.engine.as_ref().is_some_and(Engine::is_global) =>
            {
                Err(above("engine"))
            }
            _ => Ok(()),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that makes reservation ids; v7 keeps the index local"
)]
fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// A request of the ledger, and the type of its outcome.
pub trait Ask {
    /// The type of the outcome.
    type Outcome;

    /// The request as an operation.
    fn operation(self) -> Operation;

    /// The outcome as this type; none if it is of another kind.
    fn outcome(outcome: Outcome) -> Option<Self::Outcome>;
}

macro_rules! ask {
    ($request:ty => $outcome:ty, $operation:expr, $kind:path) => {
        impl Ask for $request {
            type Outcome = $outcome;

            fn operation(self) -> Operation {
                $operation(self)
            }

            fn outcome(outcome: Outcome) -> Option<$outcome> {
                if let $kind(outcome) = outcome { Some(outcome) } else { None }
            }
        }
    };
}

ask!(ReserveRequest => Reserved, Operation::reserve, Outcome::Reserved);
ask!(SettleRequest => Settlement, Operation::Settle, Outcome::Settled);
ask!(ReleaseRequest => Released, Operation::Release, Outcome::Released);
ask!(ExtendRequest => Extension, Operation::Extend, Outcome::Extended);

impl Ask for AdjustRequest {
    type Outcome = Corrected;

    fn operation(self) -> Operation {
        Operation::Adjust(self)
    }

    fn outcome(outcome: Outcome) -> Option<Corrected> {
        match outcome {
            Outcome::Adjusted(adjustment) => Some(Corrected::Booked(Box::new(adjustment))),
            Outcome::Waiting(request) => Some(Corrected::Waiting(request)),
            _ => None,
        }
    }
}

/// The outcome of a correction.
#[derive(Debug, Clone)]
pub enum Corrected {
    /// The correction is booked.
    Booked(Box<Adjustment>),
    /// The correction waits for approval; this is the approval request as JSON.
    Waiting(Box<RawValue>),
}

/// An operation with its caller and its key.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The parsed operation.
    pub operation: Operation,
    /// The caller and its request.
    pub origin: Origin,
    /// The caller's key; none without one.
    pub intent: Option<Intent>,
}

/// A decision on a reserve, with the reservation's id.
#[derive(Debug, Clone)]
pub struct Reserved {
    /// The requested engine.
    pub engine: Engine,
    /// The requested amount.
    pub amount: Amount,
    /// The decision and its numbers.
    pub decision: Decision,
    /// The reservation; none if denied or a dry run.
    pub reservation_id: Option<Uuid>,
}

/// The outcome of an operation.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The outcome of a reserve.
    Reserved(Reserved),
    /// The outcome of a settle.
    Settled(Settlement),
    /// The outcome of a release.
    Released(Released),
    /// The outcome of an extension.
    Extended(Extension),
    /// The outcome of a correction.
    Adjusted(Adjustment),
    /// A correction on this engine that can be booked but needs approval. The service requests it.
    Deferred(Engine),
    /// A correction that waits for approval; this is the approval request as JSON.
    Waiting(Box<RawValue>),
}

impl Outcome {
    /// The holds that the outcome concerns.
    #[must_use]
    pub fn holds(&self) -> Vec<Uuid> {
        match self {
            Self::Reserved(reserved) => reserved.reservation_id.into_iter().collect(),
            Self::Settled(settlement) => settlement.reservations.iter().map(|one| one.reservation_id).collect(),
            Self::Released(released) => vec![released.reservation_id],
            Self::Extended(extension) => vec![extension.reservation_id],
            Self::Adjusted(_) | Self::Waiting(_) | Self::Deferred(_) => Vec::new(),
        }
    }
}

/// The state of a hold now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldState {
    /// The status; a due hold counts as expired.
    pub status: ReservationStatus,
    /// Whole seconds until it is due; none if it has no expiry, or has ended.
    pub expires_in_seconds: Option<i64>,
}

/// An outcome, and whether it is a replay.
#[derive(Debug, Clone)]
pub struct Answered<T = Outcome> {
    /// The outcome of the operation.
    pub outcome: T,
    /// True if it was decided before, under the same key or id; nothing was done this time.
    pub replayed: bool,
    /// The state of the one hold that it concerns; none if it concerns no hold or several.
    pub standing: Option<HoldState>,
    /// The reasons why an action that was allowed before may not be done now; empty if it may, or if nothing was
    /// allowed before.
    pub stops: Vec<Failure>,
}

impl Answered {
    /// True for a replayed approval whose action may still be done.
    #[must_use]
    pub fn allows_again(&self) -> bool {
        let was_allowed = match &self.outcome {
            Outcome::Reserved(reserved) => reserved.decision.is_allowed(),
            Outcome::Extended(extension) => extension.failures.is_empty(),
            _ => false,
        };
        self.replayed && was_allowed && self.stops.is_empty()
    }

    /// The outcome as the requested type.
    pub fn of<A: Ask>(self) -> Result<Answered<A::Outcome>> {
        let outcome = A::outcome(self.outcome);
        let outcome = outcome.ok_or_else(|| Error::Inconsistent("the outcome is of another kind".into()))?;
        Ok(Answered { outcome, replayed: self.replayed, standing: self.standing, stops: self.stops })
    }
}
