//! Caps: the changes of an upsert, and the protection against accidental ones.

use super::RiskPolicy;
use crate::audit::Changes;
use crate::error::{Error, FieldError, Result};
use crate::types::{Actor, Amount, Count, Engine, Reason, Ttl};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A requested upsert. Fields that are left out keep their value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyUpsert {
    /// The engine, or GLOBAL.
    pub engine: Engine,
    /// The realised loss of a day at which new reserves stop; 0 for no cap.
    pub max_daily_loss: Option<Amount>,
    /// The most that may be reserved in a day; 0 for no cap.
    pub max_daily_exposure: Option<Amount>,
    /// The most that may be outstanding at once; 0 for no cap.
    pub max_open_risk: Option<Amount>,
    /// The most reserves in a day; 0 for no cap.
    pub max_actions_per_day: Option<Count>,
    /// The lifetime in seconds of a hold that names none; 0 for holds without expiry.
    pub default_ttl_seconds: Option<Count>,
    /// True to enable the policy, false to disable it.
    pub enabled: Option<bool>,
    /// The treatment of a positive cap that would become 0, which removes it.
    pub zero_cap: ZeroCap,
}

/// The treatment of a positive cap that would become 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZeroCap {
    /// It is refused as a probable mistake.
    Refused,
    /// The caller has confirmed it: the cap is removed.
    RemovesTheCap,
}

/// The policy after the upsert, and the changes. `enabled=true` lifts every throttle: the operator's override, which
/// needs a reason.
pub fn upsert(
    existing: Option<&RiskPolicy>,
    upsert: &PolicyUpsert,
    by: Option<&Actor>,
    reason: Option<&Reason>,
    at: DateTime<Utc>,
) -> Result<(RiskPolicy, Changes)> {
    refuse_missing_caps(existing, upsert)?;
    refuse_zero_caps(existing, upsert)?;
    refuse_uncapped_enable(existing, upsert)?;
    let default_ttl_seconds = match upsert.default_ttl_seconds {
        None => existing.and_then(|policy| policy.default_ttl_seconds),
        Some(seconds) => read_ttl(&upsert.engine, seconds)?,
    };
    let kept = |new: Option<Amount>, cap: fn(&RiskPolicy) -> Amount| new.or(existing.map(cap)).unwrap_or_default();
    let throttled_by = existing.map(|policy| policy.throttled_by.clone()).unwrap_or_default();
    let lifts = upsert.enabled == Some(true) && !throttled_by.is_empty();
    if lifts && reason.is_none() {
        return Err(Error::EngineThrottled { engine: upsert.engine.to_string(), trips: throttled_by });
    }
    let enabled_by_hand = upsert.enabled.or(existing.map(|policy| policy.enabled_by_hand)).unwrap_or(true);
    let throttled_by = if lifts { Vec::new() } else { throttled_by };
    let policy = RiskPolicy {
        engine: upsert.engine.clone(),
        max_daily_loss: kept(upsert.max_daily_loss, |policy| policy.max_daily_loss),
        max_daily_exposure: kept(upsert.max_daily_exposure, |policy| policy.max_daily_exposure),
        max_open_risk: kept(upsert.max_open_risk, |policy| policy.max_open_risk),
        max_actions_per_day: upsert
            .max_actions_per_day
            .or(existing.map(|policy| policy.max_actions_per_day))
            .unwrap_or_default(),
        default_ttl_seconds,
        enabled: enabled_by_hand && throttled_by.is_empty(),
        changed_by: by.map(ToString::to_string),
        reason: reason.map(ToString::to_string),
        updated_at: at,
        version: existing.map_or(1, |policy| policy.version + 1),
        throttled_by,
        enabled_by_hand,
    };
    let mut changes = Changes::default();
    changes.note("max_daily_loss", existing.map(|old| &old.max_daily_loss), &policy.max_daily_loss);
    changes.note("max_daily_exposure", existing.map(|old| &old.max_daily_exposure), &policy.max_daily_exposure);
    changes.note("max_open_risk", existing.map(|old| &old.max_open_risk), &policy.max_open_risk);
    changes.note("max_actions_per_day", existing.map(|old| &old.max_actions_per_day), &policy.max_actions_per_day);
    // None before and none after is no change, not even for a new policy.
    if existing.and_then(|old| old.default_ttl_seconds) != policy.default_ttl_seconds {
        let before = existing.map(|old| &old.default_ttl_seconds);
        changes.note("default_ttl_seconds", before, &policy.default_ttl_seconds);
    }
    changes.note("enabled", existing.map(|old| &old.enabled_by_hand), &policy.enabled_by_hand);
    if lifts {
        changes.note("throttled_by", existing.map(|old| &old.throttled_by), &policy.throttled_by);
    }
    Ok((policy, changes))
}

/// True if the policy allows anything that was stopped before: by a cap that is higher or removed, an engine that is
/// new or enabled again, or holds that return their amount sooner.
#[must_use]
pub fn loosens(existing: Option<&RiskPolicy>, policy: &RiskPolicy) -> bool {
    let Some(old) = existing else { return policy.enabled };
    // 0 is no cap.
    let raised = |old: Amount, new: Amount| !old.is_zero() && (new.is_zero() || new > old);
    let (actions, before) = (policy.max_actions_per_day, old.max_actions_per_day);
    (policy.enabled && !old.enabled)
        || raised(old.max_daily_loss, policy.max_daily_loss)
        || raised(old.max_daily_exposure, policy.max_daily_exposure)
        || raised(old.max_open_risk, policy.max_open_risk)
        || (before > Count::ZERO && (actions == Count::ZERO || actions > before))
        || match (old.default_ttl_seconds, policy.default_ttl_seconds) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new.seconds() < old.seconds(),
        }
}

/// The default lifetime of a policy's holds; none for 0.
fn read_ttl(engine: &Engine, seconds: Count) -> Result<Option<Ttl>> {
    if seconds == Count::ZERO {
        return Ok(None);
    }
    if engine.is_global() {
        let detail = "belongs to engines: GLOBAL has no holds of its own, so leave it out or name an engine";
        return Err(Error::invalid("default_ttl_seconds", detail));
    }
    let ttl = seconds.to_string().parse::<Ttl>();
    ttl.map(Some).map_err(|error| Error::invalid("default_ttl_seconds", error.to_string()))
}

fn refuse_missing_caps(existing: Option<&RiskPolicy>, upsert: &PolicyUpsert) -> Result<()> {
    if existing.is_some() {
        return Ok(());
    }
    let caps = [
        ("max_daily_loss", upsert.max_daily_loss),
        ("max_daily_exposure", upsert.max_daily_exposure),
        ("max_open_risk", upsert.max_open_risk),
    ];
    let missing: Vec<_> = caps
        .into_iter()
        .filter(|(_, cap)| cap.is_none())
        .map(|(field, _)| FieldError::new(field, format!("is required: {} is a new engine", upsert.engine)))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Invalid(missing)) }
}

/// Refuses to enable an engine without any cap by accident, for example one that a throttle or a migration created.
fn refuse_uncapped_enable(existing: Option<&RiskPolicy>, upsert: &PolicyUpsert) -> Result<()> {
    let enables = upsert.enabled == Some(true) && upsert.zero_cap == ZeroCap::Refused;
    let Some(existing) = existing.filter(|policy| enables && !policy.enabled_by_hand) else {
        return Ok(());
    };
    let caps = [
        ("max_daily_loss", existing.max_daily_loss, upsert.max_daily_loss),
        ("max_daily_exposure", existing.max_daily_exposure, upsert.max_daily_exposure),
        ("max_open_risk", existing.max_open_risk, upsert.max_open_risk),
    ];
    if caps.iter().any(|(_, old, new)| new.is_some() || !old.is_zero()) {
        return Ok(());
    }
    Err(Error::ZeroMeansUnlimited { fields: caps.iter().map(|(field, _, _)| *field).collect() })
}

fn refuse_zero_caps(existing: Option<&RiskPolicy>, upsert: &PolicyUpsert) -> Result<()> {
    let Some(existing) = existing.filter(|_| upsert.zero_cap == ZeroCap::Refused) else {
        return Ok(());
    };
    let removed = |old: Amount, new: Option<Amount>| !old.is_zero() && new.is_some_and(Amount::is_zero);
    let actions_removed = existing.max_actions_per_day > Count::ZERO && upsert.max_actions_per_day == Some(Count::ZERO);
    let fields: Vec<_> = [
        ("max_daily_loss", removed(existing.max_daily_loss, upsert.max_daily_loss)),
        ("max_daily_exposure", removed(existing.max_daily_exposure, upsert.max_daily_exposure)),
        ("max_open_risk", removed(existing.max_open_risk, upsert.max_open_risk)),
        ("max_actions_per_day", actions_removed),
    ]
    .into_iter()
    .filter_map(|(field, removed)| removed.then_some(field))
    .collect();
    if fields.is_empty() { Ok(()) } else { Err(Error::ZeroMeansUnlimited { fields }) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::policy;
    use super::*;

    fn nothing(engine: &str) -> PolicyUpsert {
        PolicyUpsert {
            engine: engine.parse().unwrap(),
            max_daily_loss: None,
            max_daily_exposure: None,
            max_open_risk: None,
            max_actions_per_day: None,
            default_ttl_seconds: None,
            enabled: None,
            zero_cap: ZeroCap::Refused,
        }
    }

    fn run(
        existing: Option<&RiskPolicy>,
        request: &PolicyUpsert,
        reason: Option<&str>,
    ) -> Result<(RiskPolicy, Changes)> {
        let reason = reason.map(|text| text.parse().unwrap());
        upsert(existing, request, None, reason.as_ref(), DateTime::UNIX_EPOCH)
    }

    #[test]
    fn what_is_left_out_is_kept_and_what_moves_is_named() {
        let old = policy("A", "1", "2", "3", "4");
        let request = PolicyUpsert { max_open_risk: Some("9".parse().unwrap()), ..nothing("A") };
        let (new, changes) = run(Some(&old), &request, None).unwrap();
        assert_eq!((new.max_daily_loss, new.max_open_risk, new.version), (old.max_daily_loss, "9".parse().unwrap(), 2));
        let named: Vec<_> = changes.0.iter().map(|change| (change.field, change.from.get(), change.to.get())).collect();
        assert_eq!(named, [("max_open_risk", "3", "9")]);
        assert!(run(Some(&old), &nothing("A"), None).unwrap().1.is_empty());
    }

    #[test]
    fn a_new_engine_names_its_caps_and_starts_enabled() {
        let Err(Error::Invalid(fields)) = run(None, &nothing("B"), None) else { panic!("accepted") };
        assert_eq!(fields.len(), 3);
        let cap = Some("5".parse().unwrap());
        let request = PolicyUpsert { max_daily_loss: cap, max_daily_exposure: cap, max_open_risk: cap, ..nothing("B") };
        let (new, _) = run(None, &request, None).unwrap();
        assert!(new.enabled && new.version == 1);
    }

    #[test]
    fn a_positive_cap_becomes_none_only_on_purpose() {
        let old = policy("A", "1", "0", "3", "4");
        let zero = Some(Amount::ZERO);
        let request = PolicyUpsert {
            max_daily_loss: zero,
            max_daily_exposure: zero,
            max_actions_per_day: Some(Count::ZERO),
            ..nothing("A")
        };
        let Err(Error::ZeroMeansUnlimited { fields }) = run(Some(&old), &request, None) else { panic!("accepted") };
        assert_eq!(fields, ["max_daily_loss", "max_actions_per_day"]);
        let meant = PolicyUpsert { zero_cap: ZeroCap::RemovesTheCap, ..request };
        assert!(run(Some(&old), &meant, None).unwrap().0.max_daily_loss.is_zero());
    }

    #[test]
    fn an_engine_without_any_cap_is_not_enabled_by_accident() {
        let old = RiskPolicy { enabled: false, enabled_by_hand: false, ..policy("A", "0", "0", "0", "0") };
        let enable = PolicyUpsert { enabled: Some(true), ..nothing("A") };
        assert!(
            matches!(run(Some(&old), &enable, None), Err(Error::ZeroMeansUnlimited { fields }) if fields.len() == 3)
        );
        let capped = PolicyUpsert { max_open_risk: Some("5".parse().unwrap()), ..enable.clone() };
        assert!(run(Some(&old), &capped, None).unwrap().0.enabled);
        let meant = PolicyUpsert { zero_cap: ZeroCap::RemovesTheCap, ..enable };
        assert!(run(Some(&old), &meant, None).unwrap().0.enabled);
    }

    #[test]
    fn throttles_are_overridden_only_with_a_reason_and_survive_everything_else() {
        let old = RiskPolicy { enabled: false, throttled_by: vec![7], ..policy("A", "1", "1", "1", "0") };
        let enable = PolicyUpsert { enabled: Some(true), ..nothing("A") };
        assert!(matches!(run(Some(&old), &enable, None), Err(Error::EngineThrottled { trips, .. }) if trips == [7]));
        let (new, changes) = run(Some(&old), &enable, Some("checked by hand")).unwrap();
        assert!(new.enabled && new.throttled_by.is_empty());
        assert_eq!(changes.0[0].field, "throttled_by");
        let disable = PolicyUpsert { enabled: Some(false), ..nothing("A") };
        let (off, _) = run(Some(&old), &disable, None).unwrap();
        assert_eq!((off.enabled, off.throttled_by), (false, vec![7]));
    }
}
