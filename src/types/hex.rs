//! Lower-case hex of bytes, and back.

/// The bytes as lower-case hex, two digits each.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len() * 2);
    append_hex(&mut text, bytes);
    String::from_utf8(text).expect("digits are ASCII")
}

/// Appends the bytes as lower-case hex.
pub fn append_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    text.reserve(bytes.len() * 2);
    for byte in bytes {
        // Two digits at a time, for speed: every event that is written or verified has digests.
        text.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xF)]]);
    }
}

/// The 32 bytes of 64 hex digits; none for any other text.
pub(crate) fn digest_of(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
