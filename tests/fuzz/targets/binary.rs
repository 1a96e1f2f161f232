//! Rows in COPY's binary format: whatever the bytes are, they are read or refused, and what is read is chained as text.
//!
//! The input is a message; where it is a row, each value is taken for every kind of column. The same bytes are taken for a
//! value by themselves, too, since a row that holds one is rarely guessed.

#![no_main]

use holdfast::audit::binary::{append, integer, micros, values};
use holdfast::audit::layout::{Column, Kind};
use libfuzzer_sys::fuzz_target;

const KINDS: [Kind; 8] =
    [Kind::Integer, Kind::Time, Kind::Text, Kind::Free, Kind::Boolean, Kind::Decimal, Kind::Uuid, Kind::Day];

fn check(value: Option<&[u8]>) {
    for kind in KINDS {
        for digest in [None, Some("0123")] {
            let mut bytes = b"before".to_vec();
            if append(&mut bytes, Column { name: "column", kind }, value, digest).is_err() {
                continue;
            }
            let appended = bytes.strip_prefix(b"before").expect("what was there stays");
            let (length, text) = appended.split_at(4);
            match u32::from_be_bytes(length.try_into().expect("four bytes")) {
                u32::MAX => assert!(value.is_none() && text.is_empty()),
                length => assert_eq!(length as usize, text.len()),
            }
            // Text is the caller's; everything else is written here, and plain.
            if !matches!(kind, Kind::Text) {
                assert!(text.is_ascii(), "{kind:?}");
            }
            if matches!(kind, Kind::Decimal) && value.is_some() {
                let digits = std::str::from_utf8(text).expect("ASCII");
                let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.' || byte == b'-';
                assert!(!digits.is_empty() && digits.bytes().all(plain), "{digits}");
                assert!(!digits.ends_with('.') && (!digits.contains('.') || !digits.ends_with('0')), "{digits}");
            }
        }
    }
    if let Some(value) = value {
        let _ = (integer(value), micros(value));
    }
}

fuzz_target!(|message: &[u8]| {
    let mut row = Vec::new();
    if let Ok(true) = values(message, &mut row) {
        row.iter().for_each(|value| check(*value));
    }
    check(Some(message));
    check(None);
});
