//! Many measurements in one request and one commit: JSON or NDJSON.

use super::measurement;
use crate::audit::Origin;
use crate::db::to_json;
use crate::error::{Error, Result};
use crate::http::input::{Element, Field, elements, object_fields, parse};
use crate::http::keyed::{Many, key_of};
use crate::http::{Caller, errors, marked};
use crate::idempotency::{Fields, Intent};
use crate::regression::Regression;
use crate::regression::measure::Measurements;
use crate::regression::model::KpiEvent;
use crate::regression::store::Pair;
use crate::regression::{KpiAnswer, Tripped};
use crate::types::{Actor, CorrelationId, Detail, Domain, EventId, Flag, IdempotencyKey, Measured, Metric};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Measurements of one request.
const EVENTS_MAX: usize = 10_000;
/// Largest body: 10,000 measurements of 800 bytes each.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// The fields that may be beside the measurements, for all of them.
const OTHERS: [&str; 2] = ["actor", "correlation_id"];

pub(super) fn router() -> OpenApiRouter<Regression> {
    OpenApiRouter::new().routes(routes!(record_kpi_batch))
}

/// One measurement of many: `success` or `value`, never both.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KpiLine {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// Whether it succeeded.
    success: Option<Flag>,
    /// Its value.
    value: Option<Measured>,
    /// The actor; left out, the one of the request.
    actor: Option<Actor>,
    /// The caller's own thread; left out, the one of the request.
    correlation_id: Option<CorrelationId>,
    /// Remarks, up to 4 KiB.
    detail: Option<Detail>,
    /// The caller's own id: the same measurement again is recorded once.
    event_id: Option<EventId>,
}

/// Measurements, in order. As NDJSON (`application/x-ndjson`, one a line) or as a JSON array the body is the measurements alone, and the
/// rest goes into the query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used; http::keyed reads the body")]
struct KpiBatch {
    /// 1 to 10,000 measurements.
    #[schema(min_items = 1, max_items = 10_000)]
    events: Vec<KpiLine>,
    /// The actor of the measurements that name none.
    actor: Option<Actor>,
    /// The caller's own thread, where a measurement does not say it.
    correlation_id: Option<CorrelationId>,
    /// Names all of them; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// The fields beside the measurements.
#[derive(Debug, Deserialize, Serialize)]
struct Shared {
    actor: Option<Actor>,
    correlation_id: Option<CorrelationId>,
}

/// A measurement that was not recorded.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct KpiRefused {
    /// Its place among the measurements, from 1; of NDJSON, its line.
    line: usize,
    /// The status that its own request would have been answered.
    status: u16,
    /// Why: the members of an error's body.
    #[schema(value_type = Object)]
    error: Box<RawValue>,
}

/// A trip that one of the measurements caused.
#[derive(Debug, Serialize, ToSchema)]
struct KpiTripped {
    /// The measurement's place, from 1; of NDJSON, its line.
    line: usize,
    /// The measurement, in the KPI stream.
    id: i64,
    /// The trip.
    trip: Tripped,
}

/// Measurements of a series that no enabled wire watches.
#[derive(Debug, Serialize, ToSchema)]
struct KpiUnwatched {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// How many of this request.
    events: usize,
}

/// The outcome of the measurements.
#[derive(Debug, Serialize, ToSchema)]
struct KpiBatchAnswer {
    /// Whether all of them were taken: none was refused.
    ok: bool,
    /// How many were recorded.
    recorded: usize,
    /// How many had been recorded before, under the same `event_id`.
    duplicates: usize,
    /// The first that was recorded, in the KPI stream; null when none was.
    first_id: Option<i64>,
    /// The last.
    last_id: Option<i64>,
    /// How many of these two an enabled wire watches.
    watched: usize,
    /// Series that none watches, which nobody judges: the first 20.
    unwatched: Vec<KpiUnwatched>,
    /// How many such series there are.
    unwatched_count: usize,
    /// The trips that they caused.
    tripped: Vec<KpiTripped>,
    /// Those that were not recorded; the first 100.
    refused: Vec<KpiRefused>,
    /// How many were not.
    refused_count: usize,
}

/// Refusals that an answer lists.
const REFUSED_MAX: usize = 100;
/// Unwatched series that an answer lists.
const UNWATCHED_MAX: usize = 20;

/// Records up to 10,000 measurements in one commit, each for itself: one that is refused does not keep the others out.
#[utoipa::path(
    post, path = "/regression/kpi/batch", tag = "regression", request_body = KpiBatch,
    responses((status = 200, description = "What came of them", body = KpiBatchAnswer), errors::Change)
)]
async fn record_kpi_batch(State(regression): State<Regression>, caller: Caller, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let (list, key, fields) = match elements(&parts, body, &OTHERS, BYTES_MAX).await? {
        Ok((list, fields)) => (list, key_of(&parts, &fields)?, fields),
        Err(body) => {
            let Many { list, key, fields } = Many::read(&parts, body, "events", &OTHERS, BYTES_MAX).await?;
            ((1..).zip(list.into_iter().map(Some)).collect(), key, fields)
        }
    };
    if list.is_empty() || list.len() > EVENTS_MAX {
        let detail = format!("has {} measurements: send 1 to {EVENTS_MAX}", list.len());
        return Err(Error::invalid("events", detail));
    }
    let fields: Vec<Field> = fields.into_iter().filter(|field| OTHERS.iter().any(|name| field.is(name))).collect();
    let shared: Shared = parse(&fields)?;
    let intent = key.map(|key| Intent {
        principal: caller.principal.clone(),
        key: key.to_string(),
        route: parts.uri.path().to_owned(),
        fields: Fields::of(&BatchInput { events: &list, actor: &shared.actor, correlation_id: &shared.correlation_id }),
    });
    let origin = caller.origin(shared.actor, shared.correlation_id);
    let (mut events, mut lines, mut refused) =
        (Vec::with_capacity(list.len()), Vec::with_capacity(list.len()), Vec::new());
    let mut first_error = None;
    for (line, text) in &list {
        let line = *line;
        let no_object = || Error::Malformed("it is not a JSON object".into());
        let read = text.as_ref().ok_or_else(no_object).and_then(|text| read_line(text, &origin));
        match read.and_then(|(event, origin)| origin.authority.require_domain(&event.domain).map(|()| (event, origin)))
        {
            Ok((event, origin)) => {
                lines.push((line, (event.domain.clone(), event.metric.clone())));
                events.push((event, origin));
            }
            Err(error) => {
                refused.push(KpiRefused::of(line, &error));
                first_error.get_or_insert(error);
            }
        }
    }
    // Where none can be read, the request cannot.
    if let Some(error) = first_error.filter(|_| events.is_empty()) {
        return Err(error);
    }
    let answer =
        Box::new(move |answers: Vec<Result<KpiAnswer>>| Ok(to_json(&answer(&lines, answers, refused.clone()))));
    let done = regression.record(Measurements { events, intent, answer }).await?;
    Ok(marked(done.replayed, Json(done.answer)))
}

/// The content that a key stands for.
#[derive(Serialize)]
struct BatchInput<'a> {
    events: &'a [Element],
    actor: &'a Option<Actor>,
    correlation_id: &'a Option<CorrelationId>,
}

/// Reads a measurement; what it does not say of its origin is that of the request.
fn read_line(text: &RawValue, shared: &Origin) -> Result<(KpiEvent, Origin)> {
    // A measurement that is refused, or spelt as only the one reader of requests takes it, is read again by that.
    let line: KpiLine = match serde_json::from_str(text.get()) {
        Ok(line) => line,
        Err(_) => parse(&object_fields(text)?)?,
    };
    let mut origin = shared.clone();
    origin.actor = line.actor.or(origin.actor);
    origin.correlation_id = line.correlation_id.or(origin.correlation_id);
    let event = KpiEvent {
        domain: line.domain,
        metric: line.metric,
        measurement: measurement(line.success, line.value)?,
        event_id: line.event_id,
        detail: line.detail,
    };
    Ok((event, origin))
}

impl KpiRefused {
    fn of(line: usize, error: &Error) -> Self {
        let problem = error.problem();
        Self { line, status: problem.status.as_u16(), error: problem.members() }
    }
}

/// The answer to the measurements of these lines, and to those that could not be read.
fn answer(lines: &[(usize, Pair)], answers: Vec<Result<KpiAnswer>>, mut refused: Vec<KpiRefused>) -> KpiBatchAnswer {
    let (mut recorded, mut duplicates, mut tripped) = (Vec::new(), 0, Vec::new());
    let mut unwatched: BTreeMap<&Pair, usize> = BTreeMap::new();
    for ((line, pair), answer) in lines.iter().zip(answers) {
        let line = *line;
        match answer {
            Ok(KpiAnswer { id, tripped: trip, watched, duplicate, .. }) => {
                if !watched {
                    *unwatched.entry(pair).or_default() += 1;
                }
                if duplicate {
                    duplicates += 1;
                } else {
                    recorded.push(id);
                }
                tripped.extend(trip.map(|trip| KpiTripped { line, id, trip }));
            }
            Err(error) => refused.push(KpiRefused::of(line, &error)),
        }
    }
    let (refused_count, unwatched_count) = (refused.len(), unwatched.len());
    let blind: usize = unwatched.values().sum();
    let unwatched = unwatched.into_iter().take(UNWATCHED_MAX).map(|(pair, events)| {
        let (domain, metric) = pair.clone();
        KpiUnwatched { domain, metric, events }
    });
    refused.sort_by_key(|one| one.line);
    refused.truncate(REFUSED_MAX);
    KpiBatchAnswer {
        ok: refused_count == 0,
        recorded: recorded.len(),
        duplicates,
        watched: recorded.len() + duplicates - blind,
        unwatched: unwatched.collect(),
        unwatched_count,
        first_id: recorded.first().copied(),
        last_id: recorded.last().copied(),
        tripped,
        refused,
        refused_count,
    }
}
