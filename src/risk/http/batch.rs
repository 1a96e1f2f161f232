//! Many operations in one request and one commit.

use super::answers::{AdjustAnswer, ReleaseAnswer, ReserveAnswer, SettleAnswer, extended};
use super::inputs::{AdjustInput, CheckAndReserve, ExtendReservation, ReleaseReservation, SettleInput};
use crate::db::to_json;
use crate::error::{Error, Result};
use crate::http::input::{Field, object_fields, parse, take_field};
use crate::http::keyed::{Many, read_key};
use crate::http::{Caller, errors, marked};
use crate::idempotency::{Fields, Intent};
use crate::risk::Risk;
use crate::risk::operation::{Done, Item, Operation, Outcome};
use crate::types::{Amount, Engine, IdempotencyKey};
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

/// Largest body: 1000 operations of 2 KiB each.
const BYTES_MAX: usize = 2 * 1024 * 1024;
/// Operations of one request.
pub(super) const OPERATIONS_MAX: usize = 1_000;

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(run_batch))
}

/// Operations that are decided in order and committed together, each for itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used; http::keyed reads the body")]
struct BatchInput {
    /// 1 to 1000 operations. `op` is reserve, settle, release, extend or adjust; the other fields are those of its own route:
    /// `CheckAndReserve` (but for `dry_run`), `SettleInput`, `ReleaseReservation` and `ExtendReservation` with
    /// `reservation_id`, `AdjustInput`.
    #[schema(min_items = 1, max_items = 1000, value_type = Vec<Object>)]
    operations: Vec<Box<RawValue>>,
    /// Names all of them: the operation at place n, from 0, that has no key of its own gets `<key>/<n>`. The header
    /// Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// What came of one operation.
#[derive(Debug, Serialize, ToSchema)]
struct BatchResult {
    /// The operation; null where it is none of the five.
    op: Option<String>,
    /// The status that its own route would have answered.
    status: u16,
    /// Whether it was decided before, under the same key or id; nothing was done this time.
    replayed: bool,
    /// What its own route would have answered; null for an error.
    #[schema(value_type = Option<Object>)]
    answer: Option<Box<RawValue>>,
    /// Why not: the members of an error's body; null for an answer.
    #[schema(value_type = Option<Object>)]
    error: Option<Box<RawValue>>,
}

/// A result for each operation, in order.
#[derive(Debug, Serialize, ToSchema)]
struct BatchAnswer {
    /// In the order of the operations.
    results: Vec<BatchResult>,
}

/// What is needed of an operation to answer it.
enum Asked {
    Reserve(Engine, Amount),
    Other(&'static str),
    /// It could not be read; the operation, if that could be.
    Unread(Option<String>),
}

impl Asked {
    fn op(&self) -> Option<String> {
        match self {
            Self::Reserve(..) => Some("reserve".to_owned()),
            Self::Other(op) => Some((*op).to_owned()),
            Self::Unread(op) => op.clone(),
        }
    }
}

/// Decides up to 1000 independent operations in one commit. The status is 200 whatever came of each: read the results. The
/// header Idempotent-Replayed says that every one of them was decided before.
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
        match read_operation(object, &caller, key, &mut op) {
            Ok((asked, item)) => (asked, Ok(item)),
            Err(error) => (Asked::Unread(op), Err(error)),
        }
    });
    let (asked, items): (Vec<_>, Vec<_>) = read.unzip();
    let done = risk.batch(items).await?;
    let results: Vec<_> = asked.into_iter().zip(done).map(|(asked, done)| result(asked, done)).collect();
    let replayed = results.iter().all(|result| result.replayed);
    Ok(marked(replayed, Json(BatchAnswer { results })))
}

/// The operations there are.
const OPERATIONS: [&str; 5] = ["reserve", "settle", "release", "extend", "adjust"];

fn read_operation(
    object: &RawValue,
    caller: &Caller,
    key: Option<String>,
    op: &mut Option<String>,
) -> Result<(Asked, Item)> {
    let mut fields = object_fields(object)?;
    *op = take_field::<String>(&mut fields, "op")?.filter(|op| OPERATIONS.contains(&op.as_str()));
    let (caller, key) = (caller.clone(), OwnKey::take(&mut fields, caller, key)?);
    let id = |fields: &mut Vec<Field>| -> Result<Uuid> {
        take_field(fields, "reservation_id")?.ok_or_else(|| Error::invalid("reservation_id", "is required"))
    };
    let read = match op.as_deref() {
        Some("reserve") => {
            let (input, intent) = key.read::<CheckAndReserve>(&fields, "reserve", None)?;
            if input.is_dry() {
                return Err(Error::invalid("dry_run", "is not for batches: ask POST /risk/check-and-reserve"));
            }
            let (request, origin) = input.read(caller);
            let asked = Asked::Reserve(request.engine.clone(), request.amount);
            (asked, Item { operation: Operation::reserve(request), origin, intent })
        }
        Some("settle") => {
            let (input, intent) = key.read::<SettleInput>(&fields, "settle", None)?;
            let (request, origin) = input.read(caller);
            (Asked::Other("settle"), Item { operation: Operation::Settle(request), origin, intent })
        }
        Some("release") => {
            let id = id(&mut fields)?;
            let (input, intent) = key.read::<ReleaseReservation>(&fields, "release", Some(id))?;
            let (request, origin) = input.read(id, caller);
            (Asked::Other("release"), Item { operation: Operation::Release(request), origin, intent })
        }
        Some("extend") => {
            let id = id(&mut fields)?;
            let (input, intent) = key.read::<ExtendReservation>(&fields, "extend", Some(id))?;
            let (request, origin) = input.read(id, caller);
            (Asked::Other("extend"), Item { operation: Operation::Extend(request), origin, intent })
        }
        Some("adjust") => {
            let (input, intent) = key.read::<AdjustInput>(&fields, "adjust", None)?;
            let (request, origin) = input.read(caller)?;
            (Asked::Other("adjust"), Item { operation: Operation::Adjust(request), origin, intent })
        }
        _ => return Err(Error::invalid("op", format!("is not one of {}: send one", OPERATIONS.join(", ")))),
    };
    Ok(read)
}

/// The key of one operation of a batch: its own, or the batch's with its place.
struct OwnKey {
    key: Option<String>,
    caller: Caller,
}

impl OwnKey {
    fn take(fields: &mut Vec<Field>, caller: &Caller, derived: Option<String>) -> Result<Self> {
        let own: Option<String> = take_field(fields, "idempotency_key")?;
        let own = own.map(|key| read_key(&key).map(|key| key.to_string())).transpose()?;
        Ok(Self { key: own.or(derived), caller: caller.clone() })
    }

    fn read<T: DeserializeOwned + Serialize>(
        self,
        fields: &[Field],
        op: &str,
        id: Option<Uuid>,
    ) -> Result<(T, Option<Intent>)> {
        let input: T = parse(fields)?;
        let intent = self.key.map(|key| Intent {
            principal: self.caller.principal,
            key,
            route: id.map_or_else(|| format!("/risk/batch#{op}"), |id| format!("/risk/batch#{op}/{id}")),
            fields: Fields::of(&input),
        });
        Ok((input, intent))
    }
}

fn result(asked: Asked, done: Result<Done>) -> BatchResult {
    let op = asked.op();
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
    let Done { outcome, replayed, standing, stops } = match done {
        Ok(done) => done,
        Err(error) => return failed(error, false),
    };
    let answer = match (outcome, asked) {
        (Outcome::Reserved(outcome), Asked::Reserve(engine, amount)) => {
            to_json(&ReserveAnswer::new(engine, amount, false, Done { outcome, replayed, standing, stops }))
        }
        (Outcome::Settled(outcome), _) => to_json(&SettleAnswer::from(Done { outcome, replayed, standing, stops })),
        (Outcome::Released(outcome), _) => to_json(&ReleaseAnswer::from(Done { outcome, replayed, standing, stops })),
        (Outcome::Adjusted(outcome), _) => to_json(&AdjustAnswer::from(Done { outcome, replayed, standing, stops })),
        (Outcome::Extended(outcome), _) => match extended(Done { outcome, replayed, standing, stops }) {
            Ok(answer) => to_json(&answer),
            Err(error) => return failed(error, replayed),
        },
        (Outcome::Waiting(request), _) => {
            return BatchResult { op, status: 202, replayed, answer: Some(request), error: None };
        }
        (Outcome::Deferred(_), _) => {
            return failed(Error::Inconsistent("what waits was not asked for".into()), replayed);
        }
        (Outcome::Reserved(_), _) => {
            return failed(Error::Inconsistent("a reserve was not asked for".into()), replayed);
        }
    };
    BatchResult { op, status: 200, replayed, answer: Some(answer), error: None }
}
