//! The instances of the service that the ledger is measured on.

use crate::Result;
use crate::place::{Instance, Place, free_address};

impl Place {
    /// Starts the service with its own PostgreSQL.
    pub(crate) async fn serve(&self) -> Result<Instance> {
        let data = ("DATA_DIR", self.root().join("data").display().to_string());
        Instance::start(self, "first", free_address()?, &[data]).await
    }

    /// Starts another one on the database of the first.
    pub(crate) async fn serve_beside(&self) -> Result<Instance> {
        Instance::start(self, "second", free_address()?, &[("DATABASE_URL", self.url("holdfast"))]).await
    }
}
