//! The requests to the ledger, and the values of its answers, found without parsing them.

use crate::http::{Answer, find};

/// The path of reserves.
pub(crate) const RESERVE: &str = "/risk/check-and-reserve";
/// The path of settles.
pub(crate) const SETTLE: &str = "/risk/settle";
/// The path of batches.
pub(crate) const BATCH: &str = "/risk/batch";
/// Bytes of a reservation's id as text.
pub(crate) const ID_BYTES: usize = 36;

/// A reserve of 1, as JSON.
pub(crate) fn reserve_of_one(engine: &str) -> String {
    format!(r#"{{"engine":"{engine}","amount":1,"actor":"bench"}}"#)
}

impl<'a> Answer<'a> {
    /// Whether the answer says `"ok":true`, `"ok":false`, or neither.
    pub(crate) fn ok(self) -> Option<bool> {
        let name = b"\"ok\":";
        find(self.body, name).map(|at| self.body[at + name.len()..].starts_with(b"true"))
    }

    /// Every `ok` that it says: how many are true, how many are false.
    pub(crate) fn oks(self) -> (u64, u64) {
        let name = b"\"ok\":";
        let (mut allowed, mut denied) = (0, 0);
        let mut rest = self.body;
        while let Some(at) = find(rest, name) {
            rest = &rest[at + name.len()..];
            if rest.starts_with(b"true") {
                allowed += 1;
            } else {
                denied += 1;
            }
        }
        (allowed, denied)
    }

    /// The ids that it names, as text.
    pub(crate) fn ids(self) -> impl Iterator<Item = &'a [u8]> {
        const NAME: &[u8; 18] = b"\"reservation_id\":\"";
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let from = find(rest, NAME)? + NAME.len();
            let id = rest.get(from..from + ID_BYTES)?;
            rest = &rest[from + ID_BYTES..];
            Some(id)
        })
    }
}

/// An id as a number; `None` if it is no UUID.
pub(crate) fn id_of(text: &[u8]) -> Option<u128> {
    let digits = text.iter().filter(|byte| **byte != b'-');
    digits.copied().try_fold(0, |id: u128, byte| {
        let digit = char::from(byte).to_digit(16)?;
        Some(id << 4 | u128::from(digit))
    })
}
