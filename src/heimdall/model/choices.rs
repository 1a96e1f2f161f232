//! The choices of a policy.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which trials count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ScorecardWindow {
    /// Those of the UTC day.
    Day,
    /// Those of the last `window_days` UTC days, today among them.
    RollingDays,
}

impl ScorecardWindow {
    /// The window in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "DAY",
            Self::RollingDays => "ROLLING_DAYS",
        }
    }

    /// The window of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Day, Self::RollingDays].into_iter().find(|window| window.as_str() == name)
    }
}

/// How the success rate is held against its minimum, the weaker first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GateRule {
    /// The share of successes itself.
    Point,
    /// Its one-sided 95 % lower bound, by Wilson's score.
    Lcb,
    /// Evidence of 20 against "not more than the minimum", which holds at 5 % however often one looks.
    Anytime,
}

impl GateRule {
    /// The rule in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Point => "POINT",
            Self::Lcb => "LCB",
            Self::Anytime => "ANYTIME",
        }
    }

    /// The rule of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Point, Self::Lcb, Self::Anytime].into_iter().find(|rule| rule.as_str() == name)
    }
}

/// Whether the evidence passed when production use was switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// It passed.
    Met,
    /// It did not.
    NotMet,
}

impl Evidence {
    /// The same in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not_met",
        }
    }

    /// The choice of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Met, Self::NotMet].into_iter().find(|evidence| evidence.as_str() == name)
    }
}

/// The effect of an upsert on a setting that may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting<T> {
    /// It stays as it is.
    Keep,
    /// It becomes this.
    Set(T),
    /// There is none any more.
    Remove,
}

impl<T> Setting<T> {
    /// The meaning of two fields of a request: the value, or the flag that removes it. Not both.
    pub fn of(field: &'static str, value: Option<T>, remove: Option<bool>) -> Result<Self> {
        match (value, remove == Some(true)) {
            (Some(_), true) => Err(Error::invalid(field, "is given and removed at once: send one of the two")),
            (Some(value), false) => Ok(Self::Set(value)),
            (None, true) => Ok(Self::Remove),
            (None, false) => Ok(Self::Keep),
        }
    }

    pub(super) fn after(&self, before: Option<T>) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Self::Keep => before,
            Self::Set(value) => Some(value.clone()),
            Self::Remove => None,
        }
    }
}
