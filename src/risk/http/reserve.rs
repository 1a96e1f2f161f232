//! Reserves: by `check-and-reserve`, and as a resource.

use super::decision::{decided, hint, kept_hint, raw};
use crate::error::{Error, Result};
use crate::http::{BASE_PATH, Change, errors, said};
use crate::idempotency::Asked;
use crate::risk::Risk;
use crate::risk::model::reserve::{Decision, DenialReason, Failure};
use crate::risk::model::{Annotations, LedgerSnapshot, PolicySnapshot, ReservationStatus};
use crate::risk::operation::{Answered, ReserveRequest, Reserved};
use crate::types::{Actor, Amount, CorrelationId, Engine, Flag, IdempotencyKey, JsonObject, Reason, Ttl};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Days, NaiveTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

said!(with correlation_id: CheckAndReserve);

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(reserve)).routes(routes!(make_reservation))
}

/// A reserve that is asked for, before the action is done.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckAndReserve {
    /// The engine that acts.
    engine: Engine,
    /// How much is put at risk; more than 0.
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 1_000_000_000_000_u64)]
    amount: Amount,
    /// The actor.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
    /// The caller's own thread; a settle can name it.
    correlation_id: Option<CorrelationId>,
    /// Whatever else belongs to it.
    metadata: Option<JsonObject>,
    /// Seconds after which the hold expires if nobody has ended it; left out, what the engine's policy says.
    ttl_seconds: Option<Ttl>,
    /// The id that the reservation shall have, chosen by the caller; left out, a new one. The same id and input is answered
    /// alike and reserves once.
    reservation_id: Option<Uuid>,
    /// Ask without reserving: the same decision, and nothing is written. Never blank: that could be meant either way.
    #[serde(default, deserialize_with = "some_flag", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Flag, required = false)]
    dry_run: Option<Flag>,
    /// The caller's name for this change; the header Idempotency-Key is the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// A flag that is there or not, but never blank.
fn some_flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Flag>, D::Error> {
    let blank = || serde::de::Error::custom("is blank: send true or false, or leave it out");
    Option::<Flag>::deserialize(deserializer)?.map(Some).ok_or_else(blank)
}

impl CheckAndReserve {
    /// Whether it is only asked.
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

/// Checks both levels and reserves, or says why not.
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

/// Reserves, for clients that look only at the status: 201 when allowed, 409 when denied.
#[utoipa::path(
    post, path = "/risk/reservations", tag = "risk", request_body = CheckAndReserve,
    responses(
        (status = 201, description = "Reserved; Location is the reservation", body = ReserveAnswer),
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

/// A decision. `ok` says whether the action may be done; the status is 200 either way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReserveAnswer {
    /// Whether the action may be done.
    pub(super) ok: bool,
    /// The engine asked for.
    engine: Engine,
    /// The reserved amount; 0 when denied.
    reserved: Amount,
    /// `Reserved`, or the first failure as a sentence.
    message: String,
    /// The caps of the level that failed first, else of the engine; null where there is no policy.
    policy_snapshot: Option<PolicySnapshot>,
    /// The counters of that level, after the decision.
    ledger_snapshot: LedgerSnapshot,
    /// The id that a settle names; null when denied or dry.
    pub(super) reservation_id: Option<Uuid>,
    /// When the hold expires; null when it never does, or when denied.
    expires_at: Option<DateTime<Utc>>,
    /// The first failure; null when allowed.
    reason: Option<DenialReason>,
    /// The level of the first failure: `SYSTEM`, `GLOBAL` or the engine.
    scope: Option<String>,
    /// Everything that failed, in order.
    failures: Vec<Failure>,
    /// Whether it was only asked.
    dry_run: bool,
    /// Whether it was decided before, under the same key or id; nothing was done this time.
    pub(super) replayed: bool,
    /// Where the hold stands now; null when denied or dry.
    status: Option<ReservationStatus>,
    /// Whole seconds until the hold expires; null when it never does, or there is none that is open.
    expires_in_seconds: Option<i64>,
    /// The next step of the caller; null when allowed.
    hint: Option<String>,
}

const RESERVED: &str = "reserved";

fn decisions(outcome: &'static str) -> metrics::Counter {
    metrics::counter!("holdfast_reserve_decisions_total", "outcome" => outcome)
}

/// A counter that begins with its first event has no increase at that: all of them are there from the start.
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

    /// The denial as an error, for a caller that looks only at the status.
    pub(super) fn denied(self) -> Error {
        let resets_at = self.resets_at();
        let members = vec![
            ("ok", raw(&self.ok)),
            ("engine", raw(&self.engine)),
            ("reserved", raw(&self.reserved)),
            ("message", raw(&self.message)),
            ("policy_snapshot", raw(&self.policy_snapshot)),
            ("ledger_snapshot", raw(&self.ledger_snapshot)),
            ("reservation_id", raw(&self.reservation_id)),
            ("expires_at", raw(&self.expires_at)),
            ("reason", raw(&self.reason)),
            ("scope", raw(&self.scope)),
            ("failures", raw(&self.failures)),
            ("dry_run", raw(&self.dry_run)),
            ("replayed", raw(&self.replayed)),
            ("hold_status", raw(&self.status)),
            ("expires_in_seconds", raw(&self.expires_in_seconds)),
            ("resets_at", raw(&resets_at)),
            ("hint", raw(&self.hint)),
        ];
        Error::ReservationDenied { message: self.message, members }
    }

    /// When the denial ends by itself: the flows of a day begin anew at midnight, nothing else does, and an amount above a whole
    /// day's cap never fits.
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
