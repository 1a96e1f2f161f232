//! The HTTP routes of the second person.

use super::{Approve, Approved};
use crate::approval::model::ApprovalRecord;
use crate::error::Result;
use crate::http::{Caller, CanStop, Input, Nothing, Off, Query, Segment, Stopping, errors, said};
use crate::idempotency::Once;
use crate::types::{Actor, Count, Reason};
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

said!(RejectBy);

/// The routes of the second person, relative to the base path.
pub fn router() -> OpenApiRouter<Approve> {
    OpenApiRouter::new()
        .routes(routes!(list_approvals))
        .routes(routes!(show_approval))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

/// The setting of the second person, and the recent requests.
#[derive(Debug, Serialize, ToSchema)]
struct Approvals {
    /// Whether changes that loosen wait for a second person.
    two_person_release: bool,
    /// The requests of the last day, newest first.
    items: Vec<ApprovalRecord>,
}

/// Lists the requests that wait for a second person, and those of the last day.
#[utoipa::path(
    get, path = "/approvals", tag = "access",
    responses((status = 200, description = "Newest first", body = Approvals), errors::Read)
)]
async fn list_approvals(State(approvals): State<Approve>, _: Query<Nothing>) -> Result<Json<Approvals>> {
    let (two_person_release, items) = approvals.list().await?;
    Ok(Json(Approvals { two_person_release, items }))
}

/// Returns one request, however old, in its current state.
#[utoipa::path(
    get, path = "/approvals/{id}", tag = "access",
    params(("id" = Count, Path, description = "The request")),
    responses((status = 200, description = "The request in its current state", body = ApprovalRecord), errors::ReadOne)
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
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
}

/// Approves another person's request and does its change.
///
/// A request can be approved once, within 15 minutes.
#[utoipa::path(
    post, path = "/approvals/{id}/approve", tag = "access", request_body = ApproveBy,
    params(("id" = Count, Path, description = "The request")),
    responses((status = 200, description = "The request is approved and its change is done", body = Approved), errors::Approve)
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
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
}

impl CanStop for RejectBy {
    const OFF: Option<Off> = None;
    const IN_PATH: bool = true;
}

/// Rejects a waiting request, or withdraws one's own.
///
/// An unreadable actor or reason is ignored.
#[utoipa::path(
    post, path = "/approvals/{id}/reject", tag = "access", request_body = RejectBy,
    params(("id" = Count, Path, description = "The request")),
    responses((status = 200, description = "The rejected request", body = ApprovalRecord), errors::ChangeOfOne)
)]
async fn reject(
    State(approvals): State<Approve>,
    Segment(id): Segment<Count>,
    Stopping { input, asked, ignored }: Stopping<RejectBy>,
) -> Result<Response> {
    let rejected = approvals.reject(id.get(), input.reason.as_ref(), &asked.origin).await?;
    Ok(ignored.beside(Once::Done(rejected)))
}
