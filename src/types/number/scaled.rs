//! Output of numbers: text and JSON of a count of smallest units, written straight to the destination.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;

/// Plain decimal text of `units * 10^-scale`: no exponent, no trailing zeros, `0` for zero. This is also the canonical
/// text that the hash chain covers.
#[must_use]
pub fn scaled_text(units: i128, scale: u32) -> String {
    Scaled(units, scale).to_string()
}

/// A count of units of `10^-scale`, displayed as [`scaled_text`] writes it.
pub(super) struct Scaled(pub(super) i128, pub(super) u32);

impl Scaled {
    /// The digits before the point and, as a number of `scale` digits, those after it.
    fn parts(&self) -> (u128, u128) {
        let (magnitude, base) = (self.0.unsigned_abs(), 10_u128.pow(self.1));
        // Nearly all numbers fit 64 bits; a division of 128 bits takes ten times as long.
        match (u64::try_from(magnitude), u64::try_from(base)) {
            (Ok(magnitude), Ok(base)) => ((magnitude / base).into(), (magnitude % base).into()),
            _ => (magnitude / base, magnitude % base),
        }
    }
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, mut fraction) = self.parts();
        let sign = if self.0 < 0 { "-" } else { "" };
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let mut width = self.1 as usize;
        while fraction.is_multiple_of(10) {
            (fraction, width) = (fraction / 10, width - 1);
        }
        write!(f, "{sign}{whole}.{fraction:0width$}")
    }
}

impl Serialize for Scaled {
    /// A JSON number with exactly these digits.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let (whole, 0) = self.parts()
            && let Ok(whole) = i64::try_from(whole)
        {
            return serializer.serialize_i64(if self.0 < 0 { -whole } else { whole });
        }
        // A serialiser takes other numbers only as floats, which would lose digits.
        RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_their_own_digits() {
        for (units, scale, text) in [
            (0, 6, "0"),
            (-1, 0, "-1"),
            (1, 6, "0.000001"),
            (-1_500_000, 6, "-1.5"),
            (100_000_000, 6, "100"),
            (1_000_000_000_000_000_000, 18, "1"),
            (300_000_000_000_000_000, 18, "0.3"),
            (i128::from(i64::MAX), 0, "9223372036854775807"),
            (i128::from(i64::MIN), 0, "-9223372036854775808"),
            (i128::from(u64::MAX), 6, "18446744073709.551615"),
            (super::super::TOTAL_MAX, 6, "10000000000000000000000"),
            (1 - super::super::TOTAL_MAX, 6, "-9999999999999999999999.999999"),
            (10_000_000_000_000_000_000_000_000_000, 6, "10000000000000000000000"),
        ] {
            assert_eq!(scaled_text(units, scale), text);
            assert_eq!(serde_json::to_string(&Scaled(units, scale)).unwrap(), text);
        }
    }
}
