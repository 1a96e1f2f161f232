//! The kind of a series.

use crate::app::App;
use crate::error::Result;
use crate::govern::KindAnswer;
use crate::http::{Caller, Keyed, errors};
use crate::idempotency::{Asked, Once};
use crate::regression::model::Kind;
use crate::types::{Actor, Domain, IdempotencyKey, Metric, Reason};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(set_series_kind))
}

/// The kind that the events of a series must have.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetSeriesKind {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// `BOOLEAN` for successes and failures, `NUMERIC` for values.
    kind: Kind,
    /// The actor who says so.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Sets what the events of a series have to be: before its first event, or anew while no wire that is on watches it. Older events never
/// count again for a wire.
#[utoipa::path(
    post, path = "/regression/kind", tag = "regression", request_body = SetSeriesKind,
    responses((status = 200, description = "The kind of the series", body = KindAnswer), errors::Change)
)]
async fn set_series_kind(
    State(app): State<App>,
    caller: Caller,
    Keyed { input, intent }: Keyed<SetSeriesKind>,
) -> Result<Once<KindAnswer>> {
    let asked = Asked::new(caller.origin(input.actor, None), intent);
    app.govern.set_kind((&input.domain, &input.metric), input.kind, input.reason.as_ref(), &asked).await
}
