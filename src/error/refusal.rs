//! The reasons to refuse a database session.

use std::error::Error as _;

/// The reason not to use a server or a connection to it; the message includes the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server is a standby.
    #[error("this server is a standby, which records nothing and may lag behind: connect to the primary")]
    Standby,
    /// The search path names no schema that exists and is usable.
    #[error(
        "the search_path ({0}) names no schema that exists and may be used: create one, or set it for the role (ALTER ROLE … SET \
         search_path)"
    )]
    NoSchema(String),
    /// The schema of this process does not exist on the server.
    #[error("the schema {0} does not exist or may not be used: connect to the server that has it")]
    SchemaLost(String),
    /// A pooler gives each transaction another session.
    #[error(
        "a pooler gives each transaction another session: set it to session mode (pool_mode = session), or connect \
         directly"
    )]
    Shared,
    /// A setting of the session is not as it was set.
    #[error(
        "session settings are overridden: {0}; remove the override from the role or the database (ALTER ROLE … RESET, \
         ALTER DATABASE … RESET), from PGOPTIONS, or from the pooler"
    )]
    Settings(String),
}

impl From<Refusal> for sqlx::Error {
    fn from(refusal: Refusal) -> Self {
        Self::Configuration(Box::new(refusal))
    }
}

impl Refusal {
    /// The refusal inside an error of the driver; none for any other error.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Option<&Self> {
        matches!(error, sqlx::Error::Configuration(_)).then(|| error.source()?.downcast_ref()).flatten()
    }
}
