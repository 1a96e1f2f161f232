//! Reserve before execute: may this amount be taken now, on both levels?
//!
//! The checks in order: the system (kill switch, go-live), then GLOBAL, then the engine. On each level the policy must
//! exist and be enabled, there must be room for one more action, for the exposure and for the open risk, and the day's
//! loss must be below its cap. The first failure is the reason; all failures are listed. Equality passes at every cap
//! but the loss, which stops when it is reached. A cap of 0 is no cap. Every path uses this one comparison.

use super::{
    Annotations, Book, DenialReason, Floor, LedgerSnapshot, Level, Movement, OutOfRange, PolicySnapshot, Reservation,
    ReservationStatus, RiskAction, RiskEvent, RiskPolicy, Usage,
};
use crate::audit::Stamp;
use crate::types::{Amount, Engine, Total, Ttl};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The level above GLOBAL: the switches.
const SYSTEM: &str = "SYSTEM";

/// A failed check with its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The reason of the failure.
    pub reason: DenialReason,
    /// The level: `SYSTEM`, `GLOBAL` or the engine.
    pub scope: String,
    /// The cap; null for checks without a number.
    pub limit: Option<Total>,
    /// The use before the reserve; null for checks without a number.
    pub used: Option<Total>,
    /// The requested addition; null for checks without a number.
    pub requested: Option<Total>,
    /// The failure as a sentence, without its level.
    pub message: String,
}

/// A requested reserve.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// The engine that will act; never GLOBAL.
    pub engine: Engine,
    /// The amount at risk; more than zero.
    pub amount: Amount,
    /// The id of the reservation if it is allowed.
    pub id: Uuid,
    /// The lifetime of the hold; none for the default of the engine's policy.
    pub ttl: Option<Ttl>,
    /// The caller's correlation id.
    pub correlation_id: Option<String>,
}

/// A decision and its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The failed checks; empty if it is allowed.
    pub failures: Vec<Failure>,
    /// The caps of the level that failed first, else of the engine; none if there is no policy.
    pub policy: Option<PolicySnapshot>,
    /// The counters of that level after the decision.
    pub ledger: LedgerSnapshot,
    /// The time at which the hold is due; none if denied, or without expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// The counters of GLOBAL that it brought to their caps, which stops every engine. Only for the log; no event has
    /// it.
    #[serde(skip)]
    pub filled: Vec<&'static str>,
}

impl Decision {
    /// True if the reserve is allowed.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The decision as a sentence: `Reserved`, or `<scope> hard stop: …` with the first failure.
    #[must_use]
    pub fn message(&self) -> String {
        self.failures.first().map_or_else(|| "Reserved".to_owned(), Failure::sentence)
    }
}

impl Failure {
    /// The failure as a sentence, with its level.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!("{} hard stop: {}", self.scope, self.message)
    }

    /// A failed check without a number.
    fn of(reason: DenialReason, scope: &str, message: String) -> Self {
        Self { reason, scope: scope.into(), limit: None, used: None, requested: None, message }
    }

    /// A level or the system that is off.
    fn off(reason: DenialReason, scope: &str) -> Self {
        Self::of(reason, scope, message(reason, None, None, None).unwrap_or_default())
    }
}

/// The sentence of a failed check, from its numbers; none where it takes more than these.
pub(super) fn message(
    reason: DenialReason,
    limit: Option<Total>,
    used: Option<Total>,
    requested: Option<Total>,
) -> Option<String> {
    let beyond = |cap: &str| {
        let (limit, used, requested) = (limit?, used?, requested?);
        let after = used.plus(requested).map_or_else(|| format!("{used} + {requested}"), |after| after.to_string());
        Some(format!("{cap} cap exceeded ({after} > {limit})"))
    };
    match reason {
        DenialReason::KillSwitchEngaged => Some("Kill switch engaged".to_owned()),
        DenialReason::GoLiveDisabled => Some("Go-live disabled".to_owned()),
        DenialReason::PolicyMissing => Some("Policy missing".to_owned()),
        DenialReason::PolicyDisabled => Some("Policy disabled".to_owned()),
        DenialReason::DailyActionsExceeded => beyond("Actions/day"),
        DenialReason::DailyExposureExceeded => beyond("Daily exposure"),
        DenialReason::OpenRiskExceeded => beyond("Open risk"),
        DenialReason::DailyLossReached => {
            let (limit, used) = (limit?, used?);
            Some(format!("Daily loss cap already reached ({used} >= {limit})"))
        }
        DenialReason::HoldEnded => None,
    }
}

/// The reasons why an action that was allowed before may not be done now: its hold has ended, or a new one would be
/// stopped, whatever the caps.
#[must_use]
pub fn stops_of(book: &Book, held: Option<&Reservation>, engine: &Engine, now: DateTime<Utc>) -> Vec<Failure> {
    match held {
        Some(held) if held.is_live(now) => check_standing(book, &held.engine),
        held => {
            let how = held.map_or("unknown", |held| held.status_at(now).as_str());
            vec![Failure::of(DenialReason::HoldEnded, engine.as_str(), format!("Hold ended ({how})"))]
        }
    }
}

/// Every check that this reserve fails, in order.
#[must_use]
pub fn check(book: &Book, engine: &Engine, amount: Amount) -> Vec<Failure> {
    check_with(book, engine, |policy, usage| check_caps(policy, usage, amount))
}

/// Every failed check except the caps: whether any new hold is possible at all.
#[must_use]
pub fn check_standing(book: &Book, engine: &Engine) -> Vec<Failure> {
    check_with(book, engine, |_, _| Vec::new())
}

fn check_with(book: &Book, engine: &Engine, caps: impl Fn(&RiskPolicy, &Usage) -> Vec<Failure>) -> Vec<Failure> {
    let mut failures = Vec::new();
    if book.switches.kill_switch_engaged {
        failures.push(Failure::off(DenialReason::KillSwitchEngaged, SYSTEM));
    }
    if book.switches.go_live_required && !book.switches.go_live_enabled {
        failures.push(Failure::off(DenialReason::GoLiveDisabled, SYSTEM));
    }
    for engine in [&Engine::global(), engine] {
        let Some(Level { policy: Some(policy), usage }) = book.levels.get(engine) else {
            failures.push(Failure::off(DenialReason::PolicyMissing, engine.as_str()));
            continue;
        };
        if !policy.is_active() {
            failures.push(Failure::off(DenialReason::PolicyDisabled, engine.as_str()));
        }
        failures.extend(caps(policy, usage));
    }
    failures
}

fn check_caps(policy: &RiskPolicy, usage: &Usage, amount: Amount) -> Vec<Failure> {
    let count = |count: i64| Total::from_units(i128::from(count) * 1_000_000).unwrap_or_default();
    let failure = |reason, limit: Total, used: Total, requested: Option<Total>| {
        let message = message(reason, Some(limit), Some(used), requested).unwrap_or_default();
        let scope = policy.engine.to_string();
        Failure { reason, scope, limit: Some(limit), used: Some(used), requested, message }
    };
    let caps = [
        (
            DenialReason::DailyActionsExceeded,
            count(policy.max_actions_per_day.get()),
            count(usage.actions_count),
            count(1),
        ),
        (DenialReason::DailyExposureExceeded, policy.max_daily_exposure.into(), usage.exposure_used, amount.into()),
        (DenialReason::OpenRiskExceeded, policy.max_open_risk.into(), usage.open_risk_reserved, amount.into()),
    ];
    let mut failures = Vec::new();
    for (reason, limit, used, requested) in caps {
        // A sum beyond the largest total exceeds every cap, too.
        if limit > Total::ZERO && used.plus(requested).is_none_or(|after| after > limit) {
            failures.push(failure(reason, limit, used, Some(requested)));
        }
    }
    let limit = Total::from(policy.max_daily_loss);
    if limit > Total::ZERO && usage.realized_loss >= limit {
        failures.push(failure(DenialReason::DailyLossReached, limit, usage.realized_loss, None));
    }
    failures
}

/// Decides a reserve and, if it is allowed, moves the book. A denial moves nothing.
pub fn apply(
    book: &mut Book,
    reserve: &Reserve,
    annotations: Annotations,
    stamp: Stamp,
) -> Result<(Decision, RiskEvent), OutOfRange> {
    let failures = check(book, &reserve.engine, reserve.amount);
    let allowed = failures.is_empty();
    let amount = Total::from(reserve.amount);
    let movement = if allowed {
        Movement { exposure: amount, open: amount, loss: Total::ZERO, actions: 1 }
    } else {
        Movement::default()
    };
    let policy_ttl = || book.levels.get(&reserve.engine)?.policy.as_ref()?.default_ttl_seconds;
    let expires_at = reserve.ttl.or_else(policy_ttl).filter(|_| allowed).map(|ttl| stamp.at + ttl.duration());
    if allowed {
        book.post(&reserve.engine, movement, Floor::Refuses, stamp.at)?;
        let reservation = Reservation {
            id: reserve.id,
            seq: stamp.seq,
            engine: reserve.engine.clone(),
            amount: reserve.amount,
            open_amount: reserve.amount,
            day: stamp.day(),
            correlation_id: reserve.correlation_id.clone(),
            created_at: stamp.at,
            expires_at,
            status: ReservationStatus::Open,
            closed: None,
        };
        book.reservations.insert(reserve.id, reservation);
    }
    let first = failures.first();
    let shown =
        if first.is_some_and(|failure| failure.scope == "GLOBAL") { Engine::global() } else { reserve.engine.clone() };
    let level = book.level(&shown);
    let denial = first.map(|failure| (failure.reason, failure.scope.clone()));
    let decision = Decision {
        policy: level.policy.as_ref().map(RiskPolicy::snapshot),
        ledger: level.ledger(&shown, stamp.day()),
        expires_at,
        failures,
        filled: book.filled(movement),
    };
    let event = RiskEvent {
        engine: reserve.engine.clone(),
        action: if allowed { RiskAction::Reserve } else { RiskAction::Deny },
        amount: reserve.amount,
        denial,
        reservation_id: allowed.then_some(reserve.id),
        movement,
        annotations,
        detail: String::new(),
    }
    .telling(&decision, book.form, stamp);
    Ok((decision, event))
}

#[cfg(test)]
mod tests;
