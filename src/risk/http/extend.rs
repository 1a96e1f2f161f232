//! Extensions: the action takes longer than its hold.

use super::reserve::{decided, hint, kept_hint};
use crate::db::to_json;
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

/// An extension of a reservation whose action takes longer.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtendReservation {
    /// The new lifetime of the hold in seconds, counted from now; the hold never ends earlier than before.
    ttl_seconds: Ttl,
    /// The engine; must be the reservation's.
    engine: Option<Engine>,
    /// The acting person or program.
    actor: Option<Actor>,
    /// The reason why the action takes longer.
    reason: Option<Reason>,
    /// The caller's own id for requests that belong together.
    correlation_id: Option<CorrelationId>,
    /// The idempotency key; the header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl ExtendReservation {
    pub(super) fn request(self, id: Uuid) -> ExtendRequest {
        let annotations = Annotations { reason: self.reason, metadata: None };
        ExtendRequest { reservation_id: id, engine: self.engine, ttl: self.ttl_seconds, annotations }
    }
}

/// Extends the lifetime of a reservation.
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
    /// The id of the reservation.
    reservation_id: Uuid,
    /// The expiry that this extension set.
    expires_at: DateTime<Utc>,
    /// True if the same key was decided before; nothing was done this time.
    replayed: bool,
    /// The status of the hold now.
    status: Option<ReservationStatus>,
    /// Whole seconds until the hold expires; null if it has ended.
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
        ("ok", to_json(&false)),
        ("message", to_json(&message)),
        ("reservation_id", to_json(&reservation_id)),
        ("expires_at", to_json(&expires_at)),
        ("reason", to_json(&first.reason)),
        ("scope", to_json(&first.scope)),
        ("failures", to_json(&failures)),
        ("replayed", to_json(&replayed)),
        ("hold_status", to_json(&status)),
        ("expires_in_seconds", to_json(&expires_in_seconds)),
        ("hint", to_json(&kept_hint(hint(&failures, None), replayed && !was_allowed))),
    ];
    Err(Error::ExtensionDenied { message, members })
}
