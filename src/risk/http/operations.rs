//! The life of a reservation, one operation a request.

use super::answers::{
    AdjustAnswer, ExtendAnswer, ReleaseAnswer, ReserveAnswer, SettleAnswer, answered, decided, extended,
};
use super::inputs::{
    AdjustInput, CheckAndReserve, ExtendReservation, ReleaseReservation, SettleInput, SettleReservation,
};
use crate::approval::answer::waiting_again;
use crate::approval::model::ApprovalRecord;
use crate::error::{Error, Result};
use crate::http::{BASE_PATH, Caller, Keyed, Segment, errors, marked};
use crate::idempotency::{Asked, Intent};
use crate::risk::Risk;
use crate::risk::Run;
use crate::risk::operation::{Done, Outcome};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new()
        .routes(routes!(reserve))
        .routes(routes!(settle))
        .routes(routes!(make_reservation))
        .routes(routes!(settle_reservation))
        .routes(routes!(release_reservation))
        .routes(routes!(extend_reservation))
        .routes(routes!(adjust))
}

/// A decision.
async fn decide(risk: &Risk, caller: Caller, input: CheckAndReserve, intent: Option<Intent>) -> Result<ReserveAnswer> {
    let dry_run = input.is_dry();
    let (request, origin) = input.read(caller);
    let (engine, amount) = (request.engine.clone(), request.amount);
    let run = if dry_run { Run::Dry } else { Run::Real };
    let done = risk.reserve(request, run, Asked::new(origin, intent)).await?;
    Ok(ReserveAnswer::new(engine, amount, dry_run, done))
}

/// Checks both levels and reserves, or says why not.
#[utoipa::path(
    post, path = "/risk/check-and-reserve", tag = "risk", request_body = CheckAndReserve,
    responses(
        (status = 200, description = "Allowed or denied: read `ok`, or the header Holdfast-Decision", body = ReserveAnswer),
        errors::Change
    )
)]
async fn reserve(
    State(risk): State<Risk>,
    caller: Caller,
    Keyed { input, intent }: Keyed<CheckAndReserve>,
) -> Result<Response> {
    let answer = decide(&risk, caller, input, intent).await?;
    Ok(decided(answer.ok, answer.replayed, Json(answer)))
}

/// Reserves, for clients that look only at the status: 201 when allowed, 409 when denied.
#[utoipa::path(
    post, path = "/risk/reservations", tag = "risk", request_body = CheckAndReserve,
    responses(
        (status = 201, description = "Reserved; Location is the reservation", body = ReserveAnswer),
        (status = 200, description = "A dry run that would be allowed", body = ReserveAnswer),
        errors::Change
    )
)]
async fn make_reservation(
    State(risk): State<Risk>,
    caller: Caller,
    Keyed { input, intent }: Keyed<CheckAndReserve>,
) -> Result<Response> {
    let answer = decide(&risk, caller, input, intent).await?;
    if !answer.ok {
        return Ok(decided(false, answer.replayed, answer.denied()));
    }
    let replayed = answer.replayed;
    let response = match answer.reservation_id {
        Some(id) => {
            let location = format!("{BASE_PATH}/risk/reservations/{id}");
            (StatusCode::CREATED, [(LOCATION, location)], Json(answer)).into_response()
        }
        None => Json(answer).into_response(),
    };
    Ok(decided(true, replayed, response))
}

/// Records the outcome of an action and returns its open risk.
#[utoipa::path(
    post, path = "/risk/settle", tag = "risk", request_body = SettleInput,
    responses((status = 200, description = "Settled", body = SettleAnswer), errors::ChangeOfOne)
)]
async fn settle(
    State(risk): State<Risk>,
    caller: Caller,
    Keyed { input, intent }: Keyed<SettleInput>,
) -> Result<Response> {
    let (request, origin) = input.read(caller);
    Ok(answered::<_, SettleAnswer>(risk.settle(request, Asked::new(origin, intent)).await?))
}

/// Records the outcome of this reservation's action.
#[utoipa::path(
    post, path = "/risk/reservations/{id}/settle", tag = "risk", request_body = SettleReservation,
    params(("id" = Uuid, Path, description = "The reservation")),
    responses((status = 200, description = "Settled", body = SettleAnswer), errors::ChangeOfOne)
)]
async fn settle_reservation(
    State(risk): State<Risk>,
    caller: Caller,
    Segment(id): Segment<Uuid>,
    Keyed { input, intent }: Keyed<SettleReservation>,
) -> Result<Response> {
    let (request, origin) = input.read(id, caller);
    Ok(answered::<_, SettleAnswer>(risk.settle(request, Asked::new(origin, intent)).await?))
}

/// Gives back what was reserved: the action did not happen.
#[utoipa::path(
    post, path = "/risk/reservations/{id}/release", tag = "risk", request_body = ReleaseReservation,
    params(("id" = Uuid, Path, description = "The reservation")),
    responses((status = 200, description = "Released", body = ReleaseAnswer), errors::ChangeOfOne)
)]
async fn release_reservation(
    State(risk): State<Risk>,
    caller: Caller,
    Segment(id): Segment<Uuid>,
    Keyed { input, intent }: Keyed<ReleaseReservation>,
) -> Result<Response> {
    let (request, origin) = input.read(id, caller);
    Ok(answered::<_, ReleaseAnswer>(risk.release(request, Asked::new(origin, intent)).await?))
}

/// Keeps a reservation from expiring for longer.
#[utoipa::path(
    post, path = "/risk/reservations/{id}/extend", tag = "risk", request_body = ExtendReservation,
    params(("id" = Uuid, Path, description = "The reservation")),
    responses((status = 200, description = "Extended", body = ExtendAnswer), errors::ChangeOfOne)
)]
async fn extend_reservation(
    State(risk): State<Risk>,
    caller: Caller,
    Segment(id): Segment<Uuid>,
    Keyed { input, intent }: Keyed<ExtendReservation>,
) -> Result<Response> {
    let (request, origin) = input.read(id, caller);
    let done = risk.extend(request, Asked::new(origin, intent)).await?;
    let replayed = done.replayed;
    let answer = extended(done);
    Ok(decided(answer.is_ok(), replayed, answer.map(Json)))
}

/// Corrects what was booked, today: a signed change of loss or exposure that names the event it corrects.
#[utoipa::path(
    post, path = "/risk/adjustments", tag = "risk", request_body = AdjustInput,
    responses(
        (status = 200, description = "Booked", body = AdjustAnswer),
        (status = 202, description = "It waits for a second person: Location is where they approve", body = ApprovalRecord),
        errors::ChangeOfOne
    )
)]
async fn adjust(
    State(risk): State<Risk>,
    caller: Caller,
    Keyed { input, intent }: Keyed<AdjustInput>,
) -> Result<Response> {
    let (request, origin) = input.read(caller)?;
    let Done { outcome, replayed, standing, stops } = risk.adjust(request, Asked::new(origin, intent)).await?;
    match outcome {
        Outcome::Adjusted(adjustment) => {
            Ok(answered::<_, AdjustAnswer>(Done { outcome: adjustment, replayed, standing, stops }))
        }
        Outcome::Waiting(request) => Ok(marked(replayed, waiting_again(request))),
        _ => Err(Error::Inconsistent("an outcome of another kind".into())),
    }
}
