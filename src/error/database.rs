//! What a failure of the database means: for whoever asked, and for the connection.

use super::Refusal;

/// Whether an error says that the database is away, overloaded or shutting down, rather than that a statement is wrong.
pub(crate) fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        // Of a session that was refused.
        | sqlx::Error::Configuration(_)
        | sqlx::Error::Protocol(_) => true,
        // 08 connection, 53 resources, 57 operator intervention (shutdown, statement timeout), 55P03 lock timeout,
        // 25P03/25006 idle-in-transaction and read-only standby, 40 serialisation and deadlock, 3D000 no such database yet,
        // 58 its disk fails.
        _ => code(error).is_some_and(|code| {
            ["08", "53", "57", "40", "58"].iter().any(|class| code.starts_with(class))
                || ["55P03", "25P03", "25006", "3D000"].contains(&code.as_str())
                || is_read_only_disk(error)
        }),
    }
}

/// Whether a server that could not be connected to may be there in a while by itself. Not so where it refused who asks, or what for.
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

/// Whether an error says that the disk of the database is full.
pub(crate) fn is_disk_full(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("53100")
        || matches!(error, sqlx::Error::Configuration(source) if source.is::<DiskFull>())
}

/// The disk of the database is full: told to all who waited with the one whose statement found that.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the disk of the database is full")]
pub(crate) struct DiskFull;

/// The same failure for another one who waited for the same.
pub(crate) fn again(error: &sqlx::Error) -> sqlx::Error {
    if is_disk_full(error) { sqlx::Error::Configuration(Box::new(DiskFull)) } else { sqlx::Error::PoolClosed }
}

/// Whether a connection broke, or is to a server that has become a standby: another one may work at once. Not so where time ran
/// out, by PostgreSQL's limits or ours, or where new connections are refused: there a new one would only wait again.
pub(crate) fn is_of_the_connection(error: &sqlx::Error) -> bool {
    let is_limit = matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
        || code(error).is_some_and(|code| code.starts_with("53") || ["55P03", "57014"].contains(&code.as_str()));
    is_unreachable(error) && !is_limit && Refusal::of(error).is_none()
}

/// What is wrong, and what to do, in a sentence for whoever asked for something that was therefore not decided.
pub(crate) fn sentence(error: &sqlx::Error) -> String {
    if let Some(refusal) = Refusal::of(error) {
        return format!("the database cannot be used: {refusal}; nothing was decided, try again once that is so");
    }
    if is_disk_full(error) {
        return "the disk of the database is full: nothing was decided, make room and try again".to_owned();
    }
    let text = match code(error).as_deref() {
        Some("25006") => "the database has become a standby or read-only: nothing was decided, try again",
        Some("55P03") => {
            "another operation holds what this one needs for longer than it may wait: nothing was decided, try again"
        }
        Some("57014") => {
            "the database took longer over it than a statement may take: nothing was decided, try again, or ask for less"
        }
        Some("53300") => {
            "the database has no connection left: nothing was decided, try again; if it stays so, raise its max_connections"
        }
        Some(code) if code.starts_with("58") => {
            "the database cannot read or write its files: nothing was decided; its log says which, mend that and try again"
        }
        _ if is_read_only_disk(error) => {
            "the disk of the database is read-only: nothing was decided; make it writable and try again"
        }
        _ => "the database cannot be reached: nothing was decided, try again",
    };
    text.to_owned()
}

/// The things to look at where no connection could be made.
pub(crate) fn advice(error: &sqlx::Error) -> &'static str {
    let text = error.to_string();
    let advices = [
        (
            "CaUsedAsEndEntity",
            "the server's certificate is that of a CA, as a self-signed one is: have a CA sign another for it, and name that CA's file in \
             sslrootcert",
        ),
        (
            "UnknownIssuer",
            "the CA that signed the server's certificate is not known here: name its file in sslrootcert",
        ),
        ("NotValidForName", "the server's certificate is for another name: use that in DATABASE_URL"),
    ];
    let found = advices.into_iter().find(|(sign, _)| text.contains(sign));
    found.map_or("check DATABASE_URL and that the server runs", |(_, advice)| advice)
}

/// PostgreSQL says this with the code of a missing privilege, and strerror's text.
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
