//! The routes of the second person.

use super::{Approve, Approved};
use crate::approval::model::ApprovalRecord;
use crate::error::Result;
use crate::http::{Caller, CanStop, Input, Nothing, Off, Query, Segment, Stopping, errors};
use crate::idempotency::Once;
use crate::types::{Actor, Count, Reason};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below the base path.
pub fn router() -> OpenApiRouter<Approve> {
    OpenApiRouter::new()
        .routes(routes!(list_approvals))
        .routes(routes!(show_approval))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

/// Whether a second person is needed, and what waits for one.
#[derive(Debug, Serialize, ToSchema)]
struct Approvals {
    /// Whether what loosens waits for a second person.
    two_person_release: bool,
    /// The requests of the last day, newest first.
    items: Vec<ApprovalRecord>,
}

/// The requests that wait for a second person, and those of the last day.
#[utoipa::path(
    get, path = "/approvals", tag = "access",
    responses((status = 200, description = "Newest first", body = Approvals), errors::Read)
)]
async fn list_approvals(State(approvals): State<Approve>, _: Query<Nothing>) -> Result<Json<Approvals>> {
    let (two_person_release, items) = approvals.list().await?;
    Ok(Json(Approvals { two_person_release, items }))
}

/// A request, however old, as it stands now.
#[utoipa::path(
    get, path = "/approvals/{id}", tag = "access",
    params(("id" = Count, Path, description = "The request")),
    responses((status = 200, description = "As it stands", body = ApprovalRecord), errors::ReadOne)
)]
async fn show_approval(
    State(approvals): State<Approve>,
    Segment(id): Segment<Count>,
    _: Query<Nothing>,
) -> Result<Json<ApprovalRecord>> {
    Ok(Json(approvals.find(id.get()).await?))
}

/// The actor of an approval.
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
    State(approvals): State<Approve>,
    Segment(id): Segment<Count>,
    caller: Caller,
    Input(input): Input<ApproveBy>,
) -> Result<Json<Approved>> {
    let approver = caller.origin(input.actor, None);
    Ok(Json(approvals.approve(id.get(), approver).await?))
}

/// The actor and the reason of a rejection.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RejectBy {
    /// Who.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
}

impl CanStop for RejectBy {
    const OFF: Option<Off> = None;
    const IN_PATH: bool = true;
}

/// Ends what waits: says no to it, or takes one's own request back. Never refused for its words.
#[utoipa::path(
    post, path = "/approvals/{id}/reject", tag = "access", request_body = RejectBy,
    params(("id" = Count, Path, description = "The request")),
    responses((status = 200, description = "Rejected", body = ApprovalRecord), errors::ChangeOfOne)
)]
async fn reject(
    State(approvals): State<Approve>,
    Segment(id): Segment<Count>,
    caller: Caller,
    Stopping { input, ignored, .. }: Stopping<RejectBy>,
) -> Result<Response> {
    let origin = caller.origin(input.actor, None);
    let rejected = approvals.reject(id.get(), input.reason.as_ref(), &origin).await?;
    Ok(ignored.beside(Once::Done(rejected)))
}
