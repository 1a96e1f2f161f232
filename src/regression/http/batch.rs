//! The HTTP route of many measurements in one request and one commit: JSON or NDJSON.

use crate::audit::Origin;
use crate::db::to_json;
use crate::error::{Error, Result};
use crate::http::input::{Element, Field, elements, object_fields, parse};
use crate::http::keyed::{Many, key_of};
use crate::http::{Caller, errors, marked};
use crate::idempotency::{Fields, Intent};
use crate::regression::Regression;
use crate::regression::measure::Measurements;
use crate::regression::model::{KpiEvent, Measurement};
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

/// The most measurements in one request.
const EVENTS_MAX: usize = 10_000;
/// The largest body: 10,000 measurements of 800 bytes each.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// The fields that may accompany the measurements, for all of them.
const OTHERS: [&str; 2] = ["actor", "correlation_id"];

pub(super) fn router() -> OpenApiRouter<Regression> {
    OpenApiRouter::new().routes(routes!(record_kpi_batch))
}

/// One measurement of a batch: `success` or `value`, never both.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KpiLine {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// Whether the measured action succeeded, for a series of successes.
    success: Option<Flag>,
    /// The measured value, for a series of values.
    value: Option<Measured>,
    /// The person or program that measured; when left out, the request's actor.
    actor: Option<Actor>,
    /// The caller's id for everything that belongs to one undertaking; when left out, the request's.
    correlation_id: Option<CorrelationId>,
    /// Remarks, up to 4 KiB.
    detail: Option<Detail>,
    /// The caller's own id: a repeated measurement with the same id is recorded once.
    event_id: Option<EventId>,
}

/// Measurements, in order. In NDJSON (`application/x-ndjson`, one per line) and as a JSON array, the body has only the
/// measurements, and the other fields go into the query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used; http::keyed reads the body")]
struct KpiBatch {
    /// 1 to 10,000 measurements.
    #[schema(min_items = 1, max_items = 10_000)]
    events: Vec<KpiLine>,
    /// The actor of the measurements that name none.
    actor: Option<Actor>,
    /// The caller's id for everything that belongs to one undertaking, for measurements that name none.
    correlation_id: Option<CorrelationId>,
    /// The caller's name for the whole batch. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// The fields that accompany the measurements.
#[derive(Debug, Deserialize, Serialize)]
struct Shared {
    actor: Option<Actor>,
    correlation_id: Option<CorrelationId>,
}

/// A measurement that was not recorded.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct KpiRefused {
    /// The place of the measurement in the request, from 1; in NDJSON, its line.
    line: usize,
    /// The status that a single request would have had.
    status: u16,
    /// The reason, as the members of an error's body.
    #[schema(value_type = Object)]
    error: Box<RawValue>,
}

/// A trip that one of the measurements caused.
#[derive(Debug, Serialize, ToSchema)]
struct KpiTripped {
    /// The place of the measurement in the request, from 1; in NDJSON, its line.
    line: usize,
    /// The measurement's sequence number in the KPI stream.
    id: i64,
    /// The trip that it caused.
    trip: Tripped,
}

/// The measurements of a series that no enabled wire watches.
#[derive(Debug, Serialize, ToSchema)]
struct KpiUnwatched {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// The number of its measurements in this request.
    events: usize,
}

/// The outcome of a batch of measurements.
#[derive(Debug, Serialize, ToSchema)]
struct KpiBatchAnswer {
    /// Whether all measurements were accepted.
    ok: bool,
    /// The number of measurements that were recorded.
    recorded: usize,
    /// The number of measurements that had been recorded before, under the same `event_id`.
    duplicates: usize,
    /// The first recorded measurement's sequence number in the KPI stream; null if none was recorded.
    first_id: Option<i64>,
    /// The last recorded measurement's sequence number; null if none was recorded.
    last_id: Option<i64>,
    /// The number of recorded and duplicate measurements that an enabled wire watches.
    watched: usize,
    /// The series without an enabled wire; the first 20.
    unwatched: Vec<KpiUnwatched>,
    /// The number of series without an enabled wire.
    unwatched_count: usize,
    /// The trips that the measurements caused.
    tripped: Vec<KpiTripped>,
    /// The measurements that were refused; the first 100.
    refused: Vec<KpiRefused>,
    /// The number of refused measurements.
    refused_count: usize,
}

/// The most refusals in an answer.
const REFUSED_MAX: usize = 100;
/// The most unwatched series in an answer.
const UNWATCHED_MAX: usize = 20;

/// Records up to 10,000 measurements in one commit.
///
/// Each is judged alone: a refused measurement does not prevent the others.
#[utoipa::path(
    post, path = "/regression/kpi/batch", tag = "regression", request_body = KpiBatch,
    responses((status = 200, description = "The outcome of the measurements", body = KpiBatchAnswer), errors::Change)
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
    // If no measurement can be read, the request cannot be read either.
    if let Some(error) = first_error.filter(|_| events.is_empty()) {
        return Err(error);
    }
    let answer =
        Box::new(move |answers: Vec<Result<KpiAnswer>>| Ok(to_json(&answer(&lines, answers, refused.clone()))));
    let done = regression.record(Measurements { events, intent, answer }).await?;
    Ok(marked(done.replayed, Json(done.answer)))
}

/// The content that a key identifies.
#[derive(Serialize)]
struct BatchInput<'a> {
    events: &'a [Element],
    actor: &'a Option<Actor>,
    correlation_id: &'a Option<CorrelationId>,
}

/// Reads a measurement. Fields of its origin that are left out come from the request.
fn read_line(text: &RawValue, shared: &Origin) -> Result<(KpiEvent, Origin)> {
    // A measurement that is refused here, or has a spelling that only the usual reader accepts, is read again by that
    // reader.
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
        measurement: Measurement::given(line.success, line.value)?,
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

/// The answer for the measurements of these lines, and for those that could not be read.
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
