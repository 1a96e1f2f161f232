//! Exact numbers. No value here passes through a float.
//!
//! Every type is an integer count of its smallest unit: millionths for amounts, values and fractions, 10^-18 for
//! confidences. A number with more decimals than its type has is refused, never rounded; trailing zeros do not count.

mod scaled;
mod written;

pub use scaled::scaled_text;
pub use written::ParseNumberError;

use rust_decimal::Decimal;
use scaled::Scaled;
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use written::Written;

/// Decimals of amounts, values, totals and fractions.
const SCALE: u32 = 6;
/// Decimals of a confidence: a double prints at most 17 significant digits.
const CONFIDENCE_SCALE: u32 = 18;
/// The largest amount, 10^12 units.
const AMOUNT_MAX: i128 = 1_000_000_000_000;

/// `numerator / denominator` as a count of `10^-scale`, rounded half to even. For display only: decisions compare exactly.
///
/// Returns `None` when the denominator is zero or the result leaves i128.
#[must_use]
pub fn divide(numerator: i128, denominator: i128, scale: u32) -> Option<i128> {
    let scaled = numerator.checked_mul(10_i128.checked_pow(scale)?)?;
    let (quotient, remainder) = (scaled.checked_div(denominator)?, scaled.checked_rem(denominator)?);
    let twice = remainder.unsigned_abs().checked_mul(2)?;
    let up = match twice.cmp(&denominator.unsigned_abs()) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    let away = if (scaled < 0) == (denominator < 0) { 1 } else { -1 };
    Some(if up { quotient + away } else { quotient })
}

/// A SQL decimal as a count of `10^-scale`; `None` when it has more decimals than that.
fn units_of(decimal: Decimal, scale: u32) -> Option<i128> {
    let decimal = decimal.normalize();
    decimal.mantissa().checked_mul(10_i128.checked_pow(scale.checked_sub(decimal.scale())?)?)
}

fn number_schema(description: &str, min: i128, max: i128, scale: u32) -> ObjectBuilder {
    // The schema shows bounds as floats; each is exact in a double.
    #[expect(clippy::cast_precision_loss, reason = "schema bounds are powers of ten that a double holds exactly")]
    let bound = |units: i128| units as f64 / 10_f64.powi(i32::try_from(scale).unwrap_or(0));
    ObjectBuilder::new()
        .schema_type(if scale == 0 { Type::Integer } else { Type::Number })
        .description(Some(description))
        .minimum(Some(bound(min)))
        .maximum(Some(bound(max)))
}

/// The parts that all exact numbers share: parser, text, JSON number, SQL decimal.
macro_rules! exact_number {
    ($type:ident, $repr:ty, $name:literal, $scale:expr, $min:expr, $max:expr, $about:literal) => {
        impl $type {
            /// The number 0.
            pub const ZERO: Self = Self(0);

            /// The count of smallest units.
            #[must_use]
            pub const fn units(self) -> i128 {
                self.0 as i128
            }

            /// The number as a SQL decimal.
            #[must_use]
            pub fn to_decimal(self) -> Decimal {
                Decimal::from_i128_with_scale(self.units(), $scale)
            }

            /// The number of a SQL decimal; `None` when it is out of this type's range or precision.
            #[must_use]
            pub fn from_decimal(decimal: Decimal) -> Option<Self> {
                let units = units_of(decimal, $scale)?;
                ($min..=$max).contains(&units).then_some(units)?.try_into().ok().map(Self)
            }
        }

        impl FromStr for $type {
            type Err = ParseNumberError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let written = Written::read(text).map_err(|error| match error {
                    ParseNumberError::Syntax if $scale == 0 => ParseNumberError::NotWhole,
                    error => error,
                });
                let units = written?.units($scale, $min, $max)?;
                Ok(Self(units.try_into().expect("the range check keeps the units within the representation")))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Scaled(self.units(), $scale).fmt(f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Scaled(self.units(), $scale).serialize(serializer)
            }
        }

        $crate::types::scalar!($type, $name, number_schema($about, $min, $max, $scale));
    };
}

/// An amount of money or risk: 0 to 10^12, at most six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(i64);
exact_number!(
    Amount,
    i64,
    "Amount",
    SCALE,
    0,
    AMOUNT_MAX * 1_000_000,
    "A decimal amount, at most 6 decimals, exact. A JSON number or string."
);

impl Amount {
    /// The amount from millionths; `None` outside 0 to 10^12.
    #[must_use]
    pub fn from_units(units: i128) -> Option<Self> {
        (0..=AMOUNT_MAX * 1_000_000).contains(&units).then(|| Self(i64::try_from(units).expect("10^18 fits an i64")))
    }

    /// True for zero, which some routes take as "none".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// A measured value: -10^12 to 10^12, at most six decimals. It is not named `Value`, because `utoipa` takes a field of
/// that type name for any JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Measured(i64);
exact_number!(
    Measured,
    i64,
    "Measured",
    SCALE,
    -AMOUNT_MAX * 1_000_000,
    AMOUNT_MAX * 1_000_000,
    "A measured value, at most 6 decimals, exact. A JSON number or string."
);

/// A sum of amounts or of differences of amounts: signed, six decimals, within NUMERIC(28,6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Total(i128);
/// 10^22 units: ten thousand million amounts of the largest size. A SQL decimal of this crate holds 28 digits.
const TOTAL_MAX: i128 = 10_000_000_000_000_000_000_000 * 1_000_000;
exact_number!(Total, i128, "Total", SCALE, -TOTAL_MAX, TOTAL_MAX, "A sum of amounts, at most 6 decimals, exact.");

impl Total {
    /// The largest total, 10^22.
    pub const MAX: Self = Self(TOTAL_MAX);

    /// The total from millionths; `None` beyond ±10^22.
    #[must_use]
    pub fn from_units(units: i128) -> Option<Self> {
        (-TOTAL_MAX..=TOTAL_MAX).contains(&units).then_some(Self(units))
    }

    /// The sum, or `None` beyond the largest total.
    #[must_use]
    pub fn plus(self, other: impl Into<Self>) -> Option<Self> {
        Self::from_units(self.0.checked_add(other.into().0)?)
    }

    /// The difference, or `None` beyond the largest total.
    #[must_use]
    pub fn minus(self, other: impl Into<Self>) -> Option<Self> {
        Self::from_units(self.0.checked_sub(other.into().0)?)
    }
}

impl From<Amount> for Total {
    fn from(amount: Amount) -> Self {
        Self(amount.units())
    }
}

impl From<Measured> for Total {
    fn from(value: Measured) -> Self {
        Self(value.units())
    }
}

/// A fraction: 0 to 1, at most six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fraction(i64);
exact_number!(Fraction, i64, "Fraction", SCALE, 0, 1_000_000, "A fraction from 0 to 1, at most 6 decimals, exact.");

/// A stated confidence: 0 to 1, at most 18 decimals, so that any double that a JSON encoder prints is read exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Confidence(i64);
exact_number!(
    Confidence,
    i64,
    "Confidence",
    CONFIDENCE_SCALE,
    0,
    1_000_000_000_000_000_000,
    "A confidence from 0 to 1, at most 18 decimals, exact."
);

impl Confidence {
    /// True if the confidence is at least the threshold.
    #[must_use]
    pub fn reaches(self, threshold: Fraction) -> bool {
        self.units() >= threshold.units() * 1_000_000_000_000
    }
}

/// A rate, a mean or a drop in answers: twelve decimals, rounded half to even. It is never compared; decisions are
/// exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ratio(i128);
const RATIO_SCALE: u32 = 12;
/// The largest value. Anything larger is shown as this.
const RATIO_MAX: i128 = AMOUNT_MAX * 1_000_000_000_000;
exact_number!(
    Ratio,
    i128,
    "Ratio",
    RATIO_SCALE,
    -RATIO_MAX,
    RATIO_MAX,
    "A rate, a mean or a drop, rounded to 12 decimals."
);

impl Ratio {
    /// `numerator / denominator`; none if the denominator is 0.
    #[must_use]
    pub fn of(numerator: i128, denominator: i128) -> Option<Self> {
        if denominator == 0 {
            return None;
        }
        // Beyond 10^25 the last digits are not shown anyway and would not fit the division.
        let (mut numerator, mut denominator) = (numerator, denominator);
        while numerator.unsigned_abs() > 10_u128.pow(25) && denominator.unsigned_abs() > 10 {
            (numerator, denominator) = (numerator / 10, denominator / 10);
        }
        let units = divide(numerator, denominator, RATIO_SCALE).unwrap_or(if (numerator < 0) == (denominator < 0) {
            RATIO_MAX
        } else {
            -RATIO_MAX
        });
        Some(Self(units.clamp(-RATIO_MAX, RATIO_MAX)))
    }

    /// The number with three decimals, as notes show it.
    #[must_use]
    pub fn short(self) -> String {
        let thousandths = divide(self.units(), 1_000_000_000, 0).unwrap_or_default();
        let sign = if thousandths < 0 { "-" } else { "" };
        format!("{sign}{}.{:03}", thousandths.abs() / 1_000, thousandths.abs() % 1_000)
    }
}

/// A count: a whole number from 0 to 10^12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Count(i64);
exact_number!(Count, i64, "Count", 0, 0, AMOUNT_MAX, "A whole number.");

impl Count {
    /// The count as an integer, for SQL and arithmetic.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// The lifetime of a hold in seconds: from one second to 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(i64);
const TTL_SECONDS_MAX: i128 = 2_592_000;
exact_number!(Ttl, i64, "Ttl", 0, 1, TTL_SECONDS_MAX, "Lifetime of a hold in seconds, up to 30 days.");

impl Ttl {
    /// The lifetime as a duration.
    #[must_use]
    pub const fn duration(self) -> chrono::TimeDelta {
        chrono::TimeDelta::seconds(self.0)
    }

    /// The lifetime in whole seconds, for SQL.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0
    }
}

/// The most rows of a page: 1 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(i64);
exact_number!(PageSize, i64, "PageSize", 0, 1, PageSize::MAX.units(), "The most rows of a page.");

impl PageSize {
    /// The page size if the caller names none.
    pub const DEFAULT: Self = Self(100);

    /// The largest page size.
    pub const MAX: Self = Self(1_000);

    /// The number of rows, 1 to 1000.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// A yes or no in any of its usual spellings: true/false, 1/0, yes/no, on/off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Flag(pub bool);

impl FromStr for Flag {
    type Err = ParseNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim_matches([' ', '\t']).to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Self(true)),
            "false" | "0" | "no" | "off" => Ok(Self(false)),
            _ => Err(ParseNumberError::Boolean),
        }
    }
}

crate::types::scalar!(
    Flag,
    "Flag",
    ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .description(Some("true or false; also 1/0, yes/no, on/off as text."))
);

#[cfg(test)]
mod tests;
