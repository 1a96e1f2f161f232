//! Locking of a head: only if the database still has everything that this process knew, and with a time that is
//! believed.

use super::{Head, Stream, store};
use crate::db;
use crate::db::history::History;
use crate::error::Result;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

impl History {
    /// Locks a stream's head, if it is at or beyond the event that this process knew.
    pub async fn lock(&self, conn: &mut PgConnection, stream: Stream) -> Result<Head> {
        let mark = self.mark(stream);
        let head = self.lock_to_tighten(&mut *conn, stream).await?;
        self.admit(conn, &mark, head.point()).await?;
        Ok(head)
    }

    /// Locks a head wherever it is: for a tightening, which must work while events are lost, and for the acceptance of
    /// that loss. Nothing else may append to a stream that lost events.
    pub async fn lock_to_tighten(&self, conn: &mut PgConnection, stream: Stream) -> Result<Head> {
        let mut head = store::lock(conn, stream).await?;
        head.set_now(self.believed(head.now()));
        Ok(head)
    }

    /// The time for a decision without a locked head: the same that a decision under one would use.
    pub async fn now(&self, conn: &mut PgConnection) -> Result<DateTime<Utc>> {
        Ok(self.believed(db::now(conn).await?))
    }
}
