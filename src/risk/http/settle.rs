//! Settles: the outcome of an action.

use super::answered;
use crate::error::Result;
use crate::http::{Change, Segment, errors, said};
use crate::risk::Risk;
use crate::risk::model::settle::{SettledReservation, Settlement};
use crate::risk::model::{Annotations, LedgerSnapshot, ReservationStatus};
use crate::risk::operation::{Answered, SettleRequest};
use crate::types::{Actor, Amount, CorrelationId, Engine, IdempotencyKey, Reason, Total};
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

said!(with correlation_id: SettleInput, SettleReservation);

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(settle)).routes(routes!(settle_reservation))
}

/// The outcome of an action. It names the reservation, or, as in the original, the engine and the reserved amount.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleInput {
    /// The engine that acted; required without a `reservation_id`.
    engine: Option<Engine>,
    /// The reserved amount; required without a `reservation_id`.
    reserved_amount: Option<Amount>,
    /// The used amount; if left out, the reserved amount.
    settled_amount: Option<Amount>,
    /// The loss; 0 if left out.
    realized_loss: Option<Amount>,
    /// The acting person or program.
    actor: Option<Actor>,
    /// A note about the outcome.
    reason: Option<Reason>,
    /// The caller's own id for requests that belong together. Without a `reservation_id`, the reservations with this id
    /// are matched.
    correlation_id: Option<CorrelationId>,
    /// The reservation. A blank value is refused, because a denial has no id.
    #[serde(default, deserialize_with = "some_hold", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    reservation_id: Option<Uuid>,
    /// The idempotency key; the header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// An id that may be left out but not blank: the `reservation_id` of a denial is null, and a blank one would settle
/// another hold.
fn some_hold<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Uuid>, D::Error> {
    let blank = || {
        serde::de::Error::custom(
            "is blank: a denied reserve has no id and nothing to settle; to settle by engine and amount, leave the \
             field out",
        )
    };
    Option::<Uuid>::deserialize(deserializer)?.map(Some).ok_or_else(blank)
}

impl SettleInput {
    pub(super) fn request(self) -> SettleRequest {
        SettleRequest {
            engine: self.engine,
            reservation_id: self.reservation_id,
            reserved_amount: self.reserved_amount,
            settled_amount: self.settled_amount,
            realized_loss: self.realized_loss.unwrap_or_default(),
            annotations: Annotations { reason: self.reason, metadata: None },
        }
    }
}

/// The outcome of a reservation's action.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleReservation {
    /// The engine that acted; must be the reservation's.
    engine: Option<Engine>,
    /// The reserved amount; must be the reservation's.
    reserved_amount: Option<Amount>,
    /// The used amount; if left out, the reserved amount.
    settled_amount: Option<Amount>,
    /// The loss; 0 if left out.
    realized_loss: Option<Amount>,
    /// The acting person or program.
    actor: Option<Actor>,
    /// A note about the outcome.
    reason: Option<Reason>,
    /// The caller's own id for requests that belong together.
    correlation_id: Option<CorrelationId>,
    /// The idempotency key; the header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl SettleReservation {
    pub(super) fn request(self, id: Uuid) -> SettleRequest {
        SettleRequest {
            engine: self.engine,
            reservation_id: Some(id),
            reserved_amount: self.reserved_amount,
            settled_amount: self.settled_amount,
            realized_loss: self.realized_loss.unwrap_or_default(),
            annotations: Annotations { reason: self.reason, metadata: None },
        }
    }
}

/// Records the outcome of an action and returns its open risk.
#[utoipa::path(
    post, path = "/risk/settle", tag = "risk", request_body = SettleInput,
    responses((status = 200, description = "Settled", body = SettleAnswer), errors::ChangeOfOne)
)]
async fn settle(State(risk): State<Risk>, Change { input, asked }: Change<SettleInput>) -> Result<Response> {
    Ok(answered::<_, SettleAnswer>(risk.decide(input.request(), asked).await?))
}

/// Records the outcome of this reservation's action.
#[utoipa::path(
    post, path = "/risk/reservations/{id}/settle", tag = "risk", request_body = SettleReservation,
    params(("id" = Uuid, Path, description = "The reservation")),
    responses((status = 200, description = "Settled", body = SettleAnswer), errors::ChangeOfOne)
)]
async fn settle_reservation(
    State(risk): State<Risk>,
    Segment(id): Segment<Uuid>,
    Change { input, asked }: Change<SettleReservation>,
) -> Result<Response> {
    Ok(answered::<_, SettleAnswer>(risk.decide(input.request(id), asked).await?))
}

/// The outcome of a settle.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettleAnswer {
    /// Always true: the outcome is recorded.
    ok: bool,
    /// `Settled`.
    message: &'static str,
    /// Remarks: `overrun`, `over_release` or `more_open: …`, `dust_left: …`, `… daily loss cap reached`.
    flags: Vec<String>,
    /// The engine's counters after the settle.
    ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after the settle.
    ledger_global: LedgerSnapshot,
    /// The returned open risk.
    released: Total,
    /// The amount for which no open reservation was found.
    unmatched: Total,
    /// True if the reservation had expired before: its risk was returned then.
    late: bool,
    /// The settled reservations in order, each with its status now.
    reservations: Vec<SettledReservation>,
    /// True if the same key was decided before; nothing was done this time.
    replayed: bool,
    /// The status of the hold now; null if the settle concerns no hold or several.
    status: Option<ReservationStatus>,
    /// Whole seconds until the rest of the hold expires; null if nothing is left, or if it has no expiry.
    expires_in_seconds: Option<i64>,
}

impl From<Answered<Settlement>> for SettleAnswer {
    fn from(Answered { outcome, replayed, standing, .. }: Answered<Settlement>) -> Self {
        let Settlement { flags, released, unmatched, late, reservations, ledger_engine, ledger_global, .. } = outcome;
        let status = standing.map(|standing| standing.status);
        let expires_in_seconds = standing.and_then(|standing| standing.expires_in_seconds);
        Self {
            ok: true,
            message: "Settled",
            flags,
            ledger_engine,
            ledger_global,
            released,
            unmatched,
            late,
            reservations,
            replayed,
            status,
            expires_in_seconds,
        }
    }
}
