//! Reserve before execute: may this amount be taken, on both levels, now?
//!
//! Checks in order: the system (kill switch, go-live), then GLOBAL, then the engine; on each level the policy exists, is
//! enabled, and has room for one more action, the exposure, the open risk, and has not lost its day. The first failure is the
//! reason, all failures are listed. Equality passes at every cap but the loss, which stops when it is reached. A cap of 0 is
//! no cap. This is the one comparison for every path.

use super::{
    Book, Floor, LedgerSnapshot, Level, Movement, OutOfRange, PolicySnapshot, Reservation, ReservationStatus,
    RiskEvent, RiskPolicy, Usage, Words,
};
use crate::audit::Stamp;
use crate::db::to_json;
use crate::types::{Amount, Engine, Total, Ttl};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Why a reserve is denied, in the order in which the reasons are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DenialReason {
    /// Everything is stopped.
    KillSwitchEngaged,
    /// Production is off.
    GoLiveDisabled,
    /// Nobody has set caps for this level.
    PolicyMissing,
    /// The level is off, by hand or by a throttle.
    PolicyDisabled,
    /// One action too many today.
    DailyActionsExceeded,
    /// Too much for today.
    DailyExposureExceeded,
    /// Too much outstanding at once.
    OpenRiskExceeded,
    /// The day's loss is reached.
    DailyLossReached,
}

impl DenialReason {
    /// The reason's stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KillSwitchEngaged => "kill_switch_engaged",
            Self::GoLiveDisabled => "go_live_disabled",
            Self::PolicyMissing => "policy_missing",
            Self::PolicyDisabled => "policy_disabled",
            Self::DailyActionsExceeded => "daily_actions_exceeded",
            Self::DailyExposureExceeded => "daily_exposure_exceeded",
            Self::OpenRiskExceeded => "open_risk_exceeded",
            Self::DailyLossReached => "daily_loss_reached",
        }
    }
}

/// The level above GLOBAL: the switches.
const SYSTEM: &str = "SYSTEM";

/// One check that failed, with its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Which check.
    pub reason: DenialReason,
    /// Which level: `SYSTEM`, `GLOBAL` or the engine.
    pub scope: String,
    /// The cap; null for checks without a number.
    pub limit: Option<Total>,
    /// What was used before.
    pub used: Option<Total>,
    /// What was asked for on top.
    pub requested: Option<Total>,
    /// The sentence.
    pub message: String,
}

/// A reserve that is asked for.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// For which engine; never GLOBAL.
    pub engine: Engine,
    /// How much; more than zero.
    pub amount: Amount,
    /// The id the reservation gets if it is allowed.
    pub id: Uuid,
    /// How long it stands; none means as long as the engine's policy says.
    pub ttl: Option<Ttl>,
    /// The caller's thread.
    pub correlation_id: Option<String>,
}

/// What was decided, and by which numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What failed; empty when it is allowed.
    pub failures: Vec<Failure>,
    /// The caps of the level that failed first, else of the engine; none where there is no policy.
    pub policy: Option<PolicySnapshot>,
    /// The counters of that level, after the decision.
    pub ledger: LedgerSnapshot,
    /// When the hold is due; none when denied, or when it never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

impl Decision {
    /// Whether it is allowed.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The decision as a sentence: `Reserved`, or `<scope> hard stop: …` with the first failure.
    #[must_use]
    pub fn message(&self) -> String {
        self.failures.first().map_or_else(
            || "Reserved".to_owned(),
            |failure| format!("{} hard stop: {}", failure.scope, failure.message),
        )
    }
}

impl Failure {
    /// A check without a number.
    fn of(reason: DenialReason, scope: &str, message: &str) -> Self {
        Self { reason, scope: scope.into(), limit: None, used: None, requested: None, message: message.into() }
    }
}

/// Every check that this reserve fails, in order.
#[must_use]
pub fn check(book: &Book, engine: &Engine, amount: Amount) -> Vec<Failure> {
    check_with(book, engine, |policy, usage| check_caps(policy, usage, amount))
}

/// Every check but the caps: whether anything new may stand at all.
#[must_use]
pub fn check_standing(book: &Book, engine: &Engine) -> Vec<Failure> {
    check_with(book, engine, |_, _| Vec::new())
}

fn check_with(book: &Book, engine: &Engine, caps: impl Fn(&RiskPolicy, &Usage) -> Vec<Failure>) -> Vec<Failure> {
    let mut failures = Vec::new();
    if book.switches.kill_switch_engaged {
        failures.push(Failure::of(DenialReason::KillSwitchEngaged, SYSTEM, "Kill switch engaged"));
    }
    if book.switches.go_live_required && !book.switches.go_live_enabled {
        failures.push(Failure::of(DenialReason::GoLiveDisabled, SYSTEM, "Go-live disabled"));
    }
    for engine in [&Engine::global(), engine] {
        let Some(Level { policy: Some(policy), usage }) = book.levels.get(engine) else {
            failures.push(Failure::of(DenialReason::PolicyMissing, engine.as_str(), "Policy missing"));
            continue;
        };
        if !policy.is_active() {
            failures.push(Failure::of(DenialReason::PolicyDisabled, engine.as_str(), "Policy disabled"));
        }
        failures.extend(caps(policy, usage));
    }
    failures
}

fn check_caps(policy: &RiskPolicy, usage: &Usage, amount: Amount) -> Vec<Failure> {
    let mut failures = Vec::new();
    let scope = policy.engine.as_str();
    let count = |count: i64| Total::from_units(i128::from(count) * 1_000_000).unwrap_or_default();
    let caps = [
        (
            DenialReason::DailyActionsExceeded,
            "Actions/day cap exceeded",
            count(policy.max_actions_per_day.get()),
            count(usage.actions_count),
            count(1),
        ),
        (
            DenialReason::DailyExposureExceeded,
            "Daily exposure cap exceeded",
            policy.max_daily_exposure.into(),
            usage.exposure_used,
            amount.into(),
        ),
        (
            DenialReason::OpenRiskExceeded,
            "Open risk cap exceeded",
            policy.max_open_risk.into(),
            usage.open_risk_reserved,
            amount.into(),
        ),
    ];
    for (reason, words, limit, used, requested) in caps {
        // A sum beyond the largest total is beyond every cap, too.
        let after = used.plus(requested);
        if limit > Total::ZERO && after.is_none_or(|after| after > limit) {
            let after = after.map_or_else(|| format!("{used} + {requested}"), |after| after.to_string());
            let message = format!("{words} ({after} > {limit})");
            failures.push(Failure {
                reason,
                scope: scope.into(),
                limit: Some(limit),
                used: Some(used),
                requested: Some(requested),
                message,
            });
        }
    }
    let limit = Total::from(policy.max_daily_loss);
    if limit > Total::ZERO && usage.realized_loss >= limit {
        failures.push(Failure {
            reason: DenialReason::DailyLossReached,
            scope: scope.into(),
            limit: Some(limit),
            used: Some(usage.realized_loss),
            requested: None,
            message: format!("Daily loss cap already reached ({} >= {limit})", usage.realized_loss),
        });
    }
    failures
}

/// Decides a reserve and, if it is allowed, moves the book. Denied, it moves nothing.
pub fn apply(
    book: &mut Book,
    reserve: &Reserve,
    words: Words,
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
    let denial = first.map(|failure| (failure.reason.as_str(), failure.scope.clone()));
    let decision = Decision {
        policy: level.policy.as_ref().map(RiskPolicy::snapshot),
        ledger: level.ledger(&shown, stamp.day()),
        expires_at,
        failures,
    };
    let event = RiskEvent {
        engine: reserve.engine.clone(),
        action: if allowed { "RESERVE" } else { "DENY" },
        amount: reserve.amount,
        denial,
        reservation_id: allowed.then_some(reserve.id),
        movement,
        words,
        detail: to_json(&decision).get().to_owned(),
    };
    Ok((decision, event))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{book, policy, stamp};
    use super::*;
    use proptest::prelude::*;

    fn engine() -> Engine {
        "A".parse().unwrap()
    }

    fn reserve(amount: &str) -> Reserve {
        Reserve { engine: engine(), amount: amount.parse().unwrap(), id: Uuid::nil(), ttl: None, correlation_id: None }
    }

    fn decide(book: &mut Book, amount: &str) -> Decision {
        apply(book, &reserve(amount), Words::default(), stamp(1)).unwrap().0
    }

    fn reasons(book: &Book, amount: &str) -> Vec<(&'static str, String)> {
        check(book, &engine(), amount.parse().unwrap())
            .into_iter()
            .map(|failure| (failure.reason.as_str(), failure.scope))
            .collect()
    }

    fn roomy() -> Book {
        book(vec![policy("GLOBAL", "250", "1500", "1500", "0"), policy("A", "200", "1000", "1000", "0")])
    }

    #[test]
    fn equality_passes_and_the_next_millionth_does_not() {
        let mut book = roomy();
        assert!(decide(&mut book, "1000").is_allowed());
        let decision = decide(&mut book, "0.000001");
        assert_eq!(decision.message(), "A hard stop: Daily exposure cap exceeded (1000.000001 > 1000)");
        assert_eq!(decision.failures[0].used, Some("1000".parse().unwrap()));
        assert_eq!(decision.ledger.exposure_used, "1000".parse().unwrap(), "a denial moves nothing");
    }

    #[test]
    fn the_first_failure_is_the_reason_and_all_are_listed() {
        let mut book = roomy();
        book.switches.kill_switch_engaged = true;
        book.switches.go_live_enabled = false;
        book.levels.get_mut(&engine()).unwrap().policy.as_mut().unwrap().enabled = false;
        let all = reasons(&book, "2000");
        let expected = [
            ("kill_switch_engaged", "SYSTEM"),
            ("go_live_disabled", "SYSTEM"),
            ("daily_exposure_exceeded", "GLOBAL"),
            ("open_risk_exceeded", "GLOBAL"),
            ("policy_disabled", "A"),
            ("daily_exposure_exceeded", "A"),
            ("open_risk_exceeded", "A"),
        ];
        assert_eq!(all, expected.map(|(reason, scope)| (reason, scope.to_owned())));
        let decision = decide(&mut book, "2000");
        assert_eq!(decision.message(), "SYSTEM hard stop: Kill switch engaged");
        assert_eq!(decision.policy.unwrap().engine, engine(), "the snapshot of a system stop is the engine's");
    }

    #[test]
    fn every_cap_has_its_text() {
        let mut book = book(vec![policy("GLOBAL", "0", "0", "0", "0"), policy("A", "250", "0", "0", "3")]);
        book.levels.get_mut(&engine()).unwrap().usage.actions_count = 3;
        book.levels.get_mut(&engine()).unwrap().usage.realized_loss = "250".parse().unwrap();
        let messages: Vec<_> =
            check(&book, &engine(), "1".parse().unwrap()).into_iter().map(|failure| failure.message).collect();
        assert_eq!(messages, ["Actions/day cap exceeded (4 > 3)", "Daily loss cap already reached (250 >= 250)"]);
        let mut missing = roomy();
        missing.levels.remove(&engine());
        assert_eq!(decide(&mut missing, "1").message(), "A hard stop: Policy missing");
        missing.levels.remove(&Engine::global());
        assert_eq!(decide(&mut missing, "1").message(), "GLOBAL hard stop: Policy missing");
    }

    #[test]
    fn development_needs_no_go_live_and_still_heeds_the_kill_switch() {
        let mut book = roomy();
        book.switches.go_live_enabled = false;
        book.switches.go_live_required = false;
        assert!(decide(&mut book, "1").is_allowed());
        book.switches.kill_switch_engaged = true;
        assert!(!decide(&mut book, "1").is_allowed());
    }

    proptest! {
        /// Whatever is asked for in whatever order, no cap is ever exceeded and the two levels agree.
        #[test]
        fn caps_hold_after_every_accepted_reserve(
            amounts in proptest::collection::vec(1_i128..400_000_000, 1..60),
            actions in 0_i64..20,
        ) {
            let mut book = book(vec![policy("GLOBAL", "250", "1500", "1200", "0"), policy("A", "200", "1000", "1100", &actions.to_string())]);
            for (seq, units) in (1..).zip(amounts) {
                let amount = Amount::from_units(units).unwrap();
                let before = book.levels.clone();
                let request = Reserve { engine: engine(), amount, id: Uuid::from_u128(seq), ttl: None, correlation_id: None };
                let expected = check(&book, &engine(), amount);
                let (decision, event) = apply(&mut book, &request, Words::default(), stamp(i64::try_from(seq).unwrap())).unwrap();
                prop_assert_eq!(&decision.failures, &expected);
                prop_assert_eq!(event.action == "RESERVE", decision.is_allowed());
                if !decision.is_allowed() {
                    prop_assert_eq!(&book.levels, &before);
                }
                let (global, level) = (book.level(&Engine::global()).usage, book.level(&engine()).usage);
                prop_assert!(global == level);
                prop_assert!(level.exposure_used <= "1000".parse().unwrap());
                prop_assert!(level.open_risk_reserved <= "1100".parse().unwrap());
                prop_assert!(actions == 0 || level.actions_count <= actions);
                let open: i128 = book.reservations.values().map(|reservation| reservation.open_amount.units()).sum();
                prop_assert_eq!(open, level.open_risk_reserved.units());
            }
        }
    }
}
