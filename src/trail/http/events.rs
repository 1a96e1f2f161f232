//! Events of all streams.

use crate::audit::Stream;
use crate::audit::actions::require_known;
use crate::audit::events::{Cursor, EventRecord, Filter, Order};
use crate::audit::store;
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

/// Which events. A stream without the column that is asked for has none of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditEventQuery {
    /// Of this stream.
    stream: Option<Stream>,
    /// By whom, as authenticated.
    principal: Option<Actor>,
    /// By whom, as claimed.
    actor: Option<Actor>,
    /// What was done, upper case: `RESERVE`. All streams but kpi. One that no event of any stream has is refused.
    action: Option<Label>,
    /// About this engine: stream risk, and in control what was set of its risk policy, and that it was removed.
    engine: Option<Engine>,
    /// About this domain: streams heimdall and kpi.
    domain: Option<Domain>,
    /// Of this thread.
    correlation_id: Option<CorrelationId>,
    /// Of this request.
    request_id: Option<Label>,
    /// Of this reservation: stream risk.
    reservation_id: Option<Uuid>,
    /// At or after this time, RFC 3339.
    #[param(inline)]
    from: Option<Time>,
    /// Before this time, RFC 3339.
    #[param(inline)]
    to: Option<Time>,
    /// `desc`, the newest first, when left out; or `asc`.
    #[param(inline)]
    order: Option<Order>,
    /// At most so many, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// Where the last page ended; only with the same `order`.
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

/// Events of a page, whatever is asked for: each may have 50 KB, and so many of each stream are in memory.
const ROWS_MAX: i64 = 200;

/// A page of the list over all streams.
#[derive(Debug, Serialize, ToSchema)]
struct AuditPage {
    /// The events, by time and then by the name of the stream. Fewer than asked for are not the end.
    items: Vec<EventRecord>,
    /// What to send as `cursor` for the next page. Null when there is nothing more; with `order=asc` never, so that what is
    /// appended can be followed. Opaque.
    next_cursor: Option<String>,
}

/// Every event of every stream, as it is stored, newest first or oldest first.
#[utoipa::path(
    get, path = "/audit/events", tag = "audit", params(AuditEventQuery),
    responses((status = 200, description = "A page", body = AuditPage), errors::Read)
)]
async fn audit_events(State(trail): State<Trail>, Query(query): Query<AuditEventQuery>) -> Result<Json<AuditPage>> {
    let limit = query.limit.unwrap_or(PageSize::DEFAULT).get().min(ROWS_MAX);
    let order = query.order.unwrap_or_default();
    if query.cursor.is_some_and(|cursor| cursor.order != order) {
        return Err(Error::invalid("cursor", "belongs to the other order: send the order of the page it came with"));
    }
    let filter = query.filter()?;
    let mut tx = trail.db().begin_snapshot().await?;
    let page = store::events::page(&mut tx, &filter, order, query.cursor, limit).await?;
    let next_cursor = (page.more || order == Order::Asc).then(|| page.cursor.to_string());
    Ok(Json(AuditPage { items: page.rows, next_cursor }))
}
