//! The kill file's effect on the feed: a file stops this instance, whatever the database says.

use super::Feed;
use crate::enforcement::kill_file::{Found, KillFile, Written};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The interval of looks for the kill file, in addition to every read.
const POLL: Duration = Duration::from_millis(250);

impl Feed {
    /// Whether the kill file stops this instance, whatever the database says.
    #[must_use]
    pub fn is_killed_locally(&self) -> bool {
        self.0.killed.load(Ordering::Acquire)
    }

    /// This instance's kill file, if it has one.
    #[must_use]
    pub fn kill_file(&self) -> Option<&KillFile> {
        self.0.kill_file.as_ref()
    }

    /// Stops this instance by its kill file. If the file cannot be written, the instance stays stopped until the
    /// process ends.
    pub async fn kill_locally(&self, text: &str) -> std::io::Result<()> {
        // A look that runs now must not report that there is no file.
        self.0.killed_ns.store(u64::MAX, Ordering::Release);
        self.0.killed.store(true, Ordering::Release);
        let written = match &self.0.kill_file {
            Some(file) => file.write(text).await.map(|written| {
                if let Written::Empty(error) = written {
                    tracing::error!(%error, "the kill file was created, but its text could not be written");
                }
            }),
            None => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no kill file is configured")),
        };
        if written.is_ok() {
            self.0.killed_ns.store(self.now(), Ordering::Release);
        }
        written
    }

    /// Takes over the result of a look at the kill file.
    pub(super) fn note_kill_file(&self, found: Found, looked_ns: u64) {
        if found != Found::Absent {
            if !self.0.killed.swap(true, Ordering::AcqRel) {
                let file = self.kill_file().map(|file| file.path().display().to_string()).unwrap_or_default();
                if let Found::Unknown(error) = found {
                    tracing::error!(file, %error, "it cannot be read whether the kill file exists: this instance is stopped until it can");
                } else {
                    tracing::error!(file, "the kill file exists: this instance is stopped until it is removed");
                }
            }
        } else if self.0.killed_ns.load(Ordering::Acquire) <= looked_ns && self.0.killed.swap(false, Ordering::AcqRel) {
            tracing::warn!("the kill file is gone: this instance follows the database again");
        }
    }

    /// Looks for the kill file also while the database is away, when the file matters most.
    pub(super) async fn look_for_kill_file(&self) {
        let Some(file) = self.kill_file() else { return };
        loop {
            let looked_ns = self.now();
            self.note_kill_file(file.look().await, looked_ns);
            tokio::time::sleep(POLL).await;
        }
    }
}
