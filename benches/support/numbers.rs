//! Numbers to calculate with, and numbers to read.

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
