//! Extensions: the action takes longer.

use super::decision::{decided, hint, kept_hint, raw};
use crate::error::{Error, Result};
use crate::http::{Change, Segment, errors, said};
use crate::risk::Risk;
use crate::risk::model::extend::Extension;
use crate::risk::model::{Annotations, ReservationStatus};
use crate::risk::operation::{Answered, ExtendRequest};
use crate::types::{Actor, CorrelationId, Engine, IdempotencyKey, Reason, Ttl};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

said!(with correlation_id: ExtendReservation);

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(extend_reservation))
}

/// The action takes longer.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtendReservation {
    /// Seconds that the hold stands from now; never shorter than it stood before.
    ttl_seconds: Ttl,
    /// The engine; must be the reservation's.
    engine: Option<Engine>,
    /// The actor.
    actor: Option<Actor>,
    /// Why it takes longer.
    reason: Option<Reason>,
    /// The caller's own thread.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl ExtendReservation {
    pub(super) fn request(self, id: Uuid) -> ExtendRequest {
        let annotations = Annotations { reason: self.reason, metadata: None };
        ExtendRequest { reservation_id: id, engine: self.engine, ttl: self.ttl_seconds, annotations }
    }
}

/// Keeps a reservation from expiring for longer.
#[utoipa::path(
    post, path = "/risk/reservations/{id}/extend", tag = "risk", request_body = ExtendReservation,
    params(("id" = Uuid, Path, description = "The reservation")),
    responses((status = 200, description = "Extended", body = ExtendAnswer), errors::ChangeOfOne)
)]
async fn extend_reservation(
    State(risk): State<Risk>,
    Segment(id): Segment<Uuid>,
    Change { input, asked }: Change<ExtendReservation>,
) -> Result<Response> {
    let done = risk.decide(input.request(id), asked).await?;
    let replayed = done.replayed;
    let answer = extended(done);
    Ok(decided(answer.is_ok(), replayed, answer.map(Json)))
}

/// The outcome of an extension.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExtendAnswer {
    /// Always true; a denied extension is 409.
    ok: bool,
    /// `Extended`.
    message: &'static str,
    /// The reservation.
    reservation_id: Uuid,
    /// When it expired after that.
    expires_at: DateTime<Utc>,
    /// Whether it was decided before, under the same key; nothing was done this time.
    replayed: bool,
    /// Where the hold stands now.
    status: Option<ReservationStatus>,
    /// Whole seconds until it expires; null when it has ended.
    expires_in_seconds: Option<i64>,
}

/// The answer to an extension, or its denial.
pub(super) fn extended(done: Answered<Extension>) -> Result<ExtendAnswer, Error> {
    let Answered { outcome: Extension { reservation_id, expires_at, failures }, replayed, standing, stops } = done;
    let was_allowed = failures.is_empty();
    let failures = if was_allowed { stops } else { failures };
    let status = standing.map(|standing| standing.status);
    let expires_in_seconds = standing.and_then(|standing| standing.expires_in_seconds);
    let Some(first) = failures.first() else {
        let message = "Extended";
        return Ok(ExtendAnswer {
            ok: true,
            message,
            reservation_id,
            expires_at,
            replayed,
            status,
            expires_in_seconds,
        });
    };
    let message = first.sentence();
    let members = vec![
        ("ok", raw(&false)),
        ("message", raw(&message)),
        ("reservation_id", raw(&reservation_id)),
        ("expires_at", raw(&expires_at)),
        ("reason", raw(&first.reason)),
        ("scope", raw(&first.scope)),
        ("failures", raw(&failures)),
        ("replayed", raw(&replayed)),
        ("hold_status", raw(&status)),
        ("expires_in_seconds", raw(&expires_in_seconds)),
        ("hint", raw(&kept_hint(hint(&failures, None), replayed && !was_allowed))),
    ];
    Err(Error::ExtensionDenied { message, members })
}
