//! Numbers to calculate with, and numbers to read.

use std::time::Duration;

/// A count as a number that can be divided.
#[expect(clippy::cast_precision_loss, reason = "nothing that is counted here comes near 2^52")]
pub(crate) fn real(count: u64) -> f64 {
    count as f64
}

/// With a comma between the thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Without decimals.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates and sizes, never negative")]
pub(crate) fn rounded(number: f64) -> String {
    grouped(number.round() as u64)
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A share of the samples, `per_100` of them, is not above this; exact. Sorts them.
pub(crate) fn percentile(samples: &mut [f64], per_100: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    let rank = (samples.len() * per_100).div_ceil(100).max(1);
    samples.get(rank - 1).copied().unwrap_or(f64::NAN)
}
