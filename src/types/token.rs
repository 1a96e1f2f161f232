//! The public part of a token.

use std::fmt;
use std::str::FromStr;
use utoipa::openapi::schema::{ObjectBuilder, Type};

/// The prefix of every token, so that scanners can detect leaked secrets.
pub const TOKEN_PREFIX: &str = "hf_";
const ID_DIGITS: usize = 16;

/// The public id of a token: 64 bits, as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(u64);

impl TokenId {
    pub(crate) const fn new(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The refusal of a token's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token's id has 16 hex digits: copy it from holdfast token list")]
pub struct ParseTokenIdError;

impl FromStr for TokenId {
    type Err = ParseTokenIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        // A whole token is refused: a secret must not end up in a shell's history.
        if text.len() != ID_DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseTokenIdError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ParseTokenIdError)
    }
}

crate::types::scalar!(
    TokenId,
    "TokenId",
    ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-fA-F]{16}$"))
);
