//! Confirmed commits: with a synchronous standby, a commit counts only once the standby has it.
//!
//! PostgreSQL makes a commit visible before it waits for the standby. A cancelled wait (`pg_cancel_backend`) still ends
//! with a successful commit and a warning. If the session or the server ends during the wait, the next reader sees the
//! commit all the same. So two rules hold:
//!
//! - The outcome of a commit with a warning is unknown: [`confirmed`].
//! - Something that was only read, and not written by the same transaction, is reported as done after a commit of one's
//!   own ([`confirm`]). That commit is later in the log, so a standby that has it has everything that was read.

use super::commit;
use crate::error::{Error, Result};
use sqlx::{Executor, PgConnection, Postgres, Transaction};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::OnceLock;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};

/// The only target to which sqlx logs the server's notices.
const NOTICES: &str = "sqlx::postgres::notice";

/// Writes something without effect, so that the commit needs the standby's confirmation. It needs no privilege.
const MARK: &str = "SELECT pg_logical_emit_message(true, 'holdfast', '')";

thread_local! {
    /// True if the server has warned since the listening began on this thread.
    static WARNED: Cell<bool> = const { Cell::new(false) };
    /// The subscriber that was active before, which still gets every event.
    static OTHERS: RefCell<Dispatch> = RefCell::new(Dispatch::none());
}

/// Waits for a commit. If the server warned during it, the commit may not last, and the result is an error that says
/// so.
pub(crate) async fn confirmed<T, E: From<sqlx::Error>>(commit: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let mut commit = pin!(commit);
    let mut warned = false;
    let committed = poll_fn(|context| {
        let _listening = Listening::begin();
        let polled = commit.as_mut().poll(context);
        warned |= WARNED.get();
        polled
    });
    let committed = committed.await?;
    if warned { Err(unconfirmed().into()) } else { Ok(committed) }
}

fn unconfirmed() -> sqlx::Error {
    sqlx::Error::Protocol("PostgreSQL warned during a commit: it may not be on the standby".into())
}

/// Makes the transaction one whose commit a standby must confirm.
pub(crate) async fn mark(conn: &mut PgConnection) -> Result<()> {
    conn.execute(MARK).await?;
    Ok(())
}

/// Ends a transaction that only read, so that its content may be reported as done.
pub async fn confirm(mut tx: Transaction<'_, Postgres>) -> Result<()> {
    mark(&mut tx).await?;
    match commit(tx).await {
        // Nothing was to be written, so the outcome is not unknown: it only cannot be reported yet.
        Err(Error::OutcomeUnknown(error)) => Err(Error::Unavailable(error)),
        ended => ended,
    }
}

/// Listens to sqlx on this thread until it is dropped. Every event still reaches the other subscribers.
struct Listening(#[expect(dead_code, reason = "it ends when this is dropped")] dispatcher::DefaultGuard);

impl Listening {
    fn begin() -> Self {
        static EAR: OnceLock<Dispatch> = OnceLock::new();
        WARNED.set(false);
        OTHERS.set(dispatcher::get_default(Dispatch::clone));
        Self(dispatcher::set_default(EAR.get_or_init(|| Dispatch::new(Ear))))
    }
}

/// A subscriber that notes warnings and passes every event on.
struct Ear;

impl Ear {
    fn is_warning(metadata: &Metadata<'_>) -> bool {
        metadata.target() == NOTICES && *metadata.level() <= Level::WARN
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // No span begins inside a commit.
        metadata.is_event() && (Self::is_warning(metadata) || OTHERS.with_borrow(|others| others.enabled(metadata)))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        if Self::is_warning(event.metadata()) {
            WARNED.set(true);
        }
        OTHERS.with_borrow(|others| {
            if others.enabled(event.metadata()) {
                others.event(event);
            }
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn saying(level: Level) -> Result<(), sqlx::Error> {
        // The second poll, as in a real commit.
        tokio::task::yield_now().await;
        if level == Level::WARN {
            tracing::warn!(target: NOTICES, "canceling wait for synchronous replication");
        } else {
            tracing::info!(target: NOTICES, "relation exists already");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_commit_that_came_with_a_warning_did_not_surely_happen() {
        assert!(confirmed(saying(Level::WARN)).await.is_err());
        assert!(confirmed(saying(Level::INFO)).await.is_ok());
        // Another future on the same thread does not see this one's warnings.
        let (warned, silent) = tokio::join!(confirmed(saying(Level::WARN)), confirmed(saying(Level::INFO)));
        assert!(warned.is_err() && silent.is_ok());
    }
}
