//! Each outcome in its compact form.

use super::parts::{Counters, Due, Failed, Policy, Touched, compact_failures, expand_failures};
use super::{Columns, Outcome, VERSION};
use crate::db;
use crate::risk::model::adjust::Adjustment;
use crate::risk::model::expire::Expiry;
use crate::risk::model::extend::Extension;
use crate::risk::model::release::Released;
use crate::risk::model::reserve::{Decision, Failure};
use crate::risk::model::settle::{SettledReservation, Settlement};
use crate::risk::model::{DenialReason, ReservationStatus};
use crate::types::{Amount, Engine, Total};
use chrono::{DateTime, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Error, Result};

/// A decision: the policy, the counters, when the hold is due, the failures.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredDecision {
    v: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<Policy>,
    l: Counters,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    f: Vec<Failed>,
}

/// Whether a level is enabled: a decision lists each level that is not among its failures.
fn is_enabled(failures: &[Failure], level: &Engine) -> bool {
    !failures.iter().any(|one| one.reason == DenialReason::PolicyDisabled && one.scope == level.as_str())
}

impl Outcome for Decision {
    fn compact(&self, event: &Columns<'_>) -> Option<String> {
        let level = event.level();
        let enabled = is_enabled(&self.failures, &level);
        if self.policy.as_ref().is_some_and(|policy| policy.engine != level || policy.enabled != enabled) {
            return None;
        }
        let Due { t, e } = self.expires_at.map(|due| Due::of(due, event)).unwrap_or_default();
        Some(db::json_text(&StoredDecision {
            v: VERSION,
            p: self.policy.as_ref().map(Policy::from),
            l: event.counters(&self.ledger, &level)?,
            t,
            e,
            f: compact_failures(&self.failures, event),
        }))
    }

    fn expand(text: &str, event: &Columns<'_>) -> Result<Self> {
        let StoredDecision { p, l, t, e, f, .. } = serde_json::from_str(text)?;
        let (level, failures) = (event.level(), expand_failures(f, event)?);
        let enabled = is_enabled(&failures, &level);
        Ok(Self {
            policy: p.map(|policy| policy.snapshot(level.clone(), enabled)),
            ledger: event.ledger(l, level),
            expires_at: Due { t, e }.at(event)?,
            failures,
            filled: Vec::new(),
        })
    }
}

/// A settle: the counters, its flags, the unmatched amount, and the reservations unless only the event's own was settled.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSettlement {
    v: u8,
    l: Counters,
    g: Counters,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    f: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    u: Total,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    late: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r: Option<Vec<Touched>>,
}

fn is_zero(total: &Total) -> bool {
    *total == Total::ZERO
}

/// The effect of a settle that names its reservation.
fn named(event: &Columns<'_>, released: Total) -> Option<SettledReservation> {
    let released = Amount::from_units(released.units())?;
    Some(SettledReservation { reservation_id: event.reservation_id?, released, status: ReservationStatus::Settled })
}

impl Outcome for Settlement {
    fn compact(&self, event: &Columns<'_>) -> Option<String> {
        let follows = self.settled_amount == event.amount
            && self.released == event.returned().ok()?
            && Total::from(self.realized_loss) == event.movement.loss;
        if !follows {
            return None;
        }
        let is_named = named(event, self.released).is_some_and(|one| self.reservations == [one]);
        let (l, g) = event.both(&self.ledger_engine, &self.ledger_global)?;
        Some(db::json_text(&StoredSettlement {
            v: VERSION,
            l,
            g,
            f: self.flags.clone(),
            u: self.unmatched,
            late: self.late,
            r: (!is_named).then(|| self.reservations.iter().cloned().map(Touched).collect()),
        }))
    }

    fn expand(text: &str, event: &Columns<'_>) -> Result<Self> {
        let StoredSettlement { l, g, f, u, late, r, .. } = serde_json::from_str(text)?;
        let released = event.returned()?;
        let reservations = match r {
            Some(touched) => touched.into_iter().map(|one| one.0).collect(),
            None => vec![named(event, released).ok_or_else(|| Error::custom("the event names no reservation"))?],
        };
        let (ledger_engine, ledger_global) = event.ledgers(l, g);
        Ok(Self {
            flags: f,
            released,
            unmatched: u,
            settled_amount: event.amount,
            realized_loss: event.loss()?,
            late,
            reservations,
            ledger_engine,
            ledger_global,
            filled: Vec::new(),
        })
    }
}

/// A release: the counters.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRelease {
    v: u8,
    l: Counters,
    g: Counters,
}

impl Outcome for Released {
    fn compact(&self, event: &Columns<'_>) -> Option<String> {
        let follows = Some(self.reservation_id) == event.reservation_id
            && self.released == event.amount
            && Total::ZERO.minus(self.exposure_returned) == Some(event.movement.exposure);
        let (l, g) = event.both(&self.ledger_engine, &self.ledger_global)?;
        follows.then(|| db::json_text(&StoredRelease { v: VERSION, l, g }))
    }

    fn expand(text: &str, event: &Columns<'_>) -> Result<Self> {
        let StoredRelease { l, g, .. } = serde_json::from_str(text)?;
        let returned = Total::ZERO.minus(event.movement.exposure);
        let (ledger_engine, ledger_global) = event.ledgers(l, g);
        Ok(Self {
            reservation_id: event.reservation()?,
            released: event.amount,
            exposure_returned: returned.ok_or_else(|| Error::custom("the movement is out of range"))?,
            ledger_engine,
            ledger_global,
        })
    }
}

/// An extension: when the hold is due, the failures.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredExtension {
    v: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    f: Vec<Failed>,
}

impl Outcome for Extension {
    fn compact(&self, event: &Columns<'_>) -> Option<String> {
        let Due { t, e } = Due::of(self.expires_at, event);
        let stored = StoredExtension { v: VERSION, t, e, f: compact_failures(&self.failures, event) };
        (Some(self.reservation_id) == event.reservation_id).then(|| db::json_text(&stored))
    }

    fn expand(text: &str, event: &Columns<'_>) -> Result<Self> {
        let StoredExtension { t, e, f, .. } = serde_json::from_str(text)?;
        let failures = expand_failures(f, event)?;
        Ok(Self { reservation_id: event.reservation()?, expires_at: Due { t, e }.known(event)?, failures })
    }
}

/// An expiry: when the hold was due.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredExpiry {
    v: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<DateTime<Utc>>,
}

impl Outcome for Expiry {
    fn compact(&self, event: &Columns<'_>) -> Option<String> {
        let Due { t, e } = Due::of(self.expires_at, event);
        let stored = StoredExpiry { v: VERSION, t, e };
        (Some(self.reservation_id) == event.reservation_id).then(|| db::json_text(&stored))
    }

    fn expand(text: &str, event: &Columns<'_>) -> Result<Self> {
        let StoredExpiry { t, e, .. } = serde_json::from_str(text)?;
        Ok(Self { reservation_id: event.reservation()?, expires_at: Due { t, e }.known(event)? })
    }
}

/// A correction: the corrected event, the counters, flags.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAdjustment {
    v: u8,
    c: i64,
    l: Counters,
    g: Counters,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    f: Vec<String>,
}

impl Outcome for Adjustment {
    fn compact(&self, event: &Columns<'_>) -> Option<String> {
        let follows = (self.loss_delta, self.exposure_delta) == (event.movement.loss, event.movement.exposure);
        let (l, g) = event.both(&self.ledger_engine, &self.ledger_global)?;
        let stored = StoredAdjustment { v: VERSION, c: self.corrects_seq, l, g, f: self.flags.clone() };
        follows.then(|| db::json_text(&stored))
    }

    fn expand(text: &str, event: &Columns<'_>) -> Result<Self> {
        let StoredAdjustment { c, l, g, f, .. } = serde_json::from_str(text)?;
        let (ledger_engine, ledger_global) = event.ledgers(l, g);
        Ok(Self {
            corrects_seq: c,
            loss_delta: event.movement.loss,
            exposure_delta: event.movement.exposure,
            flags: f,
            ledger_engine,
            ledger_global,
            filled: Vec::new(),
        })
    }
}
