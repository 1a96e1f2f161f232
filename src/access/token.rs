//! Tokens, as callers send them. [`Authority`](crate::identity::Authority) holds the rights of a token's holder.

use crate::error::{Error, Result};
use crate::types::{TOKEN_PREFIX, TokenId, hex};
use sha2::{Digest, Sha256};
use std::fmt;

/// The hex digits of a secret: 256 bits.
const SECRET_DIGITS: usize = 64;

/// A token as its holder sends it, `hf_<id>_<secret>`. It is never logged: its debug form shows the id alone.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    text: Box<str>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({TOKEN_PREFIX}{}_…)", self.id)
    }
}

impl Token {
    /// Generates a token from the operating system's randomness.
    pub fn generate() -> Result<Self> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        let failed = |error| Error::Inconsistent(format!("the system's random source failed: {error}"));
        getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret)).map_err(failed)?;
        let id = TokenId::new(u64::from_be_bytes(id));
        Ok(Self { id, text: format!("{TOKEN_PREFIX}{id}_{}", hex(&secret)).into() })
    }

    /// Parses a token; none if the text does not have a token's form.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
        let digits = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (secret.len() == SECRET_DIGITS && digits(secret) && digits(id)).then_some(())?;
        Some(Self { id: id.parse().ok()?, text: text.into() })
    }

    /// Parses the value of an `Authorization` header. The error is a sentence for the caller.
    pub fn of_header(value: &[u8]) -> std::result::Result<Self, &'static str> {
        let text = str::from_utf8(value).map_err(|_| "is not text: send Authorization: Bearer hf_…")?;
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() || text.eq_ignore_ascii_case("bearer") {
            return Err("is empty: the variable for it may not be set; send Authorization: Bearer hf_…");
        }
        let (scheme, shown) = text.split_once([' ', '\t']).unwrap_or(("", text));
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        let shown = shown.trim_matches([' ', '\t']);
        if let (Some(token), true) = (Self::read(shown), is_bearer) {
            return Ok(token);
        }
        // The text without the characters that a file, a shell or a form adds.
        let bare: String = shown
            .chars()
            .filter(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'' | '\u{feff}'))
            .collect();
        Err(match (Self::read(&bare), is_bearer) {
            (Some(_), true) => {
                "contains quotes, white space or a line end: send it bare, from a file with tr -d '\\r\\n'"
            }
            (_, false) if !scheme.is_empty() => "came with another scheme than Bearer: send Authorization: Bearer hf_…",
            (Some(_), false) => "came without its scheme: send Authorization: Bearer hf_…",
            (None, _) if bare.starts_with(TOKEN_PREFIX) => {
                "is not whole, or text follows it: send exactly what holdfast token create printed"
            }
            (None, _) => {
                "does not begin with hf_: send what holdfast token create printed, as Authorization: Bearer hf_…"
            }
        })
    }

    /// The token's id, which is not secret.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// The whole token, for the one time that it is shown.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The digest that the database keeps.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_authorization_is_said_of_this_one() {
        for (value, said) in [
            ("", "is empty"),
            ("Bearer", "is empty"),
            ("Bearer  ", "is empty"),
            ("Basic YTpi", "came with another scheme"),
            ("Token hf_0123456789abcdef_x", "came with another scheme"),
            ("Bearer hf_0123456789abcdef_012345", "is not whole"),
            ("hf_0123456789abcdef_012345", "is not whole"),
            ("Bearer secret", "does not begin with hf_"),
        ] {
            let refused = Token::of_header(value.as_bytes()).err().unwrap_or_default();
            assert!(refused.starts_with(said), "{value:?}: {refused}");
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_made_and_never_shows_its_secret() {
        let token = Token::generate().unwrap();
        let read = Token::read(token.expose()).unwrap();
        assert_eq!((read.id(), read.digest(), token.expose().len()), (token.id(), token.digest(), 84));
        assert_ne!(Token::generate().unwrap().expose(), token.expose());
        let secret = &token.expose()[20..];
        assert!(!format!("{token:?}").contains(secret), "{token:?}");
        for bad in [
            "",
            "hf_",
            "hf__",
            &token.expose()[..83],
            &token.expose().to_uppercase(),
            &format!(" {}", token.expose()),
            &format!("{}0", token.expose()),
            &token.expose().replacen("hf_", "hg_", 1),
            &token.expose().replacen("hf_", "hf_+", 1),
        ] {
            assert!(Token::read(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_whole_token_is_not_an_id() {
        let token = Token::generate().unwrap();
        assert!(token.expose().parse::<TokenId>().is_err());
        assert_eq!(token.id().to_string().parse(), Ok(token.id()));
        assert!("+123456789abcdef".parse::<TokenId>().is_err());
    }
}
