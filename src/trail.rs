//! The reading of the trail: lists, verification, checkpoints, and earlier settings. [`audit`](crate::audit) writes it.

pub mod http;

use crate::audit::archive::schedule::LastFailure;
use crate::audit::checkpoint::Notary;
use crate::budget::turns::Turns;
use crate::db::Database;
use std::sync::{Arc, OnceLock};

/// The service of the trail's routes. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Trail {
    db: Database,
    notary: Arc<OnceLock<Notary>>,
    /// The turns for reading the whole trail, one at a time.
    pub verifying: Turns,
    /// The failure of this instance's scheduled archive.
    pub archiving: LastFailure,
}

impl Trail {
    /// The trail in this database, and the signer of its checkpoints; none if there is no place for a key.
    #[must_use]
    pub fn new(db: Database, notary: Option<Notary>) -> Self {
        let notary = Arc::new(notary.map_or_else(OnceLock::new, OnceLock::from));
        Self { db, notary, verifying: Turns::default(), archiving: LastFailure::default() }
    }

    /// The signer of checkpoints; none if there is no place for its key.
    #[must_use]
    pub fn notary(&self) -> Option<&Notary> {
        self.notary.get()
    }

    /// Sets the signer of checkpoints. Only the first call counts.
    pub fn sign_with(&self, notary: Notary) {
        let _ = self.notary.set(notary);
    }

    const fn db(&self) -> &Database {
        &self.db
    }
}
