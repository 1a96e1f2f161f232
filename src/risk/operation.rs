//! The operations of the ledger, fully parsed, and their outcomes.

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
    /// For which engine; never GLOBAL.
    pub engine: Engine,
    /// How much; more than zero.
    pub amount: Amount,
    /// How long the hold stands; none means as long as the engine's policy says.
    pub ttl: Option<Ttl>,
    /// The id that the caller chose for it.
    pub reservation_id: Option<Uuid>,
    /// The caller's words.
    pub annotations: Annotations,
}

/// A settle, after it.
#[derive(Debug, Clone)]
pub struct SettleRequest {
    /// The engine; required without a reservation.
    pub engine: Option<Engine>,
    /// The reservation.
    pub reservation_id: Option<Uuid>,
    /// The reserved amount; required without a reservation.
    pub reserved_amount: Option<Amount>,
    /// The amount really used.
    pub settled_amount: Option<Amount>,
    /// The loss.
    pub realized_loss: Amount,
    /// The caller's words.
    pub annotations: Annotations,
}

/// A release: the action did not happen.
#[derive(Debug, Clone)]
pub struct ReleaseRequest {
    /// The reservation.
    pub reservation_id: Uuid,
    /// Its engine, if the caller says it.
    pub engine: Option<Engine>,
    /// The caller's words.
    pub annotations: Annotations,
}

/// An extension: the action takes longer.
#[derive(Debug, Clone)]
pub struct ExtendRequest {
    /// The reservation.
    pub reservation_id: Uuid,
    /// Its engine, if the caller says it.
    pub engine: Option<Engine>,
    /// How long it stands from now.
    pub ttl: Ttl,
    /// The caller's words.
    pub annotations: Annotations,
}

/// A correction of what was booked.
#[derive(Debug, Clone)]
pub struct AdjustRequest {
    /// The event that is corrected.
    pub corrects_seq: i64,
    /// Its engine, if the caller says it.
    pub engine: Option<Engine>,
    /// The correction; not by zero.
    pub correction: Correction,
    /// The caller's words, with a reason.
    pub annotations: Annotations,
}

/// An operation of the ledger.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Reserve before an action; `id` is what the reservation gets, chosen or made.
    Reserve {
        /// The request.
        request: ReserveRequest,
        /// The reservation's id.
        id: Uuid,
    },
    /// Settle after it.
    Settle(SettleRequest),
    /// Say that it did not happen.
    Release(ReleaseRequest),
    /// Say that it takes longer.
    Extend(ExtendRequest),
    /// Correct what was booked.
    Adjust(AdjustRequest),
}

/// A correction that waits for a second person, but for its reason.
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
    /// The request, and the engine of the corrected event.
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

    /// The correction, as it was asked for; none where nothing is corrected.
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
    /// Whether it is a correction that loosens.
    #[must_use]
    pub fn loosens(&self) -> bool {
        match self {
            Self::Adjust(request) => request.correction.loosening().is_some(),
            _ => false,
        }
    }

    /// A reserve, under the id that the caller chose or a new one.
    #[must_use]
    pub fn reserve(request: ReserveRequest) -> Self {
        let id = request.reservation_id.unwrap_or_else(new_id);
        Self::Reserve { request, id }
    }

    /// The engine, if the caller says it.
    fn engine(&self) -> Option<&Engine> {
        match self {
            Self::Reserve { request, .. } => Some(&request.engine),
            Self::Settle(request) => request.engine.as_ref(),
            Self::Release(request) => request.engine.as_ref(),
            Self::Extend(request) => request.engine.as_ref(),
            Self::Adjust(request) => request.engine.as_ref(),
        }
    }

    /// Refuses what no book could make sense of, and what is not the caller's. Of a reservation that is named by its id, the book
    /// tells whose it is.
    pub fn check(&self, authority: &Authority) -> Result<()> {
        match self {
            Self::Reserve { .. } => authority.require(Scope::Reserve, "a reserve")?,
            Self::Extend(_) => authority.require(Scope::Reserve, "an extension")?,
            // An operator closes holds that a service left open.
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
        let above = |field| Error::invalid(field, "GLOBAL is the level above the engines: name the engine that acts");
        match self {
            Self::Reserve { request, .. } if request.engine.is_global() => Err(above("engine")),
            Self::Reserve { request, .. } if request.amount.is_zero() => {
                Err(Error::invalid("amount", "must be more than 0: the least is 0.000001"))
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

/// A request of the ledger, and the outcome that it has.
pub trait Ask {
    /// Its outcome.
    type Outcome;

    /// The operation.
    fn operation(self) -> Operation;

    /// The outcome, as the kind that this request has.
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
    /// It is booked.
    Booked(Box<Adjustment>),
    /// It waits for a second person: the request, as JSON.
    Waiting(Box<RawValue>),
}

/// An operation with who asks and what it is called.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The request.
    pub operation: Operation,
    /// By whom, as part of what.
    pub origin: Origin,
    /// The caller's key.
    pub intent: Option<Intent>,
}

/// A decision with the id of what it made.
#[derive(Debug, Clone)]
pub struct Reserved {
    /// The engine asked for.
    pub engine: Engine,
    /// The amount asked for.
    pub amount: Amount,
    /// The decision.
    pub decision: Decision,
    /// The reservation; none when denied or dry.
    pub reservation_id: Option<Uuid>,
}

/// The outcome of an operation.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Of a reserve.
    Reserved(Reserved),
    /// Of a settle.
    Settled(Settlement),
    /// Of a release.
    Released(Released),
    /// Of an extension.
    Extended(Extension),
    /// Of a correction.
    Adjusted(Adjustment),
    /// Of a correction that would be booked, on this engine, if it needed no second person. The service asks for one.
    Deferred(Engine),
    /// Of a correction that waits for one: the request, as JSON.
    Waiting(Box<RawValue>),
}

impl Outcome {
    /// The holds that it is about.
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

/// How a hold stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldState {
    /// Whether it is open, or how it ended; one whose time is up has expired.
    pub status: ReservationStatus,
    /// Whole seconds until it is due; none when it never is, or has ended.
    pub expires_in_seconds: Option<i64>,
}

/// An outcome, and whether it is an earlier one.
#[derive(Debug, Clone)]
pub struct Answered<T = Outcome> {
    /// The outcome.
    pub outcome: T,
    /// Whether it was decided before, under the same key or id; nothing was done this time.
    pub replayed: bool,
    /// How the one hold that it is about stands now; none where it is about none, or about several.
    pub standing: Option<HoldState>,
    /// Why what was allowed before may not be done now; empty where it may, or where nothing was allowed before.
    pub stops: Vec<Failure>,
}

impl Answered {
    /// Whether it tells again that an action may be done.
    #[must_use]
    pub fn allows_again(&self) -> bool {
        let was_allowed = match &self.outcome {
            Outcome::Reserved(reserved) => reserved.decision.is_allowed(),
            Outcome::Extended(extension) => extension.failures.is_empty(),
            _ => false,
        };
        self.replayed && was_allowed && self.stops.is_empty()
    }

    /// The outcome as the kind that was asked for.
    pub fn of<A: Ask>(self) -> Result<Answered<A::Outcome>> {
        let outcome = A::outcome(self.outcome);
        let outcome = outcome.ok_or_else(|| Error::Inconsistent("an outcome of another kind".into()))?;
        Ok(Answered { outcome, replayed: self.replayed, standing: self.standing, stops: self.stops })
    }
}
