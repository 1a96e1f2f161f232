//! Many operations in one request and one commit.

use super::adjust::{AdjustAnswer, AdjustInput};
use super::extend::{ExtendReservation, extended};
use super::release::{ReleaseAnswer, ReleaseReservation};
use super::reserve::{CheckAndReserve, ReserveAnswer};
use super::settle::{SettleAnswer, SettleInput};
use crate::db::to_json;
use crate::error::{Error, Result};
use crate::http::input::{Field, object_fields, parse, take_field};
use crate::http::keyed::{Many, read_key};
use crate::http::{Caller, Said, errors, marked};
use crate::idempotency::{Fields, Intent};
use crate::risk::Risk;
use crate::risk::operation::{Answered, Ask, Outcome, Submission};
use crate::types::IdempotencyKey;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// Largest body in bytes: 1000 operations of 2 KiB each.
const BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most operations of one request.
pub(super) const OPERATIONS_MAX: usize = 1_000;

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(run_batch))
}

/// Independent operations that are decided in order and committed together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used; http::keyed reads the body")]
struct BatchInput {
    /// 1 to 1000 operations. `op` is reserve, settle, release, extend or adjust. The other fields are those of its own
    /// route: `CheckAndReserve` (without `dry_run`), `SettleInput`, `ReleaseReservation` and `ExtendReservation` with
    /// `reservation_id`, or `AdjustInput`.
    #[schema(min_items = 1, max_items = 1000, value_type = Vec<Object>)]
    operations: Vec<Box<RawValue>>,
    /// The idempotency key of the batch: an operation at index n, from 0, without a key of its own gets `<key>/<n>`.
    /// The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// The outcome of one operation.
#[derive(Debug, Serialize, ToSchema)]
struct BatchResult {
    /// The operation; null if it is none of the five.
    op: Option<String>,
    /// The status that its own route would return.
    status: u16,
    /// True if it was decided before, under the same key or id; nothing was done this time.
    replayed: bool,
    /// The answer that its own route would return; null for an error.
    #[schema(value_type = Option<Object>)]
    answer: Option<Box<RawValue>>,
    /// The members of the error's body; null for an answer.
    #[schema(value_type = Option<Object>)]
    error: Option<Box<RawValue>>,
}

/// A result for each operation, in order.
#[derive(Debug, Serialize, ToSchema)]
struct BatchAnswer {
    /// The results, in the order of the operations.
    results: Vec<BatchResult>,
}

/// Decides up to 1000 independent operations in one commit. The status is 200 whatever their outcomes: read the
/// results. The header Idempotent-Replayed means that all of them were decided before.
#[utoipa::path(
    post, path = "/risk/batch", tag = "risk", request_body = BatchInput,
    responses((status = 200, description = "A result for each operation, in order", body = BatchAnswer), errors::Change)
)]
async fn run_batch(State(risk): State<Risk>, caller: Caller, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let sent = Many::read(&parts, body, "operations", &[], BYTES_MAX).await?;
    if sent.list.is_empty() || sent.list.len() > OPERATIONS_MAX {
        let detail = format!("has {} operations: send 1 to {OPERATIONS_MAX}", sent.list.len());
        return Err(Error::invalid("operations", detail));
    }
    let read = sent.list.iter().enumerate().map(|(place, object)| {
        let key = sent.key.as_ref().map(|key| format!("{key}/{place}"));
        let mut op = None;
        let item = read_operation(object, &caller, key, &mut op);
        (op, item)
    });
    let (ops, items): (Vec<_>, Vec<_>) = read.unzip();
    let done = risk.batch(items).await?;
    let results: Vec<_> = ops.into_iter().zip(done).map(|(op, done)| result(op, done)).collect();
    let replayed = results.iter().all(|result| result.replayed);
    Ok(marked(replayed, Json(BatchAnswer { results })))
}

/// The names of the operations.
const OPERATIONS: [&str; 5] = ["reserve", "settle", "release", "extend", "adjust"];

fn read_operation(
    object: &RawValue,
    caller: &Caller,
    key: Option<String>,
    op: &mut Option<String>,
) -> Result<Submission> {
    let mut fields = object_fields(object)?;
    *op = take_field::<String>(&mut fields, "op")?.filter(|op| OPERATIONS.contains(&op.as_str()));
    let own = Own::take(&mut fields, caller, key)?;
    let id = |fields: &mut Vec<Field>| -> Result<Uuid> {
        take_field(fields, "reservation_id")?.ok_or_else(|| Error::invalid("reservation_id", "is required"))
    };
    match op.as_deref() {
        Some("reserve") => own.item(&fields, "reserve", None, |input: CheckAndReserve| {
            if input.is_dry() {
                return Err(Error::invalid(
                    "dry_run",
                    "is not possible in a batch: send it to POST /risk/check-and-reserve",
                ));
            }
            Ok(input.request())
        }),
        Some("settle") => own.item(&fields, "settle", None, |input: SettleInput| Ok(input.request())),
        Some("release") => {
            let id = id(&mut fields)?;
            own.item(&fields, "release", Some(id), |input: ReleaseReservation| Ok(input.request(id)))
        }
        Some("extend") => {
            let id = id(&mut fields)?;
            own.item(&fields, "extend", Some(id), |input: ExtendReservation| Ok(input.request(id)))
        }
        Some("adjust") => own.item(&fields, "adjust", None, AdjustInput::request),
        _ => Err(Error::invalid("op", format!("is not one of {}: send one", OPERATIONS.join(", ")))),
    }
}

/// The caller of one operation of a batch, and its key: its own, or the batch's key with its index.
struct Own {
    key: Option<String>,
    caller: Caller,
}

impl Own {
    fn take(fields: &mut Vec<Field>, caller: &Caller, derived: Option<String>) -> Result<Self> {
        let own: Option<String> = take_field(fields, "idempotency_key")?;
        let own = own.map(|key| read_key(&key).map(|key| key.to_string())).transpose()?;
        Ok(Self { key: own.or(derived), caller: caller.clone() })
    }

    fn item<T: DeserializeOwned + Serialize + Said, A: Ask>(
        self,
        fields: &[Field],
        op: &str,
        id: Option<Uuid>,
        request: impl FnOnce(T) -> Result<A>,
    ) -> Result<Submission> {
        let input: T = parse(fields)?;
        let principal = self.caller.principal.clone();
        let intent = self.key.map(|key| Intent {
            principal,
            key,
            route: id.map_or_else(|| format!("/risk/batch#{op}"), |id| format!("/risk/batch#{op}/{id}")),
            fields: Fields::of(&input),
        });
        let origin = self.caller.origin(input.actor(), input.correlation_id());
        Ok(Submission { operation: request(input)?.operation(), origin, intent })
    }
}

fn result(op: Option<String>, done: Result<Answered>) -> BatchResult {
    let failed = |error: Error, replayed| {
        let problem = error.problem();
        BatchResult {
            op: op.clone(),
            status: problem.status.as_u16(),
            replayed,
            answer: None,
            error: Some(problem.members()),
        }
    };
    let Answered { outcome, replayed, standing, stops } = match done {
        Ok(done) => done,
        Err(error) => return failed(error, false),
    };
    let answer = match outcome {
        Outcome::Reserved(outcome) => {
            to_json(&ReserveAnswer::new(false, Answered { outcome, replayed, standing, stops }))
        }
        Outcome::Settled(outcome) => to_json(&SettleAnswer::from(Answered { outcome, replayed, standing, stops })),
        Outcome::Released(outcome) => to_json(&ReleaseAnswer::from(Answered { outcome, replayed, standing, stops })),
        Outcome::Adjusted(outcome) => to_json(&AdjustAnswer::from(Answered { outcome, replayed, standing, stops })),
        Outcome::Extended(outcome) => match extended(Answered { outcome, replayed, standing, stops }) {
            Ok(answer) => to_json(&answer),
            Err(error) => return failed(error, replayed),
        },
        Outcome::Waiting(request) => {
            return BatchResult { op, status: 202, replayed, answer: Some(request), error: None };
        }
        Outcome::Deferred(_) => {
            return failed(Error::Inconsistent("a correction is neither waiting nor booked".into()), replayed);
        }
    };
    BatchResult { op, status: 200, replayed, answer: Some(answer), error: None }
}
