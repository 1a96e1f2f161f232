//! The meaning of a database failure: for the caller, and for the connection.

use super::Refusal;

/// True if the database is away, overloaded or shutting down; false if a statement is wrong.
pub(crate) fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        // A refused session has this.
        | sqlx::Error::Configuration(_)
        | sqlx::Error::Protocol(_) => true,
        // 08 connection, 53 resources, 57 operator intervention (shutdown, statement timeout), 55P03 lock timeout,
        // 25P03/25006 idle in transaction and read-only standby, 40 serialisation and deadlock, 3D000 database not
        // created yet, 58 disk failure.
        _ => code(error).is_some_and(|code| {
            ["08", "53", "57", "40", "58"].iter().any(|class| code.starts_with(class))
                || ["55P03", "25P03", "25006", "3D000"].contains(&code.as_str())
                || is_read_only_disk(error)
                || is_partition_missing(error)
        }),
    }
}

/// True if an event found no partition. One is made at once, and then the same statement succeeds.
pub(crate) fn is_partition_missing(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("23514")
        && error.as_database_error().is_some_and(|error| error.message().starts_with("no partition of relation"))
}

/// True if a server that refused a connection may accept one later without a change: it is not refusing this user or
/// database.
pub(crate) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::PermissionDenied,
        sqlx::Error::PoolTimedOut => true,
        // 08 connection, 53300 too many connections, 57P01 to 57P03 stopping and starting.
        _ => code(error).is_some_and(|code| {
            code.starts_with("08") || ["53300", "57P01", "57P02", "57P03"].contains(&code.as_str())
        }),
    }
}

pub(crate) fn is_disk_full(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("53100")
        || matches!(error, sqlx::Error::Configuration(source) if source.is::<DiskFull>())
}

/// The disk is full. Every caller that waited for the same batch gets this error, not only the one whose statement
/// found it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the disk of the database is full")]
pub(crate) struct DiskFull;

/// A copy of the failure, for another caller that waited for the same batch.
pub(crate) fn again(error: &sqlx::Error) -> sqlx::Error {
    if is_disk_full(error) { sqlx::Error::Configuration(Box::new(DiskFull)) } else { sqlx::Error::PoolClosed }
}

/// True if the connection broke, or leads to a server that has become a standby: another connection may work at once.
/// False for timeouts, of PostgreSQL or ours, and for refused connections: a new connection would only wait again.
pub(crate) fn is_of_the_connection(error: &sqlx::Error) -> bool {
    let is_limit = matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
        || is_partition_missing(error)
        || code(error).is_some_and(|code| code.starts_with("53") || ["55P03", "57014"].contains(&code.as_str()));
    is_unreachable(error) && !is_limit && Refusal::of(error).is_none()
}

/// One sentence for a caller whose request was not decided: the cause, and the next step.
pub(crate) fn sentence(error: &sqlx::Error) -> String {
    if let Some(refusal) = Refusal::of(error) {
        return format!("the database cannot be used: {refusal}; nothing was decided, try again once that is done");
    }
    if is_disk_full(error) {
        return "the disk of the database is full: nothing was decided; free some space and try again".to_owned();
    }
    let text = match code(error).as_deref() {
        Some("25006") => "the database has become a standby or read-only: nothing was decided, try again",
        Some("55P03") => {
            "another operation held a lock for longer than this one may wait: nothing was decided, try again"
        }
        Some("57014") => {
            "the statement took longer than its time limit: nothing was decided, try again, or ask for less"
        }
        Some("23514") => "the partition for the next event is being made: nothing was decided, try again",
        Some("53300") => {
            "the database has no connection left: nothing was decided, try again; if this persists, raise its \
             max_connections"
        }
        Some(code) if code.starts_with("58") => {
            "the database cannot read or write its files: nothing was decided; find the file in its log, repair it and \
             try again"
        }
        _ if is_read_only_disk(error) => {
            "the disk of the database is read-only: nothing was decided; make it writable and try again"
        }
        _ => "the database cannot be reached: nothing was decided, try again",
    };
    text.to_owned()
}

/// Advice for a connection that could not be made.
pub(crate) fn advice(error: &sqlx::Error) -> &'static str {
    let text = error.to_string();
    let advices = [
        (
            "CaUsedAsEndEntity",
            "the server's certificate is a CA certificate, as a self-signed one is: have a CA sign another one, and \
             name that CA's file in \
             sslrootcert",
        ),
        (
            "UnknownIssuer",
            "the CA that signed the server's certificate is not trusted here: name the CA's file in sslrootcert",
        ),
        ("NotValidForName", "the server's certificate is for another host name: use that name in DATABASE_URL"),
    ];
    let found = advices.into_iter().find(|(sign, _)| text.contains(sign));
    found.map_or("check DATABASE_URL, and that the server is running", |(_, advice)| advice)
}

/// PostgreSQL reports this with the code of a missing privilege and the text of strerror.
fn is_read_only_disk(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("42501")
        && error.as_database_error().is_some_and(|error| error.message().contains("Read-only file system"))
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_refused_says_which_one_is_needed() {
        let refused = |sign: &str| {
            let text = format!("invalid peer certificate: {sign}");
            advice(&sqlx::Error::Tls(text.into()))
        };
        assert!(refused("Other(OtherError(CaUsedAsEndEntity))").contains("self-signed"));
        assert!(refused("UnknownIssuer").contains("sslrootcert"));
        assert!(refused("Expired").contains("DATABASE_URL"));
    }
}
