//! The holder of a token.

use super::meter::Meter;
use super::token::Token;
use crate::identity::Grant;
use crate::types::TokenId;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The holder of a token, as this instance knows it.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) id: TokenId,
    /// The SHA-256 of the token.
    pub(super) digest: [u8; 32],
    pub(super) grant: Arc<Grant>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) revoked_at: Option<DateTime<Utc>>,
    /// The use of its rates, and its last use.
    pub(super) meter: Arc<Meter>,
}

impl Holder {
    /// Whether this is the holder's token. The time of the comparison does not depend on the number of equal bytes.
    pub(super) fn shows(&self, token: &Token) -> bool {
        self.id == token.id() && bool::from(self.digest[..].ct_eq(&token.digest()[..]))
    }
}
