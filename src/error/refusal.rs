//! The sessions that are refused.

use std::error::Error as _;

/// Why a server, or a connection to it, is not used; the sentence says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It follows another server.
    #[error("this server is a standby, which records nothing and may be behind: connect to the primary")]
    Standby,
    /// Nothing that the search path names exists.
    #[error(
        "the search_path ({0}) names no schema that exists and may be used: create one, or set it for the role (ALTER ROLE … SET \
         search_path)"
    )]
    NoSchema(String),
    /// The schema that this process works in is not there, as on another server.
    #[error("the schema {0} is not there, or may not be used: connect to the server that has it")]
    SchemaLost(String),
    /// A pooler gives each transaction a session, and not the same one.
    #[error(
        "a pooler on the way gives each transaction another session: set it to session mode (pool_mode = session), or connect directly"
    )]
    Shared,
    /// The session is not as it was set.
    #[error(
        "of the session, {0}: take that off the role or the database (ALTER ROLE … RESET, ALTER DATABASE … RESET), off PGOPTIONS, or \
         off the pooler on the way"
    )]
    Settings(String),
}

impl From<Refusal> for sqlx::Error {
    fn from(refusal: Refusal) -> Self {
        Self::Configuration(Box::new(refusal))
    }
}

impl Refusal {
    /// The refusal that an error is about.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Option<&Self> {
        matches!(error, sqlx::Error::Configuration(_)).then(|| error.source()?.downcast_ref()).flatten()
    }
}
