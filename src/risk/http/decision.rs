//! Answers of the ledger: their headers, and the next step after a denial.

use crate::db::to_json;
use crate::http::marked;
use crate::risk::model::DenialReason;
use crate::risk::model::reserve::Failure;
use crate::risk::operation::Answered;
use crate::types::Total;
use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

/// Says what a ledger decision was without reading the body: `allow` or `deny`.
const DECISION: HeaderName = HeaderName::from_static("holdfast-decision");

/// A decision as a response, with its headers.
pub(super) fn decided(ok: bool, replayed: bool, response: impl IntoResponse) -> Response {
    let header = HeaderValue::from_static(if ok { "allow" } else { "deny" });
    marked(replayed, ([(DECISION, header)], response))
}

/// An outcome as its answer, marked if it is a replay.
pub(super) fn answered<T, A: From<Answered<T>> + Serialize>(done: Answered<T>) -> Response {
    marked(done.replayed, Json(A::from(done)))
}

pub(super) fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    to_json(value)
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

/// The next step when a daily cap is used up: the flows begin again at midnight.
const UNTIL_MIDNIGHT: &str = "wait until midnight UTC";
