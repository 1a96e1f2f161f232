//! The parts of compact outcomes.

use super::Columns;
use crate::risk::model::reserve::{Failure, message};
use crate::risk::model::settle::SettledReservation;
use crate::risk::model::{DenialReason, PolicySnapshot, ReservationStatus};
use crate::types::{Amount, Count, Engine, Total};
use chrono::{DateTime, TimeDelta, Utc};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Error, Result};
use std::fmt;

/// The counters of a level: `[exposure, open, loss, actions]`, and when they last moved if that was not by this event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters {
    pub(super) exposure: Total,
    pub(super) open: Total,
    pub(super) loss: Total,
    pub(super) actions: i64,
    pub(super) moved: Moved,
}

/// When counters last moved.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moved {
    /// By the event itself.
    ByIt,
    /// At this time; none if they never moved.
    Before(Option<DateTime<Utc>>),
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.moved {
            Moved::ByIt => (self.exposure, self.open, self.loss, self.actions).serialize(serializer),
            Moved::Before(at) => (self.exposure, self.open, self.loss, self.actions, at).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Counters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Elements;

        impl<'de> Visitor<'de> for Elements {
            type Value = Counters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[exposure, open, loss, actions] and perhaps a time")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Counters, A::Error> {
                Ok(Counters {
                    exposure: element(&mut list)?,
                    open: element(&mut list)?,
                    loss: element(&mut list)?,
                    actions: element(&mut list)?,
                    moved: list.next_element()?.map_or(Moved::ByIt, Moved::Before),
                })
            }
        }

        deserializer.deserialize_seq(Elements)
    }
}

/// The next element of a list, which must be there.
fn element<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(list: &mut A) -> std::result::Result<T, A::Error> {
    list.next_element()?.ok_or_else(|| A::Error::custom("an element is missing"))
}

/// A policy: `[version, daily loss, daily exposure, open risk, actions per day]`. Caps of 0 at the end are left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    version: i64,
    max_daily_loss: Amount,
    max_daily_exposure: Amount,
    max_open_risk: Amount,
    max_actions_per_day: Count,
}

impl From<&PolicySnapshot> for Policy {
    fn from(policy: &PolicySnapshot) -> Self {
        Self {
            version: policy.version,
            max_daily_loss: policy.max_daily_loss,
            max_daily_exposure: policy.max_daily_exposure,
            max_open_risk: policy.max_open_risk,
            max_actions_per_day: policy.max_actions_per_day,
        }
    }
}

impl Policy {
    pub(super) fn snapshot(self, engine: Engine, enabled: bool) -> PolicySnapshot {
        PolicySnapshot {
            engine,
            max_daily_loss: self.max_daily_loss,
            max_daily_exposure: self.max_daily_exposure,
            max_open_risk: self.max_open_risk,
            max_actions_per_day: self.max_actions_per_day,
            enabled,
            version: self.version,
        }
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let amounts = [self.max_daily_loss, self.max_daily_exposure, self.max_open_risk];
        let has_count = self.max_actions_per_day > Count::ZERO;
        let kept =
            if has_count { 3 } else { amounts.iter().rposition(|cap| !cap.is_zero()).map_or(0, |last| last + 1) };
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(&self.version)?;
        for cap in &amounts[..kept] {
            list.serialize_element(cap)?;
        }
        if has_count {
            list.serialize_element(&self.max_actions_per_day)?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Elements;

        impl<'de> Visitor<'de> for Elements {
            type Value = Policy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[version] and at most four caps")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Policy, A::Error> {
                Ok(Policy {
                    version: element(&mut list)?,
                    max_daily_loss: list.next_element()?.unwrap_or(Amount::ZERO),
                    max_daily_exposure: list.next_element()?.unwrap_or(Amount::ZERO),
                    max_open_risk: list.next_element()?.unwrap_or(Amount::ZERO),
                    max_actions_per_day: list.next_element()?.unwrap_or(Count::ZERO),
                })
            }
        }

        deserializer.deserialize_seq(Elements)
    }
}

/// When a hold is due: whole seconds after the event, or the time.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) t: Option<i64>,
    pub(super) e: Option<DateTime<Utc>>,
}

impl Due {
    pub(super) fn of(due: DateTime<Utc>, event: &Columns<'_>) -> Self {
        let seconds = (due - event.at).num_seconds();
        let is_whole = event.at.checked_add_signed(TimeDelta::seconds(seconds)) == Some(due);
        if is_whole { Self { t: Some(seconds), e: None } } else { Self { t: None, e: Some(due) } }
    }

    pub(super) fn at(self, event: &Columns<'_>) -> Result<Option<DateTime<Utc>>> {
        let Some(seconds) = self.t else { return Ok(self.e) };
        let due = TimeDelta::try_seconds(seconds).and_then(|after| event.at.checked_add_signed(after));
        due.map(Some).ok_or_else(|| Error::custom(format!("{seconds} s after the event is no time")))
    }

    pub(super) fn known(self, event: &Columns<'_>) -> Result<DateTime<Utc>> {
        self.at(event)?.ok_or_else(|| Error::custom("the time is missing"))
    }
}

/// A failed check: its reason and level unless the event's columns have them, its numbers, and its sentence unless it
/// follows from them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r: Option<DenialReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    l: Option<Total>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<Total>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    q: Option<Total>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    m: Option<String>,
}

pub(super) fn compact_failures(failures: &[Failure], event: &Columns<'_>) -> Vec<Failed> {
    let compact = |(place, failure): (usize, &Failure)| {
        let is_of_event = place == 0 && event.denial == Some((failure.reason, failure.scope.as_str()));
        let usual = message(failure.reason, failure.limit, failure.used, failure.requested);
        Failed {
            r: (!is_of_event).then_some(failure.reason),
            s: (!is_of_event).then(|| failure.scope.clone()),
            l: failure.limit,
            u: failure.used,
            q: failure.requested,
            m: (usual.as_ref() != Some(&failure.message)).then(|| failure.message.clone()),
        }
    };
    failures.iter().enumerate().map(compact).collect()
}

pub(super) fn expand_failures(failures: Vec<Failed>, event: &Columns<'_>) -> Result<Vec<Failure>> {
    let missing = |what| move || Error::custom(format!("the {what} of a failure is missing"));
    let expand = |(place, failed): (usize, Failed)| {
        let of_event = event.denial.filter(|_| place == 0);
        let reason = failed.r.or(of_event.map(|(reason, _)| reason)).ok_or_else(missing("reason"))?;
        let scope = failed.s.or_else(|| of_event.map(|(_, scope)| scope.to_owned())).ok_or_else(missing("scope"))?;
        let usual = || message(reason, failed.l, failed.u, failed.q);
        let message = failed.m.or_else(usual).ok_or_else(missing("sentence"))?;
        Ok(Failure { reason, scope, limit: failed.l, used: failed.u, requested: failed.q, message })
    };
    failures.into_iter().enumerate().map(expand).collect()
}

/// An effect of a settle on one reservation: `[id, released]`, and its status unless it is settled.
pub(super) struct Touched(pub(super) SettledReservation);

impl Serialize for Touched {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let SettledReservation { reservation_id, released, status } = self.0;
        match status {
            ReservationStatus::Settled => (reservation_id, released).serialize(serializer),
            status => (reservation_id, released, status).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Touched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Elements;

        impl<'de> Visitor<'de> for Elements {
            type Value = Touched;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[reservation, released] and perhaps a status")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Touched, A::Error> {
                Ok(Touched(SettledReservation {
                    reservation_id: element(&mut list)?,
                    released: element(&mut list)?,
                    status: list.next_element()?.unwrap_or(ReservationStatus::Settled),
                }))
            }
        }

        deserializer.deserialize_seq(Elements)
    }
}
