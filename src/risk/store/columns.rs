//! Values of columns; an error where one cannot be read.

use crate::error::{Error, Result};
use crate::types::{Amount, Count, Engine, ReservationStatus, RiskAction, Total, Ttl};
use rust_decimal::Decimal;

pub(super) fn amount(decimal: Decimal) -> Result<Amount> {
    Amount::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not an amount")))
}

pub(super) fn total(decimal: Option<Decimal>) -> Result<Total> {
    let decimal = decimal.unwrap_or_default();
    Total::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("{decimal} is not a total")))
}

pub(super) fn count(number: i64) -> Result<Count> {
    Count::from_decimal(number.into()).ok_or_else(|| Error::Inconsistent(format!("{number} is not a count")))
}

pub(super) fn ttl(seconds: Option<i64>) -> Result<Option<Ttl>> {
    let read = |seconds: i64| {
        Ttl::from_decimal(seconds.into())
            .ok_or_else(|| Error::Inconsistent(format!("a hold's lifetime cannot be read: {seconds} s")))
    };
    seconds.map(read).transpose()
}

pub(super) fn engine(name: &str) -> Result<Engine> {
    name.parse().map_err(|_| Error::Inconsistent(format!("{name} is not an engine")))
}

pub(super) fn status(text: &str) -> Result<ReservationStatus> {
    ReservationStatus::read(text).ok_or_else(|| Error::Inconsistent(format!("{text} is not a status")))
}

pub(super) fn action(text: &str) -> Result<RiskAction> {
    RiskAction::read(text).ok_or_else(|| Error::Inconsistent(format!("{text} is not an action of the risk stream")))
}
