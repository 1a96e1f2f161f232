//! Events of all streams.

use crate::audit::Stream;
use crate::audit::actions::require_known;
use crate::audit::events::{Cursor, EventRecord, Filter, Order};
use crate::audit::store;
use crate::db::archived::{self, ArchivedEvents};
use crate::error::{Error, Result};
use crate::http::{Query, errors};
use crate::trail::Trail;
use crate::types::{Actor, CorrelationId, Domain, Engine, Label, PageSize, Time, TimeRange};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub(super) fn router() -> OpenApiRouter<Trail> {
    OpenApiRouter::new().routes(routes!(audit_events))
}

/// The conditions and the page. A stream without a requested column has no matching events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditEventQuery {
    /// Only this stream; all streams if left out.
    stream: Option<Stream>,
    /// Only events of this authenticated principal.
    principal: Option<Actor>,
    /// Only events of this claimed actor.
    actor: Option<Actor>,
    /// Only this action, upper case: `RESERVE`. All streams except kpi have one. An action that no stream has is
    /// refused.
    action: Option<Label>,
    /// Only events of this engine: in stream risk, and in control the changes and the removal of its risk policy.
    engine: Option<Engine>,
    /// Only events of this domain: in streams heimdall and kpi.
    domain: Option<Domain>,
    /// Only events with this correlation id.
    correlation_id: Option<CorrelationId>,
    /// Only events of this request.
    request_id: Option<Label>,
    /// Only events of this reservation: in stream risk.
    reservation_id: Option<Uuid>,
    /// Only events at or after this time, RFC 3339.
    #[param(inline)]
    from: Option<Time>,
    /// Only events before this time, RFC 3339.
    #[param(inline)]
    to: Option<Time>,
    /// `desc` for newest first, the default; or `asc`.
    #[param(inline)]
    order: Option<Order>,
    /// The most rows of the page, 1 to 1000; 100 if left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The end of the last page, from `next_cursor`; only with the same `order`.
    #[param(inline)]
    cursor: Option<Cursor>,
}

impl AuditEventQuery {
    fn filter(&self) -> Result<Filter> {
        if let Some(action) = &self.action {
            require_known(action.as_str())?;
        }
        let text = |name, value: Option<&str>| value.map(|value| (name, value.to_owned()));
        let equal = [
            text("principal", self.principal.as_ref().map(Actor::as_str)),
            text("actor", self.actor.as_ref().map(Actor::as_str)),
            text("action", self.action.as_ref().map(Label::as_str)),
            text("engine", self.engine.as_ref().map(Engine::as_str)),
            text("domain", self.domain.as_ref().map(Domain::as_str)),
            text("correlation_id", self.correlation_id.as_ref().map(CorrelationId::as_str)),
            text("request_id", self.request_id.as_ref().map(Label::as_str)),
            self.reservation_id.map(|id| ("reservation_id", id.to_string())),
        ];
        let TimeRange { from, to } = TimeRange::new(self.from, self.to)?;
        Ok(Filter { stream: self.stream, equal: equal.into_iter().flatten().collect(), from, to })
    }
}

/// The most events of a page, whatever the limit: each may have 50 KB, and this many of each stream are in memory.
const ROWS_MAX: i64 = 200;

/// A page of the list over all streams.
#[derive(Debug, Serialize, ToSchema)]
struct AuditPage {
    /// The events, by time and then by the name of the stream. A short page is not the end of the list.
    items: Vec<EventRecord>,
    /// The `cursor` of the next page. Null if there are no more events; never null with `order=asc`, so that new events
    /// can be followed. Opaque.
    next_cursor: Option<String>,
    /// The archived events in the asked time, which the list lacks.
    archived: Vec<ArchivedEvents>,
}

/// Lists every event of every stream as it is stored, newest or oldest first.
#[utoipa::path(
    get, path = "/audit/events", tag = "audit", params(AuditEventQuery),
    responses((status = 200, description = "A page", body = AuditPage), errors::Read)
)]
async fn audit_events(State(trail): State<Trail>, Query(query): Query<AuditEventQuery>) -> Result<Json<AuditPage>> {
    let limit = query.limit.unwrap_or(PageSize::DEFAULT).get().min(ROWS_MAX);
    let order = query.order.unwrap_or_default();
    if query.cursor.is_some_and(|cursor| cursor.order != order) {
        return Err(Error::invalid("cursor", "belongs to the other order: send the `order` of its page"));
    }
    let filter = query.filter()?;
    let mut tx = archived::snapshot(trail.db()).await?;
    let page = store::events::page(&mut tx, &filter, order, query.cursor, limit).await?;
    let next_cursor = (page.more || order == Order::Asc).then(|| page.cursor.to_string());
    Ok(Json(AuditPage { items: page.rows, next_cursor, archived: page.archived }))
}
