//! The schedule: a server archives once an hour what is older than it is told to retain.

use super::{ArchiveError, Directory, Selection, archive};
use crate::audit::checkpoint::Notary;
use crate::db::Database;
use chrono::Days;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

const EVERY: Duration = Duration::from_hours(1);

/// The reason why the last attempt failed; none if it did not. Cheap to clone; all clones share one state.
#[derive(Debug, Clone, Default)]
pub struct LastFailure(Arc<Mutex<Option<String>>>);

impl LastFailure {
    /// The sentence about it.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the reason of a failure.
    pub fn set(&self, failure: String) {
        self.put(Some(failure));
    }

    fn put(&self, failure: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

/// Archives the partitions whose every event is older than `days`, until the task is cancelled. Restored ones stay.
pub async fn run(db: Database, notary: Notary, directory: Directory, days: u16, failure: LastFailure) {
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match in_own_thread(&db, &notary, &directory, days).await {
            Ok(()) => failure.put(None),
            // Another instance does the same work, or an operator does.
            Err(ArchiveError::Busy(who)) => tracing::info!(who, "old events are not archived by this instance now"),
            Err(error) => {
                tracing::error!(%error, dir = %directory.path.display(), "old events could not be archived: trying again in an hour");
                failure.set(error.to_string());
            }
        }
    }
}

/// Archives in a thread of its own, because it compresses and waits for a disk: requests would wait with it.
async fn in_own_thread(db: &Database, notary: &Notary, directory: &Directory, days: u16) -> Result<(), ArchiveError> {
    let today = db.history().now(&mut *db.work().await?).await?.date_naive();
    let Some(before) = today.checked_sub_days(Days::new(days.into())) else { return Ok(()) };
    let selection = Selection { before, with_restored: false };
    let (db, notary, directory, handle) = (db.clone(), notary.clone(), directory.clone(), Handle::current());
    // Dropped with this future, which ends the work.
    let (_alive, gone) = oneshot::channel::<()>();
    let working = tokio::task::spawn_blocking(move || {
        handle.block_on(async {
            let mut tell = |sentence: &str| tracing::info!("{sentence}");
            tokio::select! {
                done = archive(&db, &notary, &directory, selection, &mut tell) => done.map(drop),
                _ = gone => Ok(()),
            }
        })
    });
    working.await.unwrap_or_else(|error| Err(ArchiveError::Refused(format!("the archive's thread ended: {error}"))))
}
