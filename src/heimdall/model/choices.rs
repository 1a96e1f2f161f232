//! The choices of a policy: window, rule and evidence, and their names.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The window of the trials that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ScorecardWindow {
    /// The trials of the UTC day.
    Day,
    /// The trials of the last `window_days` UTC days, today included.
    RollingDays,
}

impl ScorecardWindow {
    /// The window's name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "DAY",
            Self::RollingDays => "ROLLING_DAYS",
        }
    }

    /// The window with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Day, Self::RollingDays].into_iter().find(|window| window.as_str() == name)
    }
}

/// The rule by which the success rate is compared with its minimum, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GateRule {
    /// The share of successes itself.
    Point,
    /// The one-sided 95 % lower bound of the share, by Wilson's score.
    Lcb,
    /// Evidence of 20 against "at most the minimum", which holds at 5 % however often it is read.
    Anytime,
}

impl GateRule {
    /// The rule's name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Point => "POINT",
            Self::Lcb => "LCB",
            Self::Anytime => "ANYTIME",
        }
    }

    /// The rule with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Point, Self::Lcb, Self::Anytime].into_iter().find(|rule| rule.as_str() == name)
    }
}

/// Whether the evidence passed when production use was switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The evidence passed.
    Met,
    /// The evidence did not pass.
    NotMet,
}

impl Evidence {
    /// The name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not_met",
        }
    }

    /// The choice with this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Met, Self::NotMet].into_iter().find(|evidence| evidence.as_str() == name)
    }
}

/// The effect of an upsert on a setting that may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting<T> {
    /// The setting stays.
    Keep,
    /// The setting becomes this value.
    Set(T),
    /// The setting is removed.
    Remove,
}

impl<T> Setting<T> {
    /// Combines two fields of a request: the value, or the flag that removes it. Both together are refused.
    pub fn of(field: &'static str, value: Option<T>, remove: Option<bool>) -> Result<Self> {
        match (value, remove == Some(true)) {
            (Some(_), true) => Err(Error::invalid(field, "is set and removed in one request: send one of the two")),
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
