//! Releases: the action was not done.

use super::answered;
use crate::error::Result;
use crate::http::{Change, Segment, errors, said};
use crate::risk::Risk;
use crate::risk::model::release::Released;
use crate::risk::model::{Annotations, ReservationStatus};
use crate::risk::operation::{Answered, ReleaseRequest};
use crate::types::{Actor, CorrelationId, Engine, IdempotencyKey, Reason};
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

said!(with correlation_id: ReleaseReservation);

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(release_reservation))
}

/// A release of a reservation whose action was not done.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseReservation {
    /// The engine; must be the reservation's.
    engine: Option<Engine>,
    /// The acting person or program.
    actor: Option<Actor>,
    /// The reason why the action was not done.
    reason: Option<Reason>,
    /// The caller's own id for requests that belong together.
    correlation_id: Option<CorrelationId>,
    /// The idempotency key; the header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl ReleaseReservation {
    pub(super) fn request(self, id: Uuid) -> ReleaseRequest {
        let annotations = Annotations { reason: self.reason, metadata: None };
        ReleaseRequest { reservation_id: id, engine: self.engine, annotations }
    }
}

/// Releases a reservation whose action was not done.
#[utoipa::path(
    post, path = "/risk/reservations/{id}/release", tag = "risk", request_body = ReleaseReservation,
    params(("id" = Uuid, Path, description = "The reservation")),
    responses((status = 200, description = "Released", body = ReleaseAnswer), errors::ChangeOfOne)
)]
async fn release_reservation(
    State(risk): State<Risk>,
    Segment(id): Segment<Uuid>,
    Change { input, asked }: Change<ReleaseReservation>,
) -> Result<Response> {
    Ok(answered::<_, ReleaseAnswer>(risk.decide(input.request(id), asked).await?))
}

/// The outcome of a release.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReleaseAnswer {
    /// Always true; a refused release is an error.
    ok: bool,
    /// `Released`.
    message: &'static str,
    #[serde(flatten)]
    released: Released,
    /// True if the same key was decided before; nothing was done this time.
    replayed: bool,
    /// The status of the hold now.
    status: Option<ReservationStatus>,
    /// Always null: nothing is outstanding.
    expires_in_seconds: Option<i64>,
}

impl From<Answered<Released>> for ReleaseAnswer {
    fn from(Answered { outcome: released, replayed, standing, .. }: Answered<Released>) -> Self {
        let status = standing.map(|standing| standing.status);
        Self { ok: true, message: "Released", released, replayed, status, expires_in_seconds: None }
    }
}
