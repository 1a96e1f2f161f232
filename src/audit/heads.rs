//! Locking a head: only where the database still has what this process knew, and by a time that is believed.

use super::{Head, Stream, store};
use crate::db;
use crate::db::history::History;
use crate::error::Result;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

impl History {
    /// Locks a stream's head, if it stands where this process knew it or further.
    pub async fn lock(&self, conn: &mut PgConnection, stream: Stream) -> Result<Head> {
        let mark = self.mark(stream);
        let head = self.lock_to_tighten(&mut *conn, stream).await?;
        self.admit(conn, &mark, head.point()).await?;
        Ok(head)
    }

    /// The same wherever it stands: for what tightens, which goes on while events are lost, and for what accepts that. Nothing else
    /// may append to a stream that lost events.
    pub async fn lock_to_tighten(&self, conn: &mut PgConnection, stream: Stream) -> Result<Head> {
        let mut head = store::lock(conn, stream).await?;
        head.set_now(self.believed(head.now()));
        Ok(head)
    }

    /// The time to go by where no head is locked: a decision under one would go by the same.
    pub async fn now(&self, conn: &mut PgConnection) -> Result<DateTime<Utc>> {
        Ok(self.believed(db::now(conn).await?))
    }
}
