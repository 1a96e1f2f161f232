//! Lists of reservations and decisions, and the reconciliation.

use crate::audit::{self, Stream};
use crate::db::archived;
use crate::error::{Error, Result};
use crate::http::{ArchivedPage, Caller, Nothing, Page, Paging, Query, Segment, errors};
use crate::risk::Risk;
use crate::risk::model::ReservationStatus;
use crate::risk::reconcile::Reconciliation;
use crate::risk::store::{self, EventFilter, ReservationFilter, ReservationRecord, RiskEventRecord};
use crate::types::{CorrelationId, Count, Engine, Flag, PageSize, Place, RiskAction, Time, TimeRange};
use axum::Json;
use axum::extract::State;
use chrono::TimeDelta;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new()
        .routes(routes!(list_reservations))
        .routes(routes!(get_reservation))
        .routes(routes!(risk_events))
        .routes(routes!(reconciliation))
}

/// The conditions and the page of a list of reservations.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ReservationQuery {
    /// Only reservations of this engine.
    engine: Option<Engine>,
    /// Only this status: `OPEN`, `SETTLED`, `RELEASED` or `EXPIRED`.
    status: Option<ReservationStatus>,
    /// Only reservations that were made at least this many seconds ago: with `status=OPEN`, the leftovers of crashed
    /// clients.
    older_than: Option<Count>,
    /// Only reservations with this correlation id.
    correlation_id: Option<CorrelationId>,
    /// The most rows of the page, 1 to 1000; 100 if left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The end of the last page, from `next_cursor`.
    cursor: Option<Place>,
}

/// Seconds in a hundred years: no reservation is older.
const OLDER_THAN_MAX: i64 = 3_155_760_000;

/// Lists reservations, newest first.
#[utoipa::path(
    get, path = "/risk/reservations", tag = "risk", params(ReservationQuery),
    responses((status = 200, description = "A page", body = Page<ReservationRecord>), errors::Read)
)]
async fn list_reservations(
    State(risk): State<Risk>,
    Query(query): Query<ReservationQuery>,
) -> Result<Json<Page<ReservationRecord>>> {
    let paging = Paging::new("/risk/reservations", query.limit, query.cursor)?;
    if let Some(older_than) = query.older_than.filter(|seconds| seconds.get() > OLDER_THAN_MAX) {
        let detail = format!("is {older_than}: send at most {OLDER_THAN_MAX} seconds, which is a hundred years");
        return Err(Error::invalid("older_than", detail));
    }
    let db = risk.db();
    let mut conn = archived::snapshot(db).await?;
    let now = db.history().now(&mut conn).await?;
    let filter = ReservationFilter {
        now,
        engine: query.engine.as_ref().map(Engine::as_str),
        status: query.status,
        correlation_id: query.correlation_id.as_ref().map(CorrelationId::as_str),
        made_by: query.older_than.map(|seconds| now - TimeDelta::seconds(seconds.get())),
    };
    // The first that is not old enough.
    let to = filter.made_by.map(|made| made + TimeDelta::microseconds(1));
    let (mut lowest, mut last) = audit::between(&mut conn, Stream::Risk, None, to).await?;
    if filter.is_open() {
        // Open reservations outlive their events.
        (lowest, last) = (1, last.max(archived::floor(&mut conn, Stream::Risk).await?.seq));
    }
    let mut page = if filter.leads() { paging.begin_between(lowest, last) } else { paging.begin_within(lowest, last) };
    while let Some(portion) = page.wants() {
        page.take(store::reservations(&mut conn, &filter, portion).await?, |row| row.seq);
    }
    Ok(Json(page.end()))
}

/// Shows one reservation.
#[utoipa::path(
    get, path = "/risk/reservations/{id}", tag = "risk", params(("id" = Uuid, Path, description = "The reservation")),
    responses((status = 200, description = "The reservation", body = ReservationRecord), errors::ReadOne)
)]
async fn get_reservation(
    State(risk): State<Risk>,
    Segment(id): Segment<Uuid>,
    _: Query<Nothing>,
) -> Result<Json<ReservationRecord>> {
    let db = risk.db();
    let mut conn = archived::snapshot(db).await?;
    let now = db.history().now(&mut conn).await?;
    let found = store::read_reservation(&mut conn, id, now).await?;
    if let Some(found) = found {
        return Ok(Json(found));
    }
    Err(match archived::of_id(&archived::all(&mut conn).await?, id) {
        Some(segment) => segment.refusal(format!("reservation {id}")),
        None => Error::NotFound { what: "reservation", id: id.to_string() },
    })
}

/// The conditions and the page of a list of decisions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RiskEventQuery {
    /// Only decisions of this engine.
    engine: Option<Engine>,
    /// Only this kind of decision.
    #[param(inline)]
    action: Option<RiskAction>,
    /// Only accepted (true) or refused (false) decisions.
    ok: Option<Flag>,
    /// Only decisions with this correlation id.
    correlation_id: Option<CorrelationId>,
    /// Only decisions at or after this time, RFC 3339.
    #[param(inline)]
    from: Option<Time>,
    /// Only decisions before this time, RFC 3339.
    #[param(inline)]
    to: Option<Time>,
    /// The most rows of the page, 1 to 1000; 100 if left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The end of the last page, from `next_cursor`.
    cursor: Option<Place>,
}

/// Lists decisions, newest first.
#[utoipa::path(
    get, path = "/risk/events", tag = "risk", params(RiskEventQuery),
    responses((status = 200, description = "A page", body = ArchivedPage<RiskEventRecord>), errors::Read)
)]
async fn risk_events(
    State(risk): State<Risk>,
    Query(query): Query<RiskEventQuery>,
) -> Result<Json<ArchivedPage<RiskEventRecord>>> {
    let paging = Paging::new("/risk/events", query.limit, query.cursor)?;
    let range = TimeRange::new(query.from, query.to)?;
    let filter = EventFilter {
        engine: query.engine.as_ref().map(Engine::as_str),
        action: query.action,
        ok: query.ok.map(|flag| flag.0),
        correlation_id: query.correlation_id.as_ref().map(CorrelationId::as_str),
    };
    let mut conn = archived::snapshot(risk.db()).await?;
    let (lowest, last) = audit::between(&mut conn, Stream::Risk, range.from, range.to).await?;
    let archived = archived::since(&mut conn, Stream::Risk, range.from).await?;
    let mut page = if filter.leads() { paging.begin_between(lowest, last) } else { paging.begin_within(lowest, last) };
    while let Some(portion) = page.wants() {
        page.take(store::events(&mut conn, &filter, portion).await?, |row| row.seq);
    }
    Ok(Json(page.end_beside(archived)))
}

/// Compares every counter with its reservations and events, now. An instance sums each event once and adds up the open
/// reservations every minute; `holdfast risk reconcile` sums everything again. A confirmed difference halts new reserves
/// until it is repaired with `holdfast risk reconcile --repair`. One comparison runs at a time.
#[utoipa::path(
    get, path = "/risk/reconciliation", tag = "risk",
    responses((status = 200, description = "The compared day and events, and every difference", body = Reconciliation), errors::ReadOne)
)]
async fn reconciliation(State(risk): State<Risk>, caller: Caller, _: Query<Nothing>) -> Result<Json<Reconciliation>> {
    // One at a time: the first comparison reads all open reservations and all events of the day. PostgreSQL continues
    // after the client has hung up, and so does the turn; otherwise a client that hangs up repeatedly would take every
    // connection.
    let turn = risk.reconciling().take(caller.principal).await?;
    let reconciler = risk.reconciler().clone();
    let compared = tokio::spawn(async move {
        let _turn = turn;
        reconciler.reconcile().await
    });
    Ok(Json(compared.await.map_err(|error| Error::Inconsistent(error.to_string()))??))
}
