//! The kill file: whether this instance is stopped by hand, whatever the database says.

use super::Feed;
use crate::enforcement::kill_file::{Found, KillFile, Written};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the kill file is looked for, beside every read.
const POLL: Duration = Duration::from_millis(250);

impl Feed {
    /// Whether this instance is stopped by hand, whatever the database says.
    #[must_use]
    pub fn is_killed_locally(&self) -> bool {
        self.0.killed.load(Ordering::Acquire)
    }

    /// Where this instance's kill file is, if it has one.
    #[must_use]
    pub fn kill_file(&self) -> Option<&KillFile> {
        self.0.kill_file.as_ref()
    }

    /// Stops this instance by its kill file. Where that cannot be written it is stopped all the same, until the process ends.
    pub async fn kill_locally(&self, text: &str) -> std::io::Result<()> {
        // Nobody who looks meanwhile may find that there is none.
        self.0.killed_ns.store(u64::MAX, Ordering::Release);
        self.0.killed.store(true, Ordering::Release);
        let written = match &self.0.kill_file {
            Some(file) => file.write(text).await.map(|written| {
                if let Written::Empty(error) = written {
                    tracing::error!(%error, "the kill file is there, and what it should say is not");
                }
            }),
            None => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no kill file is configured")),
        };
        if written.is_ok() {
            self.0.killed_ns.store(self.now(), Ordering::Release);
        }
        written
    }

    /// Takes over whether there was a kill file when it was looked for.
    pub(super) fn note_kill_file(&self, found: Found, looked_ns: u64) {
        if found != Found::Absent {
            if !self.0.killed.swap(true, Ordering::AcqRel) {
                let file = self.kill_file().map(|file| file.path().display().to_string()).unwrap_or_default();
                if let Found::Unknown(error) = found {
                    tracing::error!(file, %error, "the kill file cannot be looked at: this instance is stopped until it can");
                } else {
                    tracing::error!(file, "there is a kill file: this instance is stopped until it is removed");
                }
            }
        } else if self.0.killed_ns.load(Ordering::Acquire) <= looked_ns && self.0.killed.swap(false, Ordering::AcqRel) {
            tracing::warn!("the kill file is gone: this instance goes by the database again");
        }
    }

    /// Looks for the kill file also while the database is away, when it counts most.
    pub(super) async fn look_for_kill_file(&self) {
        let Some(file) = self.kill_file() else { return };
        loop {
            let looked_ns = self.now();
            self.note_kill_file(file.look().await, looked_ns);
            tokio::time::sleep(POLL).await;
        }
    }
}
