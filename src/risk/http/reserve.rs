//! Reserves: by `check-and-reserve`, and as a resource.

use crate::db::to_json;
use crate::error::{Error, Result};
use crate::http::{BASE_PATH, Change, errors, marked, said};
use crate::idempotency::Asked;
use crate::risk::Risk;
use crate::risk::model::reserve::{Decision, Failure};
use crate::risk::model::{Annotations, DenialReason, LedgerSnapshot, PolicySnapshot, ReservationStatus};
use crate::risk::operation::{Answered, ReserveRequest, Reserved};
use crate::types::{Actor, Amount, CorrelationId, Engine, Flag, IdempotencyKey, JsonObject, Reason, Total, Ttl};
use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Days, NaiveTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// Says what a ledger decision was without reading the body: `allow` or `deny`.
const DECISION: HeaderName = HeaderName::from_static("holdfast-decision");

/// The next step when a daily cap is used up: the flows begin again at midnight.
const UNTIL_MIDNIGHT: &str = "wait until midnight UTC";

said!(with correlation_id: CheckAndReserve);

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(reserve)).routes(routes!(make_reservation))
}

/// A reserve, to be made before the action.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckAndReserve {
    /// The engine that will act.
    engine: Engine,
    /// The amount at risk; more than 0.
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 1_000_000_000_000_u64)]
    amount: Amount,
    /// The acting person or program.
    actor: Option<Actor>,
    /// The reason for the action.
    reason: Option<Reason>,
    /// The caller's own id for requests that belong together; a settle can name it.
    correlation_id: Option<CorrelationId>,
    /// Further data of the caller.
    metadata: Option<JsonObject>,
    /// The lifetime of the hold in seconds; if left out, the default of the engine's policy.
    ttl_seconds: Option<Ttl>,
    /// The reservation's id, chosen by the caller; if left out, a new one. The same id and input reserve once and get
    /// the same answer.
    reservation_id: Option<Uuid>,
    /// True for the same decision without reserving: nothing is written. A blank value is refused, because its meaning
    /// is ambiguous.
    #[serde(default, deserialize_with = "some_flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Flag, required = false)]
    dry_run: Option<Flag>,
    /// The idempotency key; the header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// A flag that may be left out but not blank.
fn some_flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Flag>, D::Error> {
    let blank = || serde::de::Error::custom("is blank: send true or false, or leave it out");
    Option::<Flag>::deserialize(deserializer)?.map(Some).ok_or_else(blank)
}

impl CheckAndReserve {
    /// True for a dry run.
    pub(super) fn is_dry(&self) -> bool {
        self.dry_run.is_some_and(|flag| flag.0)
    }

    pub(super) fn request(self) -> ReserveRequest {
        ReserveRequest {
            engine: self.engine,
            amount: self.amount,
            ttl: self.ttl_seconds,
            reservation_id: self.reservation_id,
            annotations: Annotations { reason: self.reason, metadata: self.metadata },
        }
    }
}

async fn decide(risk: &Risk, input: CheckAndReserve, asked: Asked) -> Result<ReserveAnswer> {
    let dry_run = input.is_dry();
    let request = input.request();
    let done = if dry_run { risk.dry_run(request, asked).await? } else { risk.decide(request, asked).await? };
    Ok(ReserveAnswer::new(dry_run, done))
}

/// Checks both levels and reserves, or returns the reasons of the denial.
#[utoipa::path(
    post, path = "/risk/check-and-reserve", tag = "risk", request_body = CheckAndReserve,
    responses(
        (status = 200, description = "Allowed or denied: read `ok`, or the header Holdfast-Decision", body = ReserveAnswer),
        errors::Change
    )
)]
async fn reserve(State(risk): State<Risk>, Change { input, asked }: Change<CheckAndReserve>) -> Result<Response> {
    let answer = decide(&risk, input, asked).await?;
    Ok(decided(answer.ok, answer.replayed, Json(answer)))
}

/// Reserves, for clients that check only the status: 201 if allowed, 409 if denied.
#[utoipa::path(
    post, path = "/risk/reservations", tag = "risk", request_body = CheckAndReserve,
    responses(
        (status = 201, description = "Reserved; Location is the reservation's path", body = ReserveAnswer),
        (status = 200, description = "A dry run that would be allowed", body = ReserveAnswer),
        errors::Change
    )
)]
async fn make_reservation(
    State(risk): State<Risk>,
    Change { input, asked }: Change<CheckAndReserve>,
) -> Result<Response> {
    let answer = decide(&risk, input, asked).await?;
    if !answer.ok {
        return Ok(decided(false, answer.replayed, answer.denied()));
    }
    let replayed = answer.replayed;
    let response = match answer.reservation_id {
        Some(id) => {
            let location = format!("{BASE_PATH}/risk/reservations/{id}");
            (StatusCode::CREATED, [(LOCATION, location)], Json(answer)).into_response()
        }
        None => Json(answer).into_response(),
    };
    Ok(decided(true, replayed, response))
}

/// A decision. `ok` says whether the action may be done; the status is 200 in both cases.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReserveAnswer {
    /// True if the action may be done.
    pub(super) ok: bool,
    /// The requested engine.
    engine: Engine,
    /// The reserved amount; 0 if denied.
    reserved: Amount,
    /// `Reserved`, or the first failure as a sentence.
    message: String,
    /// The caps of the level that failed first, else of the engine; null if there is no policy.
    policy_snapshot: Option<PolicySnapshot>,
    /// The counters of that level after the decision.
    ledger_snapshot: LedgerSnapshot,
    /// The id for the settle; null if denied or a dry run.
    pub(super) reservation_id: Option<Uuid>,
    /// The expiry of the hold; null if it has none, or if denied.
    expires_at: Option<DateTime<Utc>>,
    /// The first failure; null if allowed.
    reason: Option<DenialReason>,
    /// The level of the first failure: `SYSTEM`, `GLOBAL` or the engine.
    scope: Option<String>,
    /// Every failure, in the order of the checks.
    failures: Vec<Failure>,
    /// True for a dry run.
    dry_run: bool,
    /// True if it was decided before, under the same key or id; nothing was done this time.
    pub(super) replayed: bool,
    /// The status of the hold now; null if denied or a dry run.
    status: Option<ReservationStatus>,
    /// Whole seconds until the hold expires; null if it has no expiry, or if no hold is open.
    expires_in_seconds: Option<i64>,
    /// The caller's next step; null if allowed.
    hint: Option<String>,
}

const RESERVED: &str = "reserved";

fn decisions(outcome: &'static str) -> metrics::Counter {
    metrics::counter!("holdfast_reserve_decisions_total", "outcome" => outcome)
}

/// Creates the counters at the start: otherwise a counter's first event would show no increase.
pub(crate) fn begin_counting() {
    crate::risk::alarm::begin_counting();
    for outcome in DenialReason::ALL.map(DenialReason::as_str).into_iter().chain([RESERVED]) {
        decisions(outcome).increment(0);
    }
}

impl ReserveAnswer {
    /// The answer to a reserve. A decision is counted when it is made, not when it is replayed.
    pub(super) fn new(dry_run: bool, done: Answered<Reserved>) -> Self {
        let Answered { outcome: reserved, replayed, standing, stops } = done;
        let was_allowed = reserved.decision.is_allowed();
        let Decision { failures, policy, ledger, expires_at, filled: _ } = reserved.decision;
        // An allowed action may be done once, and only while nothing stops it.
        let failures = if was_allowed { stops } else { failures };
        let ok = failures.is_empty();
        let first = failures.first();
        let outcome = first.map_or(RESERVED, |failure| failure.reason.as_str());
        if !dry_run && !replayed {
            decisions(outcome).increment(1);
        }
        let standing = standing.filter(|_| !dry_run);
        let mut answer = Self {
            ok,
            engine: reserved.engine,
            reserved: if ok { reserved.amount } else { Amount::ZERO },
            message: first.map_or_else(|| "Reserved".to_owned(), Failure::sentence),
            policy_snapshot: policy,
            ledger_snapshot: ledger,
            reservation_id: reserved.reservation_id.filter(|_| !dry_run),
            expires_at,
            reason: first.map(|failure| failure.reason),
            scope: first.map(|failure| failure.scope.clone()),
            failures,
            dry_run,
            replayed,
            status: standing.map(|standing| standing.status),
            expires_in_seconds: standing.and_then(|standing| standing.expires_in_seconds),
            hint: None,
        };
        answer.hint = kept_hint(hint(&answer.failures, answer.resets_at()), replayed && !was_allowed);
        answer
    }

    /// The denial as an error, for a caller that checks only the status.
    pub(super) fn denied(self) -> Error {
        let resets_at = self.resets_at();
        let members = vec![
            ("ok", to_json(&self.ok)),
            ("engine", to_json(&self.engine)),
            ("reserved", to_json(&self.reserved)),
            ("message", to_json(&self.message)),
            ("policy_snapshot", to_json(&self.policy_snapshot)),
            ("ledger_snapshot", to_json(&self.ledger_snapshot)),
            ("reservation_id", to_json(&self.reservation_id)),
            ("expires_at", to_json(&self.expires_at)),
            ("reason", to_json(&self.reason)),
            ("scope", to_json(&self.scope)),
            ("failures", to_json(&self.failures)),
            ("dry_run", to_json(&self.dry_run)),
            ("replayed", to_json(&self.replayed)),
            ("hold_status", to_json(&self.status)),
            ("expires_in_seconds", to_json(&self.expires_in_seconds)),
            ("resets_at", to_json(&resets_at)),
            ("hint", to_json(&self.hint)),
        ];
        Error::ReservationDenied { message: self.message, members }
    }

    /// The time at which the denial ends by itself: midnight, if only daily flows failed; none for any other failure,
    /// or for an amount above a whole day's cap.
    fn resets_at(&self) -> Option<DateTime<Utc>> {
        let ends = |failure: &Failure| match failure.reason {
            DenialReason::DailyActionsExceeded | DenialReason::DailyLossReached => true,
            DenialReason::DailyExposureExceeded => failure.requested <= failure.limit,
            _ => false,
        };
        if self.failures.is_empty() || !self.failures.iter().all(ends) {
            return None;
        }
        let tomorrow = self.ledger_snapshot.day.checked_add_days(Days::new(1))?;
        Some(tomorrow.and_time(NaiveTime::MIN).and_utc())
    }
}

/// A decision as a response, with its headers.
pub(super) fn decided(ok: bool, replayed: bool, response: impl IntoResponse) -> Response {
    let header = HeaderValue::from_static(if ok { "allow" } else { "deny" });
    marked(replayed, ([(DECISION, header)], response))
}

/// The next step after a denial: for the first failure that a smaller amount would not fix, else the amount that would
/// fit.
pub(super) fn hint(failures: &[Failure], resets_at: Option<DateTime<Utc>>) -> Option<String> {
    let first = failures.iter().find(|failure| !is_mended_by_less(failure)).or(failures.first())?;
    Some(match first.reason {
        DenialReason::KillSwitchEngaged => {
            "everything is stopped: wait until an operator releases the kill switch, and \
             removes the kill file of this instance if GET /readyz shows one"
                .into()
        }
        DenialReason::GoLiveDisabled => "production is off: wait until an operator enables go-live".into(),
        DenialReason::PolicyMissing => format!("{} has no policy: set its caps first", first.scope),
        DenialReason::PolicyDisabled => {
            format!("{} is disabled, by an operator or by a tripwire: see throttled_by of its policy", first.scope)
        }
        DenialReason::DailyActionsExceeded => format!("no more actions today: {UNTIL_MIDNIGHT}"),
        DenialReason::DailyExposureExceeded | DenialReason::OpenRiskExceeded => less(failures, resets_at),
        DenialReason::DailyLossReached => format!("the day's loss has reached its cap: {UNTIL_MIDNIGHT}"),
        DenialReason::HoldEnded => {
            "it was allowed before and may have been done: do not repeat it; a new action needs a new key".into()
        }
    })
}

/// The next step after a replayed denial: the key keeps the denial, whatever has changed since.
pub(super) fn kept_hint(hint: Option<String>, is_kept: bool) -> Option<String> {
    hint.map(|hint| if is_kept { format!("this key keeps its denial: use a new key; {hint}") } else { hint })
}

/// The amount that would fit under every exceeded cap.
fn room(failures: &[Failure]) -> Total {
    let rooms = failures.iter().filter(|failure| is_mended_by_less(failure)).filter_map(|failure| {
        let left = failure.limit?.minus(failure.used?)?;
        Some(left.max(Total::ZERO))
    });
    rooms.min().unwrap_or_default()
}

/// True if a smaller amount would pass this check.
fn is_mended_by_less(failure: &Failure) -> bool {
    matches!(failure.reason, DenialReason::DailyExposureExceeded | DenialReason::OpenRiskExceeded)
}

/// The next step if a smaller amount would pass every failed check.
fn less(failures: &[Failure], resets_at: Option<DateTime<Utc>>) -> String {
    let frees =
        |failure: &Failure| failure.reason == DenialReason::OpenRiskExceeded && failure.requested <= failure.limit;
    let other = failures.iter().all(frees).then_some("settle or release open reservations");
    let other = other.or(resets_at.map(|_| UNTIL_MIDNIGHT));
    match (room(failures), other) {
        (Total::ZERO, Some(other)) => format!("nothing fits now: {other}"),
        (Total::ZERO, None) => "nothing fits now: see failures for every condition that must change".into(),
        (room, Some(other)) => format!("ask for at most {room}, or {other}"),
        (room, None) => format!("ask for at most {room}"),
    }
}
