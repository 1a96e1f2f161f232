//! The routes of the second person.

use super::model::ApprovalRecord;
use super::{Approved, Loosened, store};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::{BASE_PATH, Caller, CanStop, Input, Nothing, Query, Segment, Stopping, errors};
use crate::idempotency::Once;
use crate::types::{Actor, Count, Reason};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below the base path.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_approvals))
        .routes(routes!(show_approval))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

impl<T> Loosened<T> {
    /// The change's own answer, or 202 with what waits.
    pub fn answer(self, done: impl FnOnce(crate::idempotency::Once<T>) -> Result<Response>) -> Result<Response> {
        match self {
            Self::Done(once) => done(once),
            Self::Waiting(record) => Ok(waiting(record.id, record)),
        }
    }
}

impl<T: Serialize> IntoResponse for Loosened<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Done(once) => once.into_response(),
            Self::Waiting(record) => waiting(record.id, record),
        }
    }
}

/// A 202: what waits, and where it is approved.
pub(crate) fn waiting(id: i64, record: impl Serialize) -> Response {
    let approve = format!("{BASE_PATH}/approvals/{id}/approve");
    (StatusCode::ACCEPTED, [(LOCATION, approve)], Json(record)).into_response()
}

/// The id inside an answer that was kept.
#[derive(Deserialize)]
struct Id {
    id: i64,
}

/// A 202 that was kept, as it was answered.
#[must_use]
pub fn waiting_again(record: Box<RawValue>) -> Response {
    match serde_json::from_str::<Id>(record.get()) {
        Ok(Id { id }) => waiting(id, record),
        Err(error) => Error::Inconsistent(format!("a kept request cannot be read: {error}")).into_response(),
    }
}

/// Whether a second person is needed, and what waits for one.
#[derive(Debug, Serialize, ToSchema)]
struct Approvals {
    /// Whether what loosens waits for a second person.
    two_person_release: bool,
    /// The requests of the last day, newest first.
    items: Vec<ApprovalRecord>,
}

/// What waits for a second person, and what waited within a day.
#[utoipa::path(
    get, path = "/approvals", tag = "access",
    responses((status = 200, description = "Newest first", body = Approvals), errors::Read)
)]
async fn list_approvals(State(app): State<App>, _: Query<Nothing>) -> Result<Json<Approvals>> {
    let db = app.go_live.db();
    let mut conn = db.read().await?;
    let two_person_release =
        app.two_person == super::Policy::Always || super::is_required_by_database(&mut conn).await?;
    let now = db.history().now(&mut conn).await?;
    Ok(Json(Approvals { two_person_release, items: store::list(&mut conn, now).await? }))
}

/// A request, however old, as it stands now.
#[utoipa::path(
    get, path = "/approvals/{id}", tag = "access",
    params(("id" = Count, Path, description = "The request")),
    responses((status = 200, description = "As it stands", body = ApprovalRecord), errors::ReadOne)
)]
async fn show_approval(
    State(app): State<App>,
    Segment(id): Segment<Count>,
    _: Query<Nothing>,
) -> Result<Json<ApprovalRecord>> {
    let db = app.go_live.db();
    let mut conn = db.read().await?;
    let now = db.history().now(&mut conn).await?;
    Ok(Json(store::find(&mut conn, id.get(), now).await?))
}

/// Who agrees.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApproveBy {
    /// Who.
    actor: Option<Actor>,
}

/// Agrees to what another person asked for, and does it, within 15 minutes of the request and once.
#[utoipa::path(
    post, path = "/approvals/{id}/approve", tag = "access", request_body = ApproveBy,
    params(("id" = Count, Path, description = "The request")),
    responses((status = 200, description = "Approved, and done", body = Approved), errors::Approve)
)]
async fn approve(
    State(app): State<App>,
    Segment(id): Segment<Count>,
    caller: Caller,
    Input(input): Input<ApproveBy>,
) -> Result<Json<Approved>> {
    let approver = caller.origin(input.actor, None);
    Ok(Json(super::approve(&app, id.get(), approver).await?))
}

/// Who says no, and why.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RejectBy {
    /// Who.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
}

impl CanStop for RejectBy {
    const OFF: Option<&'static str> = None;
    const IN_PATH: bool = true;
}

/// Ends what waits: says no to it, or takes one's own request back. Never refused for its words.
#[utoipa::path(
    post, path = "/approvals/{id}/reject", tag = "access", request_body = RejectBy,
    params(("id" = Count, Path, description = "The request")),
    responses((status = 200, description = "Rejected", body = ApprovalRecord), errors::ChangeOfOne)
)]
async fn reject(
    State(app): State<App>,
    Segment(id): Segment<Count>,
    caller: Caller,
    Stopping { input, ignored, .. }: Stopping<RejectBy>,
) -> Result<Response> {
    let origin = caller.origin(input.actor, None);
    let rejected = super::reject(app.go_live.db(), id.get(), input.reason.as_ref(), &origin).await?;
    Ok(ignored.beside(Once::Done(rejected)))
}
