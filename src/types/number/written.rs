//! Parser of numbers: reads them from their digits.

use super::scaled_text;

/// Longest text that is read as a number; 10^12 with 18 decimals and an exponent needs under 40.
const NUMBER_LENGTH_MAX: usize = 64;
/// The refusal of a number: the sentence says the fix and follows the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseNumberError {
    /// Not `-?digits[.digits][e±digits]`.
    #[error("is not a plain decimal number: send digits, for example 400 or \"0.3\"")]
    Syntax,
    /// Not a whole number, where only whole numbers are accepted.
    #[error("is not a whole number: send digits alone, for example 400")]
    NotWhole,
    /// The text is longer than any number of the service.
    #[error("is a number of {0} characters, at most {NUMBER_LENGTH_MAX}: shorten it")]
    TooLong(usize),
    /// More decimals than the type keeps.
    #[error("has {decimals} decimals, at most {max}: round it, or send \"{rounded}\"")]
    TooPrecise {
        /// Decimals of the number, without trailing zeros.
        decimals: u32,
        /// The most decimals that the type keeps.
        max: u32,
        /// The nearest number that would be accepted.
        rounded: String,
    },
    /// Below the smallest value.
    #[error("is {0}, which is less than {1}: send a number from {1} to {2}")]
    TooSmall(String, String, String),
    /// Above the largest value.
    #[error("is more than {1}: send a number from {0} to {1}")]
    TooLarge(String, String),
    /// `-0`: the sign has no meaning, so it is a mistake.
    #[error("is minus zero: send 0")]
    MinusZero,
    /// Zero, where the amount must be positive.
    #[error("must be more than 0: send at least 0.000001")]
    Zero,
    /// Not one of the spellings of a boolean.
    #[error("is not a yes or no: send true or false (also 1/0, yes/no, on/off)")]
    Boolean,
}

/// A number as written: `digits * 10^exponent`, digits without trailing zeros.
pub(super) struct Written {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Written {
    pub(super) fn read(text: &str) -> Result<Self, ParseNumberError> {
        let text = text.trim_matches([' ', '\t']);
        if text.len() > NUMBER_LENGTH_MAX {
            return Err(ParseNumberError::TooLong(text.len()));
        }
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], read_exponent(&rest[at + 1..])?),
            None => (rest, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return Err(ParseNumberError::Syntax),
            Some((whole, fraction)) => (whole, fraction),
            None => (mantissa, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if whole.is_empty() || leading_zero || !all_digits(whole) || !all_digits(fraction) {
            return Err(ParseNumberError::Syntax);
        }
        let written = format!("{whole}{fraction}");
        let digits = written.trim_end_matches('0');
        // Both lengths are below NUMBER_LENGTH_MAX.
        let stripped = i64::try_from(written.len() - digits.len()).expect("lengths are bounded");
        let decimals = i64::try_from(fraction.len()).expect("lengths are bounded");
        let digits = digits.trim_start_matches('0').to_owned();
        if digits.is_empty() && negative {
            return Err(ParseNumberError::MinusZero);
        }
        Ok(Self { negative, exponent: if digits.is_empty() { 0 } else { exponent - decimals + stripped }, digits })
    }

    /// The count of units of `10^-scale`, within `[min, max]` units.
    pub(super) fn units(&self, scale: u32, min: i128, max: i128) -> Result<i128, ParseNumberError> {
        let bounds = || (scaled_text(min, scale), scaled_text(max, scale));
        let too_large = || {
            let (min, max) = bounds();
            if self.negative {
                ParseNumberError::TooSmall("negative".into(), min, max)
            } else {
                ParseNumberError::TooLarge(min, max)
            }
        };
        let shift = self.exponent + i64::from(scale);
        let length = i64::try_from(self.digits.len()).expect("lengths are bounded");
        // 10^37 units is beyond every bound here and within i128, so nothing below can overflow.
        if length + shift > 37 {
            return Err(too_large());
        }
        let Ok(shift) = u32::try_from(shift) else {
            return Err(self.too_precise(scale));
        };
        let magnitude = if self.digits.is_empty() {
            0
        } else {
            self.digits.parse::<i128>().map_err(|_| too_large())? * 10_i128.pow(shift)
        };
        let units = if self.negative { -magnitude } else { magnitude };
        if units < min {
            let (min, max) = bounds();
            return Err(ParseNumberError::TooSmall(scaled_text(units, scale), min, max));
        }
        if units > max {
            return Err(too_large());
        }
        Ok(units)
    }

    /// The refusal of a number with too many decimals, with the nearest accepted number (half to even).
    fn too_precise(&self, max: u32) -> ParseNumberError {
        let decimals = u32::try_from(-self.exponent).unwrap_or(u32::MAX);
        let drop = usize::try_from(decimals.saturating_sub(max)).unwrap_or(usize::MAX);
        let kept = self.digits.len().checked_sub(drop).map_or("", |length| &self.digits[..length]);
        let rest = &self.digits[kept.len()..];
        let mut units: i128 = kept.parse().unwrap_or(0);
        let half = format!("{:0<width$}", "5", width = rest.len().max(1));
        // If the remaining digits are shorter than the dropped part, they start with zeros and are below one half.
        if drop == rest.len() && (rest > half.as_str() || (rest == half && units % 2 == 1)) {
            units += 1;
        }
        // A number that rounds to 0 was not meant as 0, so the smallest unit is suggested.
        let units = units.max(1);
        let rounded = scaled_text(if self.negative { -units } else { units }, max);
        ParseNumberError::TooPrecise { decimals, max, rounded }
    }
}

fn read_exponent(text: &str) -> Result<i64, ParseNumberError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseNumberError::Syntax);
    }
    // Any exponent above a million is equally absurd; saturating keeps 1e99999999999999999999 a range error.
    let magnitude = digits.parse::<i64>().unwrap_or(1_000_000).min(1_000_000);
    Ok(if negative { -magnitude } else { magnitude })
}
