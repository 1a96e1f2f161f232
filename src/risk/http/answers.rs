//! What the ledger answers.

use crate::db::to_json;
use crate::error::Error;
use crate::http::marked;
use crate::risk::model::adjust::Adjustment;
use crate::risk::model::extend::Extension;
use crate::risk::model::release::Released;
use crate::risk::model::reserve::{Decision, DenialReason, Failure};
use crate::risk::model::settle::{SettledReservation, Settlement};
use crate::risk::model::{LedgerSnapshot, PolicySnapshot, ReservationStatus};
use crate::risk::operation::{Done, Reserved};
use crate::types::{Amount, Engine, Total};
use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Days, NaiveTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

/// Says what a ledger decision was without reading the body: `allow` or `deny`.
const DECISION: HeaderName = HeaderName::from_static("holdfast-decision");

/// A decision. `ok` says whether the action may be done; the status is 200 either way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReserveAnswer {
    /// Whether the action may be done.
    pub(super) ok: bool,
    /// The engine asked for.
    engine: Engine,
    /// What was reserved; 0 when denied.
    reserved: Amount,
    /// `Reserved`, or the first failure as a sentence.
    message: String,
    /// The caps of the level that failed first, else of the engine; null where there is no policy.
    policy_snapshot: Option<PolicySnapshot>,
    /// The counters of that level, after the decision.
    ledger_snapshot: LedgerSnapshot,
    /// What a settle names; null when denied or dry.
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
    /// What the caller can do; null when allowed.
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
    /// The answer to a reserve of this engine and amount. A decision is counted when it is made, not when it is replayed.
    pub(super) fn new(engine: Engine, amount: Amount, dry_run: bool, done: Done<Reserved>) -> Self {
        let Done { outcome: reserved, replayed, standing, stops } = done;
        let was_allowed = reserved.decision.is_allowed();
        let Decision { failures, policy, ledger, expires_at, filled: _ } = reserved.decision;
        // What was allowed may be done once, and only while nothing stops it.
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
            engine,
            reserved: if ok { amount } else { Amount::ZERO },
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

fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    to_json(value)
}

/// What would fit under every cap that the amount exceeds.
fn room(failures: &[Failure]) -> Total {
    let rooms = failures.iter().filter(|failure| is_mended_by_less(failure)).filter_map(|failure| {
        let left = failure.limit?.minus(failure.used?)?;
        Some(left.max(Total::ZERO))
    });
    rooms.min().unwrap_or_default()
}

/// Whether a smaller amount would not fail this check.
fn is_mended_by_less(failure: &Failure) -> bool {
    matches!(failure.reason, DenialReason::DailyExposureExceeded | DenialReason::OpenRiskExceeded)
}

/// The caller's way out where a smaller amount mends all that fails.
fn less(failures: &[Failure], resets_at: Option<DateTime<Utc>>) -> String {
    let frees =
        |failure: &Failure| failure.reason == DenialReason::OpenRiskExceeded && failure.requested <= failure.limit;
    let other = failures.iter().all(frees).then_some("settle or release what is open");
    let other = other.or(resets_at.map(|_| UNTIL_MIDNIGHT));
    match (room(failures), other) {
        (Total::ZERO, Some(other)) => format!("nothing fits now: {other}"),
        (Total::ZERO, None) => "nothing fits now: see failures for all that has to change".into(),
        (room, Some(other)) => format!("ask for at most {room}, or {other}"),
        (room, None) => format!("ask for at most {room}"),
    }
}

/// When the flows of a day begin anew.
const UNTIL_MIDNIGHT: &str = "wait until midnight UTC";

/// The caller's way out of a denial: about its first failure that no smaller amount mends, else with how much.
fn hint(failures: &[Failure], resets_at: Option<DateTime<Utc>>) -> Option<String> {
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
            format!("{} is off, by hand or by a tripwire: see throttled_by of its policy", first.scope)
        }
        DenialReason::DailyActionsExceeded => format!("no more actions today: {UNTIL_MIDNIGHT}"),
        DenialReason::DailyExposureExceeded | DenialReason::OpenRiskExceeded => less(failures, resets_at),
        DenialReason::DailyLossReached => format!("the day's loss is reached: {UNTIL_MIDNIGHT}"),
        DenialReason::HoldEnded => {
            "it was allowed before, and may have been done: do not do it again; a new action needs a new key".into()
        }
    })
}

/// The way on from a denial that is told again: it stays under its key, whatever has changed since.
fn kept_hint(hint: Option<String>, is_kept: bool) -> Option<String> {
    hint.map(|hint| if is_kept { format!("this key keeps its denial: use a new key; {hint}") } else { hint })
}

/// A decision on its way out, with its headers.
pub(super) fn decided(ok: bool, replayed: bool, response: impl IntoResponse) -> Response {
    let header = HeaderValue::from_static(if ok { "allow" } else { "deny" });
    marked(replayed, ([(DECISION, header)], response))
}

/// What came of a settle.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettleAnswer {
    /// Always true: what happened is recorded.
    ok: bool,
    /// `Settled`.
    message: &'static str,
    /// `overrun`, `over_release` or `more_open: …`, `dust_left: …`, `… daily loss cap reached`.
    flags: Vec<String>,
    /// The engine's counters after it.
    ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after it.
    ledger_global: LedgerSnapshot,
    /// Open risk returned.
    released: Total,
    /// What found no open reservation.
    unmatched: Total,
    /// Whether the reservation had expired before: its risk was returned then.
    late: bool,
    /// The reservations it touched, in order, each with where it stands now.
    reservations: Vec<SettledReservation>,
    /// Whether it was told before, under the same key; nothing was done this time.
    replayed: bool,
    /// Where the hold stands now; null where it touched none or several.
    status: Option<ReservationStatus>,
    /// Whole seconds until what is left of the hold expires; null where nothing is left, or where it never does.
    expires_in_seconds: Option<i64>,
}

impl From<Done<Settlement>> for SettleAnswer {
    fn from(Done { outcome, replayed, standing, .. }: Done<Settlement>) -> Self {
        let Settlement { flags, released, unmatched, late, reservations, ledger_engine, ledger_global, .. } = outcome;
        let status = standing.map(|standing| standing.status);
        let expires_in_seconds = standing.and_then(|standing| standing.expires_in_seconds);
        Self {
            ok: true,
            message: "Settled",
            flags,
            ledger_engine,
            ledger_global,
            released,
            unmatched,
            late,
            reservations,
            replayed,
            status,
            expires_in_seconds,
        }
    }
}

/// What came of a release.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReleaseAnswer {
    /// Always true.
    ok: bool,
    /// `Released`.
    message: &'static str,
    #[serde(flatten)]
    released: Released,
    /// Whether it was told before, under the same key; nothing was done this time.
    replayed: bool,
    /// Where the hold stands now.
    status: Option<ReservationStatus>,
    /// Always null: nothing is left.
    expires_in_seconds: Option<i64>,
}

impl From<Done<Released>> for ReleaseAnswer {
    fn from(Done { outcome: released, replayed, standing, .. }: Done<Released>) -> Self {
        let status = standing.map(|standing| standing.status);
        Self { ok: true, message: "Released", released, replayed, status, expires_in_seconds: None }
    }
}

/// What came of an extension.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExtendAnswer {
    /// Always true; a denied extension is 409.
    ok: bool,
    /// `Extended`.
    message: &'static str,
    /// The reservation.
    reservation_id: Uuid,
    /// When it expired after that.
    expires_at: DateTime<Utc>,
    /// Whether it was decided before, under the same key; nothing was done this time.
    replayed: bool,
    /// Where the hold stands now.
    status: Option<ReservationStatus>,
    /// Whole seconds until it expires; null when it has ended.
    expires_in_seconds: Option<i64>,
}

/// The answer to an extension, or its denial.
pub(super) fn extended(done: Done<Extension>) -> Result<ExtendAnswer, Error> {
    let Done { outcome: Extension { reservation_id, expires_at, failures }, replayed, standing, stops } = done;
    let was_allowed = failures.is_empty();
    let failures = if was_allowed { stops } else { failures };
    let status = standing.map(|standing| standing.status);
    let expires_in_seconds = standing.and_then(|standing| standing.expires_in_seconds);
    let Some(first) = failures.first() else {
        let message = "Extended";
        return Ok(ExtendAnswer {
            ok: true,
            message,
            reservation_id,
            expires_at,
            replayed,
            status,
            expires_in_seconds,
        });
    };
    let message = first.sentence();
    let members = vec![
        ("ok", raw(&false)),
        ("message", raw(&message)),
        ("reservation_id", raw(&reservation_id)),
        ("expires_at", raw(&expires_at)),
        ("reason", raw(&first.reason)),
        ("scope", raw(&first.scope)),
        ("failures", raw(&failures)),
        ("replayed", raw(&replayed)),
        ("hold_status", raw(&status)),
        ("expires_in_seconds", raw(&expires_in_seconds)),
        ("hint", raw(&kept_hint(hint(&failures, None), replayed && !was_allowed))),
    ];
    Err(Error::ExtensionDenied { message, members })
}

/// What came of a correction.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdjustAnswer {
    /// Always true.
    ok: bool,
    /// `Adjusted`.
    message: &'static str,
    #[serde(flatten)]
    adjustment: Adjustment,
    /// Whether it was booked before, under the same key; nothing was done this time.
    replayed: bool,
}

impl From<Done<Adjustment>> for AdjustAnswer {
    fn from(Done { outcome: adjustment, replayed, .. }: Done<Adjustment>) -> Self {
        Self { ok: true, message: "Adjusted", adjustment, replayed }
    }
}

/// An outcome as its answer, marked if it is an earlier one.
pub(super) fn answered<T, A: From<Done<T>> + Serialize>(done: Done<T>) -> Response {
    marked(done.replayed, Json(A::from(done)))
}
